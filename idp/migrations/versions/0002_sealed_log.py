"""sealed log: the row in three parts, tiles, checkpoints, origins, anchors, and the triggers of AU-06

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

HEAD = ('id', 'created_at', 'tag', 'company_id', 'leaf_version')
BODY = ('result', 'actor_kind', 'actor_id', 'store_id', 'subject_id', 'application_id', 'request_id', 'software', 'detail', 'body_hash')
PERSONAL = ('personal', 'personal_salt', 'personal_hash')
LEAF = ('leaf_index', 'leaf_hash')
JSONS = {'detail', 'personal'}
WRITTEN_ONCE = ('audit_checkpoint', 'audit_origin', 'audit_anchor')


def upgrade() -> None:
    with op.batch_alter_table('audit_event') as batch_op:
        batch_op.add_column(sa.Column('software', sa.String(length=16), server_default='', nullable=False))
        batch_op.add_column(sa.Column('personal', sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column('personal_salt', sa.LargeBinary(length=16), nullable=True))
        batch_op.add_column(sa.Column('personal_hash', sa.LargeBinary(length=32), nullable=True))
        batch_op.add_column(sa.Column('body_hash', sa.LargeBinary(length=32), nullable=True))
        batch_op.add_column(sa.Column('leaf_version', sa.SmallInteger(), server_default='1', nullable=False))
    if op.get_bind().dialect.name == 'sqlite':
        op.execute("UPDATE audit_event SET personal = json_object('address', address), personal_salt = randomblob(16) WHERE address <> ''")
    else:
        op.execute(
            "UPDATE audit_event SET personal = json_build_object('address', address), personal_salt = uuid_send(gen_random_uuid())"
            " WHERE address <> ''"
        )
    with op.batch_alter_table('audit_event') as batch_op:
        batch_op.drop_column('address')
        batch_op.create_index(
            'ix_audit_event_unsealed', ['created_at', 'id'], unique=False,
            postgresql_where=sa.text('leaf_index IS NULL'), sqlite_where=sa.text('leaf_index IS NULL'),
        )

    op.create_table('audit_tile',
    sa.Column('level', sa.SmallInteger(), nullable=False),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('hashes', sa.LargeBinary(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_tile'))
    )
    op.create_index('uq_audit_tile_place', 'audit_tile', ['level', 'position'], unique=True)
    op.create_table('audit_origin',
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('vkey', sa.String(length=400), nullable=False),
    sa.Column('began_at_size', sa.BigInteger(), nullable=False),
    sa.Column('link', sa.Text(), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_origin')),
    sa.UniqueConstraint('name', name=op.f('uq_audit_origin_name'))
    )
    op.create_table('audit_checkpoint',
    sa.Column('origin_id', sa.Uuid(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('root', sa.LargeBinary(length=32), nullable=False),
    sa.Column('note', sa.Text(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['origin_id'], ['audit_origin.id'], name=op.f('fk_audit_checkpoint_origin_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_checkpoint'))
    )
    op.create_index('uq_audit_checkpoint_size', 'audit_checkpoint', ['origin_id', 'size'], unique=True)
    op.create_table('audit_sealer',
    sa.Column('name', sa.String(length=16), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('holder', sa.String(length=80), nullable=False),
    sa.Column('fence', sa.BigInteger(), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('alarm', sa.String(length=400), nullable=True),
    sa.Column('alarm_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_sealer')),
    sa.UniqueConstraint('name', name=op.f('uq_audit_sealer_name'))
    )
    op.create_table('audit_anchor',
    sa.Column('place', sa.String(length=300), nullable=False),
    sa.Column('checkpoint_id', sa.Uuid(), nullable=False),
    sa.Column('size', sa.BigInteger(), nullable=False),
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['checkpoint_id'], ['audit_checkpoint.id'], name=op.f('fk_audit_anchor_checkpoint_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_anchor'))
    )
    op.create_index('ix_audit_anchor_place_at', 'audit_anchor', ['place', 'created_at'], unique=False)
    if op.get_bind().dialect.name == 'sqlite':
        _sqlite_triggers()
    else:
        _postgres_triggers()


def _same(columns: tuple[str, ...], *, postgres: bool) -> str:
    if postgres:
        cast = {name: '::text' if name in JSONS else '' for name in columns}
        return ' AND '.join(f'OLD.{c}{cast[c]} IS NOT DISTINCT FROM NEW.{c}{cast[c]}' for c in columns)
    return ' AND '.join(f'OLD.{c} IS NEW.{c}' for c in columns)


def _allowed(*, postgres: bool) -> str:
    """What an UPDATE of a row may do: seal it once; empty its personal block; empty its body. Nothing else.

    The triggers ask IS NOT TRUE, not NOT: where a NULL makes this unknown, the change is refused.
    """
    sealed = 'OLD.leaf_index IS NOT NULL'
    empty_json = "NEW.detail::text = '{}'" if postgres else "NEW.detail = '{}'"
    return f"""
      ({_same(HEAD, postgres=postgres)})
      AND (({_same(LEAF, postgres=postgres)})
        OR (OLD.leaf_index IS NULL AND OLD.leaf_hash IS NULL AND NEW.leaf_index IS NOT NULL AND length(NEW.leaf_hash) = 32))
      AND (({_same(PERSONAL, postgres=postgres)})
        OR ({sealed} AND OLD.personal IS NOT NULL AND OLD.personal_hash IS NULL
          AND NEW.personal IS NULL AND NEW.personal_salt IS NULL AND length(NEW.personal_hash) = 32))
      AND (({_same(BODY, postgres=postgres)})
        OR ({sealed} AND OLD.body_hash IS NULL AND length(NEW.body_hash) = 32 AND {empty_json}
          AND NEW.result = '' AND NEW.actor_kind = '' AND NEW.request_id = '' AND NEW.software = ''
          AND NEW.actor_id IS NULL AND NEW.store_id IS NULL AND NEW.subject_id IS NULL AND NEW.application_id IS NULL))"""


def _sqlite_triggers() -> None:
    op.execute(f"""
    CREATE TRIGGER audit_event_update BEFORE UPDATE ON audit_event WHEN ({_allowed(postgres=False)}) IS NOT TRUE
    BEGIN SELECT RAISE(ABORT, 'audit_event: a row of the log does not change (AU-06)'); END""")
    op.execute("""
    CREATE TRIGGER audit_tile_update BEFORE UPDATE ON audit_tile WHEN (
      OLD.level = NEW.level AND OLD.position = NEW.position AND length(NEW.hashes) > length(OLD.hashes)
      AND substr(NEW.hashes, 1, length(OLD.hashes)) = OLD.hashes) IS NOT TRUE
    BEGIN SELECT RAISE(ABORT, 'audit_tile: the tree only grows (AU-06)'); END""")
    for table in ('audit_event', 'audit_tile', *WRITTEN_ONCE):
        op.execute(f"""
        CREATE TRIGGER {table}_delete BEFORE DELETE ON {table}
        BEGIN SELECT RAISE(ABORT, '{table}: nothing is deleted here (AU-06)'); END""")
    for table in WRITTEN_ONCE:
        op.execute(f"""
        CREATE TRIGGER {table}_update BEFORE UPDATE ON {table}
        BEGIN SELECT RAISE(ABORT, '{table}: written once (AU-06)'); END""")


def _postgres_triggers() -> None:
    op.execute("""
    CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '%: nothing is changed or deleted here (AU-06)', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$""")
    op.execute(f"""
    CREATE TRIGGER audit_event_update BEFORE UPDATE ON audit_event FOR EACH ROW WHEN (({_allowed(postgres=True)}) IS NOT TRUE)
    EXECUTE FUNCTION audit_refuse()""")
    op.execute("""
    CREATE TRIGGER audit_tile_update BEFORE UPDATE ON audit_tile FOR EACH ROW WHEN ((
      OLD.level = NEW.level AND OLD.position = NEW.position AND length(NEW.hashes) > length(OLD.hashes)
      AND substring(NEW.hashes from 1 for length(OLD.hashes)) = OLD.hashes) IS NOT TRUE)
    EXECUTE FUNCTION audit_refuse()""")
    for table in ('audit_event', 'audit_tile', *WRITTEN_ONCE):
        op.execute(f'CREATE TRIGGER {table}_delete BEFORE DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()')
    for table in WRITTEN_ONCE:
        op.execute(f'CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()')


def downgrade() -> None:
    postgres = op.get_bind().dialect.name == 'postgresql'
    for table in ('audit_event', 'audit_tile', *WRITTEN_ONCE):
        for kind in ('update', 'delete'):
            op.execute(f'DROP TRIGGER {table}_{kind}' + (f' ON {table}' if postgres else ''))
    if postgres:
        op.execute('DROP FUNCTION audit_refuse()')
    for table in ('audit_anchor', 'audit_checkpoint', 'audit_origin', 'audit_sealer', 'audit_tile'):
        op.drop_table(table)
    with op.batch_alter_table('audit_event') as batch_op:
        batch_op.drop_index('ix_audit_event_unsealed')
        batch_op.add_column(sa.Column('address', sa.String(length=64), server_default='', nullable=False))
        batch_op.drop_column('leaf_version')
        batch_op.drop_column('body_hash')
        batch_op.drop_column('personal_hash')
        batch_op.drop_column('personal_salt')
        batch_op.drop_column('personal')
        batch_op.drop_column('software')
