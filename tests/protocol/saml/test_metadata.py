"""Metadata of service providers: what is refused, with which sentence, and by which field (SA-04, SA-15)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree

from idp.core.errors import Invalid
from idp.core.saml_keys import SamlKey
from idp.domain.applications.sp_metadata import check_facts
from idp.edges.saml import metadata
from tests.saml import NS, ServiceProvider, pair, stamp, verify

NOW = datetime(2026, 11, 22, tzinfo=UTC)
GOOD = ServiceProvider("coupon", encryption=pair("encryption"))
SERVICE = b"<md:AssertionConsumerService "


def _addresses(document: bytes) -> bytes:
    begin = document.index(SERVICE)
    one = document[begin : document.index(b"/>", begin) + 2].replace(b' isDefault="true"', b"")
    return document[:begin] + one * 31 + document[begin:]


def _keys(document: bytes) -> bytes:
    begin, end = (
        document.index(b"<md:KeyDescriptor"),
        document.index(b"</md:KeyDescriptor>") + len(b"</md:KeyDescriptor>"),
    )
    return document[:begin] + document[begin:end] * 31 + document[begin:]


def _two_roles(document: bytes) -> bytes:
    begin, end = (
        document.index(b"<md:SPSSODescriptor"),
        document.index(b"</md:SPSSODescriptor>") + len(b"</md:SPSSODescriptor>"),
    )
    return document[:end] + document[begin:end] + document[end:]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "several applications": (
        lambda d: f'<md:EntitiesDescriptor xmlns:md="{NS["md"]}">'.encode() + d.partition(b"?>")[2] + b"</md:EntitiesDescriptor>",
        "複数のアプリ",
    ),
    "no metadata": (lambda _: b"<html/>", "EntityDescriptor"),
    "half a file": (lambda d: d[:200], "XMLを読めません"),
    "a DTD": (lambda d: d.replace(b"<md:Entity", b"<!DOCTYPE x><md:Entity", 1), "XMLを読めません"),
    "off the schema": (lambda d: d.replace(b'use="signing"', b'use="signing" x="1"'), "XMLを読めません"),
    "over": (lambda _: GOOD.metadata(valid_until=NOW), "期限が切れています"),
    "two roles": (_two_roles, "ちょうど1つ"),
    "31 addresses": (_addresses, "多すぎます"),
    "31 keys": (_keys, "多すぎます"),
    "no certificate": (lambda d: d.replace(GOOD.pair.der.encode(), b"AAAA"), "証明書を読めません"),
    "RSA of 1024 bits": (lambda d: d.replace(GOOD.pair.der.encode(), pair("weak", "rsa1024").der.encode()), "弱すぎる"),
    "answers by artifact only": (lambda d: d.replace(b"bindings:HTTP-POST", b"bindings:HTTP-Artifact"), "AssertionConsumerService"),
    "an address without TLS": (lambda d: d.replace(b"https://coupon.example/acs", b"http://coupon.example/acs"), "https"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_SA_15_a_document_that_is_refused_says_why(name: str) -> None:
    """One sentence each, for the person who dropped the file; the control passes."""
    spoil, sentence = BAD[name]
    check_facts(metadata.read(GOOD.metadata(valid_until=NOW + timedelta(days=1)), now=NOW), loopback=False)
    with pytest.raises(Invalid) as error:
        check_facts(metadata.read(spoil(GOOD.metadata()), now=NOW), loopback=False)
    assert sentence in error.value.public
    assert error.value.field == "metadata"


def test_SA_15_ours_is_signed_and_ends() -> None:
    """By the key that signs, with every key that is published, and for two weeks at most."""
    keys = [SamlKey(name, pair(name).der, NOW, None, pair(name).key) for name in ("now", "next")]
    document = etree.fromstring(metadata.ours("https://login.example", keys, now=NOW))
    signed = verify(document, keys[0].certificate)
    assert signed.get("validUntil") == stamp(NOW + timedelta(days=14))
    assert [n.text for n in signed.findall(".//md:KeyDescriptor//ds:X509Certificate", NS)] == [
        k.certificate for k in keys
    ]
