"""`staff`: add, list, show, reset. A password is never an argument: its owner chooses it with the code."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import click
from sqlalchemy.orm import Session

from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.domain.authn import activation, second_factor
from idp.domain.directory import people
from idp.domain.directory.models import Account
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.lifecycle.oversight import erase as forgetting


@click.group()
def staff() -> None:
    """People of a company."""


def split(login: str) -> tuple[str, str]:
    """`COMPANY/NUMBER` as the command line takes it."""
    company, slash, number = login.partition("/")
    if not slash or not company or not number:
        raise click.BadParameter("write COMPANY/NUMBER, for example AOBA/0413")
    return company, number


def find(session: Session, login: str, *, ended: bool = False) -> Account:
    """The live account behind COMPANY/NUMBER; with `ended` the last one that had it, if none lives. Raises NotFound."""
    company, number = split(login)
    return people.get_by_login_name(session, people.get_company(session, company).id, number, ended=ended)


def _code(code: str | None, account: Account) -> str:
    """The code in groups of five, as it is read aloud; what a claim made the session forget is read again."""
    if code is None:
        raise Conflict("この人の利用は止まっています。", f"account {account.id}")
    return "-".join(code[i : i + 5] for i in range(0, len(code), 5))


@staff.command("add")
@click.argument("company_code", metavar="COMPANY")
@click.argument("number")
@click.argument("name")
@click.option("--kana", default="", help="The name in katakana: people are sorted and found by it.")
@click.option("--store", "store_code", help="Store code, for staff and store managers.")
@click.option("--region", "region_code", help="Region code, for area managers.")
@click.option("--role", type=click.Choice([r.value for r in Role]), default=Role.STAFF.value, show_default=True)
@json_option
def add(
    company_code: str,
    number: str,
    name: str,
    kana: str,
    store_code: str | None,
    region_code: str | None,
    role: str,
    *,
    as_json: bool,
) -> None:
    """Add a person and print the one-time activation code."""
    now = clock.now()
    with product() as app:
        settings = app.extensions["sekisho"].settings
        with transaction() as session:
            company = people.get_company(session, company_code)
            store = people.get_store(session, company.id, store_code, None, Power.HIRE) if store_code else None
            region = people.get_region(session, company.id, region_code) if region_code else None
            account = people.add_account(
                session,
                Place(company, store, region),
                login_name=number,
                name=name,
                kana=kana,
                role=Role(role),
                actor=actor(),
                now=now,
            )
            life = timedelta(seconds=settings.activation_s)
            code = _code(
                activation.issue(session, account.id, purpose="activate", life=life, actor=actor(), now=now), account
            )
            login = f"{company.code}/{account.login_name}"
        show(
            {"login": login, "activation_code": code, "page": f"{settings.issuer}/e", "valid_until": now + life},
            as_json=as_json,
        )


@staff.command("list")
@click.argument("company_code", metavar="COMPANY")
@click.argument("store_code", metavar="STORE")
@click.option("--ended", is_flag=True, help="People who were stopped.")
@json_option
def list_staff(company_code: str, store_code: str, *, ended: bool, as_json: bool) -> None:
    """List the staff of a store."""
    with product(), reading() as session:
        company = people.get_company(session, company_code)
        store = people.get_store(session, company.id, store_code, None, Power.SEE_PEOPLE)
        rows = people.staff_of(session, store, ended=ended, now=clock.now())
        show(
            [
                {"number": a.login_name, "name": a.name, "role": s.role, "ends_at": s.ends_at or a.ends_at}
                for a, s in rows
            ],
            as_json=as_json,
        )


@staff.command("show")
@click.argument("login", metavar="COMPANY/NUMBER")
@json_option
def show_person(login: str, *, as_json: bool) -> None:
    """Show one person and every assignment."""
    with product(), reading() as session:
        account = find(session, login)
        places: list[dict[str, Any]] = [
            {
                "store": s.code if s else None,
                "region": r.code if r else None,
                "role": a.role,
                "since": a.starts_at,
                "ended_at": a.ended_at,
            }
            for a, s, r in people.assignments_of(session, account.id)
        ]
        show(
            {
                "login": login,
                "name": account.name,
                "kana": account.kana,
                "epoch": account.epoch,
                "ends_at": account.ends_at,
                "assignments": places,
            },
            as_json=as_json,
        )


@staff.command("reset")
@click.argument("login", metavar="COMPANY/NUMBER")
@click.option("--second-factor", is_flag=True, help="Also take the authenticator app away; the person enrols again.")
@json_option
def reset(login: str, *, second_factor: bool, as_json: bool) -> None:
    """Print a one-time code with which the person chooses a new password. Make sure who is asking."""
    _reset(login, factor=second_factor, as_json=as_json)


def _reset(login: str, *, factor: bool, as_json: bool) -> None:
    now = clock.now()
    with product() as app:
        settings = app.extensions["sekisho"].settings
        life = timedelta(seconds=settings.reset_s)
        with transaction() as session:
            account = find(session, login)
            if factor:
                second_factor.remove(session, account.id, actor=actor(), now=now)
            code = _code(
                activation.issue(session, account.id, purpose="reset", life=life, actor=actor(), now=now), account
            )
        show(
            {"login": login, "reset_code": code, "page": f"{settings.issuer}/e", "valid_until": now + life},
            as_json=as_json,
        )


@staff.command("erase")
@click.argument("login", metavar="COMPANY/NUMBER")
@click.option(
    "--account",
    "account_id",
    type=click.UUID,
    help="Which one, where the number has been given to somebody else since.",
)
@click.option("--yes", is_flag=True, help="Do not ask. Nobody can take it back.")
@json_option
def erase(login: str, account_id: uuid.UUID | None, *, yes: bool, as_json: bool) -> None:
    """Forget a person who was stopped: name, numbers, keys, addresses. Receipts and proofs stay and name nobody."""
    now = clock.now()
    with product():
        with reading() as session:
            account = find(session, login, ended=True)
            if account_id is not None:
                account = people.get_account(session, account_id, None, Power.SEE_LOG)
        if not yes:
            click.confirm(f"{login} {account.name} ({account.id}): erase for good?", abort=True)
        with transaction() as session:
            done = forgetting.erase(session, account.id, actor=actor(), now=now)
        emptied = forgetting.blocks(account.id)
        show(
            {
                "account": done.account_id, "log_blocks_emptied": emptied, "left_for_the_worker": forgetting.left(account.id),
                "login_sessions": done.login_sessions, "notes": done.notes,
            },
            as_json=as_json,
        )  # fmt: skip
