"""What pysaml2 does that we do not want (requirements 4.1): each fact has a fence, and each fence a test."""

from __future__ import annotations

import ast
import gc
import logging
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from saml2 import xmldsig

from idp.core import clock, logs
from idp.core.saml_keys import SamlKey
from idp.edges.saml import build
from tests.actors import Browser, World
from tests.saml import SUCCESS, ServiceProvider, pair

ROOT = Path(__file__).resolve().parents[2]
#: what of pysaml2 may be used: metadata classes, schema files. Not `server`, `sigver`, `entity`, `sdb`, nor its crypto
ALLOWED = {"saml2.md", "saml2.data.schemas"}
#: names of pysaml2 that must not occur, not even in a configuration: an option that accepts the wrong key (F2), one that takes
#: keys out of messages (SA-05), a signer whose key threads share (F8), and what would start a program (S7)
BANNED = (
    "want_authn_requests_only_with_valid_cert", "only_use_keys_in_metadata", "get_signer", "SIGNER_ALGS", "xmlsec_binary",
    "_get_xmlsec_cryptobackend", "apply_binding", "session_db", "sigver",
)  # fmt: skip
#: the facts of requirements 4.1 and where the fence is tried: `attack` is a name of the corpus
CORPUS, SSO, LOGOUT = ("tests/protocol/saml/" + name for name in ("corpus.py", "test_sso.py", "test_logout.py"))
FENCES = {
    "F1": (CORPUS, '"unsigned":'), "F2": (__file__, "def test_F02_"), "F3": (CORPUS, '"unsigned of one that signs":'),
    "F4": (SSO, "def test_SA_11_SA_12_what"), "F5": (SSO, "def test_SA_13_"), "F6": (SSO, 'b"tripledes" not in hidden.raw'),
    "F7": (CORPUS, '"RSA-SHA1 in Redirect":'), "F8": (__file__, "def test_D6_F8_S5_"), "F9": (SSO, "def test_SA_09_"),
    "F10": (CORPUS, '"inflate bomb":'), "F11": (CORPUS, '"signed and off the schema":'),
    "F12": ("tests/functional/test_saml_refresh.py", "def test_SA_15_F12_"), "F13": (CORPUS, '"XSLT transform":'),
    "S1": (LOGOUT, "def test_SA_20_what_does_not_log_out"), "S2": (CORPUS, '"garbage signature":'), "S3": (CORPUS, '"past its NotOnOrAfter":'),
    "S4": (SSO, "(row.sub, row.sid, row.name_id_format)"), "S5": (__file__, "def test_S5_"), "S6": (__file__, "def test_D6_F8_S5_"),
    "S7": (__file__, "def test_D6_S7_F11_"), "S8": (__file__, "def test_S8_"), "S9": (__file__, "def test_D6_F8_S5_"),
}  # fmt: skip
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


def test_every_fact_of_the_list_has_its_fence() -> None:
    """The rows of requirements 4.1 are those of this table, and what it points at is there."""
    text = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
    part = text[text.index("### 4.1") : text.index("### 4.2")]
    facts = {
        name for row in re.findall(r"^\| ([FS]\d+(?:, [FS]\d+)*) \|", part, re.MULTILINE) for name in row.split(", ")
    }
    assert facts == set(FENCES)
    for fact, (file, words) in FENCES.items():
        assert words in (ROOT / file).read_text(encoding="utf-8"), fact


def test_F02_F08_names_that_must_not_occur() -> None:
    """Where they would do harm: in the code of the product and of the demonstration."""
    for path in [*(ROOT / "idp").rglob("*.py"), *(ROOT / "connectors").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert [name for name in BANNED if name in text] == [], path


def test_S5_memory_stays_flat_over_many_answers() -> None:
    """pysaml2's server keeps every assertion that it made; ours keeps none."""
    key = SamlKey("k", pair("sp").der, clock.now(), None, pair("sp").key)
    said = build.Statement(
        issuer="https://id.example", audience="https://sp.example", acs="https://sp.example/acs", in_response_to="_r", name_id="n",
        name_id_format="urn:x", session_index="i", authn_instant=clock.now(), authn_context="urn:x", session_ends_at=clock.now(),
        attributes=(build.Attribute("a", "urn:x", ("v" * 1000,)),),
    )  # fmt: skip

    def answers(count: int) -> None:
        for _ in range(count):
            build.response(said, build.Protection(key), now=clock.now())

    answers(20)
    gc.collect()
    tracemalloc.start()
    begin = tracemalloc.get_traced_memory()[0]
    answers(300)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - begin
    tracemalloc.stop()
    assert grown < 30_000, "one answer kept would be 3 KB"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_S8_no_message_is_in_a_log(world: World, browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a name nor XML of what was accepted, refused or sent: whoever would tell them is pinned at WARNING."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="signxml")  # another test may have pinned it
    sp = world.service_provider(ServiceProvider("coupon", redirect_logout=True))
    browser.log_in(world.person())
    answer = sp.sign_on(browser)
    browser.get(sp.redirect_url(AssertionConsumerServiceURL="https://evil.example/acs"))
    browser.get(sp.logout_url(answer, pair=pair("other")))
    browser.get(sp.logout_url(answer))
    words = (answer.name_id, answer.session_index, "<saml", "SAMLResponse=", "SAMLRequest=")
    telling = {
        record.name.partition(".")[0] for record in caplog.records if any(w in record.getMessage() for w in words)
    }
    assert "signxml" in telling, "it tells everything below WARNING, so something was watched"
    assert telling <= {name.partition(".")[0] for name in logs.PINNED}


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
