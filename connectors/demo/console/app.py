"""`create_console(config)`: builds the services, registers the routes, the error pages and the headers. Read this first."""

import logging
import time
from collections.abc import Callable

from flask import Flask, Response, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException

from connectors.demo.console.config import Config, origin_of
from connectors.demo.console.database import Database
from connectors.demo.console.entropy import local
from connectors.demo.console.gate import Console, Forbidden, Refused, csrf_token
from connectors.demo.console.members import NotFound
from connectors.demo.console.misbehave import Misbehaviour
from connectors.demo.console.provider import Provider, ProviderUnavailable
from connectors.demo.console.views import desk, entry, machine
from connectors.demo.console.words import LANGUAGES, WORDS, language, role_word, word

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024


def create_console(config: Config, *, pause: Callable[[float], object] = time.sleep) -> Flask:
    """A console that is ready to serve; its database is made when absent, the provider is not called yet.

    pause: how `misbehave.py` waits, in seconds; tests pass their own. Flask's own cookie session is not used (it lives
    in the browser and cannot be revoked), so the app has no SECRET_KEY. No absolute URL comes from a Host header.
    """
    # Authlib prints whole tokens at DEBUG (requirements.md, trap A3).
    logging.getLogger("authlib").setLevel(logging.WARNING)
    app = Flask(__name__, static_folder="static", template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    # A path with two slashes is a 404 like any other, not a redirect that the error table would have to know.
    app.url_map.merge_slashes = False
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.globals.update(t=word, language=language, role_word=role_word, csrf_token=csrf_token)
    app.jinja_env.filters.update(when=_when, iso=_iso, day=_day, number=_number)
    database = Database(config.database)
    database.create()
    app.extensions["console"] = Console(config, database, Provider(config), pause)
    for view in (desk, entry, machine):
        app.register_blueprint(view.blueprint)
    _register_error_pages(app)
    _register_headers(app, config)
    if config.misbehaviour is not Misbehaviour.NONE:
        log.warning("CONSOLE_MISBEHAVE=%s: this console does wrong on purpose", config.misbehaviour.value)
    return app


def _register_error_pages(app: Flask) -> None:
    """One table from exceptions to pages; those of a login are beside the login in `views/entry.py`."""

    def page(status: int, title: str, text: str, *, again: bool = False) -> tuple[str, int]:
        return render_template("message.html", page="C09", title=title, text=text, login=again), status

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[str, int]:
        return page(400, word("refused.title"), word(str(error)), again=True)

    @app.errorhandler(Forbidden)
    def forbidden(error: Forbidden) -> tuple[str, int]:
        function = word(f"function.{error}")
        return page(403, word("forbidden.title"), word("forbidden.text", function=function))

    @app.errorhandler(NotFound)
    def not_found(_error: NotFound) -> tuple[str, int]:
        return page(404, word("404.title"), word("404.text"))

    @app.errorhandler(ProviderUnavailable)
    def unavailable(error: ProviderUnavailable) -> tuple[str, int]:
        log.warning("the provider is not available: %s", error)
        return page(503, word("503.title"), word("503.text"), again=True)

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> tuple[str, int]:
        status = error.code or 500
        if f"{status}.title" in WORDS:
            return page(status, word(f"{status}.title"), word(f"{status}.text"))
        return page(status, word("refused.title"), word("refused.csrf"))


def _register_headers(app: Flask, config: Config) -> None:
    # Chromium applies form-action to the redirect behind a form too, so the logout form needs the provider's origin.
    policy = (
        f"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' {origin_of(config.issuer)};"
        " frame-ancestors 'none'; base-uri 'none'"
    )

    @app.after_request
    def headers(answer: Response) -> Response:
        if request.endpoint != "static":
            answer.headers["Cache-Control"] = "no-store"
        answer.headers["Content-Security-Policy"] = policy
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        answer.vary.update(("Cookie", "Accept-Language"))
        if request.args.get("lang") in LANGUAGES:
            answer.set_cookie("console_lang", request.args["lang"], samesite="Lax", secure=config.secure)
        return answer


def _when(at: float) -> str:
    return local(at).strftime("%Y/%m/%d %H:%M")


def _iso(at: float) -> str:
    return local(at).isoformat(timespec="seconds")


def _day(iso: str) -> str:
    return iso.replace("-", "/")


def _number(value: int) -> str:
    return f"{value:,}"
