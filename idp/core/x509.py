"""Certificates of service providers: what they may verify, and encryption for one of them. The only place that looks inside.

A certificate is a carrier of a public key: who may use it was decided when its metadata was accepted, so neither its issuer
nor its end date is judged here (SAML Metadata Interoperability Profile §2.6.1); an old one is reported (`Certificate.ends_at`).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509 as standard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from idp.core import ids
from idp.core.errors import Invalid

MORE = "http://www.w3.org/2001/04/xmldsig-more#"
#: SA-04. SHA-1, MD5, HMAC and DSA are not here, and there is no way to add them.
RSA = {f"{MORE}rsa-sha256": hashes.SHA256(), f"{MORE}rsa-sha384": hashes.SHA384(), f"{MORE}rsa-sha512": hashes.SHA512()}
ECDSA = {f"{MORE}ecdsa-sha256": hashes.SHA256(), f"{MORE}ecdsa-sha384": hashes.SHA384()}
RSA_MIN_BITS = 2048
CURVES = {"secp256r1": 32, "secp384r1": 48}
#: content encryption by its URI: bits of the key
GCM = {"http://www.w3.org/2009/xmlenc11#aes256-gcm": 256, "http://www.w3.org/2009/xmlenc11#aes128-gcm": 128}


@dataclass(frozen=True)
class Certificate:
    """A usable certificate. der: base64 without line breaks; ends_at: the date printed in it."""

    der: str
    key: str
    ends_at: datetime
    fingerprint: str

    @property
    def rsa(self) -> bool:
        """Only an RSA key can be encrypted for."""
        return self.key.startswith("RSA")


@lru_cache(maxsize=512)
def _load(der: str) -> standard.Certificate:
    return standard.load_der_x509_certificate(base64.b64decode(der, validate=True))


def read(text: str) -> Certificate:
    """A certificate as metadata carries it: base64 with or without line breaks. Raises Invalid for a key that is too weak."""
    der = "".join(text.split())
    try:
        found = _load(der)
        key = found.public_key()
    except (ValueError, TypeError, binascii.Error) as error:
        raise Invalid("証明書を読めません。", f"certificate: {type(error).__name__}", field="metadata") from error
    if isinstance(key, rsa.RSAPublicKey):
        name, good = f"RSA {key.key_size}", key.key_size >= RSA_MIN_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        name, good = f"EC {key.curve.name}", key.curve.name in CURVES
    else:
        name, good = type(key).__name__, False
    if not good:
        raise Invalid(
            "証明書の鍵が弱すぎるか、使えない種類です(RSA 2048ビット以上か、P-256・P-384)。", name, field="metadata"
        )
    return Certificate(der, name, found.not_valid_after_utc, found.fingerprint(hashes.SHA256()).hex())


def pem(der: str) -> str:
    """The same certificate with its frame."""
    lines = "\n".join(der[i : i + 64] for i in range(0, len(der), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def verifies(der: str, algorithm: str, signature: bytes, data: bytes) -> bool:
    """True when the certificate's key made this signature with exactly this algorithm. Algorithms: SA-04."""
    key = _load(der).public_key()
    try:
        if algorithm in RSA and isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_MIN_BITS:
            key.verify(signature, data, padding.PKCS1v15(), RSA[algorithm])
            return True
        if algorithm in ECDSA and isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
            size = CURVES[key.curve.name]
            if len(signature) != 2 * size:  # XML Signature: r and s side by side, not DER
                return False
            r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(ECDSA[algorithm]))
            return True
    except InvalidSignature:
        return False
    return False


def encrypt(der: str, plain: bytes, *, method: str) -> tuple[bytes, bytes]:
    """AES-GCM under a fresh key, and that key under RSA-OAEP (rsa-oaep-mgf1p, SHA-1 as the URI fixes it; SA-13).

    Returns the wrapped key, and IV, ciphertext and tag in one piece as XML Encryption 1.1 §5.2.4 has them. Raises Invalid
    when the certificate's key cannot be encrypted for.
    """
    key = _load(der).public_key()
    if not isinstance(key, rsa.RSAPublicKey) or method not in GCM:
        raise Invalid("この証明書では暗号化できません。", method, field="metadata")
    content_key, iv = ids.new_bytes(GCM[method] // 8), ids.new_bytes(12)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - fixed by rsa-oaep-mgf1p, no signature
    return key.encrypt(content_key, oaep), iv + AESGCM(content_key).encrypt(iv, plain, None)
