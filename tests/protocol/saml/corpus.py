"""The attack corpus: every way we know to smuggle something past a signature or a parser, as data (SA-01 to SA-09, SA-20).

Each attack takes an honest service provider and gives the message that is sent and the word with which the log must name the
refusal. `LogoutRequest` is the message of most, because it acts at once: it would log somebody out.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from lxml import etree

from idp.core import clock
from tests.saml import NS, Answer, ServiceProvider, deflate, pair, sign_query, sign_xml, stamp

DS, SAMLP, SAML = NS["ds"], NS["samlp"], NS["saml"]


@dataclass(frozen=True)
class Case:
    """What is at hand: a service provider, a live session of a victim at it, and another registered service provider."""

    sp: ServiceProvider
    victim: Answer
    other: ServiceProvider


@dataclass(frozen=True)
class Sent:
    """One request of the attacker's browser."""

    method: str
    path: str
    form: dict[str, Any]
    body: bytes | None = None


def post(root: Any) -> Sent:
    """By POST."""
    octets = root if isinstance(root, bytes) else etree.tostring(root)
    return Sent("POST", "/saml/slo", {"SAMLRequest": base64.b64encode(octets).decode()})


def get(query: str) -> Sent:
    """By Redirect."""
    return Sent("GET", f"/saml/slo?{query}", {})


def soap(body: bytes) -> Sent:
    """By SOAP."""
    return Sent("POST", "/saml/slo/soap", {}, body)


def sign_on(query: str) -> Sent:
    """A Redirect to the sign-on address."""
    return Sent("GET", f"/saml/sso?{query}", {})


def good(case: Case, **over: Any) -> Any:
    """A LogoutRequest that would be accepted."""
    return sign_xml(case.sp.logout_request(case.victim, **over), case.sp.pair)


def harmless(case: Case) -> Any:
    """A correctly signed request of the attacker about nobody: what a wrapping attack starts from."""
    return sign_xml(case.sp.logout_request(name_id="nobody"), case.sp.pair)


def evil(case: Case, new_id: str = "_evil") -> Any:
    """The same without a signature, about the victim."""
    return case.sp.logout_request(case.victim, ID=new_id)


def _extensions(child: Any) -> Any:
    """Extensions as the schema allows them: around an element of a stranger's namespace, which may hold anything."""
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    etree.SubElement(extensions, "{urn:x}wrap").append(child)
    return extensions


def _signature(root: Any) -> Any:
    return root.find("ds:Signature", NS)


# --- signature wrapping ----------------------------------------------------------------------------------------------


def xsw1(case: Case) -> Sent:
    """The signed original inside the signature of the forged one."""
    signed, forged = harmless(case), evil(case)
    signature = _signature(signed)
    signed.remove(signature)
    forged.insert(1, signature)
    etree.SubElement(signature, f"{{{DS}}}Object").append(signed)
    return post(forged)


def xsw2(case: Case) -> Sent:
    """A detached signature: the signed original beside it."""
    signed, forged = harmless(case), evil(case)
    signature = _signature(signed)
    signed.remove(signature)
    forged.insert(1, signature)
    extensions = _extensions(signed)
    forged.insert(2, extensions)
    return post(forged)


def xsw3(case: Case) -> Sent:
    """The signed original as the first child of the forged one, with its signature."""
    forged = evil(case)
    extensions = _extensions(harmless(case))
    forged.insert(1, extensions)
    return post(forged)


def xsw4(case: Case) -> Sent:
    """The forged one inside the signed original."""
    signed = harmless(case)
    extensions = _extensions(evil(case))
    signed.insert(2, extensions)
    return post(signed)


def xsw5(case: Case) -> Sent:
    """The forged root took the signed one's ID."""
    signed = harmless(case)
    forged = evil(case, signed.get("ID"))
    signature = copy.deepcopy(_signature(signed))
    forged.insert(1, signature)
    extensions = _extensions(signed)
    forged.insert(2, extensions)
    return post(forged)


def xsw6(case: Case) -> Sent:
    """Two signatures, one of each."""
    signed = good(case, name_id="nobody")
    signed.insert(2, copy.deepcopy(_signature(signed)))
    return post(signed)


