"""`create_app`: the one composition root. Read this first.

It builds the services, registers the edges, and holds the one table that turns our errors into pages. Nothing here decides
about access: edges ask the domain, the domain claims rows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from flask import Flask, g, render_template, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from itsdangerous import URLSafeTimedSerializer
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from idp.core.db import READING, RESERVED, absolute_url, db, engine_options
from idp.core.errors import SekishoError, Throttled
from idp.core.outbound import Outbound
from idp.core.settings import Settings
from idp.core.sqlite import prepare_engine
from idp.core.turns import Turns
from idp.edges import browser, crowd, language
from idp.edges.oidc import authorize, documents, logout, origins, token  # noqa: F401 - they register their views
from idp.edges.oidc import bp as oidc_bp
from idp.edges.saml import bp as saml_bp
from idp.edges.saml import documents as saml_documents  # noqa: F401 - they register their views
from idp.edges.saml import frontchannel, slo, sso  # noqa: F401
from idp.edges.saml import metadata as saml_metadata
from idp.edges.tools import bp as tools_bp
from idp.edges.tools import routes as tool_routes  # noqa: F401 - they register their views
from idp.edges.web import (
    activate,  # noqa: F401 - they register their views
    apps,
    audit,
    entering,
    health,
    hq,
    login,  # noqa: F401
    oversight,
    portal,
    proving,  # noqa: F401
    receipts,
    saml_apps,
    security,
    setup,
    store,
    tools,
    vault,
)
from idp.services import SERVE_OPENS, build_services
from vault import KeyClass

log = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
#: called by programs, which cannot read a page
MACHINE_ENDPOINTS = {"oidc.token", "oidc.userinfo"}
ERROR_PAGES = {
    400: "errors/400_form_expired.html",
    403: "errors/403.html",
    404: "errors/404.html",
    429: "errors/429.html",
}


class SyncFlask(Flask):
    """Flask without coroutines: it would ask of nine functions at every request whether they are any."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is."""
        return func


def create_database_app(settings: Settings) -> Flask:
    """An application with nothing but the database: for migrations and for commands that run before there are keys."""
    app = SyncFlask(
        "idp", template_folder=str(settings.template_folder), static_folder=str(settings.template_folder / "static")
    )
    url = absolute_url(settings.database_url)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    pool = settings.database_pool
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings.database_url, pool_size=pool)
    # revocation and the worker have connections of their own, so that a login storm cannot starve them (RE-46)
    app.config["SQLALCHEMY_BINDS"] = {
        RESERVED: {"url": url, **engine_options(settings.database_url, pool_size=4)},
        READING: {"url": url, **engine_options(settings.database_url, pool_size=pool, read_only=True)},
    }
    db.init_app(app)
    turns = Turns()
    with app.app_context():
        for bind, engine in db.engines.items():
            prepare_engine(engine, turns, read_only=bind == READING, reserved=bind == RESERVED)
    return app


