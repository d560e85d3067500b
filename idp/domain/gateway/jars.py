"""What a tool session keeps sealed: the jar, the device cookies, the scan set. Class `session`: engine and gateway open it.

A context names the tool session, the part and the version, so that an old jar put back in the place of a newer one does not
open (VA-04).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from connectors.cookies import Jar
from connectors.scanset import ScanSet
from idp.domain.credentials.contexts import JarPart, jar_context
from idp.domain.tools.models import ToolAccount
from vault import Recorder, Sealed, Sealer, Secret, Vault


@dataclass(frozen=True)
class Place:
    """Where the sealed parts of a tool session belong; `contexts.jar_context` says how."""

    account: ToolAccount
    tool_session_id: uuid.UUID


def seal_jar(sealer: Sealer, place: Place, jar: Jar, *, version: int) -> bytes:
    """For `tool_session.jar_sealed`. version: the `jar_version` it is stored under."""
    return _seal(sealer, place, "jar", jar.to_json(), version)


def open_jar(vault: Vault, place: Place, sealed: bytes, *, version: int, record: Recorder) -> Jar:
    """The jar. Raises what `Vault.open` raises."""
    return Jar.from_json(_open(vault, place, "jar", sealed, version, record))


def seal_scan(sealer: Sealer, place: Place, scan: ScanSet, *, generation: int) -> bytes:
    """For `tool_session.scan_sealed`. generation: the login whose fields it guards."""
    return _seal(sealer, place, "scan", scan.to_json(), generation)


def open_scan(vault: Vault, place: Place, sealed: bytes, *, generation: int, record: Recorder) -> ScanSet:
    """The scan set. Raises what `Vault.open` raises."""
    return ScanSet.from_json(_open(vault, place, "scan", sealed, generation, record))


def seal_device(sealer: Sealer, place: Place, jar: Jar, *, generation: int) -> bytes:
    """For `tool_session.device_sealed`: cookies by which the tool knows our browser again at the next login."""
    return _seal(sealer, place, "device", jar.to_json(), generation)


def open_device(vault: Vault, place: Place, sealed: bytes, *, generation: int, record: Recorder) -> Jar:
    """The device cookies. Raises what `Vault.open` raises."""
    return Jar.from_json(_open(vault, place, "device", sealed, generation, record))


def _seal(sealer: Sealer, place: Place, part: JarPart, data: bytes, version: int) -> bytes:
    context = jar_context(place.account, place.tool_session_id, part, version)
    return sealer.seal({part: Secret(data)}, context).to_bytes()


def _open(vault: Vault, place: Place, part: JarPart, sealed: bytes, version: int, record: Recorder) -> bytes:
    context = jar_context(place.account, place.tool_session_id, part, version)
    return vault.open(Sealed.from_bytes(sealed), context, record=record)[part].reveal_bytes()
