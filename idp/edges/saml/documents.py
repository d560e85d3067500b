"""GET /saml/metadata: our metadata, signed once an hour and kept as bytes; its address is our entityID."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Response, current_app

from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.saml import bp, metadata
from idp.services import Services

MEDIA_TYPE = "application/samlmetadata+xml"
#: far inside its own validity, so that nobody gets a document about to end
REMAKE = timedelta(hours=1)


@dataclass(frozen=True)
class _Made:
    at: datetime
    kids: tuple[str, ...]
    octets: bytes


@bp.get("/saml/metadata", endpoint="metadata")
def show() -> Answer:
    """Public, and the same for everybody."""
    octets = document(browser.services(), now=browser.now())
    answer = Response(octets, mimetype=MEDIA_TYPE)
    answer.headers["Content-Disposition"] = 'inline; filename="sekisho-idp.xml"'
    return answer


def document(services: Services, *, now: datetime) -> bytes:
    """The document of now: made again when an hour has passed or the keys are others."""
    keys = services.saml_keys.published(now=now)
    services.saml_keys.signing(now=now)  # without a key there is no document: Unavailable, and why
    kids = tuple(key.kid for key in keys)
    kept: _Made | None = current_app.extensions.get("sekisho-saml-metadata")
    if kept is None or kept.kids != kids or not kept.at <= now < kept.at + REMAKE:
        kept = _Made(now, kids, metadata.ours(services.settings.issuer, keys, now=now))
        current_app.extensions["sekisho-saml-metadata"] = kept
    return kept.octets
