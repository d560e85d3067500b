"""VA-21: every column that holds bytes is moved by a rotation of keys, or is named here as something else."""

from __future__ import annotations

from sqlalchemy import LargeBinary

from idp.lifecycle.rewrap.places import PLACES
from idp.models import Base
from vault import KeyClass

#: digests, ciphertext that the company key itself is, payloads under a data key whose wrap is moved
OTHERS = {
    "company_key.wrapped", "company_key.check_value",  # moved by a rotation of the root key
    "credential_field.sealed",  # under the data key of its version, whose wrap is moved
    "use_ticket.signature",
}  # fmt: skip
DIGESTS = ("_digest", "_hash", "_salt", "digest", "challenge", "hash")


def test_VA_21_every_sealed_column_is_moved_by_a_rotation() -> None:
    known = {f"{place.table.__tablename__}.{place.column.key}" for place in PLACES}
    columns = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    sealed = {name for name in columns if not name.endswith(DIGESTS) and not name.startswith(("audit_", "seen_"))}
    assert sealed - OTHERS == known
    assert sealed >= OTHERS
    assert {place.key_class for place in PLACES} == set(KeyClass) - {KeyClass.OUTBOUND}, "outbound seals nothing yet"
