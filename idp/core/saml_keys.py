"""`SamlKeys`: the RSA keys that sign SAML messages, each in a self-signed certificate that our metadata publishes (SA-16).

Kept in `signing_key` beside the JWT keys and sealed like them, with purpose `saml` and the certificate as `x5c`. A roll is
publish → wait → sign → withdraw: both certificates stand in the metadata meanwhile, and a service provider that pins one
certificate can be left on it (`service_provider.signing_kid`).
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from sqlalchemy import select, update

from idp.core import ids
from idp.core.db import change, reading, transaction
from idp.core.errors import Unavailable
from idp.core.keystore import SigningKey, key_context
from vault import OpenEvent, Sealed, Secret, Vault

PURPOSE = "saml"
RSA_BITS = 3072
CACHE = timedelta(seconds=10)
CERTIFICATE_LIFE = timedelta(days=10 * 365)


@dataclass(frozen=True)
class SamlKey:
    """One key. certificate: base64 of its DER."""

    kid: str
    certificate: str
    not_before: datetime
    ends_at: datetime | None
    private: rsa.RSAPrivateKey

    def sign(self, data: bytes) -> bytes:
        """RSA-SHA256 over these octets."""
        return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())


class SamlKeys:
    """The keys of this process. `audit` writes the row that an open of key material needs (VA-32)."""

    def __init__(self, vault: Vault, audit: Callable[[OpenEvent], object]) -> None:
        self._vault = vault
        self._audit = audit
        self._lock = threading.Lock()
        self._opened: dict[str, rsa.RSAPrivateKey] = {}
        self._keys: tuple[SamlKey, ...] = ()
        self._read_at: datetime | None = None

    def refresh(self, *, now: datetime) -> None:
        """Read the table again when that is long ago. Never inside a transaction: an open commits its audit row first."""
        if self._read_at is not None and self._read_at <= now < self._read_at + CACHE:
            return
        with reading() as session:
            rows = session.scalars(
                select(SigningKey).where(SigningKey.purpose == PURPOSE, SigningKey.withdrawn_at.is_(None))
            ).all()
        with self._lock:
            self._keys = tuple(
                SamlKey(row.kid, _certificate(row), row.not_before, row.ends_at, self._private(row))
                for row in sorted(rows, key=lambda row: row.not_before)
            )
            self._read_at = now

    def forget(self) -> None:
        """Read the table again at the next use (after a rotation in this process)."""
        self._read_at = None

    def published(self, *, now: datetime) -> tuple[SamlKey, ...]:
        """What our metadata carries, the one that signs first."""
        listed = [key for key in self._keys if key.ends_at is None or key.ends_at > now]
        current = self.signing(now=now) if listed else None
        return tuple(sorted(listed, key=lambda key: (key != current, key.not_before)))

    def signing(self, *, now: datetime, pinned: str | None = None) -> SamlKey:
        """The key that signs now; for a service provider that pins one certificate, that one while it exists (SA-16).

        Raises Unavailable when there is none: nothing is sent unsigned.
        """
        usable = [key for key in self._keys if key.not_before <= now]
        for key in usable:
            if key.kid == pinned:
                return key
        live = [key for key in usable if key.ends_at is None or key.ends_at > now]
        if not live:
            raise Unavailable("SAMLの署名鍵がありません。`sekisho init` を実行してください。", "no SAML signing key")
        return live[-1]

    def _private(self, row: SigningKey) -> rsa.RSAPrivateKey:
        found = self._opened.get(row.kid)
        if found is None:
            fields = self._vault.open(Sealed.from_bytes(row.sealed), key_context(row.id, PURPOSE), record=self._audit)
            found = self._opened[row.kid] = load_rsa_key(fields["key"].reveal_bytes())
        return found


def load_rsa_key(pem: bytes) -> rsa.RSAPrivateKey:
    """An RSA key of ours that the vault has just opened; for no other. Raises TypeError for another kind of key.

    Its primes are not tested again, which takes 150 ms of a process's start for each key: this library made it, and the
    vault's seal says that it is still what was made. Whoever could seal another one holds the company key and needs no tricks.
    """
    loaded = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError("this key is no RSA key")
    return loaded


def _certificate(row: SigningKey) -> str:
    return str((row.public_jwk or {})["x5c"][0])


@dataclass(frozen=True)
class MadeCertificate:
    """A SAML key that was made: its id, when it begins to sign, and its certificate (base64 of DER)."""

    kid: str
    alg: str
    not_before: datetime
    certificate: str


def make_saml_key(vault: Vault, *, not_before: datetime, now: datetime) -> MadeCertificate:
    """Make and store one key with its self-signed certificate."""
    row_id, private = ids.new_id(now), rsa.generate_private_key(65537, RSA_BITS)
    kid = f"saml-{now:%Y%m%d}-{ids.new_secret()[:8]}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Sekisho {kid}")])
    built = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=private.public_key())
        .serial_number(int.from_bytes(ids.new_bytes(16), "big") >> 1)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + CERTIFICATE_LIFE)
        .sign(private, hashes.SHA256())
    )
    der = base64.b64encode(built.public_bytes(serialization.Encoding.DER)).decode()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    sealed = vault.seal({"key": Secret(pem)}, key_context(row_id, PURPOSE))
    with transaction() as session:
        session.add(
            SigningKey(
                id=row_id, created_at=now, purpose=PURPOSE, kid=kid, alg="RS256", public_jwk={"x5c": [der]},
                sealed=sealed.to_bytes(), not_before=not_before,
            )
        )  # fmt: skip
    return MadeCertificate(kid, "RS256", not_before, der)


def rotate_saml_key(vault: Vault, *, publish_for: timedelta, keep_for: timedelta, now: datetime) -> MadeCertificate:
    """The next key: published now, signing after `publish_for` (the time service providers may keep our metadata); the one
    before stays published `keep_for` longer."""
    begins = now + publish_for
    made = make_saml_key(vault, not_before=begins, now=now)
    with transaction() as session:
        change(
            session,
            update(SigningKey)
            .where(SigningKey.purpose == PURPOSE, SigningKey.kid != made.kid, SigningKey.ends_at.is_(None))
            .values(ends_at=begins + keep_for),
        )
    return made


def withdraw_saml_key(vault: Vault, kid: str, *, now: datetime) -> MadeCertificate | None:
    """An emergency: the key signs nothing from now on and leaves the metadata; a new one takes over at once.

    None when there is no such key. Service providers refuse us until they have the new certificate.
    """
    with reading() as session:
        known = session.scalar(
            select(SigningKey.id).where(
                SigningKey.kid == kid, SigningKey.purpose == PURPOSE, SigningKey.withdrawn_at.is_(None)
            )
        )
    if known is None:
        return None
    made = make_saml_key(vault, not_before=now, now=now)
    with transaction() as session:
        change(session, update(SigningKey).where(SigningKey.id == known).values(withdrawn_at=now, ends_at=now))
    return made
