"""The door for SAML messages (SA-30): decode, parse, verify, judge. Inbound values are read from what it hands back, only.

A peer is distrusted until its signature holds: the one value taken before that is the Issuer, to look up whose keys to try,
and it is compared again afterwards. `Refused` says why in one machine word; no text of the message is in it.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import unquote_to_bytes

from lxml import etree
from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLVerifier
from signxml.exceptions import InvalidInput, SignXMLException

from idp.core import x509
from idp.domain.applications.saml import Provider
from idp.edges.saml import xml
from idp.edges.saml.sign import ENVELOPED, EXC_C14N
from idp.edges.saml.xml import Element, Malformed, q

Binding = Literal["redirect", "post", "soap"]
Kind = Literal["AuthnRequest", "LogoutRequest", "LogoutResponse"]

#: SA-06: what a Redirect message may grow to, and by how much
MAX_INFLATED = 64 * 1024
MAX_RATIO = 20
MAX_QUERY = 64 * 1024
#: D14, never more than 5 minutes
SKEW = timedelta(minutes=3)
#: how long a request ID is remembered: no message that is older passes `SKEW` (SA-09)
REMEMBER = 2 * SKEW + timedelta(minutes=5)
MAX_RELAY_STATE = 80

SIGNATURE_METHODS = frozenset({
    SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512, SignatureMethod.ECDSA_SHA256,
    SignatureMethod.ECDSA_SHA384,
})  # fmt: skip
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})


class Refused(Exception):
    """A message that does nothing. reason: a machine word for the log; issuer: whose it says it is, once that is known to us."""

    def __init__(self, reason: str, issuer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.issuer = issuer


@dataclass(frozen=True)
class Envelope:
    """A message as its binding carried it. signed_octets, algorithm, signature: of the Redirect binding."""

    binding: Binding
    octets: bytes
    relay_state: str | None = None
    signed_octets: bytes | None = None
    algorithm: str | None = None
    signature: bytes | None = None


@dataclass(frozen=True)
class Message:
    """A message that passed. root: the verified element, or for a request that may be unsigned the one parsed tree."""

    kind: Kind
    id: str
    provider: Provider
    issued_at: datetime
    signed: bool
    binding: Binding
    relay_state: str | None
    root: Element


# --- bindings --------------------------------------------------------------------------------------------------------


def from_redirect(raw_query: bytes, parameter: Literal["SAMLRequest", "SAMLResponse"]) -> Envelope:
    """The Redirect binding, over the query's octets as they came (SAMLBind §3.4.4.1, SA-06). Raises Refused.

    The signature covers what the peer wrote, also with `%2f` for `%2F`; decoding and encoding it again would refuse ADFS
    and accept what nobody signed (trap F7).
    """
    if len(raw_query) > MAX_QUERY:
        raise Refused("too_large")
    parts: dict[str, bytes] = {}
    order: list[str] = []
    for pair in raw_query.split(b"&"):
        name_octets, _, value = pair.partition(b"=")
        name = _plain(name_octets)
        if name in parts:
            raise Refused("repeated_parameter")
        parts[name] = value
        order.append(name)
    known = {"SAMLRequest", "SAMLResponse", "RelayState", "SigAlg", "Signature"}
    if parameter not in parts or len({"SAMLRequest", "SAMLResponse"} & set(parts)) != 1:
        raise Refused("no_message")
    if parts.get("SAMLEncoding", b"") not in {
        b"",
        b"urn%3Aoasis%3Anames%3Atc%3ASAML%3A2.0%3Abindings%3AURL-Encoding%3ADEFLATE",
    }:
        raise Refused("unknown_encoding")
    octets = _inflate(_base64(unquote_to_bytes(parts[parameter])))
    relay = _relay_state(_plain(parts["RelayState"].replace(b"+", b" "))) if "RelayState" in parts else None
    if ("Signature" in parts) != ("SigAlg" in parts):
        raise Refused("half_a_signature")
    if "Signature" not in parts:
        return Envelope("redirect", octets, relay)
    # where Signature stands says nothing, it does not sign itself: python3-saml puts it before SigAlg
    mine = [name for name in order if name in known and name != "Signature"]
    if mine != [name for name in (parameter, "RelayState", "SigAlg") if name in parts]:
        raise Refused("parameters_out_of_order")
    signed = b"&".join(
        name.encode() + b"=" + parts[name] for name in (parameter, "RelayState", "SigAlg") if name in parts
    )
    return Envelope(
        "redirect", octets, relay, signed, _plain(parts["SigAlg"]), _base64(unquote_to_bytes(parts["Signature"]))
    )


def from_post(message: str, relay_state: str | None) -> Envelope:
    """The POST binding. Raises Refused."""
    return Envelope(
        "post", _base64(message.encode("ascii", "replace")), _relay_state(relay_state) if relay_state else None
    )


def from_soap(body: bytes) -> Envelope:
    """The one child of a SOAP body (SAMLBind §3.2). The envelope is not signed and nothing of it is read. Raises Refused."""
    root = _parsed(body)
    if root.tag != q("soap", "Envelope"):
        raise Refused("no_soap")
    inside = [child for child in root if child.tag == q("soap", "Body")]
    messages = [child for child in (inside[0] if len(inside) == 1 else ()) if isinstance(child.tag, str)]
    if len(messages) != 1:
        raise Refused("not_one_message")
    if messages[0].tag == q("soap", "Fault"):
        raise Refused("soap_fault")
    # exclusive canonical form of the child alone: what was declared outside and is used inside comes along
    return Envelope("soap", etree.tostring(messages[0], method="c14n", exclusive=True, with_comments=True))


def _plain(octets: bytes) -> str:
    try:
        return unquote_to_bytes(octets).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not_utf8") from None


def _base64(octets: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(octets.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("not_base64") from None


def _inflate(octets: bytes) -> bytes:
    """Raw DEFLATE, bounded while it runs: a bomb stops at the limit and not after it (trap F10)."""
    engine = zlib.decompressobj(-15)
    try:
        out = engine.decompress(octets, MAX_INFLATED + 1)
    except zlib.error:
        raise Refused("not_deflate") from None
    if len(out) > MAX_INFLATED or (len(out) > 4096 and len(out) > MAX_RATIO * len(octets)):
        raise Refused("inflates_too_far")
    if not engine.eof or engine.unused_data:
        raise Refused("not_deflate")
    return out


def _relay_state(value: str) -> str:
    """Opaque, echoed as it came (SA-17). Longer than the standard allows is refused: half of it would be another value."""
    if len(value.encode()) > MAX_RELAY_STATE * 4 or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise Refused("relay_state")
    return value


# --- the judgement ---------------------------------------------------------------------------------------------------


def receive(
    envelope: Envelope, kinds: Sequence[Kind], *, find: Callable[[str], Provider | None], own_url: str, now: datetime,
    must_sign: bool,
) -> Message:  # fmt: skip
    """Everything between octets and a message that may act, replay memory excepted (it needs a transaction of its own).

    find: the registered service provider of an entityID. own_url: the one Destination that is ours. must_sign: always, not
    only where the service provider says so. Raises Refused.
    """
    root = _parsed(envelope.octets)
    kind: Kind | None = next((k for k in kinds if root.tag == q("samlp", k)), None)
    if kind is None:
        raise Refused("unexpected_message")
    try:
        xml.validate(root)
    except Malformed as error:
        raise Refused(str(error)) from None
    claimed = _issuer(root)
    provider = find(claimed)
    if provider is None:
        raise Refused("unknown_service_provider")
    try:
        verified, signed = _verified(root, envelope, provider)
        _judge(verified, envelope, signed=signed, own_url=own_url, now=now)
        # trap F3: what its metadata says of its requests counts for each service provider by itself (SA-08)
        if not signed and (must_sign or (kind == "AuthnRequest" and provider.requests_signed)):
            raise Refused("unsigned")  # noqa: TRY301 - the handler only adds whose message it was
    except Refused as error:
        raise Refused(error.reason, claimed) from None
    issued_at = instant(verified.get("IssueInstant")) or now
    return Message(
        kind, verified.get("ID", ""), provider, issued_at, signed, envelope.binding, envelope.relay_state, verified
    )


def _parsed(octets: bytes) -> Element:
    try:
        return xml.parse(octets)
    except Malformed as error:
        raise Refused(str(error)) from None


def _issuer(root: Element) -> str:
    nodes = root.findall(q("saml", "Issuer"))
    if len(nodes) != 1 or len(nodes[0]):
        raise Refused("no_issuer")
    if nodes[0].get("Format") not in {None, "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"}:
        raise Refused("no_issuer")
    return xml.text(nodes[0])


def _judge(verified: Element, envelope: Envelope, *, signed: bool, own_url: str, now: datetime) -> None:
    """It is meant for this address, and it is from now (SA-07)."""
    if verified.get("Version") != "2.0":
        raise Refused("wrong_version")
    destination = verified.get("Destination")
    may_lack = envelope.binding == "soap" or not signed
    if destination != own_url and not (destination is None and may_lack):
        raise Refused("wrong_destination")
    issued_at = instant(verified.get("IssueInstant"))
    if issued_at is None or abs(now - issued_at) > SKEW:
        raise Refused("not_now")


def instant(text: str | None) -> datetime | None:
    """An xs:dateTime with a time zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None


