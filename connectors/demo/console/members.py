"""Members, their points and the history of who changed them; coupons of the stores. Takes a connection, never commits.

Object-level authorisation is part of every query: functions take the person and reach the person's own stores only, so
another store's member does not exist here (product.md, scenario member-admin).
"""

import json
import sqlite3
from dataclasses import dataclass

from connectors.demo.console.claims import Person
from connectors.demo.console.folding import fold

PAGE_SIZE = 50
MAX_POINTS = 100_000


class NotFound(Exception):
    """No such member or store in the person's own stores."""


class TooFewPoints(Exception):
    """The balance would fall under 0; nothing was written."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `id`: 12 digits; `joined_on`: ISO date; `points` is never negative."""

    id: str
    store_code: str
    name: str
    kana: str
    joined_on: str
    points: int


@dataclass(frozen=True, slots=True)
class PointChange:
    """One line of the history. `balance` is what the member had after it; `changed_at` in seconds."""

    delta: int
    balance: int
    reason: str
    by_name: str
    by_login_name: str
    changed_at: float


@dataclass(frozen=True, slots=True)
class Coupon:
    """A published coupon of one store. `ends_on`: ISO date, the last day on which it counts."""

    store_code: str
    title: str
    discount_yen: int
    ends_on: str
    by_name: str


@dataclass(frozen=True, slots=True)
class MemberPage:
    """At most 50 members, ordered by kana, and how many there are in all."""

    members: list[Member]
    total: int


def search(db: sqlite3.Connection, person: Person, *, text: str, store_code: str, page: int) -> MemberPage:
    """Members of the person's own stores whose number, name or kana holds `text`; empty `text` means all.

    store_code: one of the own stores, or empty for all; another store's code finds nothing. page counts from 1.
    """
    pattern = "%" + fold(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    codes = [code for code in person.store_codes if store_code in ("", code)]
    where = (person.company_code, json.dumps(codes), pattern)
    total = db.execute(
        "SELECT count(*) FROM members WHERE company_code = ? AND store_code IN (SELECT value FROM json_each(?))"
        " AND folded LIKE ? ESCAPE '\\'",
        where,
    ).fetchone()[0]
    rows = db.execute(
        "SELECT id, store_code, name, kana, joined_on, points FROM members"
        " WHERE company_code = ? AND store_code IN (SELECT value FROM json_each(?)) AND folded LIKE ? ESCAPE '\\'"
        " ORDER BY kana, id LIMIT ? OFFSET ?",
        (*where, PAGE_SIZE, (page - 1) * PAGE_SIZE),
    ).fetchall()
    return MemberPage([Member(**row) for row in rows], total)


def get_member(db: sqlite3.Connection, person: Person, member_id: str) -> Member:
    """One member of the person's own stores. Raises NotFound, also when the member is another store's."""
    row = db.execute(
        "SELECT id, store_code, name, kana, joined_on, points FROM members WHERE id = ? AND company_code = ?"
        " AND store_code IN (SELECT value FROM json_each(?))",
        (member_id, person.company_code, json.dumps(person.store_codes)),
    ).fetchone()
    if row is None:
        raise NotFound
    return Member(**row)


def history(db: sqlite3.Connection, member: Member) -> list[PointChange]:
    """The latest 50 changes of a member that `get_member` returned, newest first."""
    rows = db.execute(
        "SELECT delta, balance, reason, by_name, by_login_name, changed_at FROM point_changes WHERE member_id = ?"
        " ORDER BY changed_at DESC, rowid DESC LIMIT 50",
        (member.id,),
    ).fetchall()
    return [PointChange(**row) for row in rows]


def change_points(
    db: sqlite3.Connection, person: Person, member_id: str, *, delta: int, reason: str, request_id: str, now: float
) -> None:
    """Add `delta` points (negative: subtract) and write who did it, when and why.

    request_id: made with the form; the second of two equal ones changes nothing, so a double tap counts once. Raises
    NotFound, or TooFewPoints when the balance would fall under 0.
    """
    member = get_member(db, person, member_id)
    if db.execute("SELECT 1 FROM point_changes WHERE request_id = ?", (request_id,)).fetchone():
        return
    row = db.execute(
        "UPDATE members SET points = points + :delta WHERE id = :id AND points + :delta >= 0 RETURNING points",
        {"delta": delta, "id": member.id},
    ).fetchone()
    if row is None:
        raise TooFewPoints
    db.execute(
        "INSERT INTO point_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (request_id, member.id, delta, row["points"], reason, person.sub, person.name, person.login_name, now),
    )


def coupons(db: sqlite3.Connection, person: Person) -> list[Coupon]:
    """The coupons of the person's own stores, the one that ends first on top."""
    rows = db.execute(
        "SELECT store_code, title, discount_yen, ends_on, by_name FROM coupons WHERE company_code = ?"
        " AND store_code IN (SELECT value FROM json_each(?)) ORDER BY ends_on, store_code, title",
        (person.company_code, json.dumps(person.store_codes)),
    ).fetchall()
    return [Coupon(**row) for row in rows]


def publish_coupon(db: sqlite3.Connection, person: Person, coupon: Coupon, *, request_id: str, now: float) -> None:
    """Publish a coupon in one of the person's own stores, once per `request_id`. Raises NotFound for another store."""
    if coupon.store_code not in person.store_codes:
        raise NotFound
    db.execute(
        "INSERT OR IGNORE INTO coupons VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (request_id, person.company_code, coupon.store_code, coupon.title, coupon.discount_yen, coupon.ends_on,
         coupon.by_name, now),
    )  # fmt: skip
