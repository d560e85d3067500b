"""`saml`: our metadata, and the parts of a service provider that change after it was registered. `app add-saml` registers one."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from connectors import catalogue
from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Invalid, NotFound
from idp.core.outbound import Refused, Unreachable
from idp.core.saml_keys import rotate_saml_key, withdraw_saml_key
from idp.domain.applications import names, registry, sp_metadata
from idp.domain.applications import saml as providers
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.saml import SpRegistration
from idp.domain.applications.sp_metadata import SpFacts
from idp.domain.authn.login import AAL2
from idp.domain.directory import people
from idp.edges.saml import documents, metadata
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
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


def add_saml_options(command: Any) -> Any:
    """The options of `app add-saml`."""
    options: list[Any] = [
        click.option("--metadata", "source", required=True, help="Its metadata: a file, - for standard input, or an https URL."),
        click.option("--name-id", type=click.Choice(providers.NAME_IDS), default="persistent", show_default=True),
        click.option("--email-pattern", help="For --name-id email, such as {login_name}.{company}@staff.example.jp."),
        click.option(
            "--attribute", "attributes", multiple=True,
            help="NAME=SOURCE or NAME=SOURCE:uri, :basic, :unspecified; repeat. Without any, the names of the claims.",
        ),
        click.option("--function", "functions", multiple=True, help="Such as points.adjust; repeat for several."),
        click.option("--profile", type=click.Choice(providers.PROFILES), default="saml2int", show_default=True),
        click.option("--sign", type=click.Choice(providers.SIGNS), default="both", show_default=True),
        click.option("--encrypt/--no-encrypt", default=None, help="Default: encrypt when the metadata has a certificate for it (saml2int)."),
        click.option("--require-signed-requests", is_flag=True, help="Also when its metadata does not say so."),
        click.option("--idp-initiated", is_flag=True, help="May be opened from the portal without a request of its own."),
        click.option("--idp-target", "idp_targets", multiple=True, help="A RelayState that the portal may send; repeat."),
        click.option("--start-url", help="Where the portal tile leads: an address of the application that begins a login."),
        click.option("--honours-session-index", is_flag=True, help="It ends exactly the sessions that a LogoutRequest names."),
        click.option("--session-life-minutes", type=click.IntRange(1, 576000), help="At most this long is a login inside it granted."),
        click.option("--company", "company_code", help="Owner; without it the application serves every company."),
        click.option("--require-second-factor", is_flag=True),
        click.option("--test", is_flag=True, help="Not live yet: only people who manage applications may log in."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command("add-saml")
@click.argument("slug")
@click.argument("name")
@add_saml_options
@json_option
def add_saml(slug: str, name: str, *, as_json: bool, **given: Any) -> None:
    """Register a SAML service provider from its metadata."""
    now = clock.now()
    with product() as flask:
        services: Services = flask.extensions["sekisho"]
        document, url = fetch(services, given["source"])
        facts = metadata.read(document, now=now)
        wish = registration(name, facts, url, given)
        with transaction() as session:
            owner = people.get_company(session, given["company_code"]).id if given["company_code"] else None
            _, provider = providers.add_service_provider(
                session,
                wish,
                facts,
                slug=slug,
                company_id=owner,
                loopback=services.settings.issuer_is_loopback,
                actor=actor(),
                now=now,
            )
            shown = describe(provider, services.settings.issuer)
        show({"slug": slug, **shown, "warnings": providers.warnings(wish, facts)}, as_json=as_json)


def registration(name: str, facts: SpFacts, url: str | None, given: dict[str, Any]) -> SpRegistration:
    """The decisions that the options make. Raises Invalid."""
    encrypt = given["encrypt"]
    if encrypt is None:
        encrypt = given["profile"] == "saml2int" and sp_metadata.can_encrypt(facts)
    minutes = given["session_life_minutes"]
    return SpRegistration(
        name=name, functions=given["functions"], profile=given["profile"], name_id=given["name_id"], email_pattern=given["email_pattern"],
        attributes=tuple(attribute(text) for text in given["attributes"]), sign=given["sign"], encrypt=encrypt,
        must_sign_requests=given["require_signed_requests"], idp_initiated=given["idp_initiated"], idp_targets=given["idp_targets"],
        start_url=given["start_url"], honours_session_index=given["honours_session_index"], metadata_url=url,
        session_life_s=minutes * 60 if minutes else None, min_acr=AAL2 if given["require_second_factor"] else None,
        live=not given["test"],
    )  # fmt: skip


def attribute(text: str) -> dict[str, str]:
    """NAME=SOURCE[:FORMAT] as a row of the mapping. Raises Invalid."""
    name, found, source = text.partition("=")
    if not found:
        raise Invalid("属性は 名前=元の値 の形で入れてください。", text[:80], field="attributes")
    form = "uri" if name.startswith(("urn:", "http://", "https://")) else "basic"
    for one in providers.NAME_FORMATS:
        if source.endswith(f":{one}"):
            source, form = source.removesuffix(f":{one}"), one
    return {"name": name, "format": form, "source": source}


def fetch(services: Services, source: str) -> tuple[bytes, str | None]:
    """A document from a file, standard input or an address, and that address. Raises Invalid."""
    if source.startswith(("https://", "http://")):
        try:
            answer = services.outbound.get(source)
        except (Refused, Unreachable) as error:
            raise Invalid(
                "メタデータを取りにいけません。住所を確かめるか、ファイルで渡してください。",
                str(error),
                field="metadata",
            ) from error
        if answer.status != 200:
            raise Invalid(
                "メタデータの住所が、エラーを返しました。住所を確かめるか、ファイルで渡してください。",
                f"{answer.status} {source[:200]}",
                field="metadata",
            )
        return answer.body, source
    if source == "-":
        return sys.stdin.buffer.read(), None
    try:
        return Path(source).read_bytes(), None
    except OSError as error:
        raise Invalid(
            "メタデータのファイルを読めません。", f"{source[:200]}: {type(error).__name__}", field="metadata"
        ) from error


def describe(provider: ServiceProvider, issuer: str) -> dict[str, Any]:
    """What somebody compares with the other side."""
    return {
        "idp_entity_id": metadata.paths(issuer)["entity_id"], "entity_id": provider.entity_id,
        "acs": [place["url"] for place in provider.acs], "name_id": provider.name_id, "profile": provider.profile,
        "sign": provider.sign, "encrypt": provider.encrypt, "signed_requests": provider.requests_signed,
        "soap_logout": provider.soap_logout_url, "front_logout": provider.front_logout_url,
        "metadata_until": provider.metadata_until, "metadata_digest": provider.metadata_digest, "live": provider.live_at is not None,
    }  # fmt: skip


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
@click.argument("slug")
@click.option("--metadata", "source", help="A file, - or a URL; without it the address it was registered with.")
@json_option
def refresh(slug: str, source: str | None, *, as_json: bool) -> None:
    """Read a service provider's metadata again. A changed address or key is held until `saml approve`."""
    now = clock.now()
    with product() as flask:
        services: Services = flask.extensions["sekisho"]
        with reading() as session:
            _, provider = _provider(session, slug)
        where = source or provider.metadata_url
        if where is None:
            raise Invalid("このアプリにはメタデータの住所がありません。--metadata で渡してください。", field="metadata")
        document, _ = fetch(services, where)
        facts = metadata.read(document, now=now)
        with transaction() as session:
            _, provider = _provider(session, slug)
            held = sp_metadata.receive(
                session, provider, facts, loopback=services.settings.issuer_is_loopback, actor=actor(), now=now
            )
        show({"held": [one.what for one in held], "digest": facts.digest}, as_json=as_json)


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
    """Say under which account of the application a person works (--name-id mapped)."""
    with product(), transaction() as session:
        application, provider = _provider(session, slug)
        if provider.name_id != "mapped":
            raise Invalid("このアプリは利用者IDを割り当てる設定ではありません。", field="name_id")
        company = people.get_company(session, company_code)
        account = people.get_by_login_name(session, company.id, person)
        names.map_account(session, application, account, name_id, actor=actor(), now=clock.now())
    show({"person": person, "name_id": name_id}, as_json=as_json)
