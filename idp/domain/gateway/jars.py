"""What a tool session keeps sealed: the jar, the device cookies, the scan set. Class `session`: engine and gateway open it.

A context names the tool session and the version, so that an old jar put back in the place of a newer one does not open, and
the field names tell a jar from a scan set (VA-04).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from connectors.cookies import Jar
from connectors.scanset import ScanSet
from vault import Context, Purpose, Recorder, Sealed, Sealer, Secret, Vault

#: the store of a context whose tool account belongs to the whole company
EVERY_STORE = "every-store"


@dataclass(frozen=True)
class Place:
    """Where the sealed parts of a tool session belong."""

    company_id: uuid.UUID
    store_id: uuid.UUID | None
    tool_account_id: uuid.UUID
    tool_session_id: uuid.UUID

    def context(self, version: int, purpose: Purpose) -> Context:
        """The context of one part at one version."""
        return Context(
            company=str(self.company_id), store=str(self.store_id or EVERY_STORE), tool=str(self.tool_account_id),
            record=str(self.tool_session_id), version=version, purpose=purpose,
        )  # fmt: skip


def seal_jar(sealer: Sealer, place: Place, jar: Jar, *, version: int) -> bytes:
    """For `tool_session.jar_sealed`. version: the `jar_version` it is stored under."""
    return sealer.seal({"jar": Secret(jar.to_json())}, place.context(version, Purpose.TOOL_JAR)).to_bytes()


def open_jar(vault: Vault, place: Place, sealed: bytes, *, version: int, record: Recorder) -> Jar:
    """The jar. Raises what `Vault.open` raises."""
    fields = vault.open(Sealed.from_bytes(sealed), place.context(version, Purpose.TOOL_JAR), record=record)
    return Jar.from_json(fields["jar"].reveal_bytes())


def seal_scan(sealer: Sealer, place: Place, scan: ScanSet, *, generation: int) -> bytes:
    """For `tool_session.scan_sealed`. generation: the login whose fields it guards."""
    return sealer.seal({"scan": Secret(scan.to_json())}, place.context(generation, Purpose.TOOL_JAR)).to_bytes()


def open_scan(vault: Vault, place: Place, sealed: bytes, *, generation: int, record: Recorder) -> ScanSet:
    """The scan set. Raises what `Vault.open` raises."""
    fields = vault.open(Sealed.from_bytes(sealed), place.context(generation, Purpose.TOOL_JAR), record=record)
    return ScanSet.from_json(fields["scan"].reveal_bytes())


def seal_device(sealer: Sealer, place: Place, jar: Jar, *, generation: int) -> bytes:
    """For `tool_session.device_sealed`: cookies by which the tool knows our browser again at the next login."""
    return sealer.seal({"device": Secret(jar.to_json())}, place.context(generation, Purpose.TOOL_DEVICE)).to_bytes()


def open_device(vault: Vault, place: Place, sealed: bytes, *, generation: int, record: Recorder) -> Jar:
    """The device cookies. Raises what `Vault.open` raises."""
    fields = vault.open(Sealed.from_bytes(sealed), place.context(generation, Purpose.TOOL_DEVICE), record=record)
    return Jar.from_json(fields["device"].reveal_bytes())
