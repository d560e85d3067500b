"""OI-15: key roll and withdrawal. Each test has an installation to itself: keys are everybody's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import time_machine
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from idp.core import clock
from idp.core.keys import rotate_jwt_key, withdraw_jwt_key
from tests.actors import Browser, RelyingParty, World

PUBLISH, KEEP = timedelta(seconds=70), timedelta(seconds=360)


def kid(token: str) -> str:
    """The key id that a token names."""
    part = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["kid"])


def published(client: RelyingParty) -> set[str]:
    """The kids of the key set."""
    return {key["kid"] for key in client.http.get("/oidc/jwks").json()["keys"]}


def verifies(token: str, keys: KeySet) -> bool:
    """What a relying party with this copy of the key set thinks of a token."""
    try:
        jwt.decode(token, keys, algorithms=["ES256"])
    except (JoseError, ValueError):
        return False
    return True


@pytest.fixture
def start() -> Iterator[datetime]:
    """The moment at which everything begins."""
    with time_machine.travel(clock.now(), tick=False):
        yield clock.now()


def test_OI_15_a_key_is_published_before_it_signs_and_kept_after(
    world: World, browser: Browser, start: datetime
) -> None:
    """OIDC Core §10.1, RE-43. Suite: oidcc-server-rotate-keys, oidcc-refresh-token-rp-key-rotation. Whoever reads the key set
    as rarely as its max-age allows verifies every token at every moment; the old key leaves when what it signed has expired."""
    person, client = world.person(), world.application()
    browser.log_in(person)
    before = client.log_in(browser)
    old = kid(before["id_token"])
    copy = KeySet.import_key_set(client.http.get("/oidc/jwks").json())
    with world.app.app_context():
        made = rotate_jwt_key(world.services.vault, "ES256", publish_for=PUBLISH, keep_for=KEEP, now=start)
    last_read, seen = start, set()
    for second in (0, 11, 30, 60, 69, 70, 75, 120, 300, 369):
        now = start + timedelta(seconds=second)
        with time_machine.travel(now, tick=False):
            if now - last_read > timedelta(seconds=10):  # the max-age of the set in these settings
                copy, last_read = KeySet.import_key_set(client.http.get("/oidc/jwks").json()), now
            tokens = client.log_in(browser) if second < 300 else client.refresh(before["refresh_token"]).json()
            assert verifies(tokens["id_token"], copy), second
            assert verifies(tokens["access_token"], copy), second
            assert client.userinfo(tokens["access_token"]).status_code == 200
            assert kid(tokens["id_token"]) == (old if second < 70 else made.kid), second
            seen.add(kid(tokens["id_token"]))
            if second >= 11:
                assert {old, made.kid} <= published(client), second
    assert seen == {old, made.kid}
    with time_machine.travel(start + timedelta(seconds=431), tick=False):
        assert old not in published(client)
        assert made.kid in published(client)
        hint = client.answer(
            browser.get(client.authorization_url(prompt="none", id_token_hint=before["id_token"]), follow=False)
        )
        assert hint[
            "code"
        ]  # a hint may be old (OI-04): what is retired verifies hints, and nothing that opens anything
        with world.app.app_context():
            world.services.signer.refresh(now=clock.now())
            assert world.services.signer.verify(before["access_token"], typ="at+jwt") is None
            assert world.services.signer.verify(before["id_token"], typ="JWT") is None
        assert client.userinfo(client.log_in(browser)["access_token"]).status_code == 200


def test_OI_15_an_emergency_withdraws_at_once(world: World, browser: Browser, start: datetime) -> None:
    """OI-15 T−: what a withdrawn key signed is refused at userinfo from the commit on, before any process has read the keys
    again; then it leaves the set, nothing is signed with it, and a new login works."""
    person, client = world.person(), world.application(id_token_alg="RS256")
    browser.log_in(person)
    tokens = client.log_in(browser)
    assert client.userinfo(tokens["access_token"]).status_code == 200
    bad = kid(tokens["access_token"])
    with world.app.app_context():
        made = withdraw_jwt_key(world.services.vault, bad, now=start)
        assert withdraw_jwt_key(world.services.vault, "unknown", now=start) is None
        assert withdraw_jwt_key(world.services.vault, bad, now=start) is None
    assert made is not None
    assert client.userinfo(tokens["access_token"]).status_code == 401
    with time_machine.travel(start + timedelta(seconds=11), tick=False):
        assert bad not in published(client)
        assert client.userinfo(tokens["access_token"]).status_code == 401
        fresh = client.refresh(tokens["refresh_token"]).json()
        assert kid(fresh["access_token"]) == made.kid
        assert client.userinfo(fresh["access_token"]).status_code == 200
        hint = browser.get(client.authorization_url(prompt="none", id_token_hint=tokens["id_token"]), follow=False)
        assert client.answer(hint)["code"]  # RS256 was not withdrawn: one key per purpose (C2)


def test_OI_15_a_withdrawn_key_makes_no_hint(world: World, browser: Browser, start: datetime) -> None:
    """OI-15, LO-03: whoever has the stolen key can name nobody."""
    person, client = world.person(), world.application()
    browser.log_in(person)
    hint = client.log_in(browser)["id_token"]
    with world.app.app_context():
        assert withdraw_jwt_key(world.services.vault, kid(hint), now=start)
    with time_machine.travel(start + timedelta(seconds=11), tick=False):
        answer = client.answer(browser.get(client.authorization_url(prompt="none", id_token_hint=hint), follow=False))
        assert answer["error"] == "invalid_request"
        assert browser.get(f"/oidc/logout?id_token_hint={hint}", follow=False).status_code == 400
