"""SAML: service providers, the names they know people by, replay memory

Revision ID: 0004
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op


revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('service_provider',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('entity_id', sa.String(length=1024), nullable=False),
    sa.Column('profile', sa.String(length=24), nullable=False),
    sa.Column('acs', sa.JSON(), nullable=False),
    sa.Column('soap_logout_url', sa.String(length=2000), nullable=True),
    sa.Column('front_logout_binding', sa.String(length=16), nullable=True),
    sa.Column('front_logout_url', sa.String(length=2000), nullable=True),
    sa.Column('front_logout_response_url', sa.String(length=2000), nullable=True),
    sa.Column('signing_certs', sa.JSON(), nullable=False),
    sa.Column('encryption_certs', sa.JSON(), nullable=False),
    sa.Column('encryption_method', sa.String(length=80), nullable=False),
    sa.Column('requests_signed', sa.Boolean(), nullable=False),
    sa.Column('metadata_url', sa.String(length=2000), nullable=True),
    sa.Column('metadata_digest', sa.String(length=64), nullable=False),
    sa.Column('metadata_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('metadata_checked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('metadata_error', sa.String(length=200), nullable=True),
    sa.Column('held', sa.JSON(), nullable=True),
    sa.Column('held_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('name_id', sa.String(length=16), nullable=False),
    sa.Column('email_pattern', sa.String(length=200), nullable=True),
    sa.Column('attributes', sa.JSON(), nullable=False),
    sa.Column('sign', sa.String(length=16), nullable=False),
    sa.Column('encrypt', sa.Boolean(), nullable=False),
    sa.Column('idp_initiated', sa.Boolean(), nullable=False),
    sa.Column('idp_targets', sa.JSON(), nullable=False),
    sa.Column('start_url', sa.String(length=2000), nullable=True),
    sa.Column('honours_session_index', sa.Boolean(), nullable=False),
    sa.Column('signing_kid', sa.String(length=64), nullable=True),
    sa.Column('live_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_service_provider_application_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_service_provider')),
    sa.UniqueConstraint('application_id', name=op.f('uq_service_provider_application_id')),
    sa.UniqueConstraint('entity_id', name=op.f('uq_service_provider_entity_id'))
    )
    op.create_table('saml_subject',
    sa.Column('application_id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('value', sa.String(length=255), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.id'], name=op.f('fk_saml_subject_account_id')),
    sa.ForeignKeyConstraint(['application_id'], ['application.id'], name=op.f('fk_saml_subject_application_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_saml_subject'))
    )
    op.create_index(op.f('ix_saml_subject_account_id'), 'saml_subject', ['account_id'], unique=False)
    op.create_index('uq_saml_subject_account', 'saml_subject', ['application_id', 'account_id', 'kind'], unique=True)
    op.create_index('uq_saml_subject_value', 'saml_subject', ['application_id', 'value'], unique=True, sqlite_where=sa.text("kind <> 'mapped'"), postgresql_where=sa.text("kind <> 'mapped'"))
    op.create_table('seen_message',
    sa.Column('message_digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_seen_message')),
    sa.UniqueConstraint('message_digest', name=op.f('uq_seen_message_message_digest'))
    )
    op.create_index(op.f('ix_seen_message_ends_at'), 'seen_message', ['ends_at'], unique=False)
    op.add_column('app_session', sa.Column('name_id_format', sa.String(length=80), nullable=True))


def downgrade() -> None:
    op.drop_column('app_session', 'name_id_format')
    op.drop_table('seen_message')
    op.drop_table('saml_subject')
    op.drop_table('service_provider')