def xsw7(case: Case) -> Sent:
    """The signature inside Extensions, about an element there."""
    forged = evil(case)
    extensions = _extensions(copy.deepcopy(_signature(harmless(case))))
    forged.insert(1, extensions)
    return post(forged)


def xsw8(case: Case) -> Sent:
    """The signed original inside an Object of a signature that is a child of the root, root altered."""
    signed = harmless(case)
    name = signed.find("saml:NameID", NS)
    original = copy.deepcopy(signed)
    name.text = case.victim.name_id
    etree.SubElement(_signature(signed), f"{{{DS}}}Object").append(original)
    return post(signed)


def altered(case: Case) -> Sent:
    """One character."""
    signed = harmless(case)
    signed.find("saml:NameID", NS).text = case.victim.name_id
    return post(signed)


def signature_value_of_another(case: Case) -> Sent:
    """Reference to another element of the document."""
    signed = good(case)
    signed.find(".//ds:Reference", NS).set("URI", "#somewhere")
    return post(signed)


def empty_reference(case: Case) -> Sent:
    """URI="": the whole document, whatever it is."""
    signed = good(case)
    signed.find(".//ds:Reference", NS).set("URI", "")
    return post(signed)


def two_references(case: Case) -> Sent:
    """The second one is what a careless reader checks."""
    signed = good(case)
    reference = signed.find(".//ds:Reference", NS)
    reference.addnext(copy.deepcopy(reference))
    return post(signed)


def xpath_transform(case: Case) -> Sent:
    """A transform that takes away what was altered."""
    signed = good(case)
    transforms = signed.find(".//ds:Transforms", NS)
    etree.SubElement(transforms, f"{{{DS}}}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116")
    return post(signed)


def xslt_transform(case: Case) -> Sent:
    """A transform that is a program (trap F13)."""
    signed = good(case)
    transforms = signed.find(".//ds:Transforms", NS)
    etree.SubElement(transforms, f"{{{DS}}}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116")
    return post(signed)


def smuggled_digest(case: Case) -> Sent:
    """A comment splits DigestValue: one reader sees the first half, another the whole (xml-crypto CVE-2025-29775)."""
    signed = good(case)
    value = signed.find(".//ds:DigestValue", NS)
    value.insert(0, etree.Comment(value.text))
    return post(signed)


def two_digests(case: Case) -> Sent:
    """Two DigestValues."""
    signed = good(case)
    value = signed.find(".//ds:DigestValue", NS)
    value.addnext(copy.deepcopy(value))
    return post(signed)


def keyinfo_of_the_attacker(case: Case) -> Sent:
    """Signed by a stranger whose certificate comes along: KeyInfo is nobody's authority (SA-05)."""
    return post(sign_xml(case.sp.logout_request(case.victim), pair("stranger")))


def another_registered_key(case: Case) -> Sent:
    """This service provider's name, another registered one's key."""
    return post(sign_xml(case.sp.logout_request(case.victim), case.other.pair))


def unsigned(case: Case) -> Sent:
    """Nothing at all."""
    return post(evil(case))


def stripped(case: Case) -> Sent:
    """The signature taken away."""
    signed = good(case)
    signed.remove(_signature(signed))
    return post(signed)


# --- algorithms ------------------------------------------------------------------------------------------------------


def _claim(case: Case, algorithm: str) -> Sent:
    signed = good(case)
    signed.find(".//ds:SignatureMethod", NS).set("Algorithm", algorithm)
    return post(signed)


def hmac_with_the_certificate(case: Case) -> Sent:
    """HMAC, its key the public certificate that everybody has (signxml CVE-2025-48994)."""
    signed = good(case)
    signed.find(".//ds:SignatureMethod", NS).set("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")
    octets = etree.tostring(signed.find(".//ds:SignedInfo", NS), method="c14n", exclusive=True)
    made = hmac.new(case.sp.pair.pem, octets, hashlib.sha256).digest()
    signed.find(".//ds:SignatureValue", NS).text = base64.b64encode(made).decode()
    return post(signed)


