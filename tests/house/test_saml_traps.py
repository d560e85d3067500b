"""What pysaml2 does that we do not want (requirements 4.1), and that our fence holds: S5, S7, F4, F8, F11, D6."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from saml2 import xmldsig

from tests.actors import Browser, World
from tests.saml import SUCCESS, ServiceProvider, pair

ROOT = Path(__file__).resolve().parents[2]
#: what of pysaml2 may be used: metadata classes, schema files. Not `server`, `sigver`, `entity`, `sdb`, nor its crypto
ALLOWED = {"saml2.md", "saml2.data.schemas"}
_seen: list[tuple[str, Any]] = []
_watching: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in {"open", "subprocess.Popen", "os.exec", "os.posix_spawn"}:
        _seen.append((event, arguments))


sys.addaudithook(_hook)


def test_D6_F8_S5_only_metadata_classes_and_schemas_are_imported() -> None:
    """No `Server` with its session store, no `SIGNER_ALGS` whose key threads share, no backend that starts a program."""
    found = set()
    for path in [*(ROOT / "idp").rglob("*.py"), *(ROOT / "connectors").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "saml2"}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "saml2":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert found == ALLOWED


def test_F04_its_default_is_sha1() -> None:
    """The library's default, so that the test of our own octets (SA-11) is known to be needed."""
    assert "sha1" in xmldsig.sig_default
    assert "sha1" in xmldsig.digest_default


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_D6_S7_F11_an_answer_starts_no_program_and_writes_no_file(world: World, browser: Browser) -> None:
    """Signing and encrypting happen in this process: nothing is started, and no assertion is ever written to a disk."""
    sp = world.service_provider(ServiceProvider("coupon", encryption=pair("encryption")), encrypt=True)
    browser.log_in(world.person())
    sp.sign_on(browser)  # schemas and templates are read once
    url = sp.redirect_url(signed=True)
    _watching.append(True)
    try:
        page = browser.get(url)
        seen = list(_seen)
    finally:
        _watching.clear()
    assert sp.take(page, browser).status == SUCCESS
    assert [event for event, _ in seen if event != "open"] == []
    written = [a for event, a in seen if event == "open" and isinstance(a[1], str) and set(a[1]) & set("wax+")]
    assert written == []
