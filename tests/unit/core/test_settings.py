"""Settings: what is refused before anything starts, and how it is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from idp.core.settings import RefusedToStart, Settings

GOOD: dict[str, Any] = {
    "issuer": "https://login.example.jp", "root_key_file": Path("/run/keys/root"), "pepper_file": Path("/run/keys/pepper"), "root_key": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test; Authlib's switch is one that `create_app` sets in this process."""
    for name in [n for n in os.environ if n.startswith("SEKISHO_")] + ["AUTHLIB_INSECURE_TRANSPORT", "DEBUG"]:
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_production() -> None:
    """D3, D10, D16, AC-03, AC-41: nothing weak by default."""
    made = Settings.from_env(root_key_file=GOOD["root_key_file"], pepper_file=GOOD["pepper_file"])
    assert made.environment == "production"
    assert made.issuer == "http://localhost:8000"
    assert (made.argon2_memory_kib, made.argon2_time) == (19 * 1024, 2)
    assert made.access_token_s == 300
    assert made.admin_idle_s <= 900
    assert made.proxies == 0
    with pytest.raises(Exception, match="frozen"):
        made.port = 1


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"root_key": "AAAA"}, "SEKISHO_ROOT_KEY"), ({"root_key_file": None}, "root key"), ({"pepper_file": None}, "pepper"),
        ({"pepper_file": Path("/run/keys/root")}, "same file"), ({"issuer": "http://login.example.jp"}, "SEKISHO_ISSUER"),
    ],
)  # fmt: skip
def test_refusals(wrong: dict[str, Any], word: str) -> None:
    """AC-04, VA-22, D10, WB-20: each names the setting and what to do."""
    with pytest.raises(RefusedToStart, match=word):
        Settings.from_env(**{**GOOD, **wrong})


def test_every_reason_at_once_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator fixes all in one go; a secret that stands in the wrong place is not printed."""
    with pytest.raises(RefusedToStart) as error:
        Settings.from_env(
            environment="production", root_key="a-real-secret", issuer="http://x.example", pepper_file=None
        )
    text = str(error.value)
    assert text.count("\n") >= 2
    assert "a-real-secret" not in text
    assert "a-real-secret" not in repr(Settings(**{**GOOD, "root_key": "a-real-secret"}))
    with pytest.raises(RefusedToStart) as error:
        Settings.from_env(**GOOD, port="eighty", web_threads=1, access_token_s=301, argon2_memory_kib=1024)
    for name in ("SEKISHO_PORT", "SEKISHO_WEB_THREADS", "SEKISHO_ACCESS_TOKEN_S", "SEKISHO_ARGON2_MEMORY_KIB"):
        assert name in str(error.value)
    for name, value, word in (("AUTHLIB_INSECURE_TRANSPORT", "1", "AUTHLIB"), ("DEBUG", "pw:api", "DEBUG")):
        monkeypatch.setenv(name, value)
        with pytest.raises(RefusedToStart, match=word):
            Settings.from_env(**GOOD)
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "issuer",
    [
        "", "login.example.jp", "ftp://x.example", "https://", "https://x.example/", "https://x.example/idp", "https://x.example?", "https://x.example#",
        "https://x.example?a=b", "https://user@x.example", "https://X.example", "https://x.example:443", "http://localhost:80", "https://x.example:port",
        "https://x.example:99999", " https://x.example",
    ],
)  # fmt: skip
def test_an_issuer_is_an_origin_as_browsers_write_it(issuer: str) -> None:
    """D16, WB-04: only what a browser sends as Host and Origin can ever match; everything else would refuse every request."""
    with pytest.raises(RefusedToStart, match="SEKISHO_ISSUER"):
        Settings.from_env(**{**GOOD, "issuer": issuer})


@pytest.mark.parametrize(
    ("issuer", "loopback", "host"),
    [
        ("http://localhost:8000", True, "localhost:8000"), ("http://127.0.0.1:8000", True, "127.0.0.1:8000"), ("http://[::1]:8000", True, "[::1]:8000"),
        ("https://localhost", False, "localhost"), ("https://login.example.jp:8443", False, "login.example.jp:8443"),
        ("http://localhost.evil.example", False, "localhost.evil.example"), ("http://127.0.0.1.nip.io", False, "127.0.0.1.nip.io"),
    ],
)  # fmt: skip
def test_loopback_is_exact_wb20(issuer: str, loopback: bool, host: str) -> None:
    """WB-20: plain http is for this machine only; a name that merely begins so is not this machine."""
    made = Settings(**{**GOOD, "issuer": issuer})
    assert made.issuer_is_loopback is loopback
    assert made.issuer_host == host
    assert bool([r for r in made.refusals() if "http outside" in r]) is (issuer.startswith("http:") and not loopback)