def sha1_digest(case: Case) -> Sent:
    """SHA-1 as the digest."""
    signed = good(case)
    signed.find(".//ds:DigestMethod", NS).set("Algorithm", f"{DS}sha1")
    return post(signed)


def inclusive_c14n(case: Case) -> Sent:
    """Another canonicalisation of SignedInfo."""
    signed = good(case)
    signed.find(".//ds:CanonicalizationMethod", NS).set(
        "Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"
    )
    return post(signed)


def redirect_sha1(case: Case) -> Sent:
    """RSA-SHA1 in the Redirect binding (trap F7)."""
    message = deflate(etree.tostring(evil(case)))
    return get(sign_query("SAMLRequest", message, case.sp.pair, algorithm=f"{DS}rsa-sha1"))


# --- documents -------------------------------------------------------------------------------------------------------


def _prefixed(case: Case, prefix: str) -> Sent:
    return post(prefix.encode() + etree.tostring(good(case)))


def entity_in_name(case: Case) -> Sent:
    """XXE: a file in the name."""
    body = etree.tostring(evil(case)).decode().replace(f">{case.victim.name_id}<", ">&x;<")
    return post(f'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>{body}'.encode())


def billion_laughs(case: Case) -> Sent:
    """Exponential entities."""
    lines = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    body = etree.tostring(evil(case)).decode().replace(f">{case.victim.name_id}<", ">&l9;<")
    return post(f'<!DOCTYPE r [<!ENTITY l0 "lol">{lines}]>{body}'.encode())


def utf16(case: Case) -> Sent:
    """An encoding in which the search for a DOCTYPE finds nothing."""
    return post(etree.tostring(good(case)).decode().encode("utf-16"))


def utf7(case: Case) -> Sent:
    """UTF-7 by declaration."""
    return post(b'<?xml version="1.0" encoding="UTF-7"?>' + etree.tostring(good(case)))


def duplicate_id(case: Case) -> Sent:
    """Two elements with one ID: which of them was signed?"""
    signed = harmless(case)
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    etree.SubElement(extensions, "{urn:x}thing", ID=signed.get("ID"))
    signed.insert(2, extensions)
    return post(signed)


def processing_instruction(case: Case) -> Sent:
    """A PI inside the name."""
    signed = good(case)
    signed.find("saml:NameID", NS).append(etree.ProcessingInstruction("x", "y"))
    return post(signed)


def deep(case: Case) -> Sent:
    """A hundred levels."""
    signed = good(case)
    node = etree.Element(f"{{{SAMLP}}}Extensions")
    signed.insert(2, node)
    for _ in range(100):
        node = etree.SubElement(node, "{urn:x}a")
    return post(signed)


def many_attributes(case: Case) -> Sent:
    """Two hundred attributes."""
    signed = good(case)
    node = etree.Element(f"{{{SAMLP}}}Extensions")
    signed.insert(2, node)
    etree.SubElement(node, "{urn:x}a", {f"a{i}": "x" for i in range(200)})
    return post(signed)


def off_schema(case: Case) -> Sent:
    """Signed, and not a LogoutRequest as the schema knows it (F11: others validate only what is signed)."""
    root = case.sp.logout_request(case.victim)
    root.append(etree.Element(f"{{{SAMLP}}}NameIDPolicy"))
    return post(sign_xml(root, case.sp.pair))


def namespace_confusion(case: Case) -> Sent:
    """The right local names in a namespace of its own."""
    octets = etree.tostring(good(case)).replace(SAMLP.encode(), b"urn:oasis:names:tc:SAML:2.0:protocol2")
    return post(octets)


def name_in_a_comment(case: Case) -> Sent:
    """The string value is another name than the text before the comment (CVE-2017-11427): nobody of that name is here."""
    root = case.sp.logout_request(name_id="PLACE")
    name = root.find("saml:NameID", NS)
    name.text = case.victim.name_id
    comment = etree.Comment("")
    comment.tail = ".evil.example"
    name.append(comment)
    return post(sign_xml(root, case.sp.pair))


