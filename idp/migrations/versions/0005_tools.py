"""tools: recipes, tool accounts, sealed credentials, rotation, tool and gateway sessions, tickets, login jobs

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op


revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('gateway_process',
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('swept_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gateway_process'))
    )
    op.create_index(op.f('ix_gateway_process_lease_until'), 'gateway_process', ['lease_until'], unique=False)
    op.create_table('kill_capability',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('change_by', sa.String(length=16), nullable=False),
    sa.Column('change_ends_sessions', sa.String(length=16), nullable=False),
    sa.Column('change_ends_after_s', sa.Integer(), nullable=True),
    sa.Column('sign_out_everywhere', sa.Boolean(), nullable=False),
    sa.Column('other_keys', sa.Boolean(), nullable=False),
    sa.Column('mails_old_user', sa.Boolean(), nullable=False),
    sa.Column('tool_version', sa.String(length=100), nullable=False),
    sa.Column('measured_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('proof_digest', sa.String(length=64), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_kill_capability_application_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_kill_capability')),
    sa.UniqueConstraint('application_id', name=op.f('uq_kill_capability_application_id'))
    )
    op.create_table('recipe',
    sa.Column('company_id', sa.Uuid(), nullable=True),
    sa.Column('slug', sa.String(length=64), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('source', sa.String(length=16), nullable=False),
    sa.Column('proposed_by', sa.Uuid(), nullable=True),
    sa.Column('approved_by', sa.Uuid(), nullable=True),
    sa.Column('approved_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['approved_by'], ['account.id'], name=op.f('fk_recipe_approved_by')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_recipe_company_id')),
    sa.ForeignKeyConstraint(['proposed_by'], ['account.id'], name=op.f('fk_recipe_proposed_by')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_recipe'))
    )
    op.create_index(op.f('ix_recipe_slug'), 'recipe', ['slug'], unique=False)
    op.create_index('uq_recipe_company_digest', 'recipe', ['company_id', 'digest'], unique=True)
    op.create_index('uq_recipe_digest', 'recipe', ['digest'], unique=True, postgresql_where=sa.text('company_id IS NULL'), sqlite_where=sa.text('company_id IS NULL'))
    op.create_table('tool',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('recipe_id', sa.Uuid(), nullable=False),
    sa.Column('lane', sa.String(length=16), nullable=False),
    sa.Column('terms_attested_by', sa.Uuid(), nullable=True),
    sa.Column('terms_attested_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_tool_application_id')),
    sa.ForeignKeyConstraint(['recipe_id'], ['recipe.id'], name=op.f('fk_tool_recipe_id')),
    sa.ForeignKeyConstraint(['terms_attested_by'], ['account.id'], name=op.f('fk_tool_terms_attested_by')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tool')),
    sa.UniqueConstraint('application_id', name=op.f('uq_tool_application_id'))
    )
    op.create_table('tool_account',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('store_id', sa.Uuid(), nullable=True),
    sa.Column('role', sa.String(length=32), nullable=True),
    sa.Column('account_id', sa.Uuid(), nullable=True),
    sa.Column('label', sa.String(length=100), nullable=False),
    sa.Column('host_fields', sa.JSON(), nullable=False),
    sa.Column('recovery_owner', sa.String(length=16), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('tries_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('blocked_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('code', sa.String(length=40), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_tool_account_account_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_tool_account_application_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_tool_account_company_id')),
    sa.ForeignKeyConstraint(['store_id'], ['store.id'], name=op.f('fk_tool_account_store_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tool_account'))
    )
    op.create_index(op.f('ix_tool_account_account_id'), 'tool_account', ['account_id'], unique=False)
    op.create_index('ix_tool_account_application', 'tool_account', ['application_id', 'company_id'], unique=False)
    op.create_index('ix_tool_account_store', 'tool_account', ['store_id'], unique=False)
    op.create_table('certification',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('tool_account_id', sa.Uuid(), nullable=False),
    sa.Column('recipe_digest', sa.String(length=64), nullable=False),
    sa.Column('result', sa.String(length=16), nullable=False),
    sa.Column('checks', sa.JSON(), nullable=False),
    sa.Column('evidence_digest', sa.String(length=64), nullable=False),
    sa.Column('run_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('withdrawn_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('withdrawn_code', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_certification_company_id')),
    sa.ForeignKeyConstraint(['tool_account_id'], ['tool_account.id'], name=op.f('fk_certification_tool_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_certification'))
    )
    op.create_index('ix_certification_account', 'certification', ['tool_account_id', 'run_at'], unique=False)
    op.create_table('sealed_credential',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('tool_account_id', sa.Uuid(), nullable=False),
    sa.Column('current_version', sa.Integer(), nullable=True),
    sa.Column('pending_version', sa.Integer(), nullable=True),
    sa.Column('known_to_people', sa.Boolean(), nullable=False),
    sa.Column('known_since', sa.DateTime(timezone=True), nullable=False),
    sa.Column('locked_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_sealed_credential_company_id')),
    sa.ForeignKeyConstraint(['tool_account_id'], ['tool_account.id'], name=op.f('fk_sealed_credential_tool_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sealed_credential')),
    sa.UniqueConstraint('tool_account_id', name=op.f('uq_sealed_credential_tool_account_id'))
    )
    op.create_table('tool_session',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('tool_account_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('code', sa.String(length=40), nullable=True),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('jar_sealed', sa.LargeBinary(), nullable=True),
    sa.Column('jar_version', sa.Integer(), nullable=False),
    sa.Column('device_sealed', sa.LargeBinary(), nullable=True),
    sa.Column('scan_sealed', sa.LargeBinary(), nullable=True),
    sa.Column('renewed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_ok_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_tool_session_account_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_tool_session_company_id')),
    sa.ForeignKeyConstraint(['tool_account_id'], ['tool_account.id'], name=op.f('fk_tool_session_tool_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tool_session'))
    )
    op.create_index(op.f('ix_tool_session_account_id'), 'tool_session', ['account_id'], unique=False)
    op.create_index('uq_tool_session_person', 'tool_session', ['tool_account_id', 'account_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL AND account_id IS NOT NULL'), sqlite_where=sa.text('ended_at IS NULL AND account_id IS NOT NULL'))
    op.create_index('uq_tool_session_shared', 'tool_session', ['tool_account_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL AND account_id IS NULL'), sqlite_where=sa.text('ended_at IS NULL AND account_id IS NULL'))
    op.create_table('use_ticket',
    sa.Column('purpose', sa.String(length=16), nullable=False),
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('store_id', sa.Uuid(), nullable=True),
    sa.Column('tool_account_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=True),
    sa.Column('app_session_id', sa.Uuid(), nullable=True),
    sa.Column('epoch', sa.Integer(), nullable=True),
    sa.Column('job_id', sa.Uuid(), nullable=True),
    sa.Column('jti', sa.String(length=64), nullable=False),
    sa.Column('signature', sa.LargeBinary(), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('outcome', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_use_ticket_account_id')),
    sa.ForeignKeyConstraint(['app_session_id'], ['app_session.id'], name=op.f('fk_use_ticket_app_session_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_use_ticket_company_id')),
    sa.ForeignKeyConstraint(['store_id'], ['store.id'], name=op.f('fk_use_ticket_store_id')),
    sa.ForeignKeyConstraint(['tool_account_id'], ['tool_account.id'], name=op.f('fk_use_ticket_tool_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_use_ticket')),
    sa.UniqueConstraint('jti', name=op.f('uq_use_ticket_jti'))
    )
    op.create_index('ix_use_ticket_account', 'use_ticket', ['account_id'], unique=False)
    op.create_index(op.f('ix_use_ticket_tool_account_id'), 'use_ticket', ['tool_account_id'], unique=False)
    op.create_table('credential_field',
    sa.Column('credential_id', sa.Uuid(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('field', sa.String(length=64), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['credential_id'], ['sealed_credential.id'], name=op.f('fk_credential_field_credential_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_credential_field'))
    )
    op.create_index('uq_credential_field', 'credential_field', ['credential_id', 'version', 'field'], unique=True)
    op.create_table('credential_version',
    sa.Column('credential_id', sa.Uuid(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('wrapped_dek', sa.LargeBinary(), nullable=False),
    sa.Column('key_id', sa.Uuid(), nullable=False),
    sa.Column('proven_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['credential_id'], ['sealed_credential.id'], name=op.f('fk_credential_version_credential_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_credential_version'))
    )
    op.create_index('ix_credential_version_key', 'credential_version', ['key_id'], unique=False)
    op.create_index('uq_credential_version', 'credential_version', ['credential_id', 'version'], unique=True)
    op.create_table('gateway_session',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('app_session_id', sa.Uuid(), nullable=False),
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('assignment_id', sa.Uuid(), nullable=True),
    sa.Column('tool_account_id', sa.Uuid(), nullable=False),
    sa.Column('tool_session_id', sa.Uuid(), nullable=False),
    sa.Column('recipe_id', sa.Uuid(), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('lane', sa.String(length=16), nullable=False),
    sa.Column('label', sa.String(length=40), nullable=False),
    sa.Column('hosts', sa.JSON(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('admitted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_seen_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('idle_s', sa.Integer(), nullable=False),
    sa.Column('idle_until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_reason', sa.String(length=40), nullable=True),
    sa.Column('revocation_id', sa.Uuid(), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_gateway_session_account_id')),
    sa.ForeignKeyConstraint(['app_session_id'], ['app_session.id'], name=op.f('fk_gateway_session_app_session_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_gateway_session_application_id')),
    sa.ForeignKeyConstraint(['assignment_id'], ['assignment.id'], name=op.f('fk_gateway_session_assignment_id')),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_gateway_session_company_id')),
    sa.ForeignKeyConstraint(['recipe_id'], ['recipe.id'], name=op.f('fk_gateway_session_recipe_id')),
    sa.ForeignKeyConstraint(['tool_account_id'], ['tool_account.id'], name=op.f('fk_gateway_session_tool_account_id')),
    sa.ForeignKeyConstraint(['tool_session_id'], ['tool_session.id'], name=op.f('fk_gateway_session_tool_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gateway_session')),
    sa.UniqueConstraint('label', name=op.f('uq_gateway_session_label'))
    )
    op.create_index('ix_gateway_session_account', 'gateway_session', ['account_id'], unique=False)
    op.create_index('ix_gateway_session_app_session', 'gateway_session', ['app_session_id'], unique=False)
    op.create_index('ix_gateway_session_tool_session', 'gateway_session', ['tool_session_id'], unique=False)
    op.create_table('login_job',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('tool_session_id', sa.Uuid(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('use_ticket_id', sa.Uuid(), nullable=True),
    sa.Column('next_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('leased_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('submitted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('result', sa.String(length=40), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_login_job_company_id')),
    sa.ForeignKeyConstraint(['tool_session_id'], ['tool_session.id'], name=op.f('fk_login_job_tool_session_id')),
    sa.ForeignKeyConstraint(['use_ticket_id'], ['use_ticket.id'], name=op.f('fk_login_job_use_ticket_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_login_job'))
    )
    op.create_index('ix_login_job_waiting', 'login_job', ['next_at'], unique=False, postgresql_where=sa.text('done_at IS NULL'), sqlite_where=sa.text('done_at IS NULL'))
    op.create_index('uq_login_job_open', 'login_job', ['tool_session_id'], unique=True, postgresql_where=sa.text('done_at IS NULL'), sqlite_where=sa.text('done_at IS NULL'))
    op.create_table('rotation',
    sa.Column('company_id', sa.Uuid(), nullable=False),
    sa.Column('credential_id', sa.Uuid(), nullable=False),
    sa.Column('old_version', sa.Integer(), nullable=False),
    sa.Column('new_version', sa.Integer(), nullable=True),
    sa.Column('trigger', sa.String(length=16), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('code', sa.String(length=40), nullable=True),
    sa.Column('rounds', sa.Integer(), nullable=False),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('leased_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('evidence', sa.JSON(), nullable=False),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['company_id'], ['company.id'], name=op.f('fk_rotation_company_id')),
    sa.ForeignKeyConstraint(['credential_id'], ['sealed_credential.id'], name=op.f('fk_rotation_credential_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_rotation'))
    )
    op.create_index('ix_rotation_waiting', 'rotation', ['next_at'], unique=False, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
    op.create_index('uq_rotation_open', 'rotation', ['credential_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL'), sqlite_where=sa.text('ended_at IS NULL'))
    op.create_table('admission_ticket',
    sa.Column('digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('gateway_session_id', sa.Uuid(), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('challenge', sa.LargeBinary(length=32), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['gateway_session_id'], ['gateway_session.id'], name=op.f('fk_admission_ticket_gateway_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_admission_ticket')),
    sa.UniqueConstraint('digest', name=op.f('uq_admission_ticket_digest'))
    )
    op.create_index(op.f('ix_admission_ticket_gateway_session_id'), 'admission_ticket', ['gateway_session_id'], unique=False)
    op.create_table('gateway_access',
    sa.Column('gateway_session_id', sa.Uuid(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('method', sa.String(length=16), nullable=False),
    sa.Column('route', sa.String(length=500), nullable=False),
    sa.Column('status', sa.Integer(), nullable=True),
    sa.Column('sent_bytes', sa.BigInteger(), nullable=False),
    sa.Column('rule', sa.String(length=40), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['gateway_session_id'], ['gateway_session.id'], name=op.f('fk_gateway_access_gateway_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gateway_access'))
    )
    op.create_index('ix_gateway_access_at', 'gateway_access', ['at'], unique=False)
    op.create_index('ix_gateway_access_session', 'gateway_access', ['gateway_session_id', 'at'], unique=False)
    op.create_table('gateway_cookie',
    sa.Column('gateway_session_id', sa.Uuid(), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('cookie_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['gateway_session_id'], ['gateway_session.id'], name=op.f('fk_gateway_cookie_gateway_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gateway_cookie')),
    sa.UniqueConstraint('cookie_digest', name=op.f('uq_gateway_cookie_cookie_digest'))
    )
    op.create_index(op.f('ix_gateway_cookie_gateway_session_id'), 'gateway_cookie', ['gateway_session_id'], unique=False)


def downgrade() -> None:
    op.drop_table('gateway_cookie')
    op.drop_table('gateway_access')
    op.drop_table('admission_ticket')
    op.drop_table('rotation')
    op.drop_table('login_job')
    op.drop_table('gateway_session')
    op.drop_table('credential_version')
    op.drop_table('credential_field')
    op.drop_table('use_ticket')
    op.drop_table('tool_session')
    op.drop_table('sealed_credential')
    op.drop_table('certification')
    op.drop_table('tool_account')
    op.drop_table('tool')
    op.drop_table('recipe')
    op.drop_table('kill_capability')
    op.drop_table('gateway_process')
