"""Origins of registered redirect URIs: browser apps at these may call the token and userinfo endpoints (OA-34)."""

from __future__ import annotations

from urllib.parse import urlsplit

from sqlalchemy import select

from idp.core.db import reading
from idp.domain.applications.models import Application, RelyingParty


def registered() -> frozenset[str]:
    """The origins, read when a cross-origin request arrives: rare, and configuration rather than access."""
    with reading() as session:
        rows = session.scalars(
            select(RelyingParty.redirect_uris)
            .join(Application, Application.id == RelyingParty.application_id)
            .where(Application.ended_at.is_(None), RelyingParty.auth_method == "none")
        ).all()
    parts = (urlsplit(uri) for uris in rows for uri in uris)
    return frozenset(f"{p.scheme}://{p.netloc}" for p in parts if p.netloc)
