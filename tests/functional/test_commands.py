"""The command line, as an administrator's script uses it: JSON out, a reason in words on failure, honest exit statuses.

One story on one engine: the commands call what the pages call, and that is tried on both. They run in this process through
`idp.cli.main`, so that the story takes seconds; the last test starts a real process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jws
from joserfc.errors import JoseError

from idp import cli
from idp.app import create_app
from idp.core.settings import Settings
from idp.worker import Worker
from tests.actors import Browser, World
from tests.conftest import dispose
from tests.fakes.outbound import RecordingOutbound
from tests.functional.steps import choose

PASSWORD = "quiet river under the bridge 9"


@dataclass
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a new installation in production manners: key files, and nothing made yet."""
    return {
        "SEKISHO_ENVIRONMENT": "production", "SEKISHO_ISSUER": "http://localhost:8000",
        "SEKISHO_DATABASE_URL": f"sqlite:///{tmp_path}/data/sekisho.sqlite", "SEKISHO_ROOT_KEY_FILE": str(tmp_path / "keys" / "root"),
        "SEKISHO_PEPPER_FILE": str(tmp_path / "pepper" / "pepper"),
    }  # fmt: skip


@pytest.fixture
def run(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run a command. The process-wide logging that a command sets up is put back."""
    for name in [name for name in os.environ if name.startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def command(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["sekisho", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            root.handlers[:], root.level = handlers, level
        out, err = capsys.readouterr()
        return Said(status, out, err)

    yield command
    root.handlers[:], root.level = handlers, level


def test_an_installation_from_the_command_line(run: Run, environment: dict[str, str], tmp_path: Path) -> None:
    """Init twice, company to staff as JSON, a code that its owner turns into a password, a revocation whose receipt is not done
    until it is, the signed pack, keys, doctor."""
    first = run("init", "--json").data
    assert len(first["files_made"]) == 2
    assert (tmp_path / "keys" / "root").stat().st_mode & 0o077 == 0
    assert (tmp_path / "pepper" / "pepper").stat().st_mode & 0o077 == 0
    kept = (tmp_path / "keys" / "root").read_bytes(), (tmp_path / "pepper" / "pepper").read_bytes()
    second = run("init", "--json").data
    assert second["files_made"] == []
    assert second["setup_code"] != first["setup_code"]
    assert ((tmp_path / "keys" / "root").read_bytes(), (tmp_path / "pepper" / "pepper").read_bytes()) == kept

    assert run("company", "add", "ａｏｂａ", "あおばストア", "--json").data["code"] == "AOBA"
    assert run("region", "add", "AOBA", "TOKYO", "東京", "--json").status == 0
    assert run("store", "add", "AOBA", "S1", "渋谷店", "--region", "TOKYO", "--json").status == 0
    added = run("staff", "add", "AOBA", "0413", "山本 健", "--kana", "ヤマモト ケン", "--store", "S1", "--json").data
    assert added["login"] == "AOBA/0413"
    assert {c["code"] for c in run("company", "list", "--json").data} >= {"AOBA", "SEKISHO"}
    shown = run("company", "show", "aoba", "--json").data
    assert (shown["stores"], shown["people"]) == (1, 1)
    assert [s["number"] for s in run("staff", "list", "AOBA", "S1", "--json").data] == ["0413"]
    assert run("staff", "show", "AOBA/0413", "--json").data["assignments"][0]["store"] == "S1"
    assert "山本 健" in run("staff", "list", "AOBA", "S1").out
    made = run(
        "app", "add-oidc", "points", "ポイント", "--redirect-uri", "https://points.example/callback", "--backchannel-logout-uri",
        "https://points.example/backchannel", "--function", "points.view", "--json",
    ).data  # fmt: skip
    assert made["client_secret"]
    run("app", "grant", "points", "--role", "staff", "--function", "points.view")

    app = create_app(Settings.from_env(), outbound=RecordingOutbound())
    with Browser(app) as phone:
        reset = run("staff", "reset", "AOBA/0413", "--json").data
        assert page_400(phone, added["activation_code"])
        choose(phone, reset["reset_code"], PASSWORD)
        phone.get("/login")
        assert "山本 健" in phone.submit(login_id="AOBA/0413", password=PASSWORD).text
        query = (
            f"client_id={made['client_id']}&redirect_uri=https%3A%2F%2Fpoints.example%2Fcallback&response_type=code&scope=openid"
            "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
        )
        assert "code=" in phone.get(f"/oidc/authorize?{query}").headers["location"]
        cut = run("revoke", "AOBA/0413", "--reason", "left", "--key", "ticket-7", "--json").data
        assert run("staff", "show", "AOBA/0413", "--json").status == 1, "no live person of that number"
        assert "/login" in str(phone.get("/").url)
        number = cut["receipt"]
        shown = run("receipt", "show", number, "--json")
        assert shown.data["verdict"] == "waiting"
        assert shown.status == 3, "not done yet"
        Worker(app).drain()
        done = run("receipt", "show", number, "--json")
        assert (done.status, done.data["verdict"]) == (0, "done"), done.out
        assert done.data["everything_cut"] is False, "acknowledged is not cut"

        packed = tmp_path / "pack.json"
        run("receipt", "export", number, str(packed))
        keys = jwk.KeySet.import_key_set(phone.http.get("/oidc/jwks").json())
        signed = json.loads(packed.read_text(encoding="utf-8"))
        assert is_ours(signed, keys)
        assert not is_ours({**signed, "verdict": {**signed["verdict"], "everything_cut": True}}, keys)
        assert not is_ours({**signed, "signature": signed["signature"][:-8] + "AAAAAAAA"}, keys)
    dispose(app)

    before = run("keys", "list", "--json").data
    assert {k["alg"] for k in before} == {"ES256", "RS256"}
    run("keys", "rotate", "--alg", "ES256")
    assert {k["state"] for k in run("keys", "list", "--json").data} >= {"active", "next"}
    emergency = run("keys", "rotate", "--withdraw", before[0]["kid"], "--json")
    assert emergency.status == 0
    states = {k["kid"]: k["state"] for k in run("keys", "list", "--json").data}
    assert states[before[0]["kid"]] == "withdrawn"
    findings = run("doctor", "--json").data
    assert all(f["state"] != "FAIL" for f in findings), findings
    assert {f["check"] for f in findings} >= {"schema", "signing keys"}


def page_400(browser: Browser, code: str) -> bool:
    """A voided code opens nothing."""
    browser.get("/e")
    return browser.submit(code=code).status_code == 400


def is_ours(signed: dict[str, Any], keys: jwk.KeySet) -> bool:
    """Check a pack as an auditor with the published keys would: signature, then the digest of everything else (RFC 8785)."""
    try:
        token = jws.deserialize_compact(signed["signature"], keys, algorithms=["ES256"])
    except JoseError:
        return False
    rest = {name: value for name, value in signed.items() if name != "signature"}
    plain = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return bool(json.loads(token.payload)["sha256"] == hashlib.sha256(plain).hexdigest())


def test_refusals_say_what_and_which(run: Run) -> None:
    """Exit 1 with a sentence for what cannot be, 2 for wrong usage; the field or word at fault is named; never a traceback."""
    assert run("company", "list").status == 1, "before init"
    assert run("init").status == 0
    run("company", "add", "AOBA", "あおば")
    run("store", "add", "AOBA", "S1", "渋谷店")
    run("staff", "add", "AOBA", "0413", "山本", "--store", "S1")
    for arguments, status, words in (
        (("company", "add", "AOBA", "x"), 1, "もう使われています"), (("company", "add", "a b", "x"), 1, "コード"),
        (("store", "add", "NOPE", "S2", "x"), 1, "NOPE"), (("store", "add", "AOBA", "S2", "x", "--time-zone", "Mars/Base"), 1, "時間帯"),
        (("staff", "add", "AOBA", "0413", "x", "--store", "S1"), 1, "もう使われています"), (("staff", "add", "AOBA", "0500", "x", "--store", "S9"), 1, "S9"),
        (("staff", "add", "AOBA", "0500", "x", "--role", "staff"), 1, "場所"), (("staff", "add", "AOBA", "0500", "x", "--role", "king"), 2, "king"),
        (("staff", "show", "0413"), 2, "COMPANY/NUMBER"), (("staff", "show", "AOBA/9999"), 1, "9999"), (("revoke", "AOBA/9999"), 1, "9999"),
        (("revoke", "AOBA/0413", "--store", "S1", "--app", "x"), 2, "at most one"), (("revoke", "AOBA/0413", "--app", "nope"), 1, "nope"),
        (("revoke", "AOBA/0413", "--login-session", "x"), 2, "not an id"), (("receipt", "show", "R-2026-0101-AAAAAA"), 1, "R-2026"),
        (("keys", "rotate", "--withdraw", "nope"), 1, "nope"), (("nonsense",), 2, "nonsense"),
    ):  # fmt: skip
        said = run(*arguments)
        assert said.status == status, (arguments, said)
        assert words in said.err, (arguments, said.err)
        assert "Traceback" not in said.err


def test_bad_settings_stop_a_real_process(environment: dict[str, str], tmp_path: Path) -> None:
    """A wrong environment is named by its variables, all at once, before anything is made; `python -O` does not start."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")}
    broken = {**environment, "SEKISHO_ISSUER": "http://login.example.jp", "SEKISHO_ROOT_KEY": "c2VjcmV0LXNlY3JldA=="}
    said = subprocess.run(
        [sys.executable, "-O", "-m", "idp.cli", "init"],
        check=False,
        env={**bare, **broken},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 1
    for word in ("SEKISHO_ISSUER", "SEKISHO_ROOT_KEY", "-O"):
        assert word in said.stderr, said.stderr
    assert "Traceback" not in said.stderr
    assert "c2VjcmV0" not in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unused_world_has_no_setup(world: World) -> None:
    """An installation whose people came by command has no set-up page to find."""
    with Browser(world.app) as browser:
        assert browser.get("/setup").status_code == 404
