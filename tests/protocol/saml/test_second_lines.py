"""Guards behind other guards: what the first line already refuses is handed straight to the second one (SA-01 to SA-04, SA-13).

The corpus never reaches these, because something in front of them refuses. They are for the day on which that fails.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from signxml import DigestAlgorithm, SignatureMethod, XMLSigner, XMLVerifier
from signxml.algorithms import CanonicalizationMethod
from signxml.exceptions import InvalidInput, SignXMLException

from idp.core import x509
from idp.core.errors import Invalid
from idp.domain.applications.sp_metadata import SpFacts, check_facts
from idp.edges.saml import guard, wishes, xml
from idp.edges.saml.guard import Refused
from idp.edges.saml.wishes import Refusal, Wish
from idp.edges.saml.xml import Malformed
from tests.saml import NS, ServiceProvider, pair, sign_xml

BOMB = '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;">]><a>&m;</a>'


def message() -> Any:
    """A signed LogoutRequest, parsed as one of ours is."""
    sp = ServiceProvider("coupon")
    return xml.parse(etree.tostring(sign_xml(sp.logout_request(name_id="somebody"), sp.pair)))


def test_SA_06_an_address_of_70_kb_is_not_read() -> None:
    """Before anything of it is decoded; web servers usually stop earlier."""
    with pytest.raises(Refused, match="too_large"):
        guard.from_redirect(b"SAMLRequest=x&RelayState=" + b"x" * 70_000, "SAMLRequest")


def test_SA_01_a_document_of_300_kb_is_not_parsed() -> None:
    """Larger than a body that we take: a file on the command line may be."""
    with pytest.raises(Malformed, match="too_large"):
        xml.parse(b"<a>" + b"x" * 300_000 + b"</a>")


def test_SA_01_the_parser_itself_expands_nothing(tmp_path: Path) -> None:
    """No entity, no external DTD with its defaults, no repair, no depth without end."""
    (tmp_path / "x.dtd").write_text('<!ELEMENT a ANY><!ATTLIST a smuggled CDATA "yes">')
    (tmp_path / "secret").write_text("the secret")
    (entity,) = etree.fromstring(BOMB.encode(), xml.parser())
    assert entity.tag is etree.Entity
    external = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{tmp_path}/secret">]><a>&x;</a>'
    assert "secret" not in xml.text(etree.fromstring(external.encode(), xml.parser()))
    defaults = etree.fromstring(f'<!DOCTYPE a SYSTEM "{tmp_path}/x.dtd"><a/>'.encode(), xml.parser())
    assert defaults.get("smuggled") is None
    assert defaults.getroottree().docinfo.externalDTD is None
    for broken in (b"<a><b></a>", b"<a>" * 3000 + b"</a>" * 3000):
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring(broken, xml.parser())


def test_SA_01_a_tree_with_a_dtd_or_an_entity_is_refused() -> None:
    """However it came to be one."""
    with pytest.raises(Malformed, match="doctype"):
        xml.judge_shape(etree.fromstring("<!DOCTYPE a><a/>"))
    root = etree.Element("a")
    root.append(etree.Entity("x"))
    with pytest.raises(Malformed, match="processing_instruction"):
        xml.judge_shape(root)


def _renamed(root: Any) -> Any:
    copy = etree.fromstring(etree.tostring(root))
    copy.tag = f"{{{NS['samlp']}}}LogoutResponse"
    return copy


SIGNED: dict[str, Callable[[Any], object]] = {
    "nothing": lambda _root: None,
    "another element": _renamed,
    "the same of another ID": lambda root: _changed(root, "ID", "_other"),
}


def _changed(root: Any, name: str, value: str) -> Any:
    copy = etree.fromstring(etree.tostring(root))
    copy.set(name, value)
    return copy


@pytest.mark.parametrize("what", SIGNED)
def test_SA_02_only_the_root_counts_as_signed(what: str) -> None:
    """A verifier that hands back anything else than the element that was parsed has verified something else."""
    root = message()
    assert guard.only_the_root(root, root) is root
    with pytest.raises(Refused, match="signed_element_differs"):
        guard.only_the_root(SIGNED[what](root), root)


def test_SA_02_the_signed_issuer_is_the_one_whose_keys_were_tried() -> None:
    """Compared again, in what was signed."""
    root = message()
    other = etree.fromstring(etree.tostring(root))
    other.find("saml:Issuer", NS).text = "https://other.example"
    with pytest.raises(Refused, match="signed_by_another"):
        guard.only_the_root(other, root)


@pytest.mark.parametrize("name", ["DigestValue", "SignatureValue"])
def test_SA_03_two_values_of_which_one_would_be_read(name: str) -> None:
    """The schema refuses them as well (xml-crypto CVE-2025-29774)."""
    root = message()
    value = root.find(f".//ds:{name}", NS)
    value.addnext(etree.fromstring(etree.tostring(value)))
    with pytest.raises(Refused, match="smuggled_digest"):
        guard.judge_signature(root.find("ds:Signature", NS), root)


@pytest.mark.parametrize(
    ("method", "digest"),
    [(SignatureMethod.RSA_SHA224, DigestAlgorithm.SHA256), (SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA224)],
    ids=["method", "digest"],
)
def test_SA_04_the_verifier_has_the_same_allow_list(method: SignatureMethod, digest: DigestAlgorithm) -> None:
    """A good signature of ours by an algorithm that we do not take."""
    keys = pair("sp")
    signer = XMLSigner(
        signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0
    )  # fmt: skip
    root = signer.sign(etree.fromstring('<a ID="x"/>'), key=keys.key, cert=[keys.certificate], reference_uri="#x")
    with pytest.raises((SignXMLException, InvalidInput)):
        XMLVerifier().verify(
            root, x509_cert=x509.pem(keys.der), expect_config=guard.expected(keys.der), id_attribute="ID"
        )


def test_SA_10_no_answer_reports_a_class_that_was_not_reached() -> None:
    """What the first step has decided is decided again where the answer is made."""
    wish = Wish("p", None, "https://x.example/acs", classes=("urn:sekisho:aal3",))
    assert wishes.context_met(wish, "urn:sekisho:aal3") == "urn:sekisho:aal3"
    with pytest.raises(Refusal, match="NoAuthnContext"):
        wishes.context_met(wish, "urn:sekisho:aal2")


@pytest.mark.parametrize(
    ("kind", "method"), [("ec", "http://www.w3.org/2009/xmlenc11#aes256-gcm"), ("rsa2048", "urn:cbc")], ids=["key", "method"]
)  # fmt: skip
def test_SA_13_no_key_and_no_method_that_could_not_encrypt(kind: str, method: str) -> None:
    """Refused where the octets are made, whatever registration let through."""
    with pytest.raises(Invalid):
        x509.encrypt(pair(f"second {kind}", kind).der, b"x", method=method)


@pytest.mark.parametrize("entity_id", ["x" * 1025, "  "], ids=["long", "blank"])
def test_SA_15_a_name_that_no_column_holds(entity_id: str) -> None:
    """The schema knows the length; this is where it is kept."""
    place = {"url": "https://x.example/acs", "index": 0, "default": True}
    with pytest.raises(Invalid):
        check_facts(SpFacts(entity_id, (place,), "d"), loopback=False)