def name_in_a_comment_by_redirect(case: Case) -> Sent:
    """The same where no canonicalisation takes the comment away."""
    root = case.sp.logout_request(case.victim)
    comment = etree.Comment("")
    comment.tail = ".evil.example"
    root.find("saml:NameID", NS).append(comment)
    return get(sign_query("SAMLRequest", deflate(etree.tostring(root)), case.sp.pair))


def second_signature(case: Case) -> Sent:
    """A good signature of the root, and another one inside what it signs: which of them is looked at?"""
    root = case.sp.logout_request(case.victim)
    root.insert(1, _extensions(_signature(harmless(case))))
    return post(sign_xml(root, case.sp.pair))


def name_in_cdata(case: Case) -> Sent:
    """The same with a CDATA section."""
    octets = etree.tostring(harmless(case)).replace(b">nobody<", f"><![CDATA[{case.victim.name_id}]]><".encode())
    return post(octets)


# --- bindings --------------------------------------------------------------------------------------------------------


def inflate_bomb(case: Case) -> Sent:
    """200 MB in 200 KB, inside the address (trap F10)."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = engine.compress(b"<a>" + b" " * 40_000_000) + engine.flush()
    return get(f"SAMLRequest={quote(base64.b64encode(body).decode(), safe='')}")


def half_signed(case: Case) -> Sent:
    """SigAlg without Signature."""
    query = sign_query("SAMLRequest", deflate(etree.tostring(evil(case))), case.sp.pair)
    return get(query.partition("&Signature=")[0])


def garbage_signature(case: Case) -> Sent:
    """A signature of nothing (trap S2)."""
    query = sign_query("SAMLRequest", deflate(etree.tostring(evil(case))), case.sp.pair)
    return get(
        query.partition("&Signature=")[0] + "&Signature=" + quote(base64.b64encode(b"x" * 256).decode(), safe="")
    )


def swapped_order(case: Case) -> Sent:
    """Another order than was signed."""
    parts = sign_query("SAMLRequest", deflate(etree.tostring(evil(case))), case.sp.pair, relay="r").split("&")
    return get("&".join([parts[1], parts[0], *parts[2:]]))


def relay_added(case: Case) -> Sent:
    """RelayState added after signing."""
    parts = sign_query("SAMLRequest", deflate(etree.tostring(evil(case))), case.sp.pair).split("&")
    return get("&".join([parts[0], "RelayState=x", *parts[1:]]))


def message_twice(case: Case) -> Sent:
    """Two SAMLRequests: the one that is verified, and the one that is read."""
    query = sign_query("SAMLRequest", deflate(etree.tostring(harmless(case))), case.sp.pair)
    return get(f"{query}&SAMLRequest={quote(deflate(etree.tostring(evil(case))), safe='')}")


def both_messages(case: Case) -> Sent:
    """SAMLRequest and SAMLResponse in one."""
    query = sign_query("SAMLRequest", deflate(etree.tostring(evil(case))), case.sp.pair)
    return get(f"{query}&SAMLResponse=x")


def signature_inside_redirect(case: Case) -> Sent:
    """An XML signature where the binding forbids one."""
    return get(sign_query("SAMLRequest", deflate(etree.tostring(good(case))), case.sp.pair))


def signed_query(case: Case, **over: Any) -> str:
    """A LogoutRequest by Redirect that would be accepted."""
    root = case.sp.logout_request(case.victim, **over)
    return sign_query("SAMLRequest", deflate(etree.tostring(root)), case.sp.pair)


def no_parameter(_case: Case) -> Sent:
    """No message at all."""
    return get("RelayState=x")


def other_encoding(case: Case) -> Sent:
    """An encoding that we do not know."""
    return get(f"{signed_query(case)}&SAMLEncoding=urn:x")


def not_utf8_parameter(case: Case) -> Sent:
    """Octets that are no text."""
    return get(f"{signed_query(case)}&x%ff=1")


def _padded(case: Case, text: str) -> Sent:
    root = case.sp.logout_request(case.victim)
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    etree.SubElement(extensions, "{urn:x}a").text = text
    root.insert(1, extensions)
    return get(sign_query("SAMLRequest", deflate(etree.tostring(root)), case.sp.pair))


def large_and_dense(case: Case) -> Sent:
    """67 KB that hardly compress: the limit itself, not the ratio."""
    return _padded(case, "".join(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(1050)))


def small_and_thin(case: Case) -> Sent:
    """60 KB of one letter: the ratio, not the limit."""
    return _padded(case, "a" * 60_000)


def cut_off(case: Case) -> Sent:
    """A compressed message without its end."""
    octets = base64.b64decode(deflate(etree.tostring(evil(case))))[:-4]
    return get(sign_query("SAMLRequest", base64.b64encode(octets).decode(), case.sp.pair))


def not_deflated(case: Case) -> Sent:
    """A message that was never compressed."""
    message = base64.b64encode(b"\xff" + etree.tostring(evil(case))).decode()
    return get(sign_query("SAMLRequest", message, case.sp.pair))


def _relay(relay: str) -> Callable[[Case], Sent]:
    def attack(case: Case) -> Sent:
        message = deflate(etree.tostring(case.sp.logout_request(case.victim)))
        return get(sign_query("SAMLRequest", message, case.sp.pair, relay=relay))

    attack.__doc__ = f"A RelayState of {len(relay)} characters."
    return attack


# --- who it is from --------------------------------------------------------------------------------------------------


def _issuer(case: Case, change: Callable[[Any], object]) -> Sent:
    root = case.sp.logout_request(case.victim)
    change(root.find("saml:Issuer", NS))
    return post(sign_xml(root, case.sp.pair))


def stranger(case: Case) -> Sent:
    """A name that nobody registered."""
    return _issuer(case, lambda issuer: setattr(issuer, "text", "https://nobody.example"))


def split_issuer(case: Case) -> Sent:
    """A comment inside the name of the issuer: two readers, two names."""
    return _issuer(case, lambda issuer: issuer.append(etree.Comment("x")))


def issuer_of_another_format(case: Case) -> Sent:
    """A name that is said to be an e-mail address."""
    return _issuer(case, lambda issuer: issuer.set("Format", "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"))


def no_issuer(case: Case) -> Sent:
    """Nobody's. Unsigned: there is no place to put a signature after."""
    root = evil(case)
    root.remove(root.find("saml:Issuer", NS))
    return post(root)


