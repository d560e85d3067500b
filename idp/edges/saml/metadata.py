"""Metadata: ours, signed; and what a service provider's says (SA-15). pysaml2 supplies the classes of the latter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lxml import etree
from saml2 import md

from idp.core import x509
from idp.core.errors import Invalid
from idp.core.saml_keys import SamlKey
from idp.domain.applications.names import FORMATS
from idp.domain.applications.sp_metadata import SpFacts
from idp.edges.saml import xml
from idp.edges.saml.build import new_message_id, stamp
from idp.edges.saml.guard import instant
from idp.edges.saml.sign import sign
from idp.edges.saml.xml import DS, MD, MDUI, SAMLP, Element, Malformed, q

POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
SOAP = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"
#: SA-15; at most 14 days
VALID = timedelta(days=14)
CACHE = timedelta(hours=6)
#: certificates of one role, addresses of one kind: nobody has more
MOST = 30
OAEP = ("http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep")


def paths(issuer: str) -> dict[str, str]:
    """Our addresses (D22). The entityID is the address of the metadata."""
    return {
        "entity_id": f"{issuer}/saml/metadata", "sso": f"{issuer}/saml/sso", "slo": f"{issuer}/saml/slo",
        "soap": f"{issuer}/saml/slo/soap",
    }  # fmt: skip


def ours(issuer: str, keys: Sequence[SamlKey], *, now: datetime) -> bytes:
    """Our metadata, signed by the first of these keys; all of them are in it, so that a roll has no gap (SA-16)."""
    at = paths(issuer)
    root = etree.Element(q("md", "EntityDescriptor"), nsmap={"md": MD, "ds": DS, "mdui": MDUI})
    root.set("ID", new_message_id())
    root.set("entityID", at["entity_id"])
    root.set("validUntil", stamp(now + VALID))
    root.set("cacheDuration", f"PT{int(CACHE.total_seconds() // 3600)}H")
    # D16, SDP-IDP05: required of each service provider whose metadata says that it signs
    role = etree.SubElement(
        root, q("md", "IDPSSODescriptor"), WantAuthnRequestsSigned="true", protocolSupportEnumeration=SAMLP,
        errorURL=f"{issuer}/help/login",
    )  # fmt: skip
    info = etree.SubElement(etree.SubElement(role, q("md", "Extensions")), q("mdui", "UIInfo"))
    for language, name in (("ja", "Sekisho"), ("en", "Sekisho")):
        node = etree.SubElement(info, q("mdui", "DisplayName"))
        node.set("{http://www.w3.org/XML/1998/namespace}lang", language)
        node.text = name
    for key in keys:
        info = etree.SubElement(etree.SubElement(role, q("md", "KeyDescriptor"), use="signing"), q("ds", "KeyInfo"))
        data = etree.SubElement(etree.SubElement(info, q("ds", "X509Data")), q("ds", "X509Certificate"))
        data.text = key.certificate
    for binding, location in ((REDIRECT, at["slo"]), (POST, at["slo"]), (SOAP, at["soap"])):
        etree.SubElement(role, q("md", "SingleLogoutService"), Binding=binding, Location=location)
    for kind in ("persistent", "transient", "email"):
        etree.SubElement(role, q("md", "NameIDFormat")).text = FORMATS[kind]
    for binding in (REDIRECT, POST):
        etree.SubElement(role, q("md", "SingleSignOnService"), Binding=binding, Location=at["sso"])
    sign(root, keys[0])
    octets: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8")
    return octets


# --- theirs ----------------------------------------------------------------------------------------------------------


def read(document: bytes, *, now: datetime) -> SpFacts:
    """What a service provider's metadata says. Raises Invalid with a sentence for the person who dropped it.

    The document goes through our own hardened parse and the schema first; pysaml2 gets the canonical form of that one tree,
    so that no second parser can see another document.
    """
    try:
        root = xml.parse(document)
        if root.tag == q("md", "EntitiesDescriptor"):
            raise Invalid("メタデータに複数のアプリが入っています。1つだけにしてください。", field="metadata")
        if root.tag != q("md", "EntityDescriptor"):
            raise Invalid("SAMLのメタデータ(EntityDescriptor)ではありません。", field="metadata")
        xml.validate(root)
    except Malformed as error:
        raise Invalid(
            "メタデータのXMLを読めません。ファイル全体が入っているか確かめてください。", str(error), field="metadata"
        ) from None
    until = instant(root.get("validUntil")) if root.get("validUntil") else None
    if until is not None and until <= now:
        raise Invalid(
            "このメタデータは期限が切れています。新しいものをもらってください。",
            f"validUntil {until:%Y-%m-%d}",
            field="metadata",
        )
    entity: Any = md.entity_descriptor_from_string(
        etree.tostring(root, method="c14n", exclusive=True, with_comments=False)
    )
    roles = [role for role in entity.spsso_descriptor if SAMLP in (role.protocol_support_enumeration or "").split()]
    if len(roles) != 1:
        raise Invalid("サービス(SPSSODescriptor、SAML 2.0)の情報が、ちょうど1つ要ります。", field="metadata")
    return _facts(entity.entity_id, roles[0], root, digest=hashlib.sha256(document).hexdigest(), until=until)


def _facts(entity_id: str, role: Any, root: Element, *, digest: str, until: datetime | None) -> SpFacts:
    logout = {service.binding: service for service in reversed(role.single_logout_service)}
    front = next(((name, logout[uri]) for name, uri in (("redirect", REDIRECT), ("post", POST)) if uri in logout), None)
    acs = [
        {"url": place.location, "index": int(place.index), "default": place.is_default == "true"}
        for place in role.assertion_consumer_service
        if place.binding == POST
    ]
    if len(acs) > MOST or len(role.key_descriptor) > MOST:
        raise Invalid("メタデータの宛先か証明書が多すぎます(30個まで)。", field="metadata")
    signing = _certificates(role, "signing")
    sealing = _certificates(role, "encryption")
    name = root.xpath("string(.//mdui:DisplayName)", namespaces=xml.NS) or root.xpath(
        "string(.//md:ServiceName)", namespaces=xml.NS
    )
    return SpFacts(
        entity_id=entity_id, acs=tuple(acs), digest=digest, name=str(name).strip()[:200],
        soap_logout_url=logout[SOAP].location if SOAP in logout else None,
        front_logout_binding=front[0] if front else None, front_logout_url=front[1].location if front else None,
        front_logout_response_url=front[1].response_location if front else None, signing_certs=signing, encryption_certs=sealing,
        encryption_method=_method(role), requests_signed=role.authn_requests_signed == "true",
        wants_assertions_signed=role.want_assertions_signed == "true",
        name_id_formats=tuple(one.text.strip() for one in role.name_id_format if one.text), until=_until(role, until),
    )  # fmt: skip


def _until(role: Any, until: datetime | None) -> datetime | None:
    own = instant(role.valid_until) if role.valid_until else None
    return min((one for one in (own, until) if one is not None), default=None)


def _certificates(role: Any, use: str) -> tuple[str, ...]:
    """Certificates of one use, in order, each once; a descriptor without a use serves both (Metadata §2.4.1.1)."""
    found: dict[str, None] = {}
    for descriptor in role.key_descriptor:
        if descriptor.use not in {None, use}:
            continue
        for data in descriptor.key_info.x509_data:
            for certificate in (
                [data.x509_certificate] if not isinstance(data.x509_certificate, list) else data.x509_certificate
            ):
                if certificate is not None and certificate.text:
                    found[x509.read(certificate.text).der] = None
    return tuple(found)


def _method(role: Any) -> str | None:
    """The strongest content encryption that both sides can; None when it lists methods and none of them is AES-GCM, or no
    key transport of ours. A descriptor that lists none takes what the standard recommends (SAML2Int SDP-ALG01)."""
    listed = {
        method.algorithm
        for descriptor in role.key_descriptor
        if descriptor.use in {None, "encryption"}
        for method in descriptor.encryption_method
    }
    transports = {uri for uri in listed if "rsa" in uri}
    if transports and OAEP[0] not in transports:
        return None
    contents = listed - transports
    gcm = [uri for uri in x509.GCM if uri in contents]
    if gcm:
        return gcm[0]
    return None if contents else next(iter(x509.GCM))
