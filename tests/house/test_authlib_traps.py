"""Traps of Authlib (requirements.md 4.2): for each, what the library does by itself, and that our fence holds.

When an upgrade changes the first half of a test, the trap has changed: read the fence again. One engine is enough, since
nothing here depends on the database; the protocol tests run the same flows on both.
"""

from __future__ import annotations

import inspect
import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from authlib.integrations.sqla_oauth2 import OAuth2ClientMixin, OAuth2TokenMixin
from authlib.oauth2.rfc6749 import AuthorizationServer
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc6749.hooks import Hookable
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from authlib.oauth2.rfc6750.token import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oidc import rpinitiated
from authlib.oidc.core import grants as oidc_grants
from flask import Flask

from idp.app import create_app
from idp.core import logs
from idp.edges import oidc
from idp.edges.oidc import code_grant, exchange
from idp.edges.oidc.code_grant import CodeGrant
from idp.edges.oidc.refresh_grant import RefreshGrant
from tests.actors import Browser, RelyingParty, World
from tests.conftest import Template, dispose, settings_for
from tests.fakes.outbound import RecordingOutbound


@pytest.fixture(scope="module")
def world(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One installation for all traps."""
    path = tmp_path_factory.mktemp("traps") / "traps.sqlite"
    path.write_bytes((sqlite_template.folder / "template.sqlite").read_bytes())
    app = create_app(settings_for(f"sqlite:///{path}", sqlite_template.folder), outbound=RecordingOutbound())
    yield World(app)
    dispose(app)


@pytest.fixture(scope="module")
def client(world: World) -> RelyingParty:
    """A confidential client."""
    return world.application("traps")


@pytest.fixture(scope="module")
def browser(world: World) -> Iterator[Browser]:
    """Somebody logged in."""
    with Browser(world.app) as made:
        made.log_in(world.person())
        yield made


def test_F14_pkce_is_plain_and_for_public_clients_by_default(client: RelyingParty, browser: Browser) -> None:
    """F14, A2: the default method is plain; `required` binds only clients without a secret, at the token endpoint."""
    assert CodeChallenge.DEFAULT_CODE_CHALLENGE_METHOD == "plain"
    assert "plain" in CodeChallenge.SUPPORTED_CODE_CHALLENGE_METHOD
    challenge = CodeChallenge(required=True)
    payload = SimpleNamespace(data={}, datalist={})
    challenge.validate_code_challenge(SimpleNamespace(request=SimpleNamespace(payload=payload)), None)
    code = SimpleNamespace(code_challenge=None, code_challenge_method=None)
    request = SimpleNamespace(form={}, auth_method="client_secret_basic", authorization_code=code)
    challenge.validate_code_verifier(SimpleNamespace(request=request), None)  # a confidential client needs nothing

    assert code_grant.S256.SUPPORTED_CODE_CHALLENGE_METHOD == ["S256"]
    for extra in (
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
    ):
        answer = client.answer(browser.get(client.authorization_url(**extra), follow=False))
        assert answer["error"] == "invalid_request"


def test_F15_codes_are_spent_after_the_token_was_saved(client: RelyingParty, browser: Browser) -> None:
    """F15, A1, A5: save, then delete; save, then revoke; no reuse detection: two interleaved redemptions are two token sets."""
    for grant, after in (
        (AuthorizationCodeGrant, "delete_authorization_code"),
        (RefreshTokenGrant, "revoke_old_credential"),
    ):
        source = inspect.getsource(inspect.unwrap(grant.create_token_response))
        if "save_token" not in source:  # behind the hook decorator
            source = inspect.getsource(grant)
        assert 0 < source.index("self.save_token(") < source.index(f"self.{after}(")
    assert RefreshTokenGrant.INCLUDE_NEW_REFRESH_TOKEN is False

    claimed = inspect.getsource(CodeGrant.authenticate_user)
    assert claimed.index("claim_app_session") < claimed.index("redeem_code")  # before anything is generated or saved
    assert "claim_family" in inspect.getsource(RefreshGrant.authenticate_user)
    code = client.code(browser)
    tokens = client.redeem(code).json()
    assert client.redeem(code).status_code == 400
    assert client.userinfo(tokens["access_token"]).status_code == 401


def test_F16_tokens_live_ten_days_by_default(client: RelyingParty, browser: Browser) -> None:
    """F16: 864000 seconds from a code, also for JWT access tokens."""
    assert BearerTokenGenerator.GRANT_TYPES_EXPIRES_IN["authorization_code"] == 864000
    assert JWTBearerTokenGenerator.GRANT_TYPES_EXPIRES_IN["authorization_code"] == 864000

    tokens = client.log_in(browser)
    claims = client.claims(tokens["access_token"])
    assert claims["exp"] - claims["iat"] == tokens["expires_in"] == 300
    id_token = client.claims(tokens["id_token"])
    assert id_token["exp"] - id_token["iat"] <= 300


def test_F16_what_openid_connect_wishes_is_ignored_by_default(client: RelyingParty, browser: Browser) -> None:
    """F16, libraries.md 2.1: no code of the library reads max_age, claims, acr_values, id_token_hint or login_hint."""
    source = "".join(inspect.getsource(module) for module in (oidc_grants.code, oidc_grants.util, oidc_grants.implicit))
    for name in ("max_age", "acr_values", "id_token_hint", "login_hint", 'data.get("claims")'):
        assert name not in source, name

    wrong = {"max_age": "x", "claims": "[", "id_token_hint": "x"}
    for name, value in wrong.items():
        assert (
            client.answer(browser.get(client.authorization_url(**{name: value}), follow=False))["error"]
            == "invalid_request"
        )


def test_F18_the_logout_hint_is_checked_for_signature_and_audience_alone(
    client: RelyingParty, browser: Browser
) -> None:
    """F18: not `iss`, not that it is an ID token, not that its subject is the one who is logged in."""
    source = inspect.getsource(rpinitiated)
    assert '"typ"' not in source
    assert not re.search(r"""["']iss["']""", inspect.getsource(rpinitiated.EndSessionEndpoint))

    tokens = client.log_in(browser)
    assert browser.get(f"/oidc/logout?id_token_hint={tokens['access_token']}", follow=False).status_code == 400
    assert "/login" not in str(browser.get("/").url)


def test_F19_the_mixins_keep_secrets_in_clear(world: World, client: RelyingParty) -> None:
    """F19: plaintext client secrets and tokens, tokens in 255 characters; exact redirect URIs, with no loopback rule."""
    assert "self.client_secret" in inspect.getsource(OAuth2ClientMixin.check_client_secret)
    assert vars(OAuth2TokenMixin)["access_token"].type.length == 255
    assert "in self.redirect_uris" in inspect.getsource(OAuth2ClientMixin.check_redirect_uri)

    for module in sys.modules.values():
        if getattr(module, "__name__", "").startswith("idp."):
            assert not any(
                isinstance(v, type) and issubclass(v, OAuth2ClientMixin | OAuth2TokenMixin)
                for v in vars(module).values()
            )
    from idp.domain.applications.models import RelyingParty as Party
    from idp.domain.tokens.models import AuthorizationCode

    assert {"secret_digest", "old_secret_digest"} <= set(Party.__table__.columns.keys())
    assert "code" not in AuthorizationCode.__table__.columns
    assert client.secret
    assert world.app


@contextmanager
def _logging_to(stream: io.StringIO, *, pinned: bool) -> Iterator[None]:
    """Root at DEBUG into this stream: as the product configures it (pinned), or as a plain installation would be."""
    root = logging.getLogger()
    names = [*logs.PINNED, "authlib.oauth2", "authlib.oauth2.rfc6749"]
    kept = (root.handlers[:], root.level, {name: logging.getLogger(name).level for name in names})
    stderr = sys.stderr
    try:
        sys.stderr = stream
        if pinned:
            logs.configure(level="DEBUG")
        else:
            root.handlers[:] = [logging.StreamHandler(stream)]
            root.setLevel(logging.DEBUG)
            logging.getLogger("authlib").setLevel(logging.NOTSET)
        yield
    finally:
        sys.stderr = stderr
        root.handlers[:], level = kept[0], kept[1]
        root.setLevel(level)
        for name, value in kept[2].items():
            logging.getLogger(name).setLevel(value)


def test_A3_whole_tokens_are_logged_below_warning(client: RelyingParty, browser: Browser) -> None:
    """A3: `Issue token %r`. With our configuration, and root at DEBUG, no token, code or secret is in the log."""

    def flow() -> list[str]:
        code = client.code(browser)
        tokens = client.redeem(code).json()
        fresh = client.refresh(tokens["refresh_token"]).json()
        client.redeem(code)
        return [
            code,
            client.verifier,
            client.secret or "",
            tokens["access_token"],
            tokens["refresh_token"],
            tokens["id_token"],
            fresh["access_token"],
        ]

    plain, ours = io.StringIO(), io.StringIO()
    with _logging_to(plain, pinned=False):
        held = flow()
    assert held[3] in plain.getvalue()  # the trap is still there
    with _logging_to(ours, pinned=True):
        held = flow()
        logging.getLogger("somebody").debug("the log is open")
    assert "the log is open" in ours.getvalue()
    for value in held:
        assert value not in ours.getvalue()
    assert all(logging.getLogger(name).level != logging.DEBUG for name in logs.PINNED)


@pytest.mark.parametrize("text", ['say "no"', "back\\slash", "日本語", "line\nbreak"])
def test_A4_descriptions_with_other_characters_raise(client: RelyingParty, browser: Browser, text: str) -> None:
    """A4: a ValueError where a 400 is due. Our descriptions are constants; nothing of the request is repeated in one."""
    with pytest.raises(ValueError, match="forbidden characters"):
        InvalidRequestError(text)

    for name in ("redirect_uri", "response_type", "scope", "code_challenge", "response_mode", "prompt", "max_age"):
        answer = browser.get(client.authorization_url(**{name: text}), follow=False)
        assert answer.status_code < 500, name
    for form in (
        {"grant_type": text},
        {"code": text},
        {"redirect_uri": text},
        {"scope": text},
        {"code_verifier": text},
        {text: "1"},
    ):
        assert client.token(**{"grant_type": "authorization_code", "code": "x", **form}).status_code == 400, form
    for form in ({"refresh_token": text}, {"scope": text}):
        assert client.token(**{"grant_type": "refresh_token", "refresh_token": "x", **form}).status_code == 400, form


@pytest.mark.parametrize("header", ["Basic ", "Basic //46eA=="])
def test_A4_a_broken_basic_header_raises(client: RelyingParty, header: str) -> None:
    """Found beside A4: the reader of Basic headers raises for an empty one and for one that is not UTF-8."""
    with pytest.raises(ValueError, match=r"unpack|decode"):
        extract_basic_authorization({"Authorization": header})

    answer = client.http.post(
        "/oidc/token", data={"grant_type": "refresh_token", "refresh_token": "x"}, headers={"Authorization": header}
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_A6_hooks_of_one_name_have_no_order() -> None:
    """A6: they are a set. We register one extension, and each hook of a grant has one function."""
    assert isinstance(Hookable()._hooks["x"], set)

    server = exchange.Exchange(SimpleNamespace(), SimpleNamespace(), now=None, actor=None)  # type: ignore[arg-type]
    code_grant.register(server)
    extensions = [extension for _, extensions in server._token_grants for extension in extensions or ()]
    assert [type(extension) for extension in extensions] == [code_grant.S256]
    grant = CodeGrant(SimpleNamespace(), server)
    extensions[0](grant)
    assert {len(hooks) for hooks in grant._hooks.values()} == {1}


def test_A7_no_server_outlives_a_request(world: World) -> None:
    """A7: the examples keep the server as a global of a module, with whatever a request leaves in it."""
    packages = [module for name, module in sys.modules.items() if name.startswith("idp.")]
    assert oidc in packages
    for module in packages:
        for name, value in vars(module).items():
            assert not isinstance(value, AuthorizationServer), f"{module.__name__}.{name}"
    assert not any(isinstance(value, AuthorizationServer) for value in world.app.extensions.values())
    assert isinstance(world.app, Flask)
