"""What goes out: Response, LogoutRequest, LogoutResponse. Trees of our own values, signed by `sign` before anybody sees them.

Built with lxml and not with pysaml2's classes: those make text that would have to be parsed again to be signed (decision 0030).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lxml import etree

from idp.core import ids
from idp.core.saml_keys import SamlKey
from idp.edges.saml.sign import encrypt, sign
from idp.edges.saml.xml import SAML, SAMLP, SOAP, Element, q

STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
ENTITY = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
XS, XSI = "http://www.w3.org/2001/XMLSchema", "http://www.w3.org/2001/XMLSchema-instance"
#: clocks of service providers may be slow by this much (SA-12)
BEFORE = timedelta(seconds=60)
LIFE = timedelta(minutes=5)
LOGOUT_LIFE = timedelta(minutes=5)


def new_message_id() -> str:
    """An xs:ID: never begins with a digit."""
    return f"_{ids.new_secret()}"


def stamp(instant: datetime) -> str:
    """UTC to the second, as SAMLCore §1.3.3 wants it."""
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"


def _root(
    name: str, *, issuer: str, destination: str | None, now: datetime, in_response_to: str | None = None
) -> Element:
    root = etree.Element(q("samlp", name), nsmap={"samlp": SAMLP, "saml": SAML})
    root.set("ID", new_message_id())
    if in_response_to:
        root.set("InResponseTo", in_response_to)
    root.set("Version", "2.0")
    root.set("IssueInstant", stamp(now))
    if destination:  # none in the answer of a SOAP exchange
        root.set("Destination", destination)
    _add(root, "saml", "Issuer", issuer, Format=ENTITY)
    return root


def _add(parent: Element, prefix: str, name: str, text: str | None = None, **attributes: str | None) -> Element:
    node = etree.SubElement(parent, q(prefix, name))
    for key, value in attributes.items():
        if value is not None:
            node.set(key, value)
    node.text = text
    return node


def _status(root: Element, code: str, second: str | None, message: str | None = None) -> None:
    status = _add(root, "samlp", "Status")
    top = _add(status, "samlp", "StatusCode", Value=f"{STATUS}{code}")
    if second:
        _add(top, "samlp", "StatusCode", Value=f"{STATUS}{second}")
    if message:
        _add(status, "samlp", "StatusMessage", message)


# --- sign-on ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """One attribute with its values. name_format: the URI."""

    name: str
    name_format: str
    values: tuple[str, ...]
    friendly: str | None = None


@dataclass(frozen=True)
class Statement:
    """What an assertion says of a person, and to whom."""

    issuer: str
    audience: str
    acs: str
    in_response_to: str | None
    name_id: str
    name_id_format: str
    session_index: str
    authn_instant: datetime
    authn_context: str
    session_ends_at: datetime
    attributes: Sequence[Attribute]


@dataclass(frozen=True)
class Protection:
    """How an answer is protected. certificate: encrypt for it with `method`; None: it is sent as it is."""

    key: SamlKey
    assertion: bool = True
    response: bool = True
    certificate: str | None = None
    method: str = ""


def response(said: Statement, how: Protection, *, now: datetime) -> tuple[bytes, str]:
    """A signed Response with one assertion (SA-11, SA-12), and the assertion's ID. Raises Invalid when it cannot be encrypted."""
    root = _root("Response", issuer=said.issuer, destination=said.acs, now=now, in_response_to=said.in_response_to)
    _status(root, "Success", None)
    assertion = _assertion(root, said, now=now)
    if how.assertion:
        sign(assertion, how.key)
    if how.certificate is not None:
        root.replace(assertion, encrypt(assertion, how.certificate, how.method))
    if how.response:
        sign(root, how.key)
    return etree.tostring(root), assertion.attrib["ID"]


