"""`app add-saml`: registering a service provider from its metadata."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from idp.cli.apps import app
from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import transaction
from idp.core.errors import Invalid
from idp.domain.applications import saml as providers
from idp.domain.applications import sp_metadata
from idp.domain.applications.models import ServiceProvider
from idp.domain.applications.saml import SpRegistration
from idp.domain.applications.sp_metadata import SpFacts
from idp.domain.authn.login import AAL2
from idp.domain.directory import people
from idp.edges.saml import metadata, refresh
from idp.services import Services


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


@app.command("add-saml")
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
        return refresh.fetch(services.outbound, source), source
    if not source:
        raise Invalid("このアプリにはメタデータのURLがありません。--metadata で渡してください。", field="metadata")
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
