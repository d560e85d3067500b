"""The page that posts an answer, in Chromium: to a service provider whose ACS redirects to another host at once (SA-19, decision 0032)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect
from werkzeug.serving import make_server

from idp.app import create_app
from tests.actors import Person, World
from tests.conftest import Template, dispose, settings_for
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.rp import Handler, Peer, Received
from tests.saml import ServiceProvider
from tests.scenarios.conftest import Person as Visitor
from tests.scenarios.test_store_portal import picture


@dataclass
class Stage:
    """A running product, a service provider, and the other host that its ACS leads to."""

    issuer: str
    sp: ServiceProvider
    person: Person
    home: str

    def start(self) -> str:
        """The address of a request."""
        return f"{self.issuer}{self.sp.redirect_url(relay='r', Destination=None)}"


@pytest.fixture(scope="module")
def stage(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Three origins on loopback: the product and the home on `localhost`, the ACS on an address."""
    folder: Path = tmp_path_factory.mktemp("posting")
    shutil.copy(sqlite_template.folder / "template.sqlite", folder / "test.sqlite")
    home = Peer(lambda handler, _call: handler.answer(200, b"<title>home</title>", Content_Type="text/html"))
    with home:
        onward = f"http://localhost:{home.port}/home"

        def acs(handler: Handler, call: Received) -> None:
            handler.answer(303 if b"SAMLResponse=" in call.body else 400, b"", Location=onward)

        with Peer(acs) as consumer:

            def serve(environ: Any, start: Any) -> Any:
                return app(environ, start)  # made below, when its port is known

            server = make_server("localhost", 0, serve, threaded=True)
            issuer = f"http://localhost:{server.port}"
            settings = settings_for(f"sqlite:///{folder}/test.sqlite", sqlite_template.folder, issuer=issuer)
            app = create_app(settings, outbound=RecordingOutbound())
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                world = World(app)
                sp = world.service_provider(ServiceProvider("coupon", base=f"http://127.0.0.1:{consumer.port}"))
                yield Stage(issuer, sp, world.person(), onward)
            finally:
                server.shutdown()
                thread.join()
                server.server_close()
                dispose(app)


def test_SA_19_a_person_arrives_where_the_application_sends_them(stage: Stage, chromium: Browser) -> None:
    """Login, then the answer is posted by itself, and the redirect of the ACS to another host is followed."""
    visitor = Visitor(chromium)
    page = visitor.page
    page.goto(stage.start())
    page.get_by_label("ログインID").fill(stage.person.login)
    page.get_by_label("パスワード", exact=True).fill(stage.person.password)
    page.get_by_role("button", name="ログイン").click()
    expect(page).to_have_url(stage.home)
    page.goto(stage.start())
    expect(page).to_have_url(stage.home)
    state = visitor.context.storage_state()
    visitor.close()

    without = chromium.new_context(java_script_enabled=False, storage_state=state, locale="ja-JP")
    page = without.new_page()
    page.goto(stage.start())
    picture(page, "posting")
    page.get_by_role("button", name="つづける").click()
    expect(page).to_have_url(stage.home)
    without.close()

    # the control: Chromium does hold the redirect against the policy, so an exact origin would stop everybody here
    strict = chromium.new_context(storage_state=state)
    page = strict.new_page()

    def exact(route: Route) -> None:
        answer = route.fetch()
        policy = answer.headers["content-security-policy"].replace("form-action http:", f"form-action {stage.sp.base}")
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    page.route("**/saml/sso**", exact)
    with page.expect_console_message(lambda message: "form-action" in message.text):
        page.goto(stage.start(), wait_until="commit")
    assert page.url != stage.home
    strict.close()
