"""Companies, regions, stores, people: adding and finding. Ending is not here; it is `lifecycle.revocation` (RV-01)."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import claim
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.directory import scope
from idp.domain.directory.models import Account, Assignment, Company, Region, Store
from idp.domain.directory.roles import ROLES, Power, Reach, Role
from idp.domain.directory.scope import Viewer, account_alive
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

T = TypeVar("T")

CODE = re.compile(r"[A-Z0-9][A-Z0-9_-]{0,31}")
LOGIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean_name(text: str, field: str) -> str:
    """A name as people write it: trimmed, composed, without control or direction characters. Raises Invalid."""
    name = unicodedata.normalize("NFC", text).strip()
    if not name or len(name) > 200:
        raise Invalid("1文字から200文字までで入れてください。", field=field)
    if CONTROL.search(name):
        raise Invalid("見えない文字が入っています。入れ直してください。", field=field)
    return name


def clean_note(text: str, field: str) -> str:
    """What somebody writes as a reason, over several lines if they like: trimmed, composed, at most 2,000 characters, without
    other control or direction characters. Raises Invalid."""
    note = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    if not note or len(note) > 2000:
        raise Invalid("1文字から2000文字までで入れてください。", field=field)
    if CONTROL.search(note.replace("\n", "")):
        raise Invalid("見えない文字が入っています。入れ直してください。", field=field)
    return note


def clean_code(text: str, field: str) -> str:
    """A company, region or store code: half-width capitals, digits, - and _. Full-width input is folded. Raises Invalid."""
    code = unicodedata.normalize("NFKC", text).strip().upper()
    if not CODE.fullmatch(code):
        raise Invalid("コードは英大文字・数字・-・_ の32文字までです。", field=field)
    return code


def clean_login_name(text: str) -> str:
    """A staff number, or another login name, unique per company. Full-width digits of an IME are folded (D19)."""
    name = unicodedata.normalize("NFKC", text).strip()
    if not LOGIN_NAME.fullmatch(name):
        raise Invalid("スタッフ番号は英数字と . _ - の64文字までです。", field="login_name")
    return name


def search_key(kana: str) -> str:
    """Kana folded for a search by its beginning: NFKC, katakana to hiragana, no spaces, lower case."""
    folded = unicodedata.normalize("NFKC", kana).lower()
    return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in folded if not c.isspace())


def _flush(session: Session, taken: Conflict) -> None:
    """Write a new row, to which the audit row and later rows refer. Whoever adds the same code at the same time is told so."""
    try:
        session.flush()
    except IntegrityError:
        raise taken from None


def add_company(
    session: Session, *, code: str, name: str, actor: Actor, now: datetime, is_platform: bool = False
) -> Company:
    """Add a company. Raises Invalid, Conflict (code taken)."""
    code, name = clean_code(code, "code"), clean_name(name, "name")
    if session.scalar(select(Company.id).where(Company.code == code)):
        raise Conflict("この会社コードはもう使われています。", field="code")
    company = Company(id=ids.new_id(now), created_at=now, code=code, name=name, is_platform=is_platform)
    session.add(company)
    _flush(session, Conflict("この会社コードはもう使われています。", field="code"))
    record(session, Tag.COMPANY_ADDED, actor=actor, now=now, company_id=company.id, code=code)
    return company


def add_region(
    session: Session,
    company: Company,
    *,
    code: str,
    name: str,
    actor: Actor,
    now: datetime,
    parent: Region | None = None,
) -> Region:
    """Add a region below `parent` or at the top. Raises Invalid, Conflict."""
    code, name = clean_code(code, "code"), clean_name(name, "name")
    if session.scalar(select(Region.id).where(Region.company_id == company.id, Region.code == code)):
        raise Conflict("このエリアコードはもう使われています。", field="code")
    region = Region(
        id=ids.new_id(now), created_at=now, company_id=company.id, parent_id=parent.id if parent else None, code=code, name=name,
        path=f"{parent.path if parent else '/'}{code}/",
    )  # fmt: skip
    session.add(region)
    _flush(session, Conflict("このエリアコードはもう使われています。", field="code"))
    record(session, Tag.REGION_ADDED, actor=actor, now=now, company_id=company.id, region_id=region.id)
    return region


def add_store(
    session: Session, company: Company, *, code: str, name: str, actor: Actor, now: datetime,
    region: Region | None = None, time_zone: str = "Asia/Tokyo",
) -> Store:  # fmt: skip
    """Add a store. Raises Invalid, Conflict."""
    code, name = clean_code(code, "code"), clean_name(name, "name")
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise Invalid("時間帯の名前が違います。例:Asia/Tokyo", field="time_zone") from None
    if session.scalar(select(Store.id).where(Store.company_id == company.id, Store.code == code)):
        raise Conflict("この店舗コードはもう使われています。", field="code")
    store = Store(
        id=ids.new_id(now), created_at=now, company_id=company.id, region_id=region.id if region else None,
        path=region.path if region else "/", code=code, name=name, time_zone=time_zone,
    )  # fmt: skip
    session.add(store)
    _flush(session, Conflict("この店舗コードはもう使われています。", field="code"))
    record(session, Tag.STORE_ADDED, actor=actor, now=now, company_id=company.id, store_id=store.id)
    return store


@dataclass(frozen=True)
class Place:
    """Where an assignment is: a store, a region, or the whole company (both None)."""

    company: Company
    store: Store | None = None
    region: Region | None = None


def _place_fits(role: Role, place: Place) -> bool:
    match ROLES[role].reach:
        case Reach.STORE:
            return place.store is not None
        case Reach.REGION:
            return place.region is not None and place.store is None
        case Reach.COMPANY:
            return place.store is None and place.region is None
        case Reach.PLATFORM:
            return place.store is None and place.region is None and place.company.is_platform


def may_give(viewer: Viewer, role: Role, place: Place) -> bool:
    """True when the viewer may give this role at this place: nobody hands out more than they hold (WB-07)."""
    for standing in viewer.standings_with(Power.HIRE):
        if role not in ROLES[standing.role].may_give:
            continue
        match ROLES[standing.role].reach:
            case Reach.PLATFORM:
                return True
            case Reach.COMPANY if place.company.id == standing.company_id:
                return True
            case Reach.REGION if place.store and place.company.id == standing.company_id:
                if place.store.path.startswith(standing.region_path or "\0"):
                    return True
            case Reach.STORE if place.store and place.store.id == standing.store_id:
                return True
    return False


def free_number(session: Session, company_id: uuid.UUID) -> str:
    """A staff number that nobody at the company has or had, for somebody whom the roster gives none (AT-M1). Six random digits, more
    where those run out: the next in line would tell an outsider which numbers there are, and every hire would wait for the last.
    The first is never 0, which a spreadsheet would drop. Two hires that meet here are told apart by the unique number."""
    for digits in (6, 6, 6, 8, 8, 12, 12):
        number = str(10 ** (digits - 1) + ids.below(9 * 10 ** (digits - 1)))
        if (
            session.scalar(
                select(Account.id).where(Account.company_id == company_id, Account.login_name == number).limit(1)
            )
            is None
        ):
            return number
    raise Conflict(
        "スタッフ番号を決められませんでした。番号を入れてください。", f"company {company_id}", field="login_name"
    )


def add_account(
    session: Session, place: Place, *, login_name: str, name: str, kana: str, role: Role, actor: Actor, now: datetime,
    viewer: Viewer | None = None, locale: str = "ja", ends_at: datetime | None = None,
) -> Account:  # fmt: skip
    """Add a person with one assignment. viewer: who asks; None only for the command line. ends_at ends both: somebody whose
    only place ends may not log in either, also with the worker stopped (RV-35).

    The new account can do nothing until its owner has chosen a password with an activation code.
    Raises Invalid, Conflict (login name taken by a live account), Denied (role not the viewer's to give).
    """
    login_name, name = clean_login_name(login_name), clean_name(name, "name")
    kana = clean_name(kana, "kana") if kana.strip() else ""
    if not _place_fits(role, place):
        raise Invalid("この役割には、この場所は使えません。", field="role")
    if viewer is not None and not may_give(viewer, role, place):
        raise Denied("この役割を渡す権限がありません。", field="role")
    if ends_at is not None and ends_at <= now:
        raise Invalid("最終日は今より後にしてください。", field="ends_on")
    taken = select(Account.id).where(
        Account.company_id == place.company.id, Account.login_name == login_name, Account.ended_at.is_(None)
    )
    if session.scalar(taken):
        raise Conflict("このスタッフ番号はもう使われています。", field="login_name")
    account = Account(
        id=ids.new_id(now), created_at=now, company_id=place.company.id, login_name=login_name, subject=ids.new_secret(), name=name,
        kana=kana, kana_search=search_key(kana or name), locale=locale, epoch=1, ends_at=ends_at,
    )  # fmt: skip
    session.add(account)
    _flush(session, Conflict("このスタッフ番号はもう使われています。", field="login_name"))
    record(
        session, Tag.ACCOUNT_ADDED, actor=actor, now=now, company_id=place.company.id, subject_id=account.id,
        store_id=place.store.id if place.store else None,
    )  # fmt: skip
    _assign(session, account.id, place, role=role, actor=actor, now=now, ends_at=ends_at)
    return account


def add_assignment(
    session: Session, account_id: uuid.UUID, place: Place, *, role: Role, actor: Actor, now: datetime,
    viewer: Viewer | None = None, ends_at: datetime | None = None,
) -> Assignment:  # fmt: skip
    """Give an existing, live account one more assignment. The account is claimed first, so an ended one gets none (RE-20)."""
    if not _place_fits(role, place):
        raise Invalid("この役割には、この場所は使えません。", field="role")
    if viewer is not None and not may_give(viewer, role, place):
        raise Denied("この役割を渡す権限がありません。", field="role")
    if not claim_account(session, account_id, now=now):
        raise Conflict("この人の利用は止まっています。", field="account")
    return _assign(session, account_id, place, role=role, actor=actor, now=now, ends_at=ends_at)


def _assign(
    session: Session,
    account_id: uuid.UUID,
    place: Place,
    *,
    role: Role,
    actor: Actor,
    now: datetime,
    ends_at: datetime | None,
) -> Assignment:
    assignment = Assignment(
        id=ids.new_id(now), created_at=now, company_id=place.company.id, account_id=account_id,
        store_id=place.store.id if place.store else None, region_id=place.region.id if place.region else None,
        role=role.value, starts_at=now, ends_at=ends_at, epoch=1,
    )  # fmt: skip
    session.add(assignment)
    session.flush()
    record(
        session, Tag.ASSIGNMENT_ADDED, actor=actor, now=now, company_id=place.company.id, subject_id=account_id,
        store_id=assignment.store_id, assignment_id=assignment.id, role=role.value,
    )  # fmt: skip
    return assignment


def company_of(session: Session, account_id: uuid.UUID) -> uuid.UUID | None:
    """The company of an account, for an audit row that its company's auditor must find."""
    return session.scalar(select(Account.company_id).where(Account.id == account_id))


def claim_account(session: Session, account_id: uuid.UUID, *, now: datetime, epoch: int | None = None) -> bool:
    """Claim the gate row of whatever has no login session yet (RE-20).

    epoch: the epoch that was read before slow work such as a password hash; a credential changed meanwhile raised it,
    and then the old one opens nothing.
    """
    statement = update(Account).where(Account.id == account_id, *account_alive(now)).values(epoch=Account.epoch)
    if epoch is not None:
        statement = statement.where(Account.epoch == epoch)
    return claim(session, statement)


def raise_epoch(session: Session, account_id: uuid.UUID, *, now: datetime, epoch: int | None = None) -> bool:
    """Claim the account and raise its epoch: every credential change does, so that older reads open nothing."""
    statement = update(Account).where(Account.id == account_id, *account_alive(now)).values(epoch=Account.epoch + 1)
    if epoch is not None:
        statement = statement.where(Account.epoch == epoch)
    return claim(session, statement)


def share_company(session: Session, company_id: uuid.UUID) -> bool:
    """Take a company's shared row; True while it is open. Before the account, always (lock order 2 before 6)."""
    row = session.execute(
        select(Company.ended_at).where(Company.id == company_id).with_for_update(read=True)
    ).one_or_none()
    return row is not None and row.ended_at is None


def find_login(session: Session, company_code: str, login_name: str) -> Account | None:
    """The live account behind `COMPANY/NUMBER`, or None. End dates are judged by the claim, not here."""
    return session.scalar(
        select(Account)
        .join(Company, Company.id == Account.company_id)
        .where(Company.code == company_code, Account.login_name == login_name, Account.ended_at.is_(None))
    )


def get_by_login_name(session: Session, company_id: uuid.UUID, login_name: str, *, ended: bool = False) -> Account:
    """The live account with this login name in a company; with `ended` the newest one, live or not. Raises NotFound."""
    query = select(Account).where(Account.company_id == company_id, Account.login_name == login_name)
    if not ended:
        query = query.where(Account.ended_at.is_(None))
    return _found(session, query.order_by(Account.ended_at.is_not(None), Account.id.desc()), f"login name {login_name}")


#: which passwords inside tools are changed when somebody leaves (vault-and-gateway.md §9)
CHANGE_ON_LEAVING = ("known", "used")


def set_change_on_leaving(session: Session, company: Company, policy: str, *, actor: Actor, now: datetime) -> None:
    """Choose, on record, which passwords inside tools a leaver costs: those `known` to people, or all `used` lately."""
    if policy not in CHANGE_ON_LEAVING:
        raise Invalid("known か used を選んでください。", field="policy")
    company.change_on_leaving = policy
    session.flush()
    record(session, Tag.COMPANY_POLICY, actor=actor, now=now, company_id=company.id, change_on_leaving=policy)


def get_company(session: Session, code: str, viewer: Viewer | None = None, power: Power = Power.SEE_PEOPLE) -> Company:
    """A company by code, inside the viewer's scope. Raises NotFound."""
    query = select(Company).where(Company.code == code.upper())
    if viewer is not None:
        query = query.where(or_(scope.companies(viewer, power), Company.id == viewer.company_id))
    return _found(session, query, f"company {code}")


def get_store(session: Session, company_id: uuid.UUID, code: str, viewer: Viewer | None, power: Power) -> Store:
    """A store by code, inside the viewer's scope. Raises NotFound for another's store as for none (WB-07)."""
    query = select(Store).where(Store.company_id == company_id, Store.code == code.upper())
    if viewer is not None:
        query = query.where(scope.stores(viewer, power))
    return _found(session, query, f"store {code}")


def get_region(session: Session, company_id: uuid.UUID, code: str) -> Region:
    """A region by code. Raises NotFound."""
    return _found(
        session, select(Region).where(Region.company_id == company_id, Region.code == code.upper()), f"region {code}"
    )


def get_account(session: Session, account_id: uuid.UUID, viewer: Viewer | None, power: Power) -> Account:
    """A person, inside the viewer's scope. Raises NotFound."""
    query = select(Account).where(Account.id == account_id)
    if viewer is not None:
        query = query.where(scope.accounts(viewer, power))
    return _found(session, query, f"account {account_id}")


def _found(session: Session, query: Select[T], what: str) -> T:
    row = session.scalar(query)
    if row is None:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", what)
    return row


def staff_of(session: Session, store: Store, *, ended: bool, now: datetime) -> Sequence[tuple[Account, Assignment]]:
    """People with an assignment in one store, live or ended, by kana. At most 500: a store has no more."""
    live = (*scope.assignment_alive(now), *account_alive(now))
    query = (
        select(Account, Assignment)
        .join(Assignment, Assignment.account_id == Account.id)
        .where(Assignment.store_id == store.id)
        .order_by(Account.kana_search, Account.id)
        .limit(500)
    )
    query = query.where(*live) if not ended else query.where(or_(*(~c for c in live)))
    return [(row[0], row[1]) for row in session.execute(query)]


def search_people(
    session: Session,
    viewer: Viewer,
    *,
    text: str,
    company_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int = 50,
    power: Power = Power.SEE_PEOPLE,
) -> Sequence[Account]:
    """People by the beginning of number, name or kana, inside the viewer's scope; search first, never all (ux.md 1.2)."""
    text = unicodedata.normalize("NFKC", text).strip()
    if not text:
        return []
    company, _, number = text.rpartition("/")
    match = or_(
        Account.login_name.startswith(number or text, autoescape=True),
        Account.name.startswith(text, autoescape=True),
        Account.kana_search.startswith(search_key(text), autoescape=True),
    )
    query = select(Account).where(scope.accounts(viewer, power), match).order_by(Account.id).limit(limit)
    if company:
        query = query.join(Company, Company.id == Account.company_id).where(Company.code == company.upper())
    if company_id is not None:
        query = query.where(Account.company_id == company_id)
    if after is not None:
        query = query.where(Account.id > after)
    return session.scalars(query).all()


def assignments_of(session: Session, account_id: uuid.UUID) -> Sequence[tuple[Assignment, Store | None, Region | None]]:
    """Every assignment a person has or had, newest first, with its place."""
    rows = session.execute(
        select(Assignment, Store, Region)
        .outerjoin(Store, Store.id == Assignment.store_id)
        .outerjoin(Region, Region.id == Assignment.region_id)
        .where(Assignment.account_id == account_id)
        .order_by(Assignment.id.desc())
    )
    return [(row[0], row[1], row[2]) for row in rows]


def other_managers(session: Session, store_id: uuid.UUID, account_id: uuid.UUID, *, now: datetime) -> int:
    """How many live store managers a store has besides this person (the last-manager page of RV-28)."""
    return session.scalar(
        select(func.count())
        .select_from(Assignment)
        .join(Account, Account.id == Assignment.account_id)
        .where(
            Assignment.store_id == store_id, Assignment.role == Role.STORE_MANAGER.value, Assignment.account_id != account_id,
            *scope.assignment_alive(now), *account_alive(now),
        )
    ) or 0  # fmt: skip