def child_of_a_transform(case: Case) -> Sent:
    """A known transform with something inside."""
    signed = good(case)
    etree.SubElement(signed.find(".//ds:Transform", NS), f"{{{DS}}}XPath").text = "true()"
    return post(signed)


def signature_in_extensions_only(case: Case) -> Sent:
    """One signature, of the root, and not where it belongs."""
    signed = good(case)
    signature = _signature(signed)
    signed.remove(signature)
    signed.insert(1, _extensions(signature))
    return post(signed)


# --- other doors -----------------------------------------------------------------------------------------------------


def no_envelope(case: Case) -> Sent:
    """A message without its envelope."""
    return soap(etree.tostring(good(case)))


def two_in_one_envelope(case: Case) -> Sent:
    """Two messages in one body."""
    one, two = (etree.tostring(good(case, ID=f"_{n}")) for n in "ab")
    return soap(
        f'<soap:Envelope xmlns:soap="{NS["soap"]}"><soap:Body>'.encode() + one + two + b"</soap:Body></soap:Envelope>"
    )


def fault(_case: Case) -> Sent:
    """A fault, where a request belongs."""
    inside = "<soap:Fault><faultcode>soap:Server</faultcode><faultstring>x</faultstring></soap:Fault>"
    return soap(f'<soap:Envelope xmlns:soap="{NS["soap"]}"><soap:Body>{inside}</soap:Body></soap:Envelope>'.encode())


def _soap_of(case: Case, root: Any) -> Sent:
    return soap(
        f'<soap:Envelope xmlns:soap="{NS["soap"]}"><soap:Body>'.encode()
        + etree.tostring(root)
        + b"</soap:Body></soap:Envelope>"
    )


def _posted(case: Case) -> str:
    return str(post(good(case)).form["SAMLRequest"])


def post_with_a_query(case: Case) -> Sent:
    """Parameters in two places."""
    return Sent("POST", "/saml/slo?RelayState=x", post(good(case)).form)


