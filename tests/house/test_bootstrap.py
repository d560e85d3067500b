"""The way from a clone to a running product: run.py, the lock files, and the throwaway PostgreSQL of the tests."""

from __future__ import annotations

import ast
import hashlib
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "run.py"
TOOL_LOCKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/interop/tools").glob("*.lock"))
LOCKS = ["requirements.lock", "requirements-dev.lock", "docker/requirements-build.lock"]
PINNED = re.compile(r"^([a-z0-9][a-z0-9.-]*)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


def load(path: Path) -> ModuleType:
    """A fresh copy of a module that is not part of any package."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(lock: str) -> dict[str, str]:
    """Package name → version."""
    return dict(PINNED.findall((ROOT / lock).read_text()))


def wanted(group: str) -> list[Requirement]:
    """The direct dependencies of one kind."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = {
        "runtime": project["project"]["dependencies"],
        "dev": project["dependency-groups"]["dev"],
        "build": project["build-system"]["requires"],
    }[group]
    return [Requirement(line) for line in lines]


# --- run.py ----------------------------------------------------------------------------------------------------------


def test_run_py_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(RUN.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_run_py_is_readable_by_a_python_that_it_refuses() -> None:
    # With newer syntax an old Python would answer with a SyntaxError instead of the sentence.
    ast.parse(RUN.read_text(), feature_version=(3, 7))


def test_run_py_names_no_host() -> None:
    # House rule: no committed file names the host of a package registry; pip and uv know theirs.
    text = RUN.read_text()
    assert "://" not in text
    assert not re.search(r"\b[a-z0-9-]+\.(?:com|dev|io|net|org)\b", text)


def test_help_needs_neither_site_packages_nor_an_environment(tmp_path: Path) -> None:
    shutil.copy(RUN, tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "run.py", "--help"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "start the demo" in done.stdout.decode()
    assert "デモを起動します" in done.stdout.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["run.py"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["demo"]),
        (["--port", "9000"], ["demo", "--port", "9000"]),
        (["demo", "--json", "x"], ["demo", "--json", "x"]),
        (["sekisho"], []),
        (["sekisho", "--help"], ["--help"]),
        (["doctor", "--now"], ["doctor", "--now"]),
    ],
)
def test_words_are_handed_to_the_command(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(RUN)
    called: list[list[str]] = []
    monkeypatch.setattr(run, "prepare", lambda *, testing: None)
    monkeypatch.setattr(run.os, "execve", lambda _path, command, _env: called.append(command))
    run.main(arguments)
    assert called == [[str(run.PYTHON), "-m", "idp.cli", *words]]


def test_a_synced_environment_needs_neither_uv_nor_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(RUN)
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(run, "SITE_PACKAGES", tmp_path)
    monkeypatch.setattr(run, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(run, "find_uv", lambda: pytest.fail("asked for uv"))
    (tmp_path / "stamp").write_text(run.lock_stamps()["dev"])
    run.prepare(testing=True)
    run.prepare(testing=False)
    (tmp_path / "stamp").write_text(run.lock_stamps()["runtime"])
    run.prepare(testing=False)
    with pytest.raises(pytest.fail.Exception, match="asked for uv"):
        run.prepare(testing=True)


# --- the download of uv ----------------------------------------------------------------------------------------------


@contextmanager
def index(name: str, wheel: bytes, *, form: str) -> Iterator[tuple[str, list[str | None]]]:
    """A package index on loopback that offers one file. Yields its URL and the Authorization header of each request."""
    logins: list[str | None] = []
    page = {
        "html": f'<html><a href="../../files/{name}#sha256=00">{name}</a></html>',
        "json": json.dumps(
            {"meta": {"api-version": "1.0"}, "files": [{"filename": name, "url": f"../../files/{name}", "hashes": {}}]}
        ),
    }[form]
    answers = {"/simple/uv/": page.encode(), f"/files/{name}": wheel}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers["Authorization"])
            body = answers.get(self.path)
            self.send_response(404 if body is None else 200)
            # pip reads no page without a type.
            self.send_header("Content-Type", {"html": "text/html", "json": "application/vnd.pypi.simple.v1+json"}[form])
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple", logins
        finally:
            server.shutdown()
            thread.join()


def fake_wheel(binary: bytes) -> bytes:
    """As much of a wheel of the pinned uv as pip, too, wants to see."""
    name = f"uv-{load(RUN).UV_VERSION}"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.data/scripts/uv", binary)
        archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {name[3:]}\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return packed.getvalue()


@pytest.mark.parametrize("form", ["html", "json"])
def test_the_pinned_uv_is_taken_from_either_form_of_index(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(RUN)
    wheel = fake_wheel(b"#!/bin/sh\n")
    monkeypatch.setattr(run, "TOOLS", tmp_path)
    monkeypatch.setattr(run, "pinned_wheel", lambda: ("uv-x.whl", hashlib.sha256(wheel).hexdigest()))
    monkeypatch.setattr(run.shutil, "which", lambda _name: None)
    with index("uv-x.whl", wheel, form=form) as (url, logins):
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", url.replace("//", "//who:pass%40word@"))
        uv = Path(run.find_uv())
        assert run.find_uv() == str(uv)
    assert os.access(uv, os.X_OK)
    assert [path.name for path in uv.parent.iterdir()] == ["uv"]
    # "who:pass@word"; and two requests in all: the second find_uv asked nobody.
    assert logins == ["Basic d2hvOnBhc3NAd29yZA=="] * 2


def bare_clone(tmp_path: Path) -> Path:
    for name in ("run.py", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def start_demo(clone: Path, index_url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python3 run.py` where no uv is on PATH. index_url: empty for none."""
    return subprocess.run(
        [sys.executable, "-I", "run.py"],
        cwd=clone,
        env={"PATH": str(clone / "nothing"), "PIP_INDEX_URL": index_url, "no_proxy": "*", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    name, _ = load(RUN).pinned_wheel()
    with index(name, fake_wheel(b"evil"), form="html") as (url, _):
        done = start_demo(bare_clone(tmp_path), url)
    assert_refused(done, "SHA-256 differs")
    assert not (tmp_path / "var").exists()
    assert not (tmp_path / ".venv").exists()


def test_an_index_without_the_pinned_uv_is_named(tmp_path: Path) -> None:
    with index("uv-0.0.1.whl", b"", form="json") as (url, _):
        done = start_demo(bare_clone(tmp_path), url)
    assert_refused(done, "The package index at 127.0.0.1")


def test_no_network_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    # Port 1 of loopback: refused at once.
    done = start_demo(bare_clone(tmp_path), "http://who:hunter2@127.0.0.1:1/simple")
    assert_refused(done, "Cannot download uv from 127.0.0.1:1")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("index_url", ["http://127.0.0.1:1/simple", None])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    index_url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(RUN)
    monkeypatch.setattr(run, "configured_index", lambda: index_url)
    # A file where the folder should be fails for root too, which a missing permission would not.
    (tmp_path / "var").write_text("")
    monkeypatch.setattr(run, "TOOLS", tmp_path / "var" / "tools")
    monkeypatch.setattr(run.sys, "argv", ["run.py"])
    monkeypatch.setattr(run, "usable_venv", lambda: False)
    monkeypatch.setattr(run.shutil, "which", lambda _name: None)
    monkeypatch.setattr(run, "download", lambda *_: fake_wheel(b""))
    said: list[str] = []
    monkeypatch.setattr(run, "note", said.append)
    assert run.guarded_main() == 1
    assert "must be able to write" in said[-1]


@pytest.mark.parametrize(
    ("answer", "version"),
    [("uv 0.13.9 (x86_64-unknown-linux-gnu)", (0, 13, 9)), ("pyenv: uv: command not found", ()), ("", ())],
)
def test_only_a_uv_that_starts_counts(answer: str, version: tuple[int, ...], tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\necho '{answer}'\n")
    uv.chmod(0o755)
    assert load(RUN).version_of(str(uv)) == version


# --- uv by way of pip ------------------------------------------------------------------------------------------------


FAKE_PIP = """\
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
calls = here / "calls"
calls.write_text((calls.read_text() if calls.exists() else "") + json.dumps(words) + "\\n")
if "download" in words:
    requirements = pathlib.Path(words[words.index("--requirement") + 1])
    shutil.copy(requirements, here / "requirements.txt")
    shutil.copy(here / "wheel", pathlib.Path(words[words.index("--dest") + 1]) / "uv-x.whl")
"""


def put_pip(folder: Path, source: str, wheel: bytes = b"") -> Path:
    """Makes a pip in a folder that is to go on PYTHONPATH."""
    folder.mkdir()
    (folder / "pip.py").write_text(source)
    (folder / "wheel").write_bytes(wheel)
    return folder


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py where neither a uv nor an index is configured; its var/tools is tmp_path/tools."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    run = load(RUN)
    monkeypatch.setattr(run, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(run.shutil, "which", lambda _name: None)
    return run


def test_without_an_index_pip_fetches_uv_with_every_pinned_hash(
    no_index: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = fake_wheel(b"#!/bin/sh\n")
    digests = {digest for _, digest in no_index.UV_WHEELS.values()} | {hashlib.sha256(wheel).hexdigest()}
    monkeypatch.setattr(no_index, "UV_WHEELS", {**no_index.UV_WHEELS, "": ("", hashlib.sha256(wheel).hexdigest())})
    fake = put_pip(tmp_path / "fake", FAKE_PIP, wheel)
    monkeypatch.setenv("PYTHONPATH", str(fake))
    uv = Path(no_index.find_uv())
    assert no_index.find_uv() == str(uv)
    assert uv.read_bytes() == b"#!/bin/sh\n"
    assert os.access(uv, os.X_OK)
    assert [path.relative_to(tmp_path / "tools") for path in (tmp_path / "tools").rglob("*") if path.is_file()] == [
        Path(f"uv-{no_index.UV_VERSION}", "uv")
    ]
    # Two calls in all: the second find_uv asked nobody.
    version, words = map(json.loads, (fake / "calls").read_text().splitlines())
    assert version == ["--version"]
    assert {"--no-deps", "--only-binary", ":all:", "--require-hashes"} < set(words)
    first, *hashes = (fake / "requirements.txt").read_text().split()
    assert first == f"uv=={no_index.UV_VERSION}"
    assert sorted(hashes) == sorted(f"--hash=sha256:{digest}" for digest in digests)


def test_a_configured_index_is_preferred_to_pip(tmp_path: Path) -> None:
    fake = put_pip(tmp_path / "fake", FAKE_PIP)
    with index("uv-0.0.1.whl", b"", form="html") as (url, _):
        done = start_demo(bare_clone(tmp_path), url, PYTHONPATH=str(fake))
    assert_refused(done, "The package index at 127.0.0.1")
    assert not (fake / "calls").exists()


def test_a_wheel_with_another_hash_is_refused_from_pip_too(tmp_path: Path) -> None:
    fake = put_pip(tmp_path / "fake", FAKE_PIP, fake_wheel(b"evil"))
    done = start_demo(bare_clone(tmp_path), "", PYTHONPATH=str(fake))
    assert_refused(done, "SHA-256 differs")
    assert list((tmp_path / "var" / "tools").iterdir()) == []
    assert not (tmp_path / ".venv").exists()


def test_what_pip_says_is_shown_when_it_fails(tmp_path: Path) -> None:
    fake = put_pip(tmp_path / "fake", "import sys\nsys.exit('no route' if 'download' in sys.argv else 0)\n")
    done = start_demo(bare_clone(tmp_path), "", PYTHONPATH=str(fake))
    assert_refused(done, "no route\n")
    assert "set PIP_INDEX_URL" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="this Python has no ensurepip")
def test_a_python_without_pip_gets_a_real_one_for_the_download_only(
    no_index: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = fake_wheel(b"#!/bin/sh\n")
    said: list[str] = []
    monkeypatch.setattr(no_index, "note", said.append)
    monkeypatch.setattr(no_index, "pinned_wheel", lambda: ("", ""))
    monkeypatch.setenv("PYTHONPATH", str(put_pip(tmp_path / "fake", "raise SystemExit(1)\n")))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("no_proxy", "*")
    pip = no_index.find_pip(tmp_path / "venv")
    assert pip[0] == str(tmp_path / "venv" / "bin" / "python")
    # Making it takes seconds: once is enough.
    monkeypatch.setattr(no_index, "find_pip", lambda _venv: pip)
    with index(f"uv-{no_index.UV_VERSION}-py3-none-any.whl", wheel, form="json") as (url, _):
        # The default index of pip, as run.py sees it: known to pip and to nobody else.
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {url}\nrequire-virtualenv = true\n")
        with pytest.raises(no_index.Stop, match="pip could not download uv"):
            no_index.find_uv()
        assert "DO NOT MATCH THE HASHES" in said[-1]
        assert list((tmp_path / "tools").iterdir()) == []
        monkeypatch.setattr(no_index, "UV_WHEELS", {"": ("", hashlib.sha256(wheel).hexdigest())})
        assert Path(no_index.find_uv()).read_bytes() == b"#!/bin/sh\n"
    assert [path.name for path in (tmp_path / "tools").iterdir()] == [f"uv-{no_index.UV_VERSION}"]


@pytest.fixture
def debian(no_index: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Asks for a pip on a Debian without pip and ensurepip; returns apt-get's commands and the notes."""

    def go(*, uid: int, failing: tuple[str, ...] = (), prefix: str = "/usr") -> tuple[list[str], list[str]]:
        ran: list[str] = []
        said: list[str] = []

        def failure(command: list[str], _env: dict[str, str] | None = None) -> str | None:
            if command[0] == "apt-get":
                ran.append(" ".join(command[2:]))
                return "apt is sad" if command[2] in failing or f"{command[2]} {len(ran)}" in failing else None
            return "No module named pip" if command[-1] == "--version" else None

        monkeypatch.setattr(no_index, "failure", failure)
        monkeypatch.setattr(no_index, "note", said.append)
        monkeypatch.setattr(no_index, "has_ensurepip", lambda: bool(ran))
        monkeypatch.setattr(no_index.os, "geteuid", lambda: uid)
        monkeypatch.setattr(no_index.sys, "base_prefix", prefix)
        monkeypatch.setattr(no_index.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
        try:
            assert no_index.find_pip(Path("/x"))[0] == "/x/bin/python"
        except no_index.Stop as stop:
            said.append(str(stop))
        return ran, said

    return go


def test_root_on_a_bare_debian_gets_the_venv_package(debian: Callable[..., tuple[list[str], list[str]]]) -> None:
    install = "install --yes --no-install-recommends python3-venv"
    ran, said = debian(uid=0)
    assert ran == [install]
    assert len(said) == 1
    assert "Installing the Debian package python3-venv" in said[0]
    assert "Debian パッケージ python3-venv をインストールします" in said[0]
    # Unknown to the lists as they are: read once, then again.
    assert debian(uid=0, failing=("install 1",))[0] == [install, "update", install]


def test_a_failing_apt_get_is_one_sentence_below_its_own_words(
    debian: Callable[..., tuple[list[str], list[str]]],
) -> None:
    ran, said = debian(uid=0, failing=("install", "update"))
    assert len(ran) == 2
    assert said[1] == "apt is sad"
    assert "Check the network. Install python3-venv or uv, or set PIP_INDEX_URL" in said[2]


@pytest.mark.parametrize(("uid", "prefix"), [(1000, "/usr"), (0, "/opt/python")])
def test_without_root_or_a_python_of_debian_nothing_is_installed(
    uid: int, prefix: str, debian: Callable[..., tuple[list[str], list[str]]]
) -> None:
    ran, said = debian(uid=uid, prefix=prefix)
    assert ran == []
    assert len(said) == 1
    assert said[0].startswith(
        "This Python has neither pip nor ensurepip, so it cannot download uv. Install python3-venv"
    )
    assert "or set PIP_INDEX_URL" in said[0]


# --- the checks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs `run.py test …` without running anything; returns the exit code and what would have run."""
    run = load(RUN)

    def go(*arguments: str, failing: str = "", ci: str = "") -> tuple[int, list[str]]:
        ran: list[str] = []

        def passes(name: str, _command: list[str], _env: dict[str, str]) -> bool:
            ran.append(name)
            return name != failing

        def python(command: list[str], env: dict[str, str]) -> int:
            ran.append(" ".join([*command, "SEKISHO_REQUIRE_ALL"] if "SEKISHO_REQUIRE_ALL" in env else command))
            return 0

        monkeypatch.setenv("CI", ci)
        monkeypatch.delenv("SEKISHO_REQUIRE_ALL", raising=False)
        monkeypatch.setattr(run, "prepare", lambda *, testing: None)
        monkeypatch.setattr(run, "ensure_debian_packages", lambda *, required: ran.append(f"debian {required}"))
        monkeypatch.setattr(run, "passes", passes)
        monkeypatch.setattr(run, "run_python", python)
        return run.main(["test", *arguments]), ran

    return go


def test_pytest_runs_last_and_a_failed_linter_fails_the_run(checks: Callable[..., tuple[int, list[str]]]) -> None:
    linters = ["ruff check", "ruff format", "mypy", "lint-imports"]
    assert checks() == (0, ["debian False", *linters, "-m pytest -n auto"])
    assert checks(failing="mypy") == (1, ["debian False", *linters, "-m pytest -n auto"])
    assert checks("--no-lint") == (0, ["debian False", "-m pytest -n auto"])
    assert checks("tests/house", "-x") == (0, ["-m pytest tests/house -x"])


def test_ci_allows_no_skip(checks: Callable[..., tuple[int, list[str]]]) -> None:
    assert checks("--no-lint", ci="true") == (0, ["debian True", "-m pytest -n auto SEKISHO_REQUIRE_ALL"])


# --- the locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [*LOCKS, *TOOL_LOCKS])
def test_every_locked_package_has_an_exact_version_and_hashes(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.lstrip().startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    for entry in entries:
        assert PINNED.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry
    assert entries


@pytest.mark.parametrize("lock", [*LOCKS, *TOOL_LOCKS])
def test_a_lock_names_no_host_and_no_folder(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"(?<![\w.])/\w", text)
    assert not re.search(r"^\s*-", text.replace("    --hash", ""), re.MULTILINE)


def test_the_locks_agree_with_the_project_and_with_each_other() -> None:
    runtime, dev, build = (pins(lock) for lock in LOCKS)
    for group, lock in (("runtime", runtime), ("dev", dev), ("build", build)):
        for requirement in wanted(group):
            version = lock.get(canonicalize_name(requirement.name), "absent")
            assert version in requirement.specifier, f"{requirement} is locked as {version}"
    # run.py serves the product from an environment made for tests: the dev lock must contain the runtime lock.
    assert runtime.items() <= dev.items()


# --- the throwaway PostgreSQL ----------------------------------------------------------------------------------------


def test_a_throwaway_server_clones_a_template_survives_a_kill_and_leaves_nothing() -> None:
    postgres = load(ROOT / "tests" / "postgres.py")
    if (reason := postgres.why_not()) is not None:
        if os.environ.get("SEKISHO_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)

    def ask(database: str, statement: str) -> object:
        address = f"host={server.folder} user={postgres.SUPERUSER} dbname={database}"
        with psycopg.connect(address, autocommit=True) as connection:
            return connection.execute(statement).fetchone()[0]

    with postgres.PostgresServer(fsync=True) as server:
        assert server.create_template("pattern") == f"postgresql+psycopg://sekisho@/pattern?host={server.folder}"
        ask("pattern", "SELECT lo_from_bytea(7, 'kept')")
        server.create_database("copy", template="pattern")
        assert ask("copy", "SHOW fsync") == "on"
        assert ask("copy", "SHOW listen_addresses") == ""
        server.kill()
        server.start()
        assert ask("copy", "SELECT lo_get(7)") == b"kept"
        server.drop_database("copy")
        server.drop_database("copy")
    assert not server.folder.exists()
