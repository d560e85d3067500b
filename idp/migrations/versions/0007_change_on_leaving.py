"""company.change_on_leaving: which passwords inside tools are changed when somebody leaves

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op


revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('company', sa.Column('change_on_leaving', sa.String(length=16), server_default='known', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('company') as batch:
        batch.drop_column('change_on_leaving')
