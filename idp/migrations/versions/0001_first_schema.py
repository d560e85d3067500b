"""first schema

Revision ID: 0001
Revises: 
"""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('audit_event',
    sa.Column('tag', sa.String(length=64), nullable=False),
    sa.Column('result', sa.String(length=16), nullable=False),
    sa.Column('actor_kind', sa.String(length=16), nullable=False),
    sa.Column('actor_id', sa.Uuid(), nullable=True),
    sa.Column('company_id', sa.Uuid(), nullable=True),
    sa.Column('store_id', sa.Uuid(), nullable=True),
    sa.Column('subject_id', sa.Uuid(), nullable=True),
    sa.Column('application_id', sa.Uuid(), nullable=True),
    sa.Column('request_id', sa.String(length=32), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('leaf_index', sa.BigInteger(), nullable=True),
    sa.Column('leaf_hash', sa.LargeBinary(length=32), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_event')),
    sa.UniqueConstraint('leaf_index', name=op.f('uq_audit_event_leaf_index'))
    )
    with op.batch_alter_table('audit_event', schema=None) as batch_op:
        batch_op.create_index('ix_audit_event_company_at', ['company_id', 'created_at'], unique=False)
        batch_op.create_index('ix_audit_event_subject_at', ['subject_id', 'created_at'], unique=False)

    op.create_table('company',
    sa.Column('code', sa.String(length=32), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('is_platform', sa.Boolean(), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_company')),
    sa.UniqueConstraint('code', name=op.f('uq_company_code'))
    )
    op.create_table('company_key',
    sa.Column('company', sa.String(length=64), nullable=False),
    sa.Column('key_class', sa.String(length=16), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('root_key_id', sa.String(length=100), nullable=False),
    sa.Column('wrapped', sa.LargeBinary(), nullable=False),
    sa.Column('check_value', sa.LargeBinary(), nullable=False),
    sa.Column('wraps', sa.BigInteger(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_company_key'))
    )
    with op.batch_alter_table('company_key', schema=None) as batch_op:
        batch_op.create_index('uq_company_key_version', ['company', 'key_class', 'version'], unique=True)

    op.create_table('outbox',
    sa.Column('topic', sa.String(length=32), nullable=False),
    sa.Column('ref', sa.Uuid(), nullable=True),
    sa.Column('destination', sa.String(length=2000), nullable=False),
    sa.Column('dedup_key', sa.String(length=200), nullable=False),
    sa.Column('subject_epoch', sa.Integer(), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('run_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('give_up_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('outcome', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_outbox'))
    )
    with op.batch_alter_table('outbox', schema=None) as batch_op:
        batch_op.create_index('ix_outbox_due', ['state', 'run_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_outbox_ref'), ['ref'], unique=False)
        batch_op.create_index('uq_outbox_dedup', ['dedup_key'], unique=True)

    op.create_table('pending_request',
    sa.Column('handle_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('protocol', sa.String(length=16), nullable=False),
    sa.Column('parameters', sa.JSON(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_pending_request')),
    sa.UniqueConstraint('handle_digest', name=op.f('uq_pending_request_handle_digest'))
    )
    op.create_table('refusal_count',
    sa.Column('tag', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=128), nullable=False),
    sa.Column('minute', sa.DateTime(timezone=True), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_refusal_count'))
    )
    with op.batch_alter_table('refusal_count', schema=None) as batch_op:
        batch_op.create_index('uq_refusal_count_key_minute', ['tag', 'key', 'minute'], unique=True)

    op.create_table('signing_key',
    sa.Column('purpose', sa.String(length=32), nullable=False),
    sa.Column('kid', sa.String(length=64), nullable=False),
    sa.Column('alg', sa.String(length=16), nullable=False),
    sa.Column('public_jwk', sa.JSON(), nullable=True),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.Column('not_before', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('withdrawn_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_signing_key')),
    sa.UniqueConstraint('kid', name=op.f('uq_signing_key_kid'))
    )
    with op.batch_alter_table('signing_key', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_signing_key_purpose'), ['purpose'], unique=False)

    op.create_table('throttle',
    sa.Column('key', sa.String(length=128), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('blocked_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_throttle')),
    sa.UniqueConstraint('key', name=op.f('uq_throttle_key'))
    )
    op.create_table('account',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('login_name', sa.String(length=64), nullable=False),
    sa.Column('subject', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('kana', sa.String(length=200), nullable=False),
    sa.Column('kana_search', sa.String(length=200), nullable=False),
    sa.Column('locale', sa.String(length=16), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_account_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_account')),
    sa.UniqueConstraint('subject', name=op.f('uq_account_subject'))
    )
    with op.batch_alter_table('account', schema=None) as batch_op:
        batch_op.create_index('ix_account_company_kana', ['company_id', 'kana_search'], unique=False)
        batch_op.create_index('ix_account_company_login', ['company_id', 'login_name'], unique=False)
        batch_op.create_index(batch_op.f('ix_account_ends_at'), ['ends_at'], unique=False)
        batch_op.create_index('uq_account_login_live', ['company_id', 'login_name'], unique=True, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))

    op.create_table('application',
    sa.Column('company_id', sa.Uuid(), nullable=True),
    sa.Column('slug', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('protocol', sa.String(length=16), nullable=False),
    sa.Column('functions', sa.JSON(), nullable=False),
    sa.Column('min_acr', sa.String(length=64), nullable=True),
    sa.Column('session_life_s', sa.Integer(), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_application_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_application')),
    sa.UniqueConstraint('slug', name=op.f('uq_application_slug'))
    )
    with op.batch_alter_table('application', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_application_company_id'), ['company_id'], unique=False)

    op.create_table('region',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('parent_id', sa.Uuid(), nullable=True),
    sa.Column('code', sa.String(length=32), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('path', sa.String(length=500), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_region_company_id')),
    sa.ForeignKeyConstraint(['parent_id'], ['region.id'], name=op.f('fk_region_parent_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_region'))
    )
    with op.batch_alter_table('region', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_region_path'), ['path'], unique=False)
        batch_op.create_index('uq_region_company_code', ['company_id', 'code'], unique=True)

    op.create_table('activation',
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('purpose', sa.String(length=16), nullable=False),
    sa.Column('code_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_activation_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_activation')),
    sa.UniqueConstraint('code_digest', name=op.f('uq_activation_code_digest'))
    )
    with op.batch_alter_table('activation', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_activation_account_id'), ['account_id'], unique=False)

    op.create_table('authenticator',
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('verifier', sa.Text(), nullable=True),
    sa.Column('sealed', sa.LargeBinary(), nullable=True),
    sa.Column('code_digest', sa.LargeBinary(length=32), nullable=True),
    sa.Column('last_step', sa.Integer(), nullable=False),
    sa.Column('confirmed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_authenticator_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_authenticator'))
    )
    with op.batch_alter_table('authenticator', schema=None) as batch_op:
        batch_op.create_index('ix_authenticator_account', ['account_id'], unique=False)
        batch_op.create_index('uq_authenticator_recovery', ['account_id', 'code_digest'], unique=True, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))

    op.create_table('entitlement',
    sa.Column('company_id', sa.Uuid(), nullable=True),
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('subject_kind', sa.String(length=16), nullable=False),
    sa.Column('subject_id', sa.Uuid(), nullable=True),
    sa.Column('role', sa.String(length=32), nullable=True),
    sa.Column('functions', sa.JSON(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_entitlement_application_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_entitlement_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_entitlement'))
    )
    with op.batch_alter_table('entitlement', schema=None) as batch_op:
        batch_op.create_index('ix_entitlement_application', ['application_id'], unique=False)

    op.create_table('login_session',
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('cookie_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('acr', sa.String(length=64), nullable=False),
    sa.Column('amr', sa.JSON(), nullable=False),
    sa.Column('auth_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('user_agent', sa.String(length=300), nullable=False),
    sa.Column('address', sa.String(length=64), nullable=False),
    sa.Column('last_seen_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('idle_s', sa.Integer(), nullable=False),
    sa.Column('idle_until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_login_session_account_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_login_session_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_login_session')),
    sa.UniqueConstraint('cookie_digest', name=op.f('uq_login_session_cookie_digest'))
    )
    with op.batch_alter_table('login_session', schema=None) as batch_op:
        batch_op.create_index('ix_login_session_account', ['account_id'], unique=False)

    op.create_table('pending_login',
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('handle_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_pending_login_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_pending_login')),
    sa.UniqueConstraint('handle_digest', name=op.f('uq_pending_login_handle_digest'))
    )
    with op.batch_alter_table('pending_login', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_pending_login_account_id'), ['account_id'], unique=False)

    op.create_table('reinstatement',
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('requested_by', sa.Uuid(), nullable=False),
    sa.Column('note', sa.Text(), nullable=False),
    sa.Column('approved_by', sa.Uuid(), nullable=True),
    sa.Column('approved_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_reinstatement_account_id')),
    sa.ForeignKeyConstraint(['approved_by'], ['account.id'], name=op.f('fk_reinstatement_approved_by')),
    sa.ForeignKeyConstraint(['requested_by'], ['account.id'], name=op.f('fk_reinstatement_requested_by')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_reinstatement'))
    )
    with op.batch_alter_table('reinstatement', schema=None) as batch_op:
        batch_op.create_index('ix_reinstatement_account', ['account_id'], unique=False)

    op.create_table('relying_party',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('client_id', sa.String(length=64), nullable=False),
    sa.Column('secret_digest', sa.LargeBinary(length=32), nullable=True),
    sa.Column('old_secret_digest', sa.LargeBinary(length=32), nullable=True),
    sa.Column('old_secret_ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('secret_seen_by', sa.Uuid(), nullable=True),
    sa.Column('auth_method', sa.String(length=32), nullable=False),
    sa.Column('redirect_uris', sa.JSON(), nullable=False),
    sa.Column('post_logout_redirect_uris', sa.JSON(), nullable=False),
    sa.Column('backchannel_logout_uri', sa.String(length=2000), nullable=True),
    sa.Column('backchannel_logout_session_required', sa.Boolean(), nullable=False),
    sa.Column('initiate_login_uri', sa.String(length=2000), nullable=True),
    sa.Column('id_token_alg', sa.String(length=16), nullable=False),
    sa.Column('pkce_exempt', sa.Boolean(), nullable=False),
    sa.Column('refresh_allowed', sa.Boolean(), nullable=False),
    sa.Column('offline_allowed', sa.Boolean(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_relying_party_application_id')),
    sa.ForeignKeyConstraint(['secret_seen_by'], ['account.id'], name=op.f('fk_relying_party_secret_seen_by')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_relying_party')),
    sa.UniqueConstraint('application_id', name=op.f('uq_relying_party_application_id')),
    sa.UniqueConstraint('client_id', name=op.f('uq_relying_party_client_id'))
    )
    op.create_table('store',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('region_id', sa.Uuid(), nullable=True),
    sa.Column('path', sa.String(length=500), nullable=False),
    sa.Column('code', sa.String(length=32), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('time_zone', sa.String(length=64), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_store_company_id')),
    sa.ForeignKeyConstraint(['region_id'], ['region.id'], name=op.f('fk_store_region_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_store'))
    )
    with op.batch_alter_table('store', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_store_path'), ['path'], unique=False)
        batch_op.create_index('uq_store_company_code', ['company_id', 'code'], unique=True)

    op.create_table('app_session',
    sa.Column('login_session_id', sa.Uuid(), nullable=False),
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('sid', sa.String(length=64), nullable=False),
    sa.Column('sub', sa.String(length=255), nullable=False),
    sa.Column('last_issued_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_app_session_account_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_app_session_application_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_app_session_company_id')),
    sa.ForeignKeyConstraint(['login_session_id'], ['login_session.id'], name=op.f('fk_app_session_login_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_app_session')),
    sa.UniqueConstraint('sid', name=op.f('uq_app_session_sid'))
    )
    with op.batch_alter_table('app_session', schema=None) as batch_op:
        batch_op.create_index('ix_app_session_account', ['account_id'], unique=False)
        batch_op.create_index('ix_app_session_application', ['application_id'], unique=False)
        batch_op.create_index('uq_app_session_live', ['login_session_id', 'application_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))

    op.create_table('assignment',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('store_id', sa.Uuid(), nullable=True),
    sa.Column('region_id', sa.Uuid(), nullable=True),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('starts_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_assignment_account_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_assignment_company_id')),
    sa.ForeignKeyConstraint(['region_id'], ['region.id'], name=op.f('fk_assignment_region_id')),
    sa.ForeignKeyConstraint(['store_id'], ['store.id'], name=op.f('fk_assignment_store_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_assignment'))
    )
    with op.batch_alter_table('assignment', schema=None) as batch_op:
        batch_op.create_index('ix_assignment_account', ['account_id'], unique=False)
        batch_op.create_index('ix_assignment_due', ['ends_at'], unique=False, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
        batch_op.create_index('ix_assignment_store', ['store_id'], unique=False)

    op.create_table('revocation',
    sa.Column('number', sa.String(length=32), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('store_id', sa.Uuid(), nullable=True),
    sa.Column('scope_kind', sa.String(length=16), nullable=False),
    sa.Column('scope_id', sa.Uuid(), nullable=False),
    sa.Column('reason', sa.String(length=40), nullable=False),
    sa.Column('door', sa.String(length=16), nullable=False),
    sa.Column('actor_kind', sa.String(length=16), nullable=False),
    sa.Column('requested_by', sa.Uuid(), nullable=True),
    sa.Column('idempotency_key', sa.String(length=80), nullable=True),
    sa.Column('t0', sa.DateTime(timezone=True), nullable=False),
    sa.Column('completed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reopened_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_revocation_account_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_revocation_company_id')),
    sa.ForeignKeyConstraint(['requested_by'], ['account.id'], name=op.f('fk_revocation_requested_by')),
    sa.ForeignKeyConstraint(['store_id'], ['store.id'], name=op.f('fk_revocation_store_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_revocation')),
    sa.UniqueConstraint('idempotency_key', name=op.f('uq_revocation_idempotency_key')),
    sa.UniqueConstraint('number', name=op.f('uq_revocation_number'))
    )
    with op.batch_alter_table('revocation', schema=None) as batch_op:
        batch_op.create_index('ix_revocation_account', ['account_id'], unique=False)
        batch_op.create_index('ix_revocation_company_t0', ['company_id', 't0'], unique=False)

    op.create_table('authorization_code',
    sa.Column('code_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('app_session_id', sa.Uuid(), nullable=False),
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('family_id', sa.Uuid(), nullable=False),
    sa.Column('redirect_uri', sa.String(length=2000), nullable=False),
    sa.Column('code_challenge', sa.String(length=128), nullable=True),
    sa.Column('nonce', sa.String(length=1000), nullable=True),
    sa.Column('scope', sa.String(length=1000), nullable=False),
    sa.Column('claims', sa.JSON(), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('redeemed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_authorization_code_account_id')),
    sa.ForeignKeyConstraint(['app_session_id'], ['app_session.id'], name=op.f('fk_authorization_code_app_session_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_authorization_code_application_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_authorization_code')),
    sa.UniqueConstraint('code_digest', name=op.f('uq_authorization_code_code_digest'))
    )
    with op.batch_alter_table('authorization_code', schema=None) as batch_op:
        batch_op.create_index('ix_authorization_code_account', ['account_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_authorization_code_app_session_id'), ['app_session_id'], unique=False)

    op.create_table('cut',
    sa.Column('revocation_id', sa.Uuid(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('target_ref', sa.String(length=200), nullable=False),
    sa.Column('application_id', sa.Uuid(), nullable=True),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('grade', sa.String(length=16), nullable=True),
    sa.Column('residual_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('last_error', sa.String(length=200), nullable=True),
    sa.Column('next_try_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed_by', sa.Uuid(), nullable=True),
    sa.Column('close_note', sa.Text(), nullable=True),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_cut_application_id')),
    sa.ForeignKeyConstraint(['closed_by'], ['account.id'], name=op.f('fk_cut_closed_by')),
    sa.ForeignKeyConstraint(['revocation_id'], ['revocation.id'], name=op.f('fk_cut_revocation_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_cut'))
    )
    with op.batch_alter_table('cut', schema=None) as batch_op:
        batch_op.create_index('ix_cut_open', ['state', 'residual_until'], unique=False)
        batch_op.create_index('uq_cut_target', ['revocation_id', 'kind', 'target_ref'], unique=True)

    op.create_table('token_family',
    sa.Column('app_session_id', sa.Uuid(), nullable=False),
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('offline', sa.Boolean(), nullable=False),
    sa.Column('scope', sa.String(length=1000), nullable=False),
    sa.Column('acr', sa.String(length=64), nullable=False),
    sa.Column('amr', sa.JSON(), nullable=False),
    sa.Column('auth_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('rotated_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('access_until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_token_family_account_id')),
    sa.ForeignKeyConstraint(['app_session_id'], ['app_session.id'], name=op.f('fk_token_family_app_session_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_token_family_application_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_token_family_company_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_token_family'))
    )
    with op.batch_alter_table('token_family', schema=None) as batch_op:
        batch_op.create_index('ix_token_family_account', ['account_id'], unique=False)
        batch_op.create_index('ix_token_family_app_session', ['app_session_id'], unique=False)

    op.create_table('evidence',
    sa.Column('cut_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('grade', sa.String(length=16), nullable=True),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['cut_id'], ['cut.id'], name=op.f('fk_evidence_cut_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_evidence'))
    )
    with op.batch_alter_table('evidence', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_evidence_cut_id'), ['cut_id'], unique=False)



def downgrade() -> None:
    with op.batch_alter_table('evidence', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_evidence_cut_id'))

    op.drop_table('evidence')
    with op.batch_alter_table('token_family', schema=None) as batch_op:
        batch_op.drop_index('ix_token_family_app_session')
        batch_op.drop_index('ix_token_family_account')

    op.drop_table('token_family')
    with op.batch_alter_table('cut', schema=None) as batch_op:
        batch_op.drop_index('uq_cut_target')
        batch_op.drop_index('ix_cut_open')

    op.drop_table('cut')
    with op.batch_alter_table('authorization_code', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_authorization_code_app_session_id'))
        batch_op.drop_index('ix_authorization_code_account')

    op.drop_table('authorization_code')
    with op.batch_alter_table('revocation', schema=None) as batch_op:
        batch_op.drop_index('ix_revocation_company_t0')
        batch_op.drop_index('ix_revocation_account')

    op.drop_table('revocation')
    with op.batch_alter_table('assignment', schema=None) as batch_op:
        batch_op.drop_index('ix_assignment_store')
        batch_op.drop_index('ix_assignment_due', postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
        batch_op.drop_index('ix_assignment_account')

    op.drop_table('assignment')
    with op.batch_alter_table('app_session', schema=None) as batch_op:
        batch_op.drop_index('uq_app_session_live', postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
        batch_op.drop_index('ix_app_session_application')
        batch_op.drop_index('ix_app_session_account')

    op.drop_table('app_session')
    with op.batch_alter_table('store', schema=None) as batch_op:
        batch_op.drop_index('uq_store_company_code')
        batch_op.drop_index(batch_op.f('ix_store_path'))

    op.drop_table('store')
    op.drop_table('relying_party')
    with op.batch_alter_table('reinstatement', schema=None) as batch_op:
        batch_op.drop_index('ix_reinstatement_account')

    op.drop_table('reinstatement')
    with op.batch_alter_table('pending_login', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_pending_login_account_id'))

    op.drop_table('pending_login')
    with op.batch_alter_table('login_session', schema=None) as batch_op:
        batch_op.drop_index('ix_login_session_account')

    op.drop_table('login_session')
    with op.batch_alter_table('entitlement', schema=None) as batch_op:
        batch_op.drop_index('ix_entitlement_application')

    op.drop_table('entitlement')
    with op.batch_alter_table('authenticator', schema=None) as batch_op:
        batch_op.drop_index('uq_authenticator_recovery', postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
        batch_op.drop_index('ix_authenticator_account')

    op.drop_table('authenticator')
    with op.batch_alter_table('activation', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_activation_account_id'))

    op.drop_table('activation')
    with op.batch_alter_table('region', schema=None) as batch_op:
        batch_op.drop_index('uq_region_company_code')
        batch_op.drop_index(batch_op.f('ix_region_path'))

    op.drop_table('region')
    with op.batch_alter_table('application', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_application_company_id'))

    op.drop_table('application')
    with op.batch_alter_table('account', schema=None) as batch_op:
        batch_op.drop_index('uq_account_login_live', postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
        batch_op.drop_index(batch_op.f('ix_account_ends_at'))
        batch_op.drop_index('ix_account_company_login')
        batch_op.drop_index('ix_account_company_kana')

    op.drop_table('account')
    op.drop_table('throttle')
    with op.batch_alter_table('signing_key', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_signing_key_purpose'))

    op.drop_table('signing_key')
    with op.batch_alter_table('refusal_count', schema=None) as batch_op:
        batch_op.drop_index('uq_refusal_count_key_minute')

    op.drop_table('refusal_count')
    op.drop_table('pending_request')
    with op.batch_alter_table('outbox', schema=None) as batch_op:
        batch_op.drop_index('uq_outbox_dedup')
        batch_op.drop_index(batch_op.f('ix_outbox_ref'))
        batch_op.drop_index('ix_outbox_due')

    op.drop_table('outbox')
    with op.batch_alter_table('company_key', schema=None) as batch_op:
        batch_op.drop_index('uq_company_key_version')

    op.drop_table('company_key')
    op.drop_table('company')
    with op.batch_alter_table('audit_event', schema=None) as batch_op:
        batch_op.drop_index('ix_audit_event_subject_at')
        batch_op.drop_index('ix_audit_event_company_at')

    op.drop_table('audit_event')
