"""tool_account.held_until, hold_fence: a certification works at the account alone, as a job does

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('tool_account', sa.Column('held_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column('tool_account', sa.Column('hold_fence', sa.Integer(), server_default='0', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('tool_account') as batch:
        batch.drop_column('hold_fence')
        batch.drop_column('held_until')
