"""Errors carry two texts; logs carry neither secrets nor line breaks."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from idp.core import errors, logs
from idp.core.errors import SekishoError, Throttled


@pytest.fixture
def configured() -> Iterator[logging.Logger]:
    """A logger for a test that configures our logging; pytest's own comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.PINNED}
    yield logging.getLogger("idp.test")
    root.handlers[:], root.level = handlers, level
    for name, kept in levels.items():
        logging.getLogger(name).setLevel(kept)


def every_error() -> list[type[SekishoError]]:
    return [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, SekishoError)]


def test_each_error_has_a_status_and_keeps_its_texts_apart_wb22() -> None:
    """WB-22: the public text is for people, the private one for the log; str() is the private one, so that a log line has it."""
    assert len(every_error()) >= 9
    for kind in every_error():
        made = (
            kind("公開", "private 42", retry_after_s=7)
            if issubclass(kind, Throttled)
            else kind("公開", "private 42", field="name", row=3)
        )
        assert 400 <= made.status < 600
        assert made.public == "公開"
        assert str(made) == "private 42"
        assert "private" not in made.public
        if not issubclass(kind, Throttled):
            assert (made.field, made.row) == ("name", 3)
    assert str(errors.Invalid("公開")) == "公開"
    assert {e.status for e in every_error()} >= {400, 403, 404, 409, 429, 500, 503}


def test_one_object_a_line_and_no_secret(configured: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """VA-33, WB-08: named secrets are hidden; control, bidi and ANSI characters cannot forge a line."""
    logs.configure()
    nasty = 'x\n{"level":"error"}\x1b[31m\u202e'
    configured.info(
        nasty,
        extra={
            "password": "p1",
            "client_secret": "p2",
            "Authorization": "p3",
            "code_verifier": "p4",
            "path": nasty,
            "request_id": "r7",
        },
    )
    try:
        raise ValueError("inner")
    except ValueError:
        configured.exception("broke", extra={"refresh_token": "p5"})
    logging.getLogger("authlib.x").info("p6 whole token")
    logging.getLogger("sqlalchemy.engine.Engine").info("p7 statement")
    err = capsys.readouterr().err
    lines = err.strip().splitlines()
    assert len(lines) == 2
    first, second = (json.loads(line) for line in lines)
    for secret in ("p1", "p2", "p3", "p4", "p5", "p6", "p7"):
        assert secret not in err
    for raw in ("\x1b", "\u202e"):
        assert raw not in err
    assert (first["event"], first["path"], first["request_id"], first["password"]) == (nasty, nasty, "r7", "[hidden]")
    assert "Traceback" in second["exception"]
    assert second["timestamp"].endswith("Z")


def test_noisy_libraries_stay_quiet_at_debug(configured: logging.Logger) -> None:
    """Traps A3, S8: whatever the level of ours, what prints tokens and messages stays at WARNING."""
    logs.configure(level="DEBUG")
    for name in ("authlib", "saml2", "httpx2", "httpcore2", "sqlalchemy.engine"):
        assert logging.getLogger(name).getEffectiveLevel() >= logging.WARNING, name
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
