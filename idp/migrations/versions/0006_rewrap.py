"""rewrap: when the last record left a retiring company key, before which it is not switched off

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('company_key', sa.Column('moved_at', sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE company_key SET moved_at = created_at WHERE state = 'retiring'")


def downgrade() -> None:
    op.drop_column('company_key', 'moved_at')
