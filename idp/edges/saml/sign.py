"""Signing and encrypting in process (D6): lxml canonicalises, `SamlKeys` signs, `x509` encrypts. Nothing touches a disk.

One form only: enveloped, exclusive canonicalisation without comments, SHA-256, RSA-SHA256 (SA-11). What we sign is our own
small tree, so there is nothing to choose and nothing of a peer's in it.
"""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

from lxml import etree

from idp.core import x509
from idp.core.saml_keys import SamlKey
from idp.edges.saml.xml import DS, XENC, Element, q

EXC_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = f"{DS}enveloped-signature"
SHA256 = f"{XENC}sha256"
RSA_SHA256 = f"{x509.MORE}rsa-sha256"
OAEP = f"{XENC}rsa-oaep-mgf1p"
SHA1 = f"{DS}sha1"


def canonical(node: Element) -> bytes:
    """Exclusive canonical form without comments, without what stands after the element."""
    tail, node.tail = node.tail, None
    octets: bytes = etree.tostring(node, method="c14n", exclusive=True, with_comments=False)
    node.tail = tail
    return octets


def sign(node: Element, key: SamlKey) -> None:
    """Put an enveloped signature into an element that has an ID, directly after its Issuer (SAMLCore §5.4)."""
    digest = base64.b64encode(hashlib.sha256(canonical(node)).digest()).decode()
    signature = etree.fromstring(
        f'<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{EXC_C14N}"/>'
        f'<ds:SignatureMethod Algorithm="{RSA_SHA256}"/><ds:Reference URI="#{node.attrib["ID"]}"><ds:Transforms>'
        f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXC_C14N}"/></ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{SHA256}"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>'
        f"<ds:SignatureValue/><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{key.certificate}</ds:X509Certificate>"
        "</ds:X509Data></ds:KeyInfo></ds:Signature>"
    )
    issuer = node.find(q("saml", "Issuer"))
    if issuer is None:
        node.insert(0, signature)  # metadata
    else:
        issuer.addnext(signature)
    signature[1].text = base64.b64encode(key.sign(canonical(signature[0]))).decode()


def sign_query(parameter: str, message: str, relay_state: str | None, key: SamlKey) -> str:
    """The signed query of the Redirect binding (SAMLBind §3.4.4.1): exactly the octets that are sent are signed."""
    parts = [f"{parameter}={quote(message, safe='')}"]
    if relay_state:
        parts.append(f"RelayState={quote(relay_state, safe='')}")
    parts.append(f"SigAlg={quote(RSA_SHA256, safe='')}")
    query = "&".join(parts)
    signature = base64.b64encode(key.sign(query.encode("ascii"))).decode()
    return f"{query}&Signature={quote(signature, safe='')}"


def encrypt(assertion: Element, certificate: str, method: str) -> Element:
    """An EncryptedAssertion in place of an Assertion: AES-GCM under RSA-OAEP (SA-13). Raises Invalid, and then nothing is sent."""
    wrapped, body = x509.encrypt(certificate, canonical(assertion), method=method)
    return etree.fromstring(
        f'<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">'
        f'<xenc:EncryptedData xmlns:xenc="{XENC}" Type="{XENC}Element"><xenc:EncryptionMethod Algorithm="{method}"/>'
        f'<ds:KeyInfo xmlns:ds="{DS}"><xenc:EncryptedKey><xenc:EncryptionMethod Algorithm="{OAEP}">'
        f'<ds:DigestMethod Algorithm="{SHA1}"/></xenc:EncryptionMethod><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}'
        f"</ds:X509Certificate></ds:X509Data></ds:KeyInfo><xenc:CipherData><xenc:CipherValue>{base64.b64encode(wrapped).decode()}"
        f"</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey></ds:KeyInfo><xenc:CipherData><xenc:CipherValue>"
        f"{base64.b64encode(body).decode()}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedData></saml:EncryptedAssertion>"
    )
