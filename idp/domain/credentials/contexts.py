"""Where each sealed value of a tool belongs: the contexts that its ciphertext is bound to (VA-04).

One place for all of them, because who seals, who opens and who rewraps are three processes, and a context that two of them
build differently opens for neither.
"""

from __future__ import annotations

import uuid
from typing import Literal, Protocol

from idp.domain.tools.models import ToolAccount
from vault import Context, Purpose

#: an account that is not of one store; ids are UUIDs, so no store has this name
NO_STORE = "company"


class Owner(Protocol):
    """Of a tool account, what its contexts name; a row with these columns will do, which a rotation of 100,000 records needs."""

    @property
    def id(self) -> uuid.UUID: ...
    @property
    def company_id(self) -> uuid.UUID: ...
    @property
    def store_id(self) -> uuid.UUID | None: ...
    @property
    def application_id(self) -> uuid.UUID: ...


#: which column of a tool session
JarPart = Literal["jar", "scan", "device"]


def context_of(account: ToolAccount | Owner, credential_id: uuid.UUID, version: int) -> Context:
    """The place of one version of a credential: company, store, tool, tool account and credential, version."""
    return Context(
        company=str(account.company_id), store=_store(account), tool=str(account.application_id),
        record=f"{account.id}/{credential_id}", version=version, purpose=Purpose.TOOL_LOGIN,
    )  # fmt: skip


def jar_context(account: ToolAccount | Owner, tool_session_id: uuid.UUID, part: JarPart, version: int) -> Context:
    """The place of a jar, a scan set or device cookies. version, from 1: `jar_version` of a jar, `generation` of the others."""
    return Context(
        company=str(account.company_id), store=_store(account), tool=str(account.application_id),
        record=f"{account.id}/{tool_session_id}/{part}", version=version,
        purpose=Purpose.TOOL_DEVICE if part == "device" else Purpose.TOOL_JAR,
    )  # fmt: skip


def _store(account: ToolAccount | Owner) -> str:
    return str(account.store_id) if account.store_id else NO_STORE
