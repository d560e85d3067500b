"""`saml`: our metadata, and the parts of a service provider that change after it was registered (`saml_add` registers one)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from connectors import catalogue
from idp.cli.common import actor, json_option, product, show
from idp.cli.saml_add import describe, fetch
from idp.core import clock
from idp.core.db import reading, retrying, transaction
from idp.core.errors import Invalid, NotFound
from idp.core.saml_keys import rotate_saml_key, withdraw_saml_key
from idp.domain.applications import registry, sp_metadata
from idp.domain.applications import saml as providers
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.sp_metadata import SpFacts
from idp.domain.directory import people
from idp.edges.saml import documents, metadata
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.revocation.cascade import Order
from idp.lifecycle.revocation.remap import remap
from idp.lifecycle.revocation.words import Door, Reason
from idp.services import Services


@click.group()
def saml() -> None:
    """SAML 2.0."""


@saml.command("metadata")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file.")
def metadata_command(output: Path | None) -> None:
    """Print our metadata, signed: what a service provider is given. Its address is /saml/metadata."""
    with product() as app:
        octets = documents.document(app.extensions["sekisho"], now=clock.now())
    if output is None:
        click.echo(octets.decode())
    else:
        output.write_bytes(octets)


@saml.command("show")
@click.argument("slug")
@json_option
def show_command(slug: str, *, as_json: bool) -> None:
    """Show one service provider and what waits for a decision."""
    with product() as flask, reading() as session:
        _, provider = _provider(session, slug)
        held = provider.held
        waiting = [one.what for one in sp_metadata.differences(provider, SpFacts.from_json(held))] if held else []
        show(
            {
                **describe(provider, flask.extensions["sekisho"].settings.issuer), "attributes": provider.attributes,
                "warnings": providers.warnings(provider), "held": waiting, "held_digest": held["digest"] if held else None,
                "metadata_error": provider.metadata_error,
            },
            as_json=as_json,
        )  # fmt: skip


def _provider(session: Any, slug: str) -> tuple[Application, ServiceProvider]:
    application = registry.find_application(session, slug, None)
    return application, providers.get_provider(session, application.id)


@saml.command("catalogue")
@json_option
def catalogue_command(*, as_json: bool) -> None:
    """List templates of service providers that publish no metadata, with their sources."""
    show(
        [
            {"key": t.key, "name": t.name, "tried": t.tried, "fill_in": list(t.values), "source": t.source, "read_on": t.read_on, "note": t.note}
            for t in catalogue.templates()
        ],
        as_json=as_json,
    )  # fmt: skip


@saml.command("template")
@click.argument("key")
@click.option("--set", "values", multiple=True, help="NAME=VALUE for each of its blanks; repeat.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Metadata for `app add-saml --metadata`.",
)
@json_option
def template_command(key: str, values: tuple[str, ...], output: Path, *, as_json: bool) -> None:
    """Write the metadata of a template, and print the options that go with it."""
    given = dict(value.split("=", 1) for value in values if "=" in value)
    found = next((t for t in catalogue.templates() if t.key == key), None)
    if found is None or set(found.values) - set(given):
        raise click.UsageError("unknown template, or a --set is missing; see `saml catalogue`")
    output.write_bytes(found.metadata(given))
    attributes = [part for text in found.attributes for part in ("--attribute", text)]
    options = [
        "--metadata",
        str(output),
        "--name-id",
        found.name_id,
        "--start-url",
        catalogue.fill(found.start_url, given),
        *attributes,
    ]
    show({"options": options, "tried": found.tried, "note": found.note}, as_json=as_json)


@saml.command("rotate-key")
@click.option(
    "--publish-days",
    type=click.IntRange(0, 365),
    default=14,
    show_default=True,
    help="In the metadata before it signs.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(0, 365),
    default=14,
    show_default=True,
    help="The old one stays in the metadata after.",
)
@click.option("--withdraw", "kid", help="Emergency: this key signs nothing from now on; a new one does at once.")
@json_option
def rotate_key(publish_days: int, keep_days: int, kid: str | None, *, as_json: bool) -> None:
    """Make the next SAML key: published now, signing when service providers have read our metadata again (SA-16)."""
    now = clock.now()
    with product() as flask:
        vault = flask.extensions["sekisho"].vault
        if kid is None:
            made = rotate_saml_key(
                vault, publish_for=timedelta(days=publish_days), keep_for=timedelta(days=keep_days), now=now
            )
        else:
            found = withdraw_saml_key(vault, kid, now=now)
            if found is None:
                raise NotFound("この鍵は見つかりません。", f"kid {kid[:64]}")
            made = found
        with transaction() as session:
            tag = Tag.SIGNING_KEY_WITHDRAWN if kid else Tag.SIGNING_KEY_MADE
            record(session, tag, actor=actor(), now=now, kid=made.kid, withdrawn=kid)
        show({"kid": made.kid, "signs_from": made.not_before, "certificate": made.certificate}, as_json=as_json)


@saml.command("refresh")
@click.argument("slug", required=False)
@click.option("--metadata", "source", help="A file, - or a URL; without it the address it was registered with.")
@json_option
def refresh_command(slug: str | None, source: str | None, *, as_json: bool) -> None:
    """Read a service provider's metadata again, or without SLUG that of everyone that has an address.

    A changed address or key is held until `saml approve`. The worker does the same by itself.
    """
    if slug is None and source is not None:
        raise click.UsageError("--metadata belongs to one service provider: name it")
    with product() as flask:
        services: Services = flask.extensions["sekisho"]
        with reading() as session:
            if slug is not None:
                wanted = [(slug, source or _provider(session, slug)[1].metadata_url)]
            else:
                wanted = [(name, url) for name, url in sp_metadata.addresses(session)]
        found = [_refreshed(services, name, where, keep=slug is None) for name, where in wanted]
        show(found[0] if slug is not None else found, as_json=as_json)
    if any(row["error"] for row in found):
        raise SystemExit(1)


def _refreshed(services: Services, slug: str, where: str | None, *, keep: bool) -> dict[str, Any]:
    """Read one document. keep: a failure is written down for the page, and does not keep the others from being read."""
    now = clock.now()
    try:
        facts = metadata.read(fetch(services, where or "")[0], now=now)
        with transaction() as session:
            provider = sp_metadata.take(session, _provider(session, slug)[1].id)
            held = sp_metadata.receive(
                session, provider, facts, loopback=services.settings.issuer_is_loopback, actor=actor(), now=now
            )
    except Invalid as error:
        if not keep:
            raise
        with transaction() as session:
            provider = sp_metadata.take(session, _provider(session, slug)[1].id)
            sp_metadata.failed(session, provider, error.private, actor=actor(), now=now)
        return {"slug": slug, "held": [], "digest": None, "error": error.private}
    return {"slug": slug, "held": [one.what for one in held], "digest": facts.digest, "error": None}


@saml.command("approve")
@click.argument("slug")
@click.option("--digest", required=True, help="SHA-256 of the document you looked at, from `saml show`.")
@json_option
def approve(slug: str, digest: str, *, as_json: bool) -> None:
    """Accept the metadata that is held."""
    with product(), transaction() as session:
        _, provider = _provider(session, slug)
        sp_metadata.approve(session, provider, digest=digest, actor=actor(), now=clock.now())
    show({"approved": digest}, as_json=as_json)


@saml.command("set")
@click.argument("slug")
@click.option("--live/--test", default=None, help="Open it for everybody who may use it, or only for its test.")
@click.option("--encrypt/--no-encrypt", default=None)
@click.option("--sign", type=click.Choice(providers.SIGNS))
@click.option("--idp-initiated/--no-idp-initiated", default=None)
@click.option("--pin-key", help="Sign for it with this key of ours whatever is newer; `none` ends that (SA-16).")
@json_option
def set_command(slug: str, *, as_json: bool, **given: Any) -> None:
    """Change a decision about a service provider."""
    with product(), transaction() as session:
        _, provider = _provider(session, slug)
        changed = providers.change_decisions(session, provider, given, actor=actor(), now=clock.now())
    show({"changed": changed}, as_json=as_json)


@saml.command("map")
@click.argument("slug")
@click.option("--company", "company_code", required=True)
@click.option("--person", required=True, help="A staff number.")
@click.option("--name-id", required=True, help="The account at the application that this person uses, shared or not.")
@json_option
def map_command(slug: str, *, company_code: str, person: str, name_id: str, as_json: bool) -> None:
    """Say under which account of the application a person works (--name-id mapped).

    Where they worked under another one, that ends: their session there is told or goes to a person, with a receipt.
    """
    with product() as flask:
        order = Order(Reason.OTHER, Door.CLI, give_up_after=flask.extensions["sekisho"].settings.give_up_after)

        def change() -> str | None:
            with transaction(reserved=True) as session:
                application, provider = _provider(session, slug)
                if provider.name_id != "mapped":
                    raise Invalid("このアプリは利用者IDを割り当てる設定ではありません。", field="name_id")
                company = people.get_company(session, company_code)
                account = people.get_by_login_name(session, company.id, person)
                made = remap(session, application, account, name_id, order, actor=actor(), now=clock.now())
                return made.number if made else None

        show({"person": person, "name_id": name_id, "receipt": retrying(change)}, as_json=as_json)
