"""audit reading: indexes by (column, id), the company of a counted refusal, the dates of a cut, the cursor of the SIEM stream

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

PARTS = ('subject_id', 'actor_id', 'store_id', 'application_id')


def upgrade() -> None:
    op.drop_index('ix_audit_event_company_at', 'audit_event')
    op.drop_index('ix_audit_event_subject_at', 'audit_event')
    op.create_index('ix_audit_event_company', 'audit_event', ['company_id', 'id'])
    op.create_index('ix_audit_event_tag', 'audit_event', ['company_id', 'tag', 'id'])
    for column in PARTS:
        some = sa.text(f'{column} IS NOT NULL')
        op.create_index(f'ix_audit_event_{column[:-3]}', 'audit_event', [column, 'id'], postgresql_where=some, sqlite_where=some)
    refused = sa.text("result = 'refused'")
    op.create_index('ix_audit_event_refused', 'audit_event', ['company_id', 'id'], postgresql_where=refused, sqlite_where=refused)
    op.add_column('revocation', sa.Column('hr_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('revocation', sa.Column('requested_at', sa.DateTime(timezone=True), nullable=True))
    op.execute('UPDATE revocation SET requested_at = t0 WHERE door <> \'schedule\'')
    op.add_column('cut', sa.Column('close_note_hash', sa.LargeBinary(length=32), nullable=True))
    op.add_column('account', sa.Column('erased_at', sa.DateTime(timezone=True), nullable=True))
    over = sa.text('ended_at IS NOT NULL AND erased_at IS NULL')
    op.create_index('ix_account_over', 'account', ['ended_at'], postgresql_where=over, sqlite_where=over)
    op.create_table('audit_reader',
    sa.Column('name', sa.String(length=32), nullable=False),
    sa.Column('next_index', sa.BigInteger(), nullable=False),
    sa.Column('behind_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_reader')),
    sa.UniqueConstraint('name', name=op.f('uq_audit_reader_name'))
    )
    op.add_column('refusal_count', sa.Column('company_id', sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column('refusal_count', 'company_id')
    op.drop_table('audit_reader')
    op.drop_index('ix_account_over', 'account')
    op.drop_column('account', 'erased_at')
    op.drop_column('cut', 'close_note_hash')
    op.drop_column('revocation', 'requested_at')
    op.drop_column('revocation', 'hr_at')
    op.drop_index('ix_audit_event_refused', 'audit_event')
    for column in PARTS:
        op.drop_index(f'ix_audit_event_{column[:-3]}', 'audit_event')
    op.drop_index('ix_audit_event_tag', 'audit_event')
    op.drop_index('ix_audit_event_company', 'audit_event')
    op.create_index('ix_audit_event_subject_at', 'audit_event', ['subject_id', 'created_at'])
    op.create_index('ix_audit_event_company_at', 'audit_event', ['company_id', 'created_at'])