# --- signatures ------------------------------------------------------------------------------------------------------


def _verified(root: Element, envelope: Envelope, provider: Provider) -> tuple[Element, bool]:
    """The element whose values may be read, and whether it was signed. Keys: of this entity's accepted metadata alone (SA-05)."""
    inside = list(root.iter(q("ds", "Signature")))
    if envelope.binding == "redirect":
        if inside:
            raise Refused("xml_signature_in_redirect")
        if envelope.signature is None or envelope.signed_octets is None:
            return root, False
        algorithm, signature, octets = envelope.algorithm or "", envelope.signature, envelope.signed_octets
        if algorithm not in x509.RSA and algorithm not in x509.ECDSA:
            raise Refused("algorithm")
        if not any(x509.verifies(der, algorithm, signature, octets) for der in provider.signing_certs):
            raise Refused("bad_signature")
        return root, True
    return (verify_enveloped(root, provider.signing_certs), True) if inside else (root, False)


def verify_enveloped(root: Element, certificates: Sequence[str]) -> Element:
    """Verify the one signature of a document's root element and return what was signed, as it was digested (SA-02, SA-03).

    Raises Refused. The shape is judged before any cryptography: one Signature in the document, a direct child of the root, one
    Reference to the root itself, the two transforms of SAML and nothing else; KeyInfo is thrown away, unread.
    """
    signatures = list(root.iter(q("ds", "Signature")))
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise Refused("signature_elsewhere")
    signature = signatures[0]
    judge_signature(signature, root)
    for info in signature.findall(q("ds", "KeyInfo")):
        signature.remove(info)
    for der in certificates:
        try:
            found = XMLVerifier().verify(root, x509_cert=x509.pem(der), expect_config=expected(der), id_attribute="ID")
        except (SignXMLException, InvalidInput, etree.LxmlError, ValueError):
            continue
        return only_the_root(found.signed_xml, root)
    raise Refused("bad_signature")


