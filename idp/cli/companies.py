"""`company`, `region`, `store`: add, list, show."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy import func, select

from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.domain.directory import people
from idp.domain.directory.models import Account, Company, Region, Store
from idp.domain.directory.roles import Power


def _company(row: Company) -> dict[str, Any]:
    return {"code": row.code, "name": row.name, "ended_at": row.ended_at}


@click.group()
def company() -> None:
    """Partner companies."""


@company.command("add")
@click.argument("code")
@click.argument("name")
@json_option
def add_company(code: str, name: str, *, as_json: bool) -> None:
    """Add a company."""
    with product(), transaction() as session:
        row = people.add_company(session, code=code, name=name, actor=actor(), now=clock.now())
    show(_company(row), as_json=as_json)


@company.command("list")
@json_option
def list_companies(*, as_json: bool) -> None:
    """List companies."""
    with product(), reading() as session:
        show([_company(row) for row in session.scalars(select(Company).order_by(Company.code))], as_json=as_json)


@company.command("show")
@click.argument("code")
@json_option
def show_company(code: str, *, as_json: bool) -> None:
    """Show one company with its counts."""
    with product(), reading() as session:
        row = people.get_company(session, code)
        stores = session.scalar(select(func.count()).select_from(Store).where(Store.company_id == row.id))
        staff = session.scalar(
            select(func.count()).select_from(Account).where(Account.company_id == row.id, Account.ended_at.is_(None))
        )
        show({**_company(row), "stores": stores, "people": staff}, as_json=as_json)


@company.command("change-on-leaving")
@click.argument("code")
@click.argument("policy", type=click.Choice(people.CHANGE_ON_LEAVING))
@json_option
def change_on_leaving(code: str, policy: str, *, as_json: bool) -> None:
    """Choose which passwords inside tools are changed when somebody leaves.

    known: those that a person may know; used: every one that the person could have used in the last 90 days.
    """
    with product(), transaction() as session:
        row = people.get_company(session, code)
        people.set_change_on_leaving(session, row, policy, actor=actor(), now=clock.now())
        show({**_company(row), "change_on_leaving": row.change_on_leaving}, as_json=as_json)


@click.group()
def region() -> None:
    """Regions of a company, any depth."""


def _region(row: Region) -> dict[str, Any]:
    return {"code": row.code, "name": row.name, "path": row.path}


@region.command("add")
@click.argument("company_code", metavar="COMPANY")
@click.argument("code")
@click.argument("name")
@click.option("--parent", help="Code of the region above.")
@json_option
def add_region(company_code: str, code: str, name: str, parent: str | None, *, as_json: bool) -> None:
    """Add a region."""
    with product(), transaction() as session:
        owner = people.get_company(session, company_code)
        above = people.get_region(session, owner.id, parent) if parent else None
        row = people.add_region(session, owner, code=code, name=name, actor=actor(), now=clock.now(), parent=above)
    show(_region(row), as_json=as_json)


@region.command("list")
@click.argument("company_code", metavar="COMPANY")
@json_option
def list_regions(company_code: str, *, as_json: bool) -> None:
    """List the regions of a company."""
    with product(), reading() as session:
        owner = people.get_company(session, company_code)
        rows = session.scalars(select(Region).where(Region.company_id == owner.id).order_by(Region.path))
        show([_region(row) for row in rows], as_json=as_json)


@region.command("show")
@click.argument("company_code", metavar="COMPANY")
@click.argument("code")
@json_option
def show_region(company_code: str, code: str, *, as_json: bool) -> None:
    """Show one region and how many stores lie below it."""
    with product(), reading() as session:
        owner = people.get_company(session, company_code)
        row = people.get_region(session, owner.id, code)
        below = session.scalar(
            select(func.count())
            .select_from(Store)
            .where(Store.company_id == owner.id, Store.path.startswith(row.path, autoescape=True))
        )
        show({**_region(row), "stores": below}, as_json=as_json)


@click.group()
def store() -> None:
    """Stores of a company."""


def _store(row: Store) -> dict[str, Any]:
    return {
        "code": row.code,
        "name": row.name,
        "region": row.path,
        "time_zone": row.time_zone,
        "ended_at": row.ended_at,
    }


@store.command("add")
@click.argument("company_code", metavar="COMPANY")
@click.argument("code")
@click.argument("name")
@click.option("--region", "region_code", help="Code of its region.")
@click.option("--time-zone", default="Asia/Tokyo", show_default=True)
@json_option
def add_store(
    company_code: str, code: str, name: str, region_code: str | None, time_zone: str, *, as_json: bool
) -> None:
    """Add a store."""
    with product(), transaction() as session:
        owner = people.get_company(session, company_code)
        place = people.get_region(session, owner.id, region_code) if region_code else None
        row = people.add_store(
            session, owner, code=code, name=name, actor=actor(), now=clock.now(), region=place, time_zone=time_zone
        )
    show(_store(row), as_json=as_json)


@store.command("list")
@click.argument("company_code", metavar="COMPANY")
@click.option("--after", default="", help="Continue after this store code.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
@json_option
def list_stores(company_code: str, after: str, limit: int, *, as_json: bool) -> None:
    """List stores by code, page by page."""
    with product(), reading() as session:
        owner = people.get_company(session, company_code)
        query = select(Store).where(Store.company_id == owner.id, Store.code > after).order_by(Store.code).limit(limit)
        show([_store(row) for row in session.scalars(query)], as_json=as_json)


@store.command("show")
@click.argument("company_code", metavar="COMPANY")
@click.argument("code")
@json_option
def show_store(company_code: str, code: str, *, as_json: bool) -> None:
    """Show one store and its staff."""
    with product(), reading() as session:
        owner = people.get_company(session, company_code)
        row = people.get_store(session, owner.id, code, None, Power.SEE_PEOPLE)
        staff = people.staff_of(session, row, ended=False, now=clock.now())
        show({**_store(row), "staff": [f"{a.login_name} {a.name} ({s.role})" for a, s in staff]}, as_json=as_json)
