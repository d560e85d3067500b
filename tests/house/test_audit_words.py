"""Every event has words: what code emits, people can read (U01, U02)."""

from __future__ import annotations

import ast
from pathlib import Path

from idp.edges.web import audit_words
from idp.ledgers.audit.events import Tag
from idp.lifecycle.oversight import retention

ROOT = Path(__file__).parents[2]


def emitted() -> set[str]:
    """Names of tags that any module of ours mentions as `Tag.NAME`, the table of words left out."""
    found = set()
    for path in sorted((ROOT / "idp").rglob("*.py")):
        if path.name in {"audit_words.py", "events.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Tag":
                found.add(node.attr)
    return found


def test_every_tag_has_words_a_group_and_a_retention_class() -> None:
    """A new tag fails here until somebody says what people call it; two events are never called the same."""
    names = emitted()
    assert len(names) >= 40
    assert names <= set(Tag.__members__)
    assert set(audit_words.WORDS) == set(Tag), set(Tag) ^ set(audit_words.WORDS)
    assert {tag.value.partition(":")[0] for tag in Tag} == set(audit_words.GROUPS)
    assert {tag.value for tag in Tag} == retention.LOGIN | retention.EVIDENCE
    assert not retention.LOGIN & retention.EVIDENCE
    said = [words._message for words in audit_words.WORDS.values()]
    assert len(said) == len(set(said))


def test_a_tag_of_a_later_version_is_shown_as_it_is() -> None:
    """AU-08: a row that a newer version wrote has no words here, and the page does not fail."""
    assert audit_words.event("future:thing:happened") == "future:thing:happened"