def expected(der: str) -> SignatureConfiguration:
    """What signxml may accept with this certificate. The shape was judged before; this is the same once more, by its author."""
    return SignatureConfiguration(
        location="./", require_x509=True, expect_references=1, signature_methods=SIGNATURE_METHODS, digest_algorithms=DIGESTS,
        # the key counts, not the dates printed around it: metadata says who may sign, and until when (MetaIOP §2.6.1)
        verification_time=x509.read(der).ends_at - timedelta(seconds=1),
    )  # fmt: skip


def only_the_root(signed: Element | None, root: Element) -> Element:
    """What a verifier hands back, if it is the element that was parsed: nothing before has left it another choice. Raises Refused."""
    if signed is None or signed.tag != root.tag or signed.get("ID") != root.get("ID"):
        raise Refused("signed_element_differs")
    if _issuer(signed) != _issuer(root):
        raise Refused("signed_by_another")
    return signed


def judge_signature(signature: Element, root: Element) -> None:
    """The shape of a signature, before any cryptography (SA-03, SA-04). Raises Refused."""
    if any(not isinstance(node.tag, str) for node in signature.iter()):
        raise Refused("comment_in_signature")
    if signature.find(q("ds", "Object")) is not None:
        raise Refused("object_in_signature")
    info = signature.find(q("ds", "SignedInfo"))
    references = info.findall(q("ds", "Reference"))
    if len(references) != 1:
        raise Refused("not_one_reference")
    reference = references[0]
    if reference.get("URI") != f"#{root.get('ID')}":
        raise Refused("reference_elsewhere")
    transforms = [node.get("Algorithm") for node in reference.iter(q("ds", "Transform"))]
    if transforms not in ([ENVELOPED, EXC_C14N], [ENVELOPED]) or any(
        len(node) and [c.tag for c in node] != ["{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces"]
        for node in reference.iter(q("ds", "Transform"))
    ):
        raise Refused("transform")
    methods = [node.get("Algorithm") for node in info.findall(q("ds", "CanonicalizationMethod"))]
    algorithm = next((node.get("Algorithm") for node in info.findall(q("ds", "SignatureMethod"))), "")
    digest = next((node.get("Algorithm") for node in reference.findall(q("ds", "DigestMethod"))), "")
    if methods != [EXC_C14N]:
        raise Refused("canonicalisation")
    if algorithm not in {m.value for m in SIGNATURE_METHODS} or digest not in {d.value for d in DIGESTS}:
        raise Refused("algorithm")
    if len(reference.findall(q("ds", "DigestValue"))) != 1 or len(signature.findall(q("ds", "SignatureValue"))) != 1:
        raise Refused("smuggled_digest")
