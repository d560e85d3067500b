"""`python -m tests.bench.audit_search [ROWS]`: the auditor's search page over 10,000,000 rows, and what its indexes cost an INSERT.

Every subset of the filters that the page offers is asked over HTTP, each with values that are common, rare, and never meet;
the answer is the time of the whole page, the row that says who looked included. Prints Markdown for docs/operations/audit.md.
The rows are made inside PostgreSQL: one company holds seven in ten, applications and people are drawn unevenly, most rows are
tokens, refusals are one in a hundred. `fsync` is on; half of the range queries ask for one day, half for a quarter.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Flask
from sqlalchemy import text

from idp.app import create_app
from idp.core import clock
from idp.core.db import db
from idp.domain.directory.roles import Role
from idp.ledgers.audit import search
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.audit.search import Wanted
from tests.actors import Browser, World
from tests.conftest import _fill, _pepper, settings_for
from tests.postgres import PostgresServer

DAYS = 730
NEW = ("ix_audit_event_company", "ix_audit_event_tag", "ix_audit_event_subject", "ix_audit_event_actor", "ix_audit_event_store",
       "ix_audit_event_application", "ix_audit_event_refused")  # fmt: skip
FILTERS = ("person", "actor", "store", "application", "event", "result", "range")
TAGS = (
    "WHEN r < 0.45 THEN 'oidc:token:refreshed' WHEN r < 0.60 THEN 'oidc:code:issued' WHEN r < 0.75 THEN 'oidc:code:redeemed'"
    " WHEN r < 0.88 THEN 'authn:login:succeeded' WHEN r < 0.93 THEN 'oidc:logout:requested' WHEN r < 0.98 THEN 'logout:notice:delivered'"
    " WHEN r < 0.99 THEN 'authn:login:refused' WHEN r < 0.998 THEN 'directory:assignment:added' ELSE 'revocation:revocation:executed'"
)


def fill(rows: int) -> None:
    """Companies, stores, people and applications of the size, then the rows, then the indexes, as a log that has grown."""
    with db.engine.begin() as c:

        def run(statement: str) -> None:
            c.exec_driver_sql(statement.replace("%", "%%"))

        run("SET statement_timeout = 0")
        run("""
            INSERT INTO company (id, created_at, code, name, is_platform)
            SELECT gen_random_uuid(), now(), 'B' || n, 'B' || n, false FROM generate_series(1, 2) n""")
        run("""
            INSERT INTO store (id, created_at, company_id, path, code, name, time_zone)
            SELECT gen_random_uuid(), now(), (SELECT id FROM company WHERE code = 'AOBA'), '/', 'T' || n, 'T' || n, 'Asia/Tokyo'
            FROM generate_series(1, 1000) n""")
        run("""
            INSERT INTO account (id, created_at, company_id, login_name, subject, name, kana, kana_search, locale, epoch)
            SELECT gen_random_uuid(), now(), (SELECT id FROM company WHERE code = CASE WHEN n % 10 < 7 THEN 'AOBA' WHEN n % 10 < 9 THEN 'B1' ELSE 'B2' END),
                   'P' || n, md5('s' || n), 'P' || n, '', 'p' || n, 'ja', 1
            FROM generate_series(1, 50000) n""")
        run("""
            INSERT INTO application (id, created_at, slug, name, protocol, functions)
            SELECT gen_random_uuid(), now(), 'app-' || n, 'app-' || n, 'oidc', '[]' FROM generate_series(1, 20) n""")
        for name in NEW:
            run(f"DROP INDEX {name}")
        run(
            "CREATE TEMP TABLE who AS SELECT row_number() OVER () AS n, id, company_id FROM account WHERE login_name LIKE 'P%'"
        )
        run("CREATE TEMP TABLE app AS SELECT row_number() OVER () AS n, id FROM application")
        run("CREATE TEMP TABLE shop AS SELECT row_number() OVER () AS n, id FROM store WHERE code LIKE 'T%'")
        for table in ("who", "app", "shop"):
            run(f"CREATE INDEX ON {table} (n)")
            run(f"ANALYZE {table}")
        run(f"""
            INSERT INTO audit_event (id, created_at, tag, result, actor_kind, actor_id, company_id, store_id, subject_id, application_id,
                                     request_id, software, detail, personal, personal_salt, leaf_version, leaf_index, leaf_hash)
            SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid,
                   at, tag, CASE WHEN tag = 'authn:login:refused' THEN 'refused' ELSE 'ok' END,
                   CASE WHEN tag LIKE 'oidc:token%' OR tag = 'oidc:code:redeemed' THEN 'client' ELSE 'person' END,
                   CASE WHEN tag IN ('authn:login:succeeded', 'oidc:code:issued', 'oidc:logout:requested') THEN w.id END, w.company_id,
                   CASE WHEN tag LIKE 'directory:%' OR tag LIKE 'revocation:%' THEN s.id END,
                   CASE WHEN tag <> 'authn:login:refused' THEN w.id END,
                   CASE WHEN tag LIKE 'oidc:token%' OR tag LIKE 'oidc:code%' OR tag LIKE 'logout:%' THEN a.id END,
                   substr(h, 1, 12), '0.1.0', json_build_object('family_id', h), json_build_object('address', '192.0.2.' || (x.n % 250)),
                   decode(h, 'hex'), 1, x.n - 1, decode(h || h, 'hex')
            FROM (
              SELECT n, md5(n::text) AS h, CASE {TAGS} END AS tag, now() - interval '{DAYS} days' * (1 - n::float / {rows}) AS at,
                     1 + floor(50000 * r2 * r2)::int AS wn, 1 + floor(20 * r3 * r3)::int AS an, 1 + floor(1000 * r4 * r4)::int AS sn
              FROM (SELECT n, random() AS r, random() AS r2, random() AS r3, random() AS r4 FROM generate_series(1, {rows}) n) dice
            ) x JOIN who w ON w.n = wn JOIN app a ON a.n = an JOIN shop s ON s.n = sn ORDER BY x.n
            """)
    build = {index.name: index for index in AuditEvent.__table__.indexes}  # type: ignore[attr-defined]
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql("SET statement_timeout = 0")
        c.exec_driver_sql("SET maintenance_work_mem = '512MB'")
        for name in NEW:
            build[name].create(c)
        c.exec_driver_sql("VACUUM ANALYZE")


def values(dice: random.Random) -> dict[str, list[Any]]:
    """For each filter what may be typed: something common, something rare."""
    with db.engine.connect() as c:

        def some(query: str) -> list[Any]:
            return [row[0] for row in c.execute(text(query))]

        busy = some(
            "SELECT login_name FROM account a JOIN company c ON c.id = a.company_id WHERE c.code = 'AOBA' AND login_name LIKE 'P%' ORDER BY random() LIMIT 40"
        )
        stores = some("SELECT code FROM store WHERE code LIKE 'T%' ORDER BY random() LIMIT 40")
    now = clock.now()
    day, quarter = now - timedelta(days=dice.randrange(30, 700)), now - timedelta(days=dice.randrange(120, 700))
    return {
        "person": busy, "actor": busy, "store": stores, "application": [f"app-{n}" for n in range(1, 21)],
        "event": ["oidc:token:refreshed", "authn:login:succeeded", "revocation:revocation:executed", "directory:assignment:added", Tag.COMPANY_ADDED.value],
        "result": ["ok", "refused"], "range": [(day, timedelta(days=1)), (quarter, timedelta(days=90))],
    }  # fmt: skip


def ask(desk: Browser, chosen: dict[str, Any]) -> tuple[float, bool]:
    """Milliseconds of one page, and whether the bound on reading stopped it."""
    query = {name: value for name, value in chosen.items() if name != "range"}
    query |= {"since": "", "until": ""}
    if "range" in chosen:
        begin, length = chosen["range"]
        query |= {"since": f"{begin:%Y-%m-%dT%H:%M}", "until": f"{begin + length:%Y-%m-%dT%H:%M}"}
    began = time.perf_counter()
    page = desk.get(f"/audit?{urlencode(query)}")
    took = (time.perf_counter() - began) * 1000
    assert page.status_code == 200, (page.status_code, query)
    return took, 'data-testid="stopped"' in page.text


def percentile(found: list[float], share: float) -> float:
    return sorted(found)[min(len(found) - 1, int(share * len(found)))]


def searches(desk: Browser, tries: int = 12) -> None:
    """Every subset of the filters."""
    dice = random.Random(7)
    by_combination: dict[tuple[str, ...], list[float]] = {}
    by_driver: dict[str, list[float]] = defaultdict(list)
    stops: dict[tuple[str, ...], int] = defaultdict(int)
    for size in range(len(FILTERS) + 1):
        for names in combinations(FILTERS, size):
            for _ in range(tries):
                offered = values(dice) if "range" in names or not by_combination else offered  # noqa: F821
                took, stopped = ask(desk, {name: dice.choice(offered[name]) for name in names})
                by_combination.setdefault(names, []).append(took)
                by_driver[
                    next(
                        (n for n in ("person", "actor", "store", "application", "event", "result") if n in names),
                        "company",
                    )
                ].append(took)
                stops[names] += stopped
    every = [took for found in by_combination.values() for took in found]
    print(
        f"\n{len(by_combination)} combinations x {tries}: p50 {statistics.median(every):.0f} ms, p95 {percentile(every, 0.95):.0f} ms, longest {max(every):.0f} ms"
    )
    print("\n| first filter that is given | pages | p50 ms | p95 ms | longest ms |\n|---|--:|--:|--:|--:|")
    for name, found in by_driver.items():
        print(
            f"| {name} | {len(found)} | {statistics.median(found):.0f} | {percentile(found, 0.95):.0f} | {max(found):.0f} |"
        )
    print("\n| slowest combinations (p95) | p50 ms | p95 ms | stopped early |\n|---|--:|--:|--:|")
    for names, found in sorted(by_combination.items(), key=lambda item: -percentile(item[1], 0.95))[:8]:
        print(
            f"| {' + '.join(names) or 'none'} | {statistics.median(found):.0f} | {percentile(found, 0.95):.0f} | {stops[names]} of {tries} |"
        )


def explain() -> None:
    """The plan of each driver, the one line that names the index."""
    with db.engine.connect() as c:
        ids = {
            "company_id": "SELECT id FROM company WHERE code = 'AOBA'", "subject_id": "SELECT id FROM account WHERE login_name = 'P7'",
            "actor_id": "SELECT id FROM account WHERE login_name = 'P7'", "store_id": "SELECT id FROM store WHERE code = 'T7'",
            "application_id": "SELECT id FROM application WHERE slug = 'app-7'",
        }  # fmt: skip
        found = {name: c.execute(text(query)).scalar_one() for name, query in ids.items()}
    company = found.pop("company_id")
    asked = {name: Wanted(company_id=company, **{name: value}) for name, value in found.items()}
    asked |= {
        "event": Wanted(company_id=company, tag=Tag.REVOKED.value), "refused": Wanted(company_id=company, result="refused"),
        "company": Wanted(company_id=company), "everything": Wanted(),
        "application x event that never meet": Wanted(company_id=company, application_id=found["application_id"], tag=Tag.LOGIN_SUCCEEDED.value),
    }  # fmt: skip
    print("\n| search | scan |\n|---|---|")
    for name, wanted in asked.items():
        seen: list[str] = []
        with db.engine.connect() as c:
            sql = str(
                search.query(wanted, before=None).limit(51).compile(db.engine, compile_kwargs={"literal_binds": True})
            )
            seen += [row[0] for row in c.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {sql.replace('%', '%%')}")]
        scans = " / ".join(
            line.strip().removeprefix("->").strip().split("  (cost")[0]
            for line in seen
            if " Scan" in line and "Subquery" not in line
        )
        ran = sum(float(line.split(":")[1].split()[0]) for line in seen if line.startswith("Execution Time"))
        print(f"| {name} | {scans}; {ran:.1f} ms |")


def inserts(count: int = 20_000, times: int = 3) -> None:
    """What a token row costs the database with these indexes and with the two of the first schema: µs of its own time, without
    the client's. Each row is of another person, so that the index pages are as cold as on a busy day."""
    columns = "id, created_at, tag, result, actor_kind, company_id, subject_id, application_id, request_id, software, detail, leaf_version"
    statement = f"""
        EXPLAIN (ANALYZE, TIMING OFF) INSERT INTO audit_event ({columns})
        SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid,
               now(), 'oidc:token:refreshed', 'ok', 'client', company_id, subject_id, app, substr(h, 1, 12), '0.1.0', '{{}}', 1
        FROM (SELECT md5(random()::text) AS h, a.company_id, a.id AS subject_id,
                     (SELECT id FROM application WHERE slug = 'app-' || 1 + mod(abs(hashtext(a.login_name)), 20)) AS app
              FROM account a WHERE login_name LIKE 'P%%' ORDER BY random() LIMIT {count}) x"""

    def run() -> float:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.exec_driver_sql("SET statement_timeout = 0")
            c.exec_driver_sql("CHECKPOINT")
            line = [row[0] for row in c.exec_driver_sql(statement)][-1]
        return float(line.split(":")[1].split()[0]) * 1000 / count

    def swap(*statements: str) -> None:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.exec_driver_sql("SET statement_timeout = 0")
            for text_ in statements:
                c.exec_driver_sql(text_)

    mine = [run() for _ in range(times)]
    swap(*(f"DROP INDEX {name}" for name in NEW))
    none = [run() for _ in range(times)]
    swap(
        "CREATE INDEX old_a ON audit_event (company_id, created_at)",
        "CREATE INDEX old_b ON audit_event (subject_id, created_at)",
    )
    old = [run() for _ in range(times)]
    print("\n| a token row, database time | µs, best of 3 |\n|---|--:|")
    print(f"| no search index | {min(none):.0f} |")
    print(f"| the two indexes of the first schema | {min(old):.0f} |")
    print(f"| these seven, of which a token row touches four | {min(mine):.0f} |")


def main(rows: int) -> None:
    """Everything, on a throw-away server."""
    with tempfile.TemporaryDirectory() as name, PostgresServer(fsync=True) as server:
        folder = Path(name)
        _pepper(folder)
        settings = settings_for(server.create_template("bench"), folder)
        _fill(settings)
        app: Flask = create_app(settings)
        world = World(app)
        audit = world.person("audit", role=Role.AUDITOR)
        with app.app_context(), Browser(app) as desk:
            began = time.perf_counter()
            fill(rows)
            with db.engine.connect() as c:
                size = c.execute(
                    text(
                        "SELECT pg_size_pretty(pg_table_size('audit_event')), pg_size_pretty(pg_indexes_size('audit_event'))"
                    )
                ).one()
            print(
                f"{rows:,} rows in {time.perf_counter() - began:.0f} s; table {size[0]}, indexes {size[1]}", flush=True
            )
            desk.log_in(audit)
            explain()
            searches(desk)
            inserts()
            for engine in db.engines.values():
                engine.dispose()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
