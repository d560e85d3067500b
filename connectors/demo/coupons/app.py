"""`create_coupons(config)`: the pages and the three SAML endpoints. Read this first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, redirect, render_template, request

from connectors.demo.console.entropy import new_secret, now
from connectors.demo.coupons import saml
from connectors.demo.coupons.saml import Refused
from connectors.demo.coupons.sessions import Session, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """url: our own address; idp: the identity provider's; folder: for the key and the database."""

    url: str
    idp: str
    folder: Path


def create_coupons(config: Config, *, fetch: Callable[[str], bytes]) -> Flask:
    """A console that is ready to serve. fetch: gets the identity provider's metadata; it is read for every message that
    comes in, so that a new key of its counts at once."""
    app = Flask(__name__, template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = 256 * 1024
    key, store = saml.load_key(config.folder / "key.pem", now=_now()), Store(config.folder / "coupons.sqlite")

    def session() -> Session | None:
        return store.find(request.cookies.get("coupons", ""), _now())

    def certificates() -> tuple[str, ...]:
        return saml.certificates_of(fetch(f"{config.idp}/saml/metadata"))

    @app.get("/healthz")
    def health() -> str:
        return "ok"

    @app.get("/metadata")
    def metadata() -> Response:
        return Response(saml.metadata(config.url, key), mimetype="application/samlmetadata+xml")

    @app.get("/")
    def home() -> str:
        found = session()
        return render_template("home.html", session=found, coupons=store.coupons(found.one("company")) if found else [])

    @app.get("/login")
    def login() -> Any:
        browser, request_id = new_secret(), f"_{new_secret()}"
        store.expect(browser, request_id, _now())
        query = saml.redirect_query(saml.authn_request(config.url, config.idp, request_id, now=_now()), key)
        answer = redirect(f"{config.idp}/saml/sso?{query}", 303)
        # the answer comes as a POST from another site, so this one cookie has to be sent across sites: None needs Secure, which
        # browsers grant to loopback too
        answer.set_cookie("coupons_request", browser, httponly=True, secure=True, samesite="None", max_age=1800)
        return answer

    @app.post("/acs")
    def acs() -> Any:
        request_id = store.expected(request.cookies.get("coupons_request", ""))
        if request_id is None:
            raise Refused("this browser asked for nothing")
        found = saml.read_response(
            request.form.get("SAMLResponse", ""), url=config.url, idp=config.idp, request_id=request_id, certificates=certificates(),
            now=_now(),
        )  # fmt: skip
        answer = redirect("/", 303)
        answer.set_cookie("coupons", store.open(found), httponly=True, samesite="Lax")
        answer.delete_cookie("coupons_request")
        return answer

    @app.post("/soap")
    def soap() -> Response:
        asked = saml.read_logout(
            request.get_data(), url=config.url, idp=config.idp, certificates=certificates(), now=_now()
        )
        log.warning(
            "ended %d sessions by SOAP", store.end(asked.name_id, asked.indexes, by="identity provider", now=_now())
        )
        return Response(saml.logout_response(config.url, asked.id, key, now=_now()), mimetype="text/xml")

    @app.post("/logout")
    def logout() -> Any:
        found = _checked(session())
        store.end(found.name_id, (found.index,), by="person", now=_now())
        query = saml.redirect_query(
            saml.logout_request(config.url, config.idp, found.name_id, found.index, now=_now()), key
        )
        return redirect(f"{config.idp}/saml/slo?{query}", 303)

    @app.get("/slo")
    def logged_out() -> Any:
        return redirect("/", 303)  # our session ended before we asked; whatever the answer says, nothing is left to do

    @app.post("/coupons")
    def publish() -> Any:
        found = _checked(session())
        title, yen = request.form.get("title", "").strip(), request.form.get("yen", "")
        if not found.may("coupons.publish"):
            raise Refused("this person may not publish")
        if not title or len(title) > 80 or not yen.isascii() or not yen.isdigit() or not 1 <= int(yen) <= 100_000:
            raise Refused("title or amount cannot be used")
        store.publish(found.one("company"), title, int(yen), found.one("name"), _now())
        return redirect("/", 303)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[str, int]:
        log.warning("refused: %s", error)
        return render_template("refused.html"), 400

    @app.after_request
    def headers(answer: Response) -> Response:
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Content-Security-Policy"] = (
            f"default-src 'none'; form-action 'self' {config.idp}; frame-ancestors 'none'; base-uri 'none'"
        )
        return answer

    return app


def _checked(session: Session | None) -> Session:
    if session is None or request.form.get("csrf") != session.csrf:
        raise Refused("no session, or not from our page")
    return session


def _now() -> datetime:
    return datetime.fromtimestamp(now(), UTC)