def create_app(
    settings: Settings, *, outbound: Outbound | None = None, opens: frozenset[KeyClass] = SERVE_OPENS
) -> Flask:
    """The whole product. outbound: tests inject a recording one. opens: the key classes of this kind of process.

    Raises RefusedToStart.
    """
    if settings.issuer_is_loopback:
        # Authlib refuses http; this is the one place that allows it, and only while the issuer is loopback (WB-20)
        os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    app = create_database_app(settings)
    with app.app_context():
        services = build_services(settings, outbound=outbound, opens=opens)
        app.extensions["sekisho"] = services
        app.config["SECRET_KEY"] = services.signer.secret("web")
        # opened here, because opening commits an audit row and must never happen inside a request's transaction
        services.signer.secret("refresh")
    app.config.update(
        SESSION_COOKIE_NAME="sekisho-form" if settings.issuer_is_loopback else "__Host-sekisho-form",
        SESSION_COOKIE_SECURE=not settings.issuer_is_loopback,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=12),
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_FORM_MEMORY_SIZE=MAX_BODY,
        MAX_FORM_PARTS=200,
        SEND_FILE_MAX_AGE_DEFAULT=timedelta(hours=1),
        # where a request came from is judged in browser.py; the Referer is never sent (Referrer-Policy)
        WTF_CSRF_SSL_STRICT=False,
        WTF_CSRF_TIME_LIMIT=12 * 3600,
    )
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    app.session_interface = FormSession(app)
    # Werkzeug would send a POST to /oidc//token on with 308, and the password with it (RFC 9700 §4.12)
    app.url_map.merge_slashes = False
    browser.install(app)
    language.install(app, settings.template_folder / "locale")
    csrf = CSRFProtect(app)
    app.register_blueprint(oidc_bp)
    app.register_blueprint(saml_bp)
    app.register_blueprint(tools_bp)
    for edge in (
        entering, portal, security, store, hq, apps, saml_apps, tools, vault, receipts, audit, oversight, setup, health,
    ):  # fmt: skip
        app.register_blueprint(edge.bp)
    for endpoint in browser.CSRF_EXEMPT:
        csrf.exempt(app.view_functions[endpoint])
    _register_errors(app)
    app.context_processor(_page_context)

    app.extensions["sekisho-origins"] = origins.registered
    app.extensions[saml_apps.READER] = saml_metadata.read
    app.wsgi_app = crowd.Crowd(app.wsgi_app, places=2 * settings.hash_slots, queue=settings.web_threads // 2)  # type: ignore[method-assign]
    app.wsgi_app = documents.Documents(app, app.wsgi_app, services)  # type: ignore[method-assign]
    if settings.proxies:
        hops = settings.proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app


class FormSession(SecureCookieSessionInterface):
    """Flask's signed cookie, in which only CSRF lives. Flask makes its signer anew at every request; ours is made once."""

    def __init__(self, app: Flask) -> None:
        self._signer = super().get_signing_serializer(app)

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:  # noqa: ARG002 - Flask names it
        """The one signer."""
        return self._signer


def _page_context() -> dict[str, Any]:
    """What `base.html` expects on every page."""
    looking = g.get("looking")
    return {
        "lang": language.current(),
        "csp_nonce": g.get("csp_nonce", ""),
        "request_id": g.get("request_id", ""),
        "languages": language.choices(),
        "viewer": looking.viewer if looking else None,
        "nav_items": portal.navigation(looking) if looking else [],
        "notices": [],
        "t": language.text,
    }


def _register_errors(app: Flask) -> None:
    """The table of this edge: every error becomes a page with its public text and a number, never more (WB-22)."""

    @app.errorhandler(SekishoError)
    def _ours(error: SekishoError) -> Any:
        log.info(
            "refused",
            extra={
                "status": error.status,
                "why": error.private,
                "path": request.path,
                "request_id": g.get("request_id"),
            },
        )
        if request.endpoint in MACHINE_ENDPOINTS:
            return token.machine_error(error.status, retry_after_s=getattr(error, "retry_after_s", None))
        browser.log_foreign(error, g.get("looking"))
        answer = app.make_response(
            (
                _error_page(
                    error.status, error.public, error.values, retry_after_s=getattr(error, "retry_after_s", None)
                ),
                error.status,
            )
        )
        if isinstance(error, Throttled):
            answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer

    @app.errorhandler(CSRFError)
    def _csrf(_error: CSRFError) -> Any:
        return _error_page(400, ""), 400

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Any:
        status = error.code or 500
        if 300 <= status < 400:
            return error
        if request.endpoint in MACHINE_ENDPOINTS:
            return token.machine_error(status)
        if status >= 500:
            return render_template("errors/500.html"), status
        return _error_page(404 if status == 405 else status, ""), status

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> Any:
        log.error("unexpected", extra={"path": request.path, "request_id": g.get("request_id")}, exc_info=error)
        if request.endpoint in MACHINE_ENDPOINTS:
            return token.machine_error(500)
        return render_template("errors/500.html"), 500


def _error_page(
    status: int, public: str, values: Mapping[str, object] | None = None, *, retry_after_s: int | None = None
) -> str:
    """The page of an error. Its sentence is the error's own; English stands beside it, since the language may be unknown."""
    page = ERROR_PAGES.get(status, "errors/error.html")
    text = language.text(public, **(values or {})) if public else ""
    asks = public in ("", browser.NO_RIGHT)
    if status == 400:
        page = "errors/error.html" if text else "errors/400_form_expired.html"
    return render_template(
        page, retry_after_s=retry_after_s or 30, missing=text or None, asks=asks, title=language.text("この操作はできませんでした"),
        text=text or language.text("もどって、もう一度試してください。"), kept=[], action="",
        text_en=language.english(public, **(values or {})) if public else None,
    )  # fmt: skip
