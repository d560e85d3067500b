"""Invented members and coupons for a store that is seen for the first time. The same store always gets the same ones.

Everything derives from a SHA-256 of company, store and number, so a demo, a test and a screenshot agree. The names hold
what breaks careless systems: 髙 and 﨑 beside 高 and 崎, 𠮷 outside the BMP, and names of people from abroad.
"""

import hashlib
import sqlite3
from datetime import date, timedelta

from connectors.demo.console.claims import Person, Store
from connectors.demo.console.entropy import today
from connectors.demo.console.folding import fold

MEMBERS_PER_STORE = 12
FAMILY = (
    ("髙橋", "タカハシ"), ("𠮷田", "ヨシダ"), ("山﨑", "ヤマザキ"), ("渡邊", "ワタナベ"), ("佐藤", "サトウ"),
    ("鈴木", "スズキ"), ("田中", "タナカ"), ("小林", "コバヤシ"), ("中村", "ナカムラ"), ("齋藤", "サイトウ"),
    ("濵田", "ハマダ"), ("松本", "マツモト"), ("清水", "シミズ"), ("木村", "キムラ"), ("五十嵐", "イガラシ"),
)  # fmt: skip
GIVEN = (
    ("陽子", "ヨウコ"), ("健太", "ケンタ"), ("美咲", "ミサキ"), ("大輔", "ダイスケ"), ("さくら", "サクラ"),
    ("翔", "ショウ"), ("由美", "ユミ"), ("拓也", "タクヤ"), ("結衣", "ユイ"), ("一郎", "イチロウ"), ("真理", "マリ"),
)  # fmt: skip
FROM_ABROAD = (("Nguyễn Thị Lan", "グエン ティ ラン"), ("シュレスタ ラム", "シュレスタ ラム"), ("王 偉", "オウ イ"))
COUPONS = (("ホットコーヒー 50円引き", 50), ("お弁当 100円引き", 100), ("アイスクリーム 30円引き", 30))
FIRST_DAY = date(2023, 4, 1)


def seed_stores(db: sqlite3.Connection, person: Person, *, now: float) -> None:
    """Fill each store of the person that has no members yet; now: seconds, the publishing time of the coupons."""
    for store in person.stores:
        new = db.execute("INSERT OR IGNORE INTO seeded_stores VALUES (?, ?)", (person.company_code, store.code))
        if new.rowcount:
            _seed_members(db, person.company_code, store)
            _seed_coupons(db, person.company_code, store, now=now)


def _seed_members(db: sqlite3.Connection, company_code: str, store: Store) -> None:
    first = _draw(company_code, store.code, -1)
    for index in range(MEMBERS_PER_STORE):
        draw = _draw(company_code, store.code, index)
        if index == MEMBERS_PER_STORE - 1:
            name, kana = FROM_ABROAD[draw % len(FROM_ABROAD)]
        else:
            # Every store has the first two family names, the ones that break careless systems; the rest take turns.
            family = FAMILY[index] if index < 2 else FAMILY[2 + (first + index) % (len(FAMILY) - 2)]
            given = GIVEN[draw // 97 % len(GIVEN)]
            name, kana = f"{family[0]} {given[0]}", f"{family[1]} {given[1]}"
        member_id = f"{draw % 10**12:012d}"
        joined_on = FIRST_DAY + timedelta(days=draw // 7 % 1200)
        db.execute(
            "INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (member_id, company_code, store.code, name, kana, fold(f"{member_id} {name} {kana}"),
             joined_on.isoformat(), draw // 11 % 4800),
        )  # fmt: skip


def _seed_coupons(db: sqlite3.Connection, company_code: str, store: Store, *, now: float) -> None:
    for index in range(2):
        draw = _draw(company_code, store.code, MEMBERS_PER_STORE + index)
        title, discount_yen = COUPONS[(draw + index) % len(COUPONS)]
        db.execute(
            "INSERT OR IGNORE INTO coupons VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (f"seed-{company_code}-{store.code}-{index}", company_code, store.code, title, discount_yen,
             (today(now) + timedelta(days=14 + 16 * index)).isoformat(), "本部", now),
        )  # fmt: skip


def _draw(company_code: str, store_code: str, index: int) -> int:
    seed = f"{company_code}\0{store_code}\0{index}".encode()
    return int.from_bytes(hashlib.sha256(seed).digest()[:16])
