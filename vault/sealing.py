"""Seal, open, rewrap: the three verbs of the vault, and the order in which an open happens.

Calls `keyring` for company keys and `envelope` for bytes. Who may ask is the caller's business except for one thing:
the key classes of this process are fixed when its `Vault` is made.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vault import envelope
from vault.context import Context, KeyClass
from vault.envelope import Payload, WrappedKey
from vault.errors import ClassRefused, Damaged, NotRecorded
from vault.keyring import Keyring
from vault.sealed import Sealed
from vault.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEvent:
    """What is about to be opened, for the audit row. Ids and names, no value.

    key_id: company key. data_key_id: tells one write of a record from the next. fields: names, sorted.
    """

    context: Context
    key_id: UUID
    data_key_id: UUID
    fields: tuple[str, ...]


#: Commits the audit row and returns, or raises; a plain function, not a coroutine.
Recorder = Callable[[OpenEvent], object]


class Sealer:
    """Seals for every class and opens none: what a process gets for classes that are not its own (VA-30)."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, fields: Mapping[str, Secret], context: Context) -> Sealed:
        """Seal the fields of one version of one record under a fresh data key.

        fields: name → value, at least one. context: of the record as a whole, so with an empty field.
        Raises ValueError or TypeError for what cannot be sealed; SealedRoot, WrongKey, KeyShredded, KeyExhausted.
        """
        _whole_record(context)
        if not fields:
            raise ValueError("nothing to seal")
        if not all(isinstance(value, Secret) for value in fields.values()):
            raise TypeError("fields are sealed as Secret, so that the clear value cannot be logged on its way here")
        company_key = self._keyring.for_sealing(context.company, context.key_class)
        data_key, data_key_id = os.urandom(envelope.KEY_BYTES), os.urandom(envelope.ID_BYTES)
        payloads = {
            name: envelope.seal_payload(data_key, data_key_id, value.reveal_bytes(), context.for_field(name))
            for name, value in fields.items()
        }
        return Sealed(envelope.wrap_key(company_key.key, company_key.id, data_key, data_key_id, context), payloads)


class Vault(Sealer):
    """Seals for every class, opens the classes in `opens` and no other."""

    def __init__(self, keyring: Keyring, *, opens: Collection[KeyClass]) -> None:
        super().__init__(keyring)
        self.opens: Final = frozenset(opens)

    def open(self, sealed: Sealed, context: Context, *, record: Recorder) -> Mapping[str, Secret]:
        """All fields of a record, or none of them.

        context: as at `seal`. record: called once, after the headers were read and before any key is touched; when it
        returns the open is on record, when it raises nothing is opened. It has no default (VA-32).
        Order: parse → suite list → record → unwrap → commitment → decrypt.
        Raises ClassRefused, UnknownSuite, NotRecorded, KeyShredded, SealedRoot, and for everything else that is not
        right an IntegrityFailure.
        """
        self._refuse_other_classes(context)
        wrapped, payloads = _parse(sealed)
        event = OpenEvent(
            context=context,
            key_id=UUID(bytes=wrapped.wrapping_key_id),
            data_key_id=UUID(bytes=wrapped.key_id),
            fields=tuple(sorted(payloads)),
        )
        _record(record, event)
        company_key = self._keyring.for_opening(event.key_id, company=context.company, key_class=context.key_class)
        data_key = envelope.unwrap_key(company_key, wrapped, context)
        return {
            name: Secret(envelope.open_payload(data_key, payload, context.for_field(name)))
            for name, payload in payloads.items()
        }

    def rewrap(self, sealed: Sealed, context: Context, *, to: UUID) -> Sealed:
        """The same record with its data key under the active company key `to`; payload bytes unchanged.

        No plaintext is made, so nothing is recorded. A record already under `to` comes back as it is, which makes a
        batch that was stopped safe to repeat. The context is needed: the wrap is bound to it.
        Raises like `open`, without NotRecorded; WrongContext also when `to` is not active.
        """
        self._refuse_other_classes(context)
        wrapped, _ = _parse(sealed)
        old_id = UUID(bytes=wrapped.wrapping_key_id)
        if old_id == to:
            return sealed
        old = self._keyring.for_opening(old_id, company=context.company, key_class=context.key_class)
        data_key = envelope.unwrap_key(old, wrapped, context)
        new = self._keyring.for_rewrapping(to, company=context.company, key_class=context.key_class)
        return Sealed(envelope.wrap_key(new.key, new.id, data_key, wrapped.key_id, context), sealed.fields)

    def _refuse_other_classes(self, context: Context) -> None:
        _whole_record(context)
        if context.key_class not in self.opens:
            raise ClassRefused(f"this process does not open the class {context.key_class.value}")


def _whole_record(context: Context) -> None:
    if context.field:
        raise ValueError("the context names the record; its fields name themselves")


def _parse(sealed: Sealed) -> tuple[WrappedKey, dict[str, Payload]]:
    wrapped = envelope.parse_wrapped_key(sealed.wrapped_dek)
    payloads = {name: envelope.parse_payload(data) for name, data in sealed.fields.items()}
    # A record without fields would open as an empty success; a field without a name has no place.
    if not payloads or "" in payloads:
        raise Damaged("a sealed record has fields, and each has a name")
    if any(payload.data_key_id != wrapped.key_id for payload in payloads.values()):
        raise Damaged("a payload belongs to another data key")
    return wrapped, payloads


def _record(record: Recorder, event: OpenEvent) -> None:
    try:
        answer = record(event)
    except Exception as error:
        raise NotRecorded("the open could not be recorded; nothing was opened") from error
    # An `async def` recorder returns at once and has recorded nothing.
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise NotRecorded("the recorder is a coroutine; nothing was recorded and nothing was opened")