def post_with_two_messages(case: Case) -> Sent:
    """Two values of one name."""
    return Sent("POST", "/saml/slo", {"SAMLRequest": [_posted(case), _posted(case)]})


def post_with_both(case: Case) -> Sent:
    """A request and a response in one form."""
    return Sent("POST", "/saml/slo", {"SAMLRequest": _posted(case), "SAMLResponse": "x"})


def post_of_nothing(_case: Case) -> Sent:
    """A form with another name."""
    return Sent("POST", "/saml/slo", {"SAMLAnswer": "x"})


def encrypted_name(case: Case) -> Sent:
    """Somebody whose name we cannot read."""
    root = case.sp.logout_request(case.victim)
    name = root.find("saml:NameID", NS)
    name.addnext(etree.fromstring(
        f'<saml:EncryptedID xmlns:saml="{SAML}"><xenc:EncryptedData xmlns:xenc="{NS["xenc"]}"><xenc:CipherData><xenc:CipherValue>AAAA'
        "</xenc:CipherValue></xenc:CipherData></xenc:EncryptedData></saml:EncryptedID>"
    ))  # fmt: skip
    root.remove(name)
    return post(sign_xml(root, case.sp.pair))


def answer_to_nothing(case: Case) -> Sent:
    """A signed LogoutResponse that nobody asked for."""
    octets = case.sp.response("_nobody-asked", destination="http://localhost:8000/saml/slo", soap=False)
    return Sent("POST", "/saml/slo", {"SAMLResponse": base64.b64encode(octets).decode()})


# --- requests --------------------------------------------------------------------------------------------------------


def unsigned_of_one_that_signs(case: Case) -> Sent:
    """Its metadata says AuthnRequestsSigned, and this one is not (trap F3)."""
    return sign_on(case.other.redirect_url(signed=False).partition("?")[2])


def _address(url: str) -> Callable[[Case], Sent]:
    def attack(case: Case) -> Sent:
        return sign_on(case.sp.redirect_url(AssertionConsumerServiceURL=url, signed=True).partition("?")[2])

    attack.__doc__ = f"To {url}, signed: a signature makes no address ours to answer to (SA-08)."
    return attack


def index_out_of_bounds(case: Case) -> Sent:
    """An index that its metadata does not have."""
    given: dict[str, Any] = {"AssertionConsumerServiceURL": None, "AssertionConsumerServiceIndex": "9"}
    return sign_on(case.sp.redirect_url(signed=True, **given).partition("?")[2])


def address_and_index(case: Case) -> Sent:
    """Both: which one counts?"""
    return sign_on(case.sp.redirect_url(AssertionConsumerServiceIndex="0", signed=True).partition("?")[2])


def _sign_on_form(case: Case, query: str = "", **more: Any) -> Sent:
    return Sent("POST", f"/saml/sso{query}", {**case.sp.post_form(), **more})


def not_base64(_case: Case) -> Sent:
    """Characters that a lenient decoder would skip."""
    return Sent("POST", "/saml/slo", {"SAMLRequest": "PHg-*!"})


