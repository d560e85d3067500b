"""Application templates: facts from the vendors' public documentation, each with its source, its date, and whether it was tried.

A template saves typing and promises nothing: `tried = false` means that nobody here has seen it work.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

FOLDER = Path(__file__).parent / "saml"
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Template:
    """One service provider that publishes no metadata. values: names of what the administrator fills in, such as a workspace."""

    key: str
    name: str
    source: str
    read_on: str
    tried: bool
    entity_id: str
    acs: str
    start_url: str
    name_id: str
    attributes: tuple[str, ...]
    note: str

    @property
    def values(self) -> tuple[str, ...]:
        """What has to be filled in."""
        return tuple(dict.fromkeys(PLACEHOLDER.findall(f"{self.entity_id} {self.acs} {self.start_url}")))

    def metadata(self, given: Mapping[str, str]) -> bytes:
        """Metadata as the service provider would have written it. Raises KeyError for a value that is missing."""
        entity, acs = (fill(text, given) for text in (self.entity_id, self.acs))
        return (
            f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID={quoteattr(entity)}><md:SPSSODescriptor '
            f'protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:AssertionConsumerService index="0" isDefault="true" '
            f'Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location={quoteattr(acs)}/></md:SPSSODescriptor></md:EntityDescriptor>'
        ).encode()


def fill(text: str, given: Mapping[str, str]) -> str:
    """Put the values in. Raises KeyError for one that is missing."""
    return PLACEHOLDER.sub(lambda found: given[found[1]], text)


def templates() -> list[Template]:
    """All of them, by key."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        found.append(Template(key=path.stem, **{**data, "attributes": tuple(data["attributes"])}))
    return found
