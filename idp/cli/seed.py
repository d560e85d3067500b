"""The people of the demonstration: two companies with stores, staff and head office, and the reference console."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyotp
from sqlalchemy import select

from idp.cli.common import actor
from idp.core import ids
from idp.core.db import reading, transaction
from idp.domain.applications import registry, saml
from idp.domain.applications.registration import Registration
from idp.domain.applications.saml import SpRegistration
from idp.domain.authn import activation, second_factor
from idp.domain.directory import people
from idp.domain.directory.models import Account, Company
from idp.domain.directory.people import Place
from idp.domain.directory.roles import ROLES, Power, Role
from idp.edges.saml import metadata
from idp.edges.web import seeds
from idp.services import Services

FUNCTIONS = ("points.view", "points.adjust", "coupon.publish")
REGIONS = {"AOBA": ("TOKYO", "東京エリア"), "HOSHI": ("KANSAI", "関西エリア")}
COMPANIES = {"AOBA": "あおばストア", "HOSHI": "ほしぞら書店"}
STORES = {
    "AOBA": (("00123", "渋谷駅前店"), ("00124", "新宿南口店"), ("00125", "池袋東口店")),
    "HOSHI": (("0001", "梅田店"), ("0002", "三宮店")),
}

COUPON_FUNCTION = "coupons.publish"


@dataclass(frozen=True)
class Person:
    """One person of the demo. store: code, or None for head office and regions."""

    company: str
    login_name: str
    title: str
    name: str
    kana: str
    role: Role
    store: str | None = None


PEOPLE = (
    Person("SEKISHO", "admin", "運用者 operator", "大川 運", "オオカワ ウン", Role.OPERATOR),
    Person("AOBA", "hq1", "本部 HQ admin", "佐伯 本子", "サエキ モトコ", Role.HQ_ADMIN),
    Person("AOBA", "hq2", "本部 HQ admin 2", "三浦 承", "ミウラ ショウ", Role.HQ_ADMIN),
    Person("AOBA", "audit", "監査人 auditor", "倉田 律", "クラタ リツ", Role.AUDITOR),
    Person("AOBA", "area1", "エリア area manager", "江口 巡", "エグチ メグル", Role.AREA_MANAGER),
    Person("AOBA", "0101", "店長 store manager", "鈴木 一郎", "スズキ イチロウ", Role.STORE_MANAGER, "00123"),
    Person("AOBA", "0413", "スタッフ staff", "山本 健", "ヤマモト ケン", Role.STAFF, "00123"),
    Person("AOBA", "0414", "スタッフ staff", "髙橋 美咲", "タカハシ ミサキ", Role.STAFF, "00123"),
    Person("AOBA", "0415", "スタッフ staff", "Nguyễn Văn An", "グエン ヴァン アン", Role.STAFF, "00123"),
    Person("AOBA", "0201", "店長 store manager", "𠮷田 葵", "ヨシダ アオイ", Role.STORE_MANAGER, "00124"),
    Person("AOBA", "0421", "スタッフ staff", "श्रेष्ठ राम", "シュレスタ ラム", Role.STAFF, "00124"),
    Person("HOSHI", "hq1", "本部 HQ admin", "星野 昴", "ホシノ スバル", Role.HQ_ADMIN),
    Person("HOSHI", "0413", "スタッフ staff", "田中 光", "タナカ ヒカル", Role.STAFF, "0001"),
)


def seed(services: Services, *, console: str, coupons: str, coupons_metadata: bytes, now: datetime) -> dict[str, Any]:
    """Fill an empty installation. console, coupons: their addresses. Returns issuer, people with passwords, the console's
    client, and the coupon console."""
    _places(now)
    logins = [_person(services, person, now=now) for person in PEOPLE]
    client = _console(services, console, now=now)
    _coupons(services, coupons, coupons_metadata, now=now)
    found = {"url": coupons, "slug": "coupons"}
    return {"issuer": services.settings.issuer, "people": logins, "console": client, "coupons": found}


def _places(now: datetime) -> None:
    with transaction() as session:
        people.add_company(
            session, code="SEKISHO", name="プラットフォーム運用", actor=actor(), now=now, is_platform=True
        )
        for code, name in COMPANIES.items():
            company = people.add_company(session, code=code, name=name, actor=actor(), now=now)
            region_code, region_name = REGIONS[code]
            region = people.add_region(session, company, code=region_code, name=region_name, actor=actor(), now=now)
            for store_code, store_name in STORES[code]:
                people.add_store(
                    session, company, code=store_code, name=store_name, actor=actor(), now=now, region=region
                )


def _person(services: Services, person: Person, *, now: datetime) -> dict[str, Any]:
    """Add a person the way a manager does, then choose the password the way its owner does."""
    with transaction() as session:
        company = people.get_company(session, person.company)
        account = people.add_account(
            session, _place(session, company, person), login_name=person.login_name, name=person.name, kana=person.kana, role=person.role,
            actor=actor(), now=now,
        )  # fmt: skip
        account_id = account.id
        code = (
            activation.issue(session, account_id, purpose="activate", life=timedelta(hours=1), actor=actor(), now=now)
            or ""
        )
    password = "-".join(ids.new_typed_code()[:4].lower() for _ in range(4))
    verifier = services.hasher.make(password)
    with transaction() as session:
        waiting = activation.find(session, code, now=now)
        if waiting is None or not activation.use(session, waiting, verifier=verifier, actor=actor(), now=now):
            raise RuntimeError(f"the activation of {person.login_name} failed")
    login: dict[str, Any] = {
        "title": person.title, "role": person.role.value, "login": f"{person.company}/{person.login_name}", "password": password,
        "name": person.name, "store": person.store,
    }  # fmt: skip
    if ROLES[person.role].second_factor:
        login["totp_secret"] = _second_factor(services, account_id, now=now)
    return login


def _place(session: Any, company: Company, person: Person) -> Place:
    if person.store is not None:
        return Place(company, people.get_store(session, company.id, person.store, None, Power.HIRE))
    if person.role is Role.AREA_MANAGER:
        return Place(company, region=people.get_region(session, company.id, REGIONS[person.company][0]))
    return Place(company)


def _second_factor(services: Services, account_id: Any, *, now: datetime) -> str:
    """Enrol an authenticator app whose secret the demo prints."""
    seed_text = pyotp.random_base32(32)
    with reading() as session:
        account = session.execute(select(Account.company_id, Account.epoch).where(Account.id == account_id)).one()
    sealed = seeds.seal_seed(services.vault, seed_text, ids.new_id(now), account_id, account.company_id)
    with transaction() as session:
        second_factor.add_totp(
            session, account_id, authenticator_id=sealed.authenticator_id, sealed=sealed.sealed, step=0, epoch=account.epoch, actor=actor(),
            now=now,
        )  # fmt: skip
    return seed_text


def _coupons(services: Services, url: str, document: bytes, *, now: datetime) -> None:
    """Register the coupon console, a SAML service provider: managers may publish, staff may look."""
    facts = metadata.read(document, now=now)
    wish = SpRegistration(
        name="販促・クーポン コンソール",
        functions=(COUPON_FUNCTION,),
        start_url=f"{url}/login",
        honours_session_index=True,
    )
    with transaction() as session:
        application, _ = saml.add_service_provider(
            session,
            wish,
            facts,
            slug="coupons",
            company_id=None,
            loopback=services.settings.issuer_is_loopback,
            actor=actor(),
            now=now,
        )
        for role, functions in ((Role.STORE_MANAGER, [COUPON_FUNCTION]), (Role.STAFF, []), (Role.HQ_ADMIN, [])):
            registry.grant(
                session, application, subject_kind="role", subject_id=None, role=role.value, functions=functions, company_id=None,
                actor=actor(), now=now,
            )  # fmt: skip


def _console(services: Services, url: str, *, now: datetime) -> dict[str, Any]:
    """Register the reference console for every company: managers may do everything, staff may not publish coupons."""
    wish = Registration(
        name="ポイント管理コンソール", redirect_uris=(f"{url}/callback",), functions=FUNCTIONS,
        post_logout_redirect_uris=(f"{url}/logged-out",), backchannel_logout_uri=f"{url}/backchannel-logout",
        initiate_login_uri=f"{url}/login", session_life_s=8 * 3600,
    )  # fmt: skip
    with transaction() as session:
        made = registry.add_relying_party(
            session,
            wish,
            slug="points",
            company_id=None,
            loopback=services.settings.issuer_is_loopback,
            actor=actor(),
            now=now,
        )
        for role, functions in (
            (Role.STORE_MANAGER, FUNCTIONS),
            (Role.STAFF, FUNCTIONS[:2]),
            (Role.HQ_ADMIN, FUNCTIONS[:1]),
        ):
            registry.grant(
                session, made.application, subject_kind="role", subject_id=None, role=role.value, functions=functions, company_id=None,
                actor=actor(), now=now,
            )  # fmt: skip
        client_id = made.relying_party.client_id
    return {"url": url, "slug": "points", "client_id": client_id, "client_secret": made.secret}
