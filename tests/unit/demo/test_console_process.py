"""Configuration and the process: what refuses to start, and how it starts and stops."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from connectors.demo.console.__main__ import main
from connectors.demo.console.config import Config, ConfigError
from connectors.demo.console.misbehave import Misbehaviour

ENV = {"OIDC_ISSUER": "http://localhost:8000", "OIDC_CLIENT_ID": "c", "CONSOLE_SECRET": "x" * 32}
ROOT = Path(__file__).parents[3]


def test_defaults_come_from_the_port() -> None:
    config = Config.from_env({**ENV, "CONSOLE_PORT": "8011"})
    assert config.redirect_uri == "http://localhost:8011/callback"
    assert config.post_logout_redirect_uri == "http://localhost:8011/logged-out"
    assert config.misbehaviour is Misbehaviour.NONE
    assert not config.secure
    assert Config.from_env({**ENV, "OIDC_REDIRECT_URI": "https://points.example/callback"}).secure


@pytest.mark.parametrize(
    "wrong",
    [
        {"OIDC_ISSUER": "http://sekisho.example"},
        {"OIDC_ISSUER": ""},
        {"OIDC_REDIRECT_URI": "http://points.example/callback"},
        {"OIDC_REDIRECT_URI": "http://localhost:8010/"},
        {"CONSOLE_SECRET": "short"},
        {"CONSOLE_PORT": "x"},
        {"CONSOLE_MISBEHAVE": "rude"},
    ],
    ids=str,
)
def test_unsafe_or_unreadable_configuration_refuses_to_start(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Config.from_env({**ENV, **wrong})


def test_process_serves_and_ends_cleanly(tmp_path: Path) -> None:
    env = {**os.environ, **ENV, "CONSOLE_PORT": "0", "CONSOLE_DATABASE": str(tmp_path / "c.sqlite3")}
    command = [sys.executable, "-W", "error", "-m", "connectors.demo.console"]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("console: http://localhost:")
        answer = httpx2.get(f"{line.split()[1].replace('localhost', '127.0.0.1')}/healthz", trust_env=False)
        assert answer.json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_process_names_the_variable_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**ENV, "CONSOLE_SECRET": "short"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["console"])
    assert main() == 2
    assert "CONSOLE_SECRET" in capsys.readouterr().err
