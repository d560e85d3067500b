"""The SAML side: our key, our metadata, requests, and the judgement of what comes in (SAMLProf §4.1.4.3, §4.4).

Whatever is read is read from what signxml verified, never from the message. The identity provider's certificates are the
ones of its metadata, read when somebody logs in and not trusted from a message.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLSigner, XMLVerifier
from signxml.algorithms import CanonicalizationMethod
from signxml.exceptions import SignXMLException

from connectors.demo.console.entropy import new_secret

NS = {
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion", "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#",
    "soap": "http://schemas.xmlsoap.org/soap/envelope/",
}  # fmt: skip
BINDINGS = "urn:oasis:names:tc:SAML:2.0:bindings:"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SKEW = timedelta(seconds=60)


class Refused(Exception):
    """A message that counts for nothing; the text is for the log."""


@dataclass(frozen=True)
class Key:
    """Our private key and its self-signed certificate."""

    private: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> str:
        """Base64 of the certificate's DER."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()


def load_key(file: Path, *, now: datetime) -> Key:
    """The key in this file, made when it is absent; readable by its owner only."""
    if not file.exists():
        private = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coupon console")])
        certificate = (
            x509.CertificateBuilder(name, name, private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .sign(private, hashes.SHA256())
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        pem = serialization.Encoding.PEM
        key = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(key + certificate.public_bytes(pem))
    octets = file.read_bytes()
    loaded = serialization.load_pem_private_key(octets, None)
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise TypeError("the key file holds no RSA key")
    return Key(loaded, x509.load_pem_x509_certificate(octets[octets.index(b"-----BEGIN CERTIFICATE") :]))


def metadata(url: str, key: Key) -> bytes:
    """What an identity provider is given."""
    return (
        f'<md:EntityDescriptor xmlns:md="{NS["md"]}" xmlns:ds="{NS["ds"]}" entityID="{url}/metadata">'
        f'<md:SPSSODescriptor AuthnRequestsSigned="true" WantAssertionsSigned="true" protocolSupportEnumeration="{NS["samlp"]}">'
        f'<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{key.der}</ds:X509Certificate></ds:X509Data>'
        f'</ds:KeyInfo></md:KeyDescriptor><md:SingleLogoutService Binding="{BINDINGS}SOAP" Location="{url}/soap"/>'
        f'<md:SingleLogoutService Binding="{BINDINGS}HTTP-Redirect" Location="{url}/slo"/>'
        f'<md:AssertionConsumerService Binding="{BINDINGS}HTTP-POST" Location="{url}/acs" index="0" isDefault="true"/>'
        "</md:SPSSODescriptor></md:EntityDescriptor>"
    ).encode()


def stamp(now: datetime) -> str:
    """xs:dateTime."""
    return f"{now:%Y-%m-%dT%H:%M:%SZ}"


def authn_request(url: str, idp: str, request_id: str, *, now: datetime) -> bytes:
    """An AuthnRequest."""
    return (
        f'<samlp:AuthnRequest xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" ID="{request_id}" Version="2.0" '
        f'IssueInstant="{stamp(now)}" Destination="{idp}/saml/sso" AssertionConsumerServiceURL="{url}/acs">'
        f"<saml:Issuer>{url}/metadata</saml:Issuer></samlp:AuthnRequest>"
    ).encode()


def logout_request(url: str, idp: str, name_id: str, index: str, *, now: datetime) -> bytes:
    """A LogoutRequest for one session."""
    return (
        f'<samlp:LogoutRequest xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" ID="_{new_secret()}" Version="2.0" '
        f'IssueInstant="{stamp(now)}" Destination="{idp}/saml/slo"><saml:Issuer>{url}/metadata</saml:Issuer>'
        f"<saml:NameID>{name_id}</saml:NameID><samlp:SessionIndex>{index}</samlp:SessionIndex></samlp:LogoutRequest>"
    ).encode()


def redirect_query(message: bytes, key: Key, relay_state: str = "") -> str:
    """The signed query of the Redirect binding."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = base64.b64encode(engine.compress(message) + engine.flush()).decode()
    query = f"SAMLRequest={quote(packed, safe='')}"
    if relay_state:
        query += f"&RelayState={quote(relay_state, safe='')}"
    query += f"&SigAlg={quote(RSA_SHA256, safe='')}"
    signature = key.private.sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{query}&Signature={quote(base64.b64encode(signature).decode(), safe='')}"


def certificates_of(document: bytes) -> tuple[str, ...]:
    """The signing certificates of the identity provider's metadata (base64 of DER)."""
    root = _parse(document)
    found = root.iterfind("md:IDPSSODescriptor/md:KeyDescriptor//ds:X509Certificate", NS)
    return tuple("".join((node.text or "").split()) for node in found)


def _parse(octets: bytes) -> Any:
    if len(octets) > 256 * 1024 or b"<!DOCTYPE" in octets:
        raise Refused("too large, or with a DTD")
    try:
        return etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except etree.XMLSyntaxError:
        raise Refused("no XML") from None


def _verified(root: Any, certificates: tuple[str, ...]) -> Any:
    for der in certificates:
        lines = "\n".join(der[i : i + 64] for i in range(0, len(der), 64))
        pem = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
        expected = SignatureConfiguration(
            location="./", signature_methods=frozenset({SignatureMethod.RSA_SHA256}), digest_algorithms=frozenset({DigestAlgorithm.SHA256})
        )  # fmt: skip
        try:
            signed = XMLVerifier().verify(root, x509_cert=pem, expect_config=expected, id_attribute="ID").signed_xml
        except SignXMLException:
            continue
        if signed is not None and signed.tag == root.tag and signed.get("ID") == root.get("ID"):
            return signed
    raise Refused("not signed by the identity provider")


@dataclass(frozen=True)
class Login:
    """What an answer says. ends_at: SessionNotOnOrAfter, which this console keeps to."""

    name_id: str
    index: str
    ends_at: datetime
    attributes: dict[str, list[str]]


def read_response(
    message: str, *, url: str, idp: str, request_id: str, certificates: tuple[str, ...], now: datetime
) -> Login:
    """Judge a Response to our request: both signatures, address, request, audience, time. Raises Refused."""
    try:
        root = _parse(base64.b64decode(message, validate=True))
    except ValueError:
        raise Refused("no base64") from None
    response = _verified(root, certificates)
    status = response.find("samlp:Status/samlp:StatusCode", NS)
    if status is None or status.get("Value") != SUCCESS:
        raise Refused("the identity provider said no")
    assertions = response.findall("saml:Assertion", NS)
    if len(assertions) != 1:
        raise Refused("not exactly one assertion")
    assertion = _verified(etree.fromstring(etree.tostring(assertions[0])), certificates)
    data = assertion.find("saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData", NS)
    conditions, statement = assertion.find("saml:Conditions", NS), assertion.find("saml:AuthnStatement", NS)
    audience = assertion.findtext("saml:Conditions/saml:AudienceRestriction/saml:Audience", namespaces=NS)
    issuer = assertion.findtext("saml:Issuer", namespaces=NS)
    if data is None or conditions is None or statement is None:
        raise Refused("something is missing")
    good = (
        response.get("Destination") == data.get("Recipient") == f"{url}/acs"
        and response.get("InResponseTo") == data.get("InResponseTo") == request_id
        and audience == f"{url}/metadata"
        and issuer == f"{idp}/saml/metadata"
        and _at(conditions.get("NotBefore")) - SKEW <= now < _at(conditions.get("NotOnOrAfter")) + SKEW
        and now < _at(data.get("NotOnOrAfter")) + SKEW
    )
    if not good:
        raise Refused("not for us, not for this request, or not now")
    attributes = {
        str(node.get("Name")): [str(v.xpath("string()")) for v in node.findall("saml:AttributeValue", NS)]
        for node in assertion.iterfind("saml:AttributeStatement/saml:Attribute", NS)
    }
    name = str(assertion.find("saml:Subject/saml:NameID", NS).xpath("string()"))
    return Login(name, str(statement.get("SessionIndex")), _at(statement.get("SessionNotOnOrAfter")), attributes)


def _at(text: str | None) -> datetime:
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except ValueError:
        raise Refused("no time") from None


@dataclass(frozen=True)
class Logout:
    """What a LogoutRequest by SOAP asks for. indexes: none = every session of this name."""

    id: str
    name_id: str
    indexes: tuple[str, ...]


def read_logout(body: bytes, *, url: str, idp: str, certificates: tuple[str, ...], now: datetime) -> Logout:
    """Judge a LogoutRequest by SOAP. Raises Refused."""
    messages = _parse(body).findall("soap:Body/samlp:LogoutRequest", NS)
    if len(messages) != 1:
        raise Refused("not exactly one LogoutRequest")
    request = _verified(etree.fromstring(etree.tostring(messages[0])), certificates)
    fresh = abs(now - _at(request.get("IssueInstant"))) < timedelta(minutes=3)
    if request.get("Destination") != f"{url}/soap" or not fresh:
        raise Refused("not for us, or not now")
    if request.findtext("saml:Issuer", namespaces=NS) != f"{idp}/saml/metadata":
        raise Refused("not from our identity provider")
    name = request.find("saml:NameID", NS)
    if name is None:
        raise Refused("nobody is named")
    indexes = tuple(str(node.xpath("string()")) for node in request.iterfind("samlp:SessionIndex", NS))
    return Logout(str(request.get("ID")), str(name.xpath("string()")), indexes)


def logout_response(url: str, request_id: str, key: Key, *, now: datetime) -> bytes:
    """A signed Success in a SOAP envelope."""
    root = etree.fromstring(
        f'<samlp:LogoutResponse xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" ID="_{new_secret()}" Version="2.0" '
        f'IssueInstant="{stamp(now)}" InResponseTo="{request_id}"><saml:Issuer>{url}/metadata</saml:Issuer>'
        f'<samlp:Status><samlp:StatusCode Value="{SUCCESS}"/></samlp:Status></samlp:LogoutResponse>'
    )
    place = etree.Element(f"{{{NS['ds']}}}Signature", Id="placeholder", nsmap={"ds": NS["ds"]})
    root.insert(1, place)
    signer = XMLSigner(
        signature_algorithm=SignatureMethod.RSA_SHA256, digest_algorithm=DigestAlgorithm.SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )  # fmt: skip
    signed = signer.sign(
        root, key=key.private, cert=[key.certificate], reference_uri=f"#{root.get('ID')}", id_attribute="ID"
    )
    octets: bytes = etree.tostring(signed)
    return f'<soap:Envelope xmlns:soap="{NS["soap"]}"><soap:Body>'.encode() + octets + b"</soap:Body></soap:Envelope>"
