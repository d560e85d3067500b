"""Every table, imported once: for migrations, and for the kill test that walks the registry (RV-20)."""

from idp.core import keystore
from idp.core.db import Base
from idp.domain.applications import models as applications
from idp.domain.authn import models as authn
from idp.domain.credentials import models as credentials
from idp.domain.directory import models as directory
from idp.domain.gateway import models as gateway
from idp.domain.sessions import models as sessions
from idp.domain.tokens import models as tokens
from idp.domain.tools import models as tools
from idp.ledgers.audit import models as audit
from idp.ledgers.outbox import models as outbox
from idp.ledgers.siem import models as siem
from idp.lifecycle.revocation import models as revocation
from idp.lifecycle.revocation import reinstate

__all__ = [
    "Base",
    "applications",
    "audit",
    "authn",
    "credentials",
    "directory",
    "gateway",
    "keystore",
    "outbox",
    "reinstate",
    "revocation",
    "sessions",
    "siem",
    "tokens",
    "tools",
]
