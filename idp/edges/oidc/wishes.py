"""What an authorization request wishes of the person's login, and what must still happen before a code.

`next_step` is pure; `read_wish` parses `prompt`, `max_age`, `acr_values`, `claims` and the hints (OIDC Core §3.1.2.1, §5.5).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from idp.domain.applications.decide import ACR_ORDER, acr_at_least
from idp.domain.sessions.live import LiveLogin
from idp.edges import browser
from idp.edges.oidc import claims
from idp.edges.oidc.client import Client

PROMPTS = {"none", "login", "consent", "select_account"}


@dataclass(frozen=True)
class Wish:
    """What an authorization request asks of the person's login.

    requested_at: when the request first arrived: a login after it satisfies `prompt=login`. max_age_s: None = no limit.
    must_acr: classes of which one is essential; hint_sub: the subject of a genuine id_token_hint; login_hint pre-fills only.
    """

    requested_at: datetime
    prompt: frozenset[str] = frozenset()
    max_age_s: int | None = None
    must_acr: tuple[str, ...] = ()
    want_acr: tuple[str, ...] = ()
    hint_sub: str | None = None


@dataclass(frozen=True)
class Login:
    """Show the login page."""


@dataclass(frozen=True)
class StepUp:
    """Show the second-factor page. voluntary: only to people who have a second factor; the others go on without."""

    voluntary: bool = False


@dataclass(frozen=True)
class Refuse:
    """Answer the relying party with this error."""

    error: str


@dataclass(frozen=True)
class Issue:
    """Nothing is left to do."""


Step = Login | StepUp | Refuse | Issue


def next_step(wish: Wish, login: LiveLogin | None, *, now: datetime) -> Step:
    """What must happen before a code (OI-01 to OI-06). A login younger than the request satisfies every wish for a fresh one."""
    silent = "none" in wish.prompt
    if login is None:
        return Refuse("login_required") if silent else Login()
    just_now = login.auth_time >= wish.requested_at
    too_old = wish.max_age_s is not None and now - login.auth_time > timedelta(seconds=wish.max_age_s)
    again = wish.prompt & {"login", "select_account"} or too_old
    other = wish.hint_sub is not None and wish.hint_sub != login.subject
    if (again or other) and not just_now:
        return Refuse("login_required") if silent else Login()
    if other:
        return Refuse("login_required")
    return _assurance_step(wish, login, silent=silent)


def _assurance_step(wish: Wish, login: LiveLogin, *, silent: bool) -> Step:
    if wish.must_acr and not any(acr_at_least(login.acr, want) for want in wish.must_acr):
        reachable = any(want in ACR_ORDER[:2] for want in wish.must_acr)
        return StepUp() if reachable and not silent else Refuse("unmet_authentication_requirements")
    if wish.want_acr and not any(acr_at_least(login.acr, want) for want in wish.want_acr) and not silent:
        reachable = any(want in ACR_ORDER[:2] for want in wish.want_acr)
        just_now = login.auth_time >= wish.requested_at
        if reachable and not just_now:  # asked for voluntarily: tried once, then the class reached is reported
            return StepUp(voluntary=True)
    return Issue()


# --- reading the request -------------------------------------------------------------------------------------------


class Redirectable(Exception):
    """An error that may go to the relying party: its redirect_uri is proven."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.description = description


def read_wish(params: dict[str, str], client: Client, *, requested_at: datetime) -> tuple[Wish, dict[str, Any]]:
    """Parse the OIDC parameters. Returns the wish and the claims asked for. Raises Redirectable."""
    prompt = frozenset(params.get("prompt", "").split())
    if not prompt <= PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise Redirectable("invalid_request", "prompt has an unknown or contradictory value.")
    asked = _claims_parameter(params.get("claims"))
    wishes = asked.get("id_token_request", {})
    essential, classes = bool(wishes.get("acr", {}).get("essential")), _values(wishes.get("acr", {}))
    subjects = {_hint(params.get("id_token_hint"), client), *_values(wishes.get("sub", {}))} - {None}
    if len(subjects) > 1:
        raise Redirectable("login_required")  # nobody is two people at once
    wish = Wish(
        requested_at=requested_at,
        prompt=prompt,
        max_age_s=_max_age(params.get("max_age")),
        must_acr=_at_least(client.row.min_acr, classes if essential else ()),
        want_acr=(*params.get("acr_values", "").split(), *(() if essential else classes)),
        hint_sub=subjects.pop() if subjects else None,
    )
    return wish, {"id_token": sorted(asked.get("id_token", ())), "userinfo": sorted(asked.get("userinfo", ()))}


def _values(wish: dict[str, Any]) -> tuple[str, ...]:
    """`value` or `values` of one claim of the `claims` parameter (OIDC Core §5.5.1). Raises Redirectable."""
    values = wish.get("values", [wish["value"]] if "value" in wish else [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Redirectable("invalid_request", "claims has a value that is not a text, or values that are no list.")
    return tuple(values)


def _at_least(floor: str | None, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The essential classes, none below what the application itself demands."""
    if floor is None:
        return classes
    return tuple(floor if acr_at_least(floor, name) else name for name in classes) or (floor,)


def _max_age(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Redirectable("invalid_request", "max_age is not a number of seconds.")
    return int(text)


def _claims_parameter(text: str | None) -> dict[str, Any]:
    """The `claims` parameter (OIDC Core §5.5): names wished for per place, and the request for the ID token as it stands."""
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or any(not isinstance(parsed.get(k) or {}, dict) for k in ("id_token", "userinfo")):
        raise Redirectable("invalid_request", "claims is not a JSON object of objects.")
    wanted = {place: set(parsed.get(place) or {}) & set(claims.CLAIMS) for place in ("id_token", "userinfo")}
    wishes = {k: v for k, v in (parsed.get("id_token") or {}).items() if isinstance(v, dict)}
    return {**wanted, "id_token_request": wishes}


def _hint(token: str | None, client: Client) -> str | None:
    """The subject of an id_token_hint that is a genuine ID token of ours for this client, expired or not (OI-04)."""
    if not token:
        return None
    services = browser.services()
    verified = services.signer.verify(token, typ=claims.ID_TOKEN, retired=True)
    if (
        verified is None
        or verified[1].get("iss") != services.settings.issuer
        or verified[1].get("aud") != client.client_id
    ):
        raise Redirectable("invalid_request", "id_token_hint is not an ID token for this client.")
    return str(verified[1]["sub"])
