"""Every template is complete, names its source, and becomes metadata that the product reads."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from connectors import catalogue
from idp.cli.saml_add import attribute
from idp.domain.applications import saml, sp_metadata
from idp.edges.saml import metadata


@pytest.mark.parametrize("template", catalogue.templates(), ids=lambda template: template.key)
def test_a_template_says_where_it_is_from_and_can_be_read(template: catalogue.Template) -> None:
    """Source by https, a date, a note; its metadata passes our door; its attributes have sources that exist."""
    assert template.source.startswith("https://")
    assert date.fromisoformat(template.read_on) >= date(2026, 11, 22)
    assert template.note
    given = {name: "https://x.example" if name in {"url", "entity_id"} else "acme" for name in template.values}
    facts = metadata.read(template.metadata(given), now=datetime(2026, 11, 22, tzinfo=UTC))
    sp_metadata.check_facts(facts, loopback=False)
    assert facts.acs[0]["url"].startswith("https://")
    assert template.name_id in saml.NAME_IDS
    saml.check_attributes([attribute(text) for text in template.attributes])


def test_a_missing_value_is_no_address() -> None:
    """Nothing is guessed."""
    with pytest.raises(KeyError):
        catalogue.templates()[0].metadata({})
