"""One hardened parse, one tree (SA-01): what every document from outside goes through, and the names of SAML.

Nothing is expanded, fetched or guessed: UTF-8 only, no DTD, no processing instruction, bounded in size, depth and attributes,
no two elements with one ID, and always valid against the XML schemas of SAML. Text is read by string value, never by `.text`,
which stops at a comment (CVE-2017-11427).
"""

from __future__ import annotations

import re
import threading
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

import saml2.data.schemas
from lxml import etree

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
MD = "urn:oasis:names:tc:SAML:2.0:metadata"
MDUI = "urn:oasis:names:tc:SAML:metadata:ui"
ALG = "urn:oasis:names:tc:SAML:metadata:algsupport"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
XENC11 = "http://www.w3.org/2009/xmlenc11#"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
NS = {"saml": SAML, "samlp": SAMLP, "md": MD, "ds": DS, "xenc": XENC, "soap": SOAP, "mdui": MDUI, "alg": ALG}

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
MAX_ATTRIBUTES = 100
MAX_ELEMENTS = 5000
DECLARED = re.compile(rb"\A<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)[\"']")
#: attributes that name an element inside a document
ID_NAMES = {"ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id"}

Element: TypeAlias = Any  # lxml comes without types


class Malformed(Exception):
    """Not a document we read. The text is a short machine word."""


def q(prefix: str, name: str) -> str:
    """`{namespace}name`, as lxml has it."""
    return f"{{{NS[prefix]}}}{name}"


def parse(octets: bytes, *, limit: int = MAX_BYTES) -> Element:
    """Parse a document from outside. Raises Malformed."""
    if len(octets) > limit:
        raise Malformed("too_large")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("not_utf8") from None
    declared = DECLARED.match(octets.removeprefix(b"\xef\xbb\xbf"))
    if "\0" in text or (declared and declared[1].lower() not in {b"utf-8", b"utf8"}):
        raise Malformed("not_utf8")
    if "<!DOCTYPE" in text:
        raise Malformed("doctype")
    try:
        root = etree.fromstring(octets, parser())
    except (etree.XMLSyntaxError, ValueError):
        raise Malformed("not_xml") from None
    judge_shape(root)
    return root


def parser() -> etree.XMLParser:
    """A parser that expands, fetches and repairs nothing. One for each document: they are not for several threads at once."""
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        attribute_defaults=False, remove_comments=False, remove_pis=False, strip_cdata=True, recover=False,
    )  # fmt: skip


def judge_shape(root: Element) -> None:
    """No DTD, no processing instruction, bounded, no ID twice. Raises Malformed."""
    if root.getroottree().docinfo.internalDTD is not None:
        raise Malformed("doctype")
    seen: set[str] = set()
    if any(node.tag is etree.PI for node in (*root.itersiblings(preceding=True), *root.itersiblings())):
        raise Malformed("processing_instruction")
    stack: list[tuple[Any, int]] = [(root, 1)]
    count = 0
    while stack:
        node, depth = stack.pop()
        count += 1
        if node.tag is etree.PI or node.tag is etree.Entity:
            raise Malformed("processing_instruction")
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise Malformed("too_deep")
        if not isinstance(node.tag, str):
            continue
        if len(node.attrib) > MAX_ATTRIBUTES:
            raise Malformed("too_many_attributes")
        for name in ID_NAMES & set(node.attrib):
            if node.attrib[name] in seen:
                raise Malformed("duplicate_id")
            seen.add(node.attrib[name])
        stack += [(child, depth + 1) for child in node]


def text(node: Element) -> str:
    """The string value: the whole text, whatever comments stand in it."""
    return str(node.xpath("string()")).strip()


def child_text(node: Element, prefix: str, name: str) -> str | None:
    """The string value of the first direct child of this name, None without one."""
    found = node.find(q(prefix, name))
    return None if found is None else text(found)


def octets(root: Element) -> bytes:
    """A tree of ours as it is sent."""
    made: bytes = etree.tostring(root)
    return made


# --- XML schemas -----------------------------------------------------------------------------------------------------

_validating = threading.Lock()
_BY_NAMESPACE = {
    SAMLP: "saml-schema-protocol-2.0.xsd", MD: "saml-schema-metadata-2.0.xsd", SOAP: "envelope.xsd",
}  # fmt: skip


class _Shipped(etree.Resolver):  # type: ignore[misc]
    """Schema files come from the package, whatever address a schema names; its DTD is replaced by nothing."""

    def resolve(self, url: str, _id: str, context: Any) -> Any:
        name = (url or "").rsplit("/", 1)[-1]
        if name == "XMLSchema.dtd" or not name.endswith(".xsd"):
            return self.resolve_string("", context)
        return self.resolve_string(files(saml2.data.schemas).joinpath(name).read_bytes(), context, base_url=name)


@cache
def _schema(namespace: str) -> etree.XMLSchema:
    parser = etree.XMLParser(no_network=True, load_dtd=False, resolve_entities=True)
    parser.resolvers.add(_Shipped())
    name = _BY_NAMESPACE[namespace]
    source = files(saml2.data.schemas).joinpath(name).read_bytes()
    return etree.XMLSchema(etree.fromstring(source, parser, base_url=name))


def validate(root: Element) -> None:
    """Check a document against the schema of its namespace. Raises Malformed; the text never holds what was in it."""
    with _validating:
        good = _schema(etree.QName(root).namespace).validate(root)
    if not good:
        raise Malformed("schema")
