"""A real SAML service provider for tests: keys, metadata, requests, and its own judgement of answers; nothing of `idp` in it.

Signatures are made and verified here with signxml, answers are verified again by the `xmlsec1` program where it is installed.
"""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLSigner, XMLVerifier
from signxml.algorithms import CanonicalizationMethod

from idp.core import clock
from tests.actors import Browser

NS = {
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion", "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#",
    "xenc": "http://www.w3.org/2001/04/xmlenc#", "soap": "http://schemas.xmlsoap.org/soap/envelope/",
}  # fmt: skip
IDP = "http://localhost:8000"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
SOAP = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"

Element = Any
DEFAULT = ' isDefault="true"'


@dataclass(frozen=True)
class Pair:
    """A private key and its self-signed certificate."""

    key: Any
    certificate: x509.Certificate

    @property
    def der(self) -> str:
        """Base64 of the certificate's DER."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_pem(self) -> bytes:
        """The key as PEM."""
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


@cache
def pair(name: str, kind: str = "rsa2048", *, expired: bool = False) -> Pair:
    """A key pair, made once per process and name: RSA keys are slow to make."""
    private: Any = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, int(kind[3:]))
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder(subject, subject, private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 if expired else 365 * 30))
        .sign(private, hashes.SHA256())
    )
    return Pair(private, built)


def stamp(moment: datetime) -> str:
    """xs:dateTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def deflate(octets: bytes) -> str:
    """For the Redirect binding."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(engine.compress(octets) + engine.flush()).decode()


def inflate(text: str) -> bytes:
    """And back."""
    return zlib.decompress(base64.b64decode(text), -15)


def sign_query(
    name: str, message: str, pair: Pair, *, relay: str | None = None, algorithm: str = RSA_SHA256, lower: bool = False
) -> str:
    """A signed query of the Redirect binding. lower: with %2f instead of %2F, as ADFS writes it."""

    def quoted(text: str) -> str:
        found = quote(text, safe="")
        if lower:
            found = re.sub(r"%[0-9A-F]{2}", lambda m: m.group().lower(), found)
        return found

    if isinstance(pair.key, ec.EllipticCurvePrivateKey):
        algorithm = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
    query = f"{name}={quoted(message)}"
    if relay is not None:
        query += f"&RelayState={quoted(relay)}"
    query += f"&SigAlg={quoted(algorithm)}"
    if isinstance(pair.key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(pair.key.sign(query.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    else:
        digest = hashes.SHA1() if algorithm.endswith("#rsa-sha1") else hashes.SHA256()
        signature = pair.key.sign(query.encode(), padding.PKCS1v15(), digest)
    return f"{query}&Signature={quoted(base64.b64encode(signature).decode())}"


def sign_xml(root: Element, pair: Pair, *, method: SignatureMethod = SignatureMethod.RSA_SHA256) -> Element:
    """Sign a message's root as SAML wants it: enveloped, after the Issuer."""
    placeholder = etree.SubElement(root, f"{{{NS['ds']}}}Signature", Id="placeholder", nsmap={"ds": NS["ds"]})
    root.remove(placeholder)
    root.insert(1, placeholder)
    if isinstance(pair.key, ec.EllipticCurvePrivateKey):
        method = SignatureMethod.ECDSA_SHA256
    signer = XMLSigner(
        signature_algorithm=method, digest_algorithm=DigestAlgorithm.SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )  # fmt: skip
    signed = signer.sign(
        root, key=pair.key, cert=[pair.certificate], reference_uri=f"#{root.get('ID')}", id_attribute="ID"
    )
    return etree.fromstring(etree.tostring(signed))


def verify(root: Element, der: str) -> Element:
    """What a signature on this element covers, verified with this certificate."""
    lines = "\n".join(der[i : i + 64] for i in range(0, len(der), 64))
    pem = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
    expected = SignatureConfiguration(
        location="./", signature_methods=frozenset({SignatureMethod.RSA_SHA256}), verification_time=clock.now()
    )
    found = XMLVerifier().verify(root, x509_cert=pem, expect_config=expected, id_attribute="ID")
    assert not isinstance(found, list)
    return found.signed_xml


