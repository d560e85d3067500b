"""The coupon console of the demonstration, as it is, against the product: sign-on, use, logout, and the cut by SOAP."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from connectors.demo.coupons.app import Config, create_coupons
from connectors.demo.coupons.saml import load_key, metadata
from idp.core import clock
from idp.core.db import transaction
from idp.domain.applications import registry, saml
from idp.domain.applications.saml import SpRegistration
from idp.domain.directory.roles import Role
from idp.edges.saml import metadata as reader
from idp.lifecycle.revocation.models import Cut
from tests.actors import CLI, Browser, World
from tests.fakes.lives import cut
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.outbound import status as answers

URL = "http://localhost:8011"


@pytest.fixture
def coupons(world: World, tmp_path: Path, outbound: RecordingOutbound) -> Flask:
    """The console, registered by its own metadata; what the worker sends by SOAP reaches it."""
    key = load_key(tmp_path / "key.pem", now=clock.now())
    facts = reader.read(metadata(URL, key), now=clock.now())
    with world.app.app_context(), transaction() as session:
        wish = SpRegistration(name="クーポン", functions=("coupons.publish",), start_url=f"{URL}/login")
        application, _ = saml.add_service_provider(
            session, wish, facts, slug="coupons", company_id=None, loopback=True, actor=CLI, now=clock.now()
        )
        registry.grant(
            session, application, subject_kind="role", subject_id=None, role=Role.STORE_MANAGER.value, functions=["coupons.publish"],
            company_id=None, actor=CLI, now=clock.now(),
        )  # fmt: skip

    def fetch(url: str) -> bytes:
        with Browser(world.app) as http:
            return http.http.get(url).content

    app = create_coupons(Config(URL, "http://localhost:8000", tmp_path), fetch=fetch)

    def soap(call: object) -> object:
        got = app.test_client().post("/soap", data=call.body, headers={"Content-Type": "text/xml"})  # type: ignore[attr-defined]
        return answers(got.status_code, got.data, Content_Type="text/xml")(call)  # type: ignore[arg-type]

    outbound.behave(f"{URL}/soap", soap)  # type: ignore[arg-type]
    return app


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_store_portal_a_manager_publishes_a_coupon_leaves_and_is_cut(
    world: World, coupons: Flask, browser: Browser
) -> None:
    """From the portal tile to a published coupon; after the cut the open session at the console is over, and the receipt has
    its signed word for it."""
    manager = world.person("0200", role=Role.STORE_MANAGER)
    browser.log_in(manager)
    assert browser.get("/apps/coupons/open", follow=False).headers["location"] == f"{URL}/login"
    desk = coupons.test_client()
    asked = desk.get("/login", base_url=URL.replace("http:", "https:")).headers["location"]
    page = browser.get(asked)
    form = browser.forms(page)[0]
    assert form["action"] == f"{URL}/acs"
    assert desk.post("/acs", data=form["fields"], base_url="https://localhost:8011").status_code == 303
    home = desk.get("/", base_url="https://localhost:8011").text
    assert manager.name in home
    csrf = re.search(r'name="csrf" value="([^"]+)"', home).group(1)  # type: ignore[union-attr]
    wish = {"csrf": csrf, "title": "秋の100円引き", "yen": "100"}
    assert desk.post("/coupons", data=wish, base_url="https://localhost:8011").status_code == 303
    assert "秋の100円引き" in desk.get("/", base_url="https://localhost:8011").text
    assert desk.post("/acs", data=form["fields"], base_url="https://localhost:8011").status_code == 400, (
        "an answer counts once"
    )
    cut(world, manager.id)
    world.deliver()
    assert manager.name not in desk.get("/", base_url="https://localhost:8011").text
    (line,) = world.rows(select(Cut.state, Cut.grade).where(Cut.kind == "SAML_LOGOUT"))
    assert (line.state, line.grade) == ("done", "acknowledged")
