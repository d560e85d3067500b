"""A certificate authority of a test, and servers' certificates of it: right ones, of another name, expired, of nobody."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Authority:
    """Its key and certificate, and contexts that trust it."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(folder, key, _certificate("authority", key, None, days=30))

    def file(self) -> Path:
        """Its certificate as a file, for whoever is to trust it."""
        path = self.folder / "authority.pem"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def client(self) -> ssl.SSLContext:
        """What a client gets; everything else of the context is the library's default."""
        return ssl.create_default_context(cadata=self.certificate.public_bytes(serialization.Encoding.PEM).decode())

    def server(self, name: str, *, days: int = 1, issued: bool = True) -> ssl.SSLContext:
        """For a server of this name. days < 0: expired; issued: by this authority, and not by the server itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, (self.key, self.certificate) if issued else None, days=days)
        path = self.folder / f"{name}-{days}-{issued}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None,
    *,
    days: int,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(by[1].subject if by else subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=40)).not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )  # fmt: skip
    return builder.sign(by[0] if by else key, hashes.SHA256())