def xmlsec1() -> str | None:
    """The independent implementation, where it is installed (SA-32)."""
    return shutil.which("xmlsec1")


def xmlsec1_verifies(octets: bytes, der: str, node: str, folder: Path) -> bool:
    """The `xmlsec1` program's opinion about the first signature inside the element `node` (`Response`, `Assertion`, …)."""
    uri = {"EntityDescriptor": NS["md"], "Assertion": NS["saml"]}.get(node, NS["samlp"])
    lines = "\n".join(der[i : i + 64] for i in range(0, len(der), 64))
    certificate, document = folder / "certificate.pem", folder / "document.xml"
    certificate.write_text(f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    document.write_bytes(octets)
    done = subprocess.run(
        [
            "xmlsec1", "--verify", "--enabled-reference-uris", "empty,same-doc", "--pubkey-cert-pem", str(certificate),
            "--id-attr:ID", f"{uri}:{node}", "--node-xpath",
            f"//*[local-name()='{node}' and namespace-uri()='{uri}']/*[local-name()='Signature']", str(document),
        ],
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    return done.returncode == 0 and b"OK" in done.stderr + done.stdout


@dataclass
class Answer:
    """A Response as a careful service provider read it: from the verified elements only."""

    relay_state: str | None
    status: str
    second: str | None
    in_response_to: str | None
    raw: bytes
    assertion: Element | None = None

    @property
    def name_id(self) -> str:
        """The NameID's value."""
        return self._one("saml:Subject/saml:NameID").xpath("string()")  # type: ignore[no-any-return]

    @property
    def name_id_format(self) -> str:
        """The NameID's format."""
        return self._one("saml:Subject/saml:NameID").get("Format")  # type: ignore[no-any-return]

    @property
    def session_index(self) -> str:
        """Of the AuthnStatement."""
        return self._one("saml:AuthnStatement").get("SessionIndex")  # type: ignore[no-any-return]

    @property
    def authn_context(self) -> str:
        """The class reference."""
        return self._one("saml:AuthnStatement/saml:AuthnContext/saml:AuthnContextClassRef").text  # type: ignore[no-any-return]

    @property
    def attributes(self) -> dict[str, list[str]]:
        """Name → values."""
        assert self.assertion is not None
        found = {}
        for node in self.assertion.findall("saml:AttributeStatement/saml:Attribute", NS):
            found[node.get("Name")] = [v.xpath("string()") for v in node.findall("saml:AttributeValue", NS)]
        return found

    def _one(self, path: str) -> Element:
        assert self.assertion is not None, self.status
        (node,) = self.assertion.findall(path, NS)
        return node


@dataclass
class ServiceProvider:
    """One service provider with its keys and endpoints."""

    slug: str
    base: str = ""
    pair: Pair = field(default_factory=lambda: pair("sp"))
    encryption: Pair | None = None
    also: Pair | None = None
    acs: tuple[str, ...] = ()
    soap: bool = True
    redirect_logout: bool = False
    signs_requests: bool = False
    extra: str = ""
    request_id: str = ""
    application_id: Any = None

    def __post_init__(self) -> None:
        self.base = self.base or f"https://{self.slug}.example"
        self.acs = self.acs or (f"{self.base}/acs",)

    @property
    def entity_id(self) -> str:
        """Our name."""
        return f"{self.base}/metadata"

    @property
    def soap_url(self) -> str:
        """Where LogoutRequests come by SOAP."""
        return f"{self.base}/soap"

    def metadata(self, *, valid_until: datetime | None = None, acs: tuple[str, ...] | None = None) -> bytes:
        """Our metadata."""
        keys = f'<md:KeyDescriptor use="signing">{_key_info(self.pair.der)}</md:KeyDescriptor>'
        if self.also is not None:
            keys += f'<md:KeyDescriptor use="signing">{_key_info(self.also.der)}</md:KeyDescriptor>'
        if self.encryption is not None:
            keys += (
                f'<md:KeyDescriptor use="encryption">{_key_info(self.encryption.der)}'
                '<md:EncryptionMethod Algorithm="http://www.w3.org/2009/xmlenc11#aes256-gcm"/></md:KeyDescriptor>'
            )
        logout = f'<md:SingleLogoutService Binding="{SOAP}" Location="{self.soap_url}"/>' if self.soap else ""
        if self.redirect_logout:
            logout += f'<md:SingleLogoutService Binding="{REDIRECT}" Location="{self.base}/slo"/>'
        places = "".join(
            f'<md:AssertionConsumerService Binding="{POST}" Location="{url}" index="{i}"{DEFAULT if not i else ""}/>'
            for i, url in enumerate(acs or self.acs)
        )
        until = f' validUntil="{stamp(valid_until)}"' if valid_until else ""
        return (
            f'<?xml version="1.0"?><md:EntityDescriptor xmlns:md="{NS["md"]}" xmlns:ds="{NS["ds"]}" entityID="{self.entity_id}"{until}>'
            f'<md:SPSSODescriptor AuthnRequestsSigned="{str(self.signs_requests).lower()}" protocolSupportEnumeration="{NS["samlp"]}">'
            f"{keys}{logout}{places}</md:SPSSODescriptor>{self.extra}</md:EntityDescriptor>"
        ).encode()

    def authn_request(self, inner: str = "", **attributes: str | None) -> Element:
        """An unsigned AuthnRequest. attributes: to add, replace, or, with None, leave out."""
        self.request_id = attributes.get("ID") or f"_{secrets.token_hex(16)}"
        wanted = {
            "ID": self.request_id, "Version": "2.0", "IssueInstant": stamp(clock.now()), "Destination": f"{IDP}/saml/sso",
            "AssertionConsumerServiceURL": self.acs[0], **attributes,
        }  # fmt: skip
        given = " ".join(f'{k}="{v}"' for k, v in wanted.items() if v is not None)
        return etree.fromstring(
            f'<samlp:AuthnRequest xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" {given}>'
            f"<saml:Issuer>{self.entity_id}</saml:Issuer>{inner}</samlp:AuthnRequest>"
        )

    def redirect_url(
        self, inner: str = "", *, relay: str | None = None, signed: bool | None = None, **attributes: str | None
    ) -> str:
        """A request by Redirect."""
        message = deflate(etree.tostring(self.authn_request(inner, **attributes)))
        if self.signs_requests if signed is None else signed:
            return f"/saml/sso?{sign_query('SAMLRequest', message, self.pair, relay=relay)}"
        query = f"SAMLRequest={quote(message, safe='')}" + (
            f"&RelayState={quote(relay, safe='')}" if relay is not None else ""
        )
        return f"/saml/sso?{query}"

    def post_form(self, inner: str = "", *, relay: str | None = None, **attributes: str | None) -> dict[str, str]:
        """A signed request for the POST binding."""
        root = sign_xml(self.authn_request(inner, **attributes), self.pair)
        form = {"SAMLRequest": base64.b64encode(etree.tostring(root)).decode()}
        return form if relay is None else {**form, "RelayState": relay}

    # --- answers -----------------------------------------------------------------------------------------------------

    def take(self, page: httpx2.Response, browser: Browser) -> Answer:
        """The answer that a page carries to our ACS, verified as SAMLProf §4.1.4.3 demands."""
        forms = [f for f in browser.forms(page) if "SAMLResponse" in f["fields"]]
        assert forms, f"{page.status_code} {page.url}\n{page.text[:1500]}"
        assert forms[0]["action"] in self.acs, forms[0]["action"]
        return self.read(
            forms[0]["fields"]["SAMLResponse"], forms[0]["fields"].get("RelayState"), at=forms[0]["action"]
        )

    def read(
        self, message: str, relay: str | None = None, *, at: str | None = None, idp: Mapping[str, Any] | None = None
    ) -> Answer:
        """Judge a Response."""
        raw = base64.b64decode(message)
        root = etree.fromstring(raw)
        certificate = root.xpath("string(.//ds:X509Certificate)", namespaces=NS) if idp is None else idp["certificate"]
        assert certificate
        signed = root.find("ds:Signature", NS) is not None
        body = verify(root, certificate) if signed else root
        assert root.get("Destination") == (at or self.acs[0])
        status = body.find("samlp:Status/samlp:StatusCode", NS)
        second = status.find("samlp:StatusCode", NS)
        answer = Answer(
            relay,
            status.get("Value"),
            None if second is None else second.get("Value").rsplit(":", 1)[-1],
            body.get("InResponseTo"),
            raw,
        )
        sealed = body.find("saml:EncryptedAssertion", NS)
        assertion = body.find("saml:Assertion", NS) if sealed is None else self.decrypt(sealed)
        if assertion is not None:
            if assertion.find("ds:Signature", NS) is not None:
                assertion = verify(etree.fromstring(etree.tostring(assertion)), certificate)
            else:
                assert signed, "neither signed"
            self._judge(assertion, answer, at or self.acs[0])
            answer.assertion = assertion
        return answer

    def _judge(self, assertion: Element, answer: Answer, acs: str) -> None:
        now = clock.now()
        data = assertion.find("saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData", NS)
        assert data.get("Recipient") == acs
        assert data.get("InResponseTo") == answer.in_response_to
        assert data.get("NotOnOrAfter") > stamp(now)
        conditions = assertion.find("saml:Conditions", NS)
        assert conditions.get("NotBefore") <= stamp(now) < conditions.get("NotOnOrAfter")
        assert [n.text for n in conditions.findall("saml:AudienceRestriction/saml:Audience", NS)] == [self.entity_id]
        assert assertion.find("saml:Issuer", NS).text == f"{IDP}/saml/metadata"

    def decrypt(self, sealed: Element) -> Element:
        """An EncryptedAssertion with our key: AES-GCM under RSA-OAEP and nothing else."""
        assert self.encryption is not None
        method = sealed.find("xenc:EncryptedData/xenc:EncryptionMethod", NS).get("Algorithm")
        assert method.endswith("-gcm")
        wrapped, body = (base64.b64decode(n.text) for n in sealed.iter(f"{{{NS['xenc']}}}CipherValue"))
        key = self.encryption.key.decrypt(wrapped, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        return etree.fromstring(AESGCM(key).decrypt(body[:12], body[12:], None))

    def sign_on(self, browser: Browser, inner: str = "", **given: Any) -> Answer:
        """The whole of it for whoever is logged in in this browser."""
        answer = self.take(browser.get(self.redirect_url(inner, **given)), browser)
        assert answer.in_response_to == self.request_id
        return answer

    # --- logout ------------------------------------------------------------------------------------------------------

    def logout_request(
        self, answer: Answer | None = None, *, indexes: tuple[str, ...] | None = None, **over: str | None
    ) -> Element:
        """An unsigned LogoutRequest for the session of an answer. over: attributes, and name_id, format, issuer."""
        name = over.pop("name_id", None) or (answer.name_id if answer else "nobody")
        form = over.pop("format", None) or (answer.name_id_format if answer else "")
        issuer = over.pop("issuer", None) or self.entity_id
        wanted = {
            "ID": f"_{secrets.token_hex(16)}", "Version": "2.0", "IssueInstant": stamp(clock.now()), "Destination": f"{IDP}/saml/slo", **over,
        }  # fmt: skip
        given = " ".join(f'{k}="{v}"' for k, v in wanted.items() if v is not None)
        listed = indexes if indexes is not None else ((answer.session_index,) if answer else ())
        inside = "".join(f"<samlp:SessionIndex>{one}</samlp:SessionIndex>" for one in listed)
        return etree.fromstring(
            f'<samlp:LogoutRequest xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" {given}><saml:Issuer>{issuer}</saml:Issuer>'
            f'<saml:NameID Format="{form}">{name}</saml:NameID>{inside}</samlp:LogoutRequest>'
        )

    def logout_url(self, answer: Answer, *, relay: str | None = None, pair: Pair | None = None, **over: Any) -> str:
        """A signed LogoutRequest by Redirect."""
        message = deflate(etree.tostring(self.logout_request(answer, **over)))
        return f"/saml/slo?{sign_query('SAMLRequest', message, pair or self.pair, relay=relay)}"

    def soap_logout(self, browser: Browser, answer: Answer, *, signed: bool = True, **over: Any) -> httpx2.Response:
        """A LogoutRequest by SOAP, as our server sends it."""
        root = self.logout_request(answer, **{"Destination": f"{IDP}/saml/slo/soap", **over})
        body = in_soap(sign_xml(root, self.pair) if signed else root)
        return browser.http.post("/saml/slo/soap", content=body, headers={"Content-Type": "text/xml"})

    def read_logout_response(self, location: str) -> tuple[str, str | None, str | None]:
        """Status, second status and InResponseTo of a LogoutResponse that came by Redirect, its signature verified."""
        query = urlsplit(location).query
        parts = dict(pair.split("=", 1) for pair in query.split("&"))
        root = etree.fromstring(inflate(unquote(parts["SAMLResponse"])))
        assert root.tag == f"{{{NS['samlp']}}}LogoutResponse"
        return _status_of(root)

    def honest(self, request: bytes, **over: Any) -> bytes:
        """What a good service provider answers to our LogoutRequest by SOAP: a signed LogoutResponse. over: see `response`."""
        root = etree.fromstring(request).find("soap:Body/samlp:LogoutRequest", NS)
        return self.response(root.get("ID"), **over)

    def response(
        self, request_id: str, *, status: str = SUCCESS, second: str | None = None, signed: bool = True, pair: Pair | None = None,
        issuer: str | None = None, destination: str | None = None, soap: bool = True,
    ) -> bytes:  # fmt: skip
        """A LogoutResponse."""
        inner = f'<samlp:StatusCode Value="{second}"/>' if second else ""
        where = f' Destination="{destination}"' if destination else ""
        root = etree.fromstring(
            f'<samlp:LogoutResponse xmlns:samlp="{NS["samlp"]}" xmlns:saml="{NS["saml"]}" ID="_{secrets.token_hex(16)}" Version="2.0" '
            f'IssueInstant="{stamp(clock.now())}" InResponseTo="{request_id}"{where}><saml:Issuer>{issuer or self.entity_id}</saml:Issuer>'
            f'<samlp:Status><samlp:StatusCode Value="{status}">{inner}</samlp:StatusCode></samlp:Status></samlp:LogoutResponse>'
        )
        if signed:
            root = sign_xml(root, pair or self.pair)
        return in_soap(root) if soap else bytes(etree.tostring(root))


def in_soap(root: Element) -> bytes:
    """In a SOAP envelope."""
    return (
        f'<soap:Envelope xmlns:soap="{NS["soap"]}"><soap:Body>'.encode()
        + etree.tostring(root)
        + b"</soap:Body></soap:Envelope>"
    )


def _status_of(root: Element) -> tuple[str, str | None, str | None]:
    top = root.find("samlp:Status/samlp:StatusCode", NS)
    second = top.find("samlp:StatusCode", NS)
    return (
        top.get("Value").rsplit(":", 1)[-1], None if second is None else second.get("Value").rsplit(":", 1)[-1], root.get("InResponseTo")
    )  # fmt: skip


def soap_status(body: bytes) -> tuple[str, str | None, str | None]:
    """Status, second status and InResponseTo of a LogoutResponse in SOAP, its signature verified."""
    root = etree.fromstring(body).find("soap:Body/samlp:LogoutResponse", NS)
    assert root is not None, body
    alone = etree.fromstring(etree.tostring(root))
    return _status_of(verify(alone, alone.xpath("string(.//ds:X509Certificate)", namespaces=NS)))


def _key_info(der: str) -> str:
    return f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{der}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
