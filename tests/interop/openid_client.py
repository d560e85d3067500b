"""npm's `openid-client`, unmodified, in one Node process that takes a step of a relying party at a time (`node/rp.mjs`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from tests.interop.installation import RegisteredClient
from tests.interop.npm import FOLDER
from tests.interop.processes import Lines


class Failed(Exception):
    """The library raised: `error` is its OAuth code, `status` the HTTP status, both None where it found the fault itself."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(json.dumps(facts))
        self.error: str | None = facts.get("error")
        self.status: int | None = facts.get("status")
        self.code: str | None = facts.get("code")


class Node:
    """The process. It keeps discovery documents and key sets between steps, as a relying party does."""

    def __init__(self) -> None:
        # localhost is 127.0.0.1 first: older versions try one address only
        self._lines = Lines(["node", "--dns-result-order=ipv4first", "rp.mjs"], cwd=FOLDER, env=os.environ)

    def ask(self, question: dict[str, Any]) -> Any:
        """One step. Raises Failed when the library did."""
        answer = self._lines.ask(question)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer["ok"]

    def close(self) -> None:
        """Stop it."""
        self._lines.close()


@dataclass
class OpenidClient:
    """One relying party. Tokens and checks of the login under way are kept as an application would keep them."""

    node: Node
    issuer: str
    registered: RegisteredClient
    redirect_uri: str
    bye: str
    auth_method: str
    alg: str
    checks: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)

    def _step(self, step: str, **given: Any) -> Any:
        registration = {
            "client_id": self.registered.client_id, "client_secret": self.registered.secret, "auth_method": self.auth_method,
            "redirect_uris": [self.redirect_uri], "id_token_signed_response_alg": self.alg,
        }  # fmt: skip
        return self.node.ask({"step": step, "issuer": self.issuer, "registration": registration, **given})

    def metadata(self) -> dict[str, Any]:
        """The discovery document as the library understood it."""
        found: dict[str, Any] = self._step("metadata")
        return found

    def begin(self, **parameters: str) -> str:
        """A fresh authorization request."""
        made = self._step("begin", parameters={"redirect_uri": self.redirect_uri, **parameters})
        self.checks = {k: made[k] for k in ("verifier", "state", "nonce")}
        if "max_age" in parameters:
            self.checks["maxAge"] = int(parameters["max_age"])
        url: str = made["url"]
        return url

    def finish(self, callback: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        """Let the library judge the answer, redeem the code and validate the ID token. Returns its claims. Raises Failed."""
        self.tokens = self._step("finish", callback=callback, form=form, checks=self.checks)
        claims: dict[str, Any] = self.tokens["claims"]
        return claims

    def refresh(self) -> dict[str, Any]:
        """Refresh; returns the new tokens, and keeps them with the subject and the ID token of before. Raises Failed."""
        new: dict[str, Any] = self._step("refresh", refresh_token=self.tokens["refresh_token"])
        self.tokens = {**self.tokens, **new}
        return new

    def userinfo(self) -> dict[str, Any]:
        """Claims from the userinfo endpoint, whose `sub` the library compares. Raises Failed."""
        found: dict[str, Any] = self._step(
            "userinfo", access_token=self.tokens["access_token"], subject=self.tokens["claims"]["sub"]
        )
        return found

    def end_session_url(self, **parameters: str) -> str:
        """Where to send the browser for a logout."""
        given = {"id_token_hint": self.tokens["id_token"], "post_logout_redirect_uri": self.bye, **parameters}
        url: str = self._step("endSession", parameters=given)["url"]
        return url
