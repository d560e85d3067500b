"""A valid sealed log of N rows, fast, and how fast the sealer is.

    python -m tests.bench.big_log sqlite 200000
    python -m tests.bench.big_log postgresql 10000000 --keep

Rows go in by COPY (PostgreSQL) or executemany (SQLite) as many small histories: logins, code and token rows, some refusals and
revocations, spread over a year; then the product's own sealer takes them. Nothing about the result differs from a log that
grew by itself, so searches, exports and `sekisho audit verify` can be measured on it: `load()` is for those.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import Engine, insert

from idp.core import clock
from idp.core.db import db
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent

BATCH = 20_000
MIX = (
    (Tag.LOGIN_SUCCEEDED, 20), (Tag.CODE_ISSUED, 20), (Tag.CODE_REDEEMED, 20), (Tag.TOKEN_REFRESHED, 25), (Tag.APP_SESSION_OPENED, 8),
    (Tag.LOGIN_REFUSED, 3), (Tag.LOGIN_SESSION_ENDED, 3), (Tag.REVOKED, 1),
)  # fmt: skip
COLUMNS = (
    "id", "created_at", "tag", "result", "actor_kind", "actor_id", "company_id", "store_id", "subject_id", "application_id",
    "request_id", "software", "detail", "personal", "personal_salt", "leaf_version",
)  # fmt: skip


def rows(
    count: int, *, companies: Sequence[uuid.UUID], ends: datetime, days: int = 365, seed: int = 3
) -> Iterator[dict[str, Any]]:
    """Rows in the order of their time. The same seed gives the same log but for its ids' places in time."""
    dice = random.Random(seed)
    people = [uuid.UUID(int=dice.getrandbits(128), version=4) for _ in range(max(10, min(count // 50, 100_000)))]
    stores = [uuid.UUID(int=dice.getrandbits(128), version=4) for _ in range(200)]
    applications = [uuid.UUID(int=dice.getrandbits(128), version=4) for _ in range(20)]
    tags, weights = [tag for tag, _ in MIX], [weight for _, weight in MIX]
    step = timedelta(days=days) / count
    for number in range(count):
        at = ends - step * (count - number)
        millis = int(at.timestamp() * 1000)
        row_id = uuid.UUID(int=(millis << 80 | dice.getrandbits(80)) & ~(0xF000 << 64) | (0x7000 << 64))
        tag, person = dice.choices(tags, weights)[0], dice.randrange(len(people))
        yield {
            "id": row_id, "created_at": at, "tag": tag.value, "result": "refused" if tag is Tag.LOGIN_REFUSED else "ok",
            "actor_kind": "person", "actor_id": people[person], "company_id": companies[person % len(companies)],
            "store_id": stores[person % len(stores)], "subject_id": people[person], "application_id": dice.choice(applications),
            "request_id": f"{dice.getrandbits(64):016x}", "software": "0.1.0", "detail": {"family_id": str(row_id), "generation": number % 7},
            "personal": {"address": f"192.0.2.{number % 250}"}, "personal_salt": dice.randbytes(16), "leaf_version": 1,
        }  # fmt: skip


def load(
    engine: Engine, count: int, *, companies: Sequence[uuid.UUID], ends: datetime | None = None, days: int = 365
) -> None:
    """Insert `count` unsealed rows. companies: ids that the rows belong to, in turn by person."""
    source = rows(count, companies=companies, ends=ends or clock.now(), days=days)
    if engine.dialect.name == "postgresql":
        raw = engine.raw_connection()
        try:
            with raw.cursor().copy(f"COPY audit_event ({', '.join(COLUMNS)}) FROM STDIN") as copy:  # type: ignore[attr-defined]
                for row in source:
                    copy.write_row([json.dumps(row[c]) if c in {"detail", "personal"} else row[c] for c in COLUMNS])
            raw.commit()
        finally:
            raw.close()
        return
    batch: list[dict[str, Any]] = []
    with engine.begin() as connection:
        for row in source:
            batch.append(row)
            if len(batch) == BATCH:
                connection.execute(insert(AuditEvent), batch)
                batch.clear()
        if batch:
            connection.execute(insert(AuditEvent), batch)


def seal(app: Flask) -> tuple[int, float]:
    """Run the product's sealer until nothing waits. Returns rows and seconds."""
    sealer, total, began = app.extensions["sekisho"].sealer(), 0, time.perf_counter()
    while done := sealer.step():
        total += done
    sealer.sign_now()
    sealer.release()
    return total, time.perf_counter() - began


def main(arguments: Sequence[str]) -> None:
    """The command."""
    from tests.bench.install import Installation  # it starts servers; importing this module must not

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["sqlite", "postgresql"])
    parser.add_argument("rows", type=int)
    parser.add_argument("--keep", action="store_true", help="wait for Enter before everything is deleted")
    wanted = parser.parse_args(arguments)
    installation = Installation(wanted.engine, destinations=1, victims=1, crowd=1, drivers=1)
    try:
        with installation.app.app_context():
            began = time.perf_counter()
            load(db.engine, wanted.rows, companies=[uuid.uuid4() for _ in range(10)])
            loading = time.perf_counter() - began
            total, seconds = seal(installation.app)
        said = f"{wanted.engine}: {wanted.rows} rows loaded in {loading:.1f} s; {total} sealed in {seconds:.1f} s"
        sys.stdout.write(f"{said}: {total / seconds:.0f} rows/s\n")
        if wanted.keep:
            input(f"{installation.settings.database_url}  Enter deletes it. ")
    finally:
        installation.close()


if __name__ == "__main__":
    main(sys.argv[1:])
