"""Our own keys: `Signer` signs and verifies JWTs, `secret()` gives the two symmetric keys. Nobody else sees key material.

One key per purpose and algorithm (C2). A token is verified by the purpose that its caller names, never by what the token
says of itself: algorithm, `typ` and key come from our table, header `jwk`, `jku` and `x5u` are not read (OA-25).
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyParameters, RSAKey
from joserfc.jws import extract_compact
from sqlalchemy import select, update

from idp.core import ids, logkey, ticketkey
from idp.core.db import change, reading, transaction
from idp.core.keystore import SigningKey, key_context
from idp.core.saml_keys import PURPOSE as SAML
from idp.core.saml_keys import load_rsa_key, make_saml_key
from vault import OpenEvent, Sealed, Secret, Vault

RSA_BITS = 3072
#: how long a process may sign with keys it has read; a withdrawn one is refused at once by the live check of userinfo
CACHE = timedelta(seconds=10)
ALGORITHMS = ("ES256", "RS256")
SYMMETRIC = ("refresh", "web")


@dataclass(frozen=True)
class _Key:
    kid: str
    alg: str
    not_before: datetime
    key: ECKey | RSAKey


@dataclass(frozen=True)
class _Ring:
    """keys: published, with their private part. retired: public parts by kid, for hints about tokens that have expired."""

    read_at: datetime
    keys: tuple[_Key, ...]
    retired: dict[str, _Key]

    @cached_property
    def published(self) -> bytes:
        """The key set as a relying party reads it, put together once."""
        keys = [{**k.key.as_dict(private=False), "kid": k.kid, "alg": k.alg, "use": "sig"} for k in self.keys]
        return json.dumps({"keys": keys}, separators=(",", ":"), sort_keys=True).encode()


class Signer:
    """Signs and verifies with the keys of the table. `audit` writes the row that an open of key material needs (VA-32)."""

    def __init__(self, vault: Vault, audit: Callable[[OpenEvent], object]) -> None:
        self._vault = vault
        self._audit = audit
        self._lock = threading.Lock()
        self._opened: dict[str, ECKey | RSAKey] = {}
        self._ring: _Ring | None = None
        self._secrets: dict[str, bytes] = {}

    def sign(self, claims: dict[str, Any], *, typ: str, alg: str, now: datetime) -> str:
        """A compact JWT under the newest usable key of this algorithm. typ: the media type of the token kind."""
        usable = [k for k in self._keys() if k.alg == alg and k.not_before <= now]
        key = max(usable, key=lambda k: k.not_before)
        return jwt.encode({"alg": alg, "typ": typ, "kid": key.kid}, claims, key.key, algorithms=[alg])

    def verify(self, token: str, *, typ: str, retired: bool = False) -> tuple[str, dict[str, Any]] | None:
        """Key id and claims of a genuine token of ours of this `typ`; None for anything else. Times are the caller's.

        retired: keys that left the published set count too, withdrawn ones never: an `id_token_hint` may be old (OI-04).
        """
        if len(token) > 8192 or token.count(".") != 2:
            return None
        try:
            header = _header(token)
            known = self._known(str(header.get("kid")), retired=retired)
            if known is None or header.get("typ") != typ or header.get("alg") != known.alg or "crit" in header:
                return None
            return known.kid, dict(jwt.decode(token, known.key, algorithms=[known.alg]).claims)
        except (JoseError, ValueError):
            return None

    def jwks(self, *, now: datetime) -> bytes:
        """The published key set, as bytes: keys in use, keys about to be, and keys whose tokens may still live."""
        self.refresh(now=now)
        return self._ring.published if self._ring is not None else b'{"keys":[]}'

    def secret(self, purpose: str) -> bytes:
        """32 bytes for `refresh` or `web`. Made at `init`, never rotated silently."""
        with self._lock:
            if purpose in self._secrets:
                return self._secrets[purpose]
        with reading() as session:
            row = session.execute(
                select(SigningKey.id, SigningKey.sealed).where(
                    SigningKey.purpose == purpose, SigningKey.withdrawn_at.is_(None)
                )
            ).one()
        opened = self._open(row.id, row.sealed, purpose).reveal_bytes()
        with self._lock:
            self._secrets[purpose] = opened
        return opened

    def forget(self) -> None:
        """Read the table again at the next use (after a rotation in this process)."""
        self._ring = None

    def refresh(self, *, now: datetime) -> None:
        """Read the key set again when it is older than `CACHE`. Called at the start of a request or a worker step, never
        inside a transaction: opening a new key commits its audit row first, and on SQLite that would wait for itself."""
        ring = self._ring
        if ring is not None and ring.read_at <= now < ring.read_at + CACHE:
            return
        with reading() as session:
            rows = session.scalars(
                select(SigningKey).where(SigningKey.purpose == "jwt", SigningKey.withdrawn_at.is_(None))
            ).all()
        published = [row for row in rows if row.ends_at is None or row.ends_at > now]
        self._ring = _Ring(
            now,
            tuple(_Key(row.kid, row.alg, row.not_before, self._private(row)) for row in published),
            {row.kid: _Key(row.kid, row.alg, row.not_before, _public(row)) for row in rows if row not in published},
        )

    def _keys(self) -> tuple[_Key, ...]:
        return self._ring.keys if self._ring is not None else ()

    def _known(self, kid: str, *, retired: bool) -> _Key | None:
        found = next((key for key in self._keys() if key.kid == kid), None)
        if found is None and retired and self._ring is not None:
            return self._ring.retired.get(kid)
        return found

    def _private(self, row: SigningKey) -> ECKey | RSAKey:
        """The parsed private key; parsed once per process, because parsing costs more than signing."""
        found = self._opened.get(row.kid)
        if found is None:
            pem = self._open(row.id, row.sealed, "jwt").reveal_bytes()
            about: KeyParameters = {"kid": row.kid, "use": "sig", "alg": row.alg}
            found = ECKey.import_key(pem, about) if row.alg == "ES256" else RSAKey(load_rsa_key(pem), pem, about)
            self._opened[row.kid] = found
        return found

    def _open(self, row_id: uuid.UUID, sealed: bytes, purpose: str) -> Secret:
        fields = self._vault.open(Sealed.from_bytes(sealed), key_context(row_id, purpose), record=self._audit)
        return fields["key"]


def _public(row: SigningKey) -> ECKey | RSAKey:
    key_type = ECKey if row.alg == "ES256" else RSAKey
    return key_type.import_key(row.public_jwk or {})


def _header(token: str) -> dict[str, Any]:
    return dict(extract_compact(token.encode()).headers())


@dataclass(frozen=True)
class Made:
    """A key that was made: its id and when it begins to sign."""

    kid: str
    alg: str
    not_before: datetime


def make_jwt_key(vault: Vault, alg: str, *, not_before: datetime, now: datetime) -> Made:
    """Make and store one signing key. It is published at once and signs from `not_before` (OI-15)."""
    row_id = ids.new_id(now)
    key: ECKey | RSAKey = ECKey.generate_key("P-256") if alg == "ES256" else RSAKey.generate_key(RSA_BITS)
    kid = f"{alg.lower()}-{now:%Y%m%d}-{ids.new_secret()[:8]}"
    sealed = vault.seal({"key": Secret(key.as_pem(private=True))}, key_context(row_id, "jwt"))
    with transaction() as session:
        session.add(
            SigningKey(
                id=row_id, created_at=now, purpose="jwt", kid=kid, alg=alg, public_jwk=key.as_dict(private=False),
                sealed=sealed.to_bytes(), not_before=not_before,
            )
        )  # fmt: skip
    return Made(kid, alg, not_before)


def rotate_jwt_key(vault: Vault, alg: str, *, publish_for: timedelta, keep_for: timedelta, now: datetime) -> Made:
    """The next key of an algorithm: published now, used after `publish_for` (the time clients may cache our key set); the
    one before leaves the set when everything it signed has expired, `keep_for` later."""
    begins = now + publish_for
    made = make_jwt_key(vault, alg, not_before=begins, now=now)
    with transaction() as session:
        change(
            session,
            update(SigningKey)
            .where(
                SigningKey.purpose == "jwt",
                SigningKey.alg == alg,
                SigningKey.kid != made.kid,
                SigningKey.ends_at.is_(None),
            )
            .values(ends_at=begins + keep_for),
        )
    return made


def withdraw_jwt_key(vault: Vault, kid: str, *, now: datetime) -> Made | None:
    """An emergency: the key leaves the set at once and what it signed is refused; a new one signs from now on.

    None when there is no such key.
    """
    with reading() as session:
        alg = session.scalar(select(SigningKey.alg).where(SigningKey.kid == kid, SigningKey.withdrawn_at.is_(None)))
    if alg is None:
        return None
    made = make_jwt_key(vault, alg, not_before=now, now=now)
    with transaction() as session:
        change(session, update(SigningKey).where(SigningKey.kid == kid).values(withdrawn_at=now, ends_at=now))
    return made


def make_first_keys(vault: Vault, *, now: datetime) -> list[Made]:
    """The keys that an installation needs before its first request; what exists is left alone, so it may run again."""
    with reading() as session:
        have = {
            (row.purpose, row.alg)
            for row in session.execute(
                select(SigningKey.purpose, SigningKey.alg).where(SigningKey.withdrawn_at.is_(None))
            )
        }
    made = [make_jwt_key(vault, alg, not_before=now, now=now) for alg in ALGORITHMS if ("jwt", alg) not in have]
    for purpose in SYMMETRIC:
        if (purpose, "HS256") in have:
            continue
        row_id = ids.new_id(now)
        sealed = vault.seal({"key": Secret(ids.new_bytes(32))}, key_context(row_id, purpose))
        with transaction() as session:
            session.add(
                SigningKey(
                    id=row_id, created_at=now, purpose=purpose, kid=f"{purpose}-{ids.new_secret()[:8]}", alg="HS256",
                    sealed=sealed.to_bytes(), not_before=now,
                )
            )  # fmt: skip
    if (ticketkey.PURPOSE, "HS256") not in have:
        ticketkey.make(vault, now=now)
    if (logkey.PURPOSE, "Ed25519") not in have:
        logkey.make(vault, now=now)
    if (SAML, "RS256") not in have:
        begun = make_saml_key(vault, not_before=now, now=now)
        made.append(Made(begun.kid, begun.alg, begun.not_before))
    return made


def list_keys() -> Iterable[SigningKey]:
    """All keys that verify tokens or SAML messages, oldest first."""
    with reading() as session:
        query = select(SigningKey).where(SigningKey.purpose.in_(("jwt", SAML))).order_by(SigningKey.id)
        return session.scalars(query).all()
