"""JSON logs with a request id. Loggers that print secrets are pinned at WARNING (traps A3, S8)."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

#: Authlib prints whole tokens below WARNING, pysaml2 and signxml print whole messages; the HTTP libraries print headers
PINNED = ("authlib", "saml2", "signxml", "httpcore2", "httpx2", "sqlalchemy.engine")
HIDDEN = ("password", "secret", "token", "code", "cookie", "authorization", "verifier", "seed")


def configure(*, level: str = "INFO") -> None:
    """Send every record of the standard library to stderr as one JSON object a line."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Last net: a value whose name says that it is a secret is not printed, whoever logged it (VA-33)."""
    for name in event:
        if name not in {"event", "level", "logger", "timestamp"} and any(word in name.lower() for word in HIDDEN):
            event[name] = "[hidden]"
    return event
