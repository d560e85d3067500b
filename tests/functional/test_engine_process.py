"""`sekisho engine` as a process: what it refuses to start with, what it says when it is ready, how it stops (VA-30, VA-45)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from idp.cli.engine import refusals
from tests.conftest import Template, settings_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("env", "uid", "allowed", "why"),
    [
        ({}, 1000, False, None),
        ({"DEBUG": "pw:api"}, 1000, False, "DEBUG"),
        ({"DEBUG": "other,pw:*"}, 1000, True, "DEBUG"),
        ({"PWDEBUG": "1"}, 1000, False, "PWDEBUG"),
        ({}, 0, False, "root"),
        ({}, 0, True, None),
    ],
    ids=["a user", "debug", "debug among others", "inspector", "root", "root in a container"],
)
def test_VA_45_why_the_engine_does_not_start(
    env: dict[str, str], uid: int, allowed: bool, why: str | None, tmp_path: Path
) -> None:
    settings = settings_for(
        f"sqlite:///{tmp_path}/x.sqlite", tmp_path, engine_root="container" if allowed else "refused"
    )
    found = refusals(settings, env, uid=uid)
    assert [why in reason for reason in found] == ([True] if why else [])


def test_VA_30_the_process_starts_without_a_pepper_works_and_stops(sqlite_template: Template, tmp_path: Path) -> None:
    """One line when it is ready, no browser as root, SIGTERM ends it with status 0; with PWDEBUG it ends at once with a reason."""
    shutil.copy(sqlite_template.folder / "template.sqlite", tmp_path / "test.sqlite")
    key = base64.b64encode(hashlib.sha256(b"the root key of the tests").digest()).decode()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SEKISHO_", "DEBUG", "PWDEBUG"))}
    env |= {
        "SEKISHO_ENVIRONMENT": "development", "SEKISHO_ISSUER": "http://localhost:8000", "SEKISHO_ROOT_KEY": key,
        "SEKISHO_DATABASE_URL": f"sqlite:///{tmp_path}/test.sqlite", "SEKISHO_ENGINE_ROOT": "container",
        "SEKISHO_BROWSER": str(tmp_path / "none"),
    }  # fmt: skip
    command = [sys.executable, "-m", "idp.cli", "engine"]
    lines = []
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "engine ready":
                process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
    assert [line["event"] for line in lines][-2:] == ["engine ready", "engine stopped"]
    assert next(line for line in lines if line["event"] == "engine ready")["browser"] is False
    refused = subprocess.run(
        command, cwd=ROOT, env={**env, "PWDEBUG": "1"}, capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode == 1
    assert "VA-45" in refused.stderr