def trailing_data(case: Case) -> Sent:
    """Something after the compressed message."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = engine.compress(etree.tostring(evil(case))) + engine.flush() + b"more"
    return get(sign_query("SAMLRequest", base64.b64encode(body).decode(), case.sp.pair))


def _at(seconds: int) -> Callable[[Case], Sent]:
    def attack(case: Case) -> Sent:
        return post(good(case, IssueInstant=stamp(clock.now() + timedelta(seconds=seconds))))

    attack.__doc__ = f"Issued {seconds} seconds from now (D14)."
    return attack


def _with(**over: str | None) -> Callable[[Case], Sent]:
    def attack(case: Case) -> Sent:
        return post(good(case, **over))

    attack.__doc__ = f"{over}"
    return attack


ATTACKS: dict[str, tuple[Callable[[Case], Sent], str]] = {
    "xsw1": (xsw1, "schema|object_in_signature"), "xsw2": (xsw2, "reference_elsewhere|signature_elsewhere|schema"),
    "xsw3": (xsw3, "signature_elsewhere"), "xsw4": (xsw4, "bad_signature"),
    "xsw5": (xsw5, "duplicate_id"), "xsw6": (xsw6, "schema|signature_elsewhere|duplicate_id"), "xsw7": (xsw7, "signature_elsewhere"),
    "xsw8": (xsw8, "duplicate_id|object_in_signature|signature_elsewhere"), "altered": (altered, "bad_signature"),
    "reference to another element": (signature_value_of_another, "reference_elsewhere"),
    "empty reference": (empty_reference, "reference_elsewhere"), "two references": (two_references, "not_one_reference"),
    "XPath transform": (xpath_transform, "transform"),
    "XSLT transform": (xslt_transform, "transform"), "smuggled digest": (smuggled_digest, "comment_in_signature"),
    "two digests": (two_digests, "schema|smuggled_digest"), "KeyInfo of the attacker": (keyinfo_of_the_attacker, "bad_signature"),
    "another registered key": (another_registered_key, "bad_signature"), "unsigned": (unsigned, "unsigned"),
    "signature stripped": (stripped, "unsigned"),
    "HMAC with the certificate": (hmac_with_the_certificate, "algorithm"),
    "RSA-SHA1": (lambda case: post(sign_sha1(case)), "algorithm"), "SHA-1 digest": (sha1_digest, "algorithm"),
    "RSA-MD5": (lambda case: _claim(case, "http://www.w3.org/2001/04/xmldsig-more#rsa-md5"), "algorithm"),
    "DSA": (lambda case: _claim(case, f"{DS}dsa-sha1"), "algorithm"),
    "ECDSA label on an RSA signature": (lambda case: _claim(case, "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"), "bad_signature"),
    "another canonicalisation": (inclusive_c14n, "canonicalisation"), "RSA-SHA1 in Redirect": (redirect_sha1, "algorithm"),
    "external entity": (entity_in_name, "doctype"), "billion laughs": (billion_laughs, "doctype"),
    "unfinished DOCTYPE": (lambda case: _prefixed(case, "<!DOCTYPE x ["), "doctype"),
    "name split by a comment, by Redirect": (name_in_a_comment_by_redirect, "unknown_principal"),
    "a second signature": (second_signature, "signature_elsewhere"),
    "a response to the sign-on": (lambda _case: sign_on("SAMLResponse=x"), "no_message"),
    "empty DOCTYPE": (lambda case: _prefixed(case, "<!DOCTYPE x>"), "doctype"), "UTF-16": (utf16, "not_utf8"), "UTF-7": (utf7, "not_utf8"),
    "duplicate ID": (duplicate_id, "duplicate_id"), "processing instruction": (processing_instruction, "processing_instruction"),
    "processing instruction before the root": (lambda case: _prefixed(case, "<?xml-stylesheet href='x'?>"), "processing_instruction"),
    "a hundred levels": (deep, "too_deep"), "two hundred attributes": (many_attributes, "too_many_attributes"),
    "five thousand elements": (lambda case: post(b"<a>" + b"<b/>" * 5001 + b"</a>"), "too_deep"),
    "processing instruction after the root": (lambda case: post(etree.tostring(good(case)) + b"<?x y?>"), "processing_instruction"),
    "UTF-16 without a mark": (lambda case: post(etree.tostring(good(case)).decode().encode("utf-16-be")), "not_utf8"),
    "not XML": (lambda case: post(etree.tostring(good(case))[:-1]), "not_xml"),
    "no message": (no_parameter, "no_message"), "another encoding": (other_encoding, "unknown_encoding"),
    "not UTF-8": (not_utf8_parameter, "not_utf8"), "large and dense": (large_and_dense, "inflates_too_far"),
    "small and thin": (small_and_thin, "inflates_too_far"), "cut off": (cut_off, "not_deflate"), "not deflated": (not_deflated, "not_deflate"),
    "RelayState of 10 KB": (_relay("x" * 10_000), "relay_state"), "RelayState with a line break": (_relay("a\nb"), "relay_state"),
    "a stranger": (stranger, "unknown_service_provider"), "issuer split by a comment": (split_issuer, "no_issuer"),
    "issuer of another format": (issuer_of_another_format, "no_issuer"), "no issuer": (no_issuer, "no_issuer"),
    "child of a transform": (child_of_a_transform, "transform"), "signature in Extensions": (signature_in_extensions_only, "signature_elsewhere"),
    "no envelope": (no_envelope, "no_soap"), "two in one envelope": (two_in_one_envelope, "not_one_message"), "a fault": (fault, "soap_fault"),
    "unsigned by SOAP": (lambda case: _soap_of(case, case.sp.logout_request(case.victim, Destination="http://localhost:8000/saml/slo/soap")), "unsigned"),
    "unsigned by Redirect": (lambda case: get(f"SAMLRequest={quote(deflate(etree.tostring(evil(case))), safe='')}"), "unsigned"),
    "a sign-on request by SOAP": (lambda case: _soap_of(case, sign_xml(case.sp.authn_request(), case.sp.pair)), "unexpected_message"),
    "POST with a query": (post_with_a_query, "repeated_parameter"), "POST with two messages": (post_with_two_messages, "repeated_parameter"),
    "POST with both": (post_with_both, "repeated_parameter"), "POST of nothing": (post_of_nothing, "no_message"),
    "encrypted name": (encrypted_name, "no_name"), "answer to nothing": (answer_to_nothing, "unasked"),
    "unsigned of one that signs": (unsigned_of_one_that_signs, "unsigned"), "an address with a slash": (_address("https://coupon.example/acs/"), "unknown_acs"),
    "another's address": (_address("https://evil.example/acs"), "unknown_acs"), "index out of bounds": (index_out_of_bounds, "unknown_acs"),
    "address and index": (address_and_index, "unknown_acs"),
    "sign-on with a query": (lambda case: _sign_on_form(case, "?x=1"), "repeated_parameter"),
    "sign-on with a third field": (lambda case: _sign_on_form(case, SigAlg="x"), "repeated_parameter"),
    "sign-on with two RelayStates": (lambda case: _sign_on_form(case, RelayState=["a", "b"]), "repeated_parameter"),
    "sign-on without a message": (lambda case: Sent("POST", "/saml/sso", {"RelayState": "x"}), "no_message"),
    "signed and off the schema": (off_schema, "schema"), "another namespace": (namespace_confusion, "unexpected_message"),
    "name split by a comment": (name_in_a_comment, "unknown_principal"), "name in CDATA": (name_in_cdata, "bad_signature"),
    "inflate bomb": (inflate_bomb, "inflates_too_far|too_large"), "half a signature": (half_signed, "half_a_signature"),
    "garbage signature": (garbage_signature, "bad_signature"), "parameters swapped": (swapped_order, "parameters_out_of_order"),
    "RelayState added": (relay_added, "bad_signature"), "message twice": (message_twice, "repeated_parameter"),
    "both messages": (both_messages, "no_message"), "XML signature in Redirect": (signature_inside_redirect, "xml_signature_in_redirect"),
    "not base64": (not_base64, "not_base64"), "trailing data": (trailing_data, "not_deflate"),
    "181 seconds old": (_at(-181), "not_now"), "181 seconds ahead": (_at(181), "not_now"),
    "no time zone": (_with(IssueInstant="2026-11-22T00:00:00"), "not_now"), "SAML 1.1": (_with(Version="1.1"), "wrong_version"),
    "wrong Destination": (_with(Destination="http://localhost:8000/saml/sso"), "wrong_destination"),
    "no Destination": (_with(Destination=None), "wrong_destination"),
    "Destination with a slash": (_with(Destination="http://localhost:8000/saml/slo/"), "wrong_destination"),
    "past its NotOnOrAfter": (_with(NotOnOrAfter="2020-01-01T00:00:00Z"), "expired"),
}  # fmt: skip


def sign_sha1(case: Case) -> Any:
    """Labelled RSA-SHA1; signxml itself makes no such signature any more."""
    signed = good(case)
    signed.find(".//ds:SignatureMethod", NS).set("Algorithm", f"{DS}rsa-sha1")
    return signed