def _assertion(root: Element, said: Statement, *, now: datetime) -> Element:
    assertion = etree.SubElement(root, q("saml", "Assertion"))
    assertion.set("ID", new_message_id())
    assertion.set("IssueInstant", stamp(now))
    assertion.set("Version", "2.0")
    _add(assertion, "saml", "Issuer", said.issuer, Format=ENTITY)
    subject = _add(assertion, "saml", "Subject")
    name_id(subject, said.name_id, said.name_id_format, said.issuer, said.audience)
    confirmation = _add(subject, "saml", "SubjectConfirmation", Method=BEARER)
    _add(
        confirmation, "saml", "SubjectConfirmationData", InResponseTo=said.in_response_to, NotOnOrAfter=stamp(now + LIFE),
        Recipient=said.acs,
    )  # fmt: skip
    conditions = _add(assertion, "saml", "Conditions", NotBefore=stamp(now - BEFORE), NotOnOrAfter=stamp(now + LIFE))
    _add(_add(conditions, "saml", "AudienceRestriction"), "saml", "Audience", said.audience)
    authn = _add(
        assertion, "saml", "AuthnStatement", AuthnInstant=stamp(said.authn_instant), SessionIndex=said.session_index,
        SessionNotOnOrAfter=stamp(said.session_ends_at),
    )  # fmt: skip
    _add(_add(authn, "saml", "AuthnContext"), "saml", "AuthnContextClassRef", said.authn_context)
    _attributes(assertion, said.attributes)
    return assertion


def _attributes(assertion: Element, attributes: Iterable[Attribute]) -> None:
    filled = [one for one in attributes if one.values]
    if not filled:
        return
    statement = _add(assertion, "saml", "AttributeStatement")
    for one in filled:
        node = _add(
            statement, "saml", "Attribute", FriendlyName=one.friendly, Name=one.name, NameFormat=one.name_format
        )
        for value in one.values:
            # xs:string is what is meant without a type; the prefix that a type needs is lost by some canonicalisers
            _add(node, "saml", "AttributeValue", value)


def name_id(parent: Element, value: str, format_uri: str, issuer: str, audience: str) -> Element:
    """A NameID. The qualifiers make a pairwise name unambiguous (SAMLCore §8.3.7); other formats have none."""
    pairwise = format_uri.endswith((":persistent", ":transient"))
    return _add(
        parent, "saml", "NameID", value, Format=format_uri, NameQualifier=issuer if pairwise else None,
        SPNameQualifier=audience if pairwise else None,
    )  # fmt: skip


def failure(
    issuer: str, acs: str, in_response_to: str | None, code: str, second: str | None, *, key: SamlKey, now: datetime
) -> bytes:
    """A signed Response that says no (SAMLCore §3.2.2.2). code, second: last parts of the status URIs."""
    root = _root("Response", issuer=issuer, destination=acs, now=now, in_response_to=in_response_to)
    _status(root, code, second)
    sign(root, key)
    octets: bytes = etree.tostring(root)
    return octets


# --- logout ----------------------------------------------------------------------------------------------------------


def logout_request(
    issuer: str, destination: str, audience: str, value: str, format_uri: str, indexes: Sequence[str], *, now: datetime,
    reason: str | None = None,
) -> Element:  # fmt: skip
    """An unsigned LogoutRequest (SAMLCore §3.7.1). indexes: none = every session of this name."""
    root = _root("LogoutRequest", issuer=issuer, destination=destination, now=now)
    root.set("NotOnOrAfter", stamp(now + LOGOUT_LIFE))
    if reason:
        root.set("Reason", reason)
    name_id(root, value, format_uri, issuer, audience)
    for index in indexes:
        _add(root, "samlp", "SessionIndex", index)
    return root


def logout_response(
    issuer: str, destination: str | None, in_response_to: str, code: str, second: str | None, *, now: datetime
) -> Element:
    """An unsigned LogoutResponse (SAMLCore §3.7.2)."""
    root = _root("LogoutResponse", issuer=issuer, destination=destination, now=now, in_response_to=in_response_to)
    _status(root, code, second)
    return root


def soap(message: Element) -> bytes:
    """A message in a SOAP 1.1 envelope (SAMLBind §3.2)."""
    envelope: Any = etree.Element(q("soap", "Envelope"), nsmap={"soap": SOAP})
    etree.SubElement(envelope, q("soap", "Body")).append(message)
    octets: bytes = etree.tostring(envelope, xml_declaration=True, encoding="UTF-8")
    return octets


def deflated(message: Element) -> str:
    """A message for the Redirect binding: DEFLATE without a header, then base64."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(engine.compress(etree.tostring(message)) + engine.flush()).decode()


def posted(octets: bytes) -> str:
    """A message for the POST binding."""
    return base64.b64encode(octets).decode()
