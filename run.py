#!/usr/bin/env python3
"""From a clone to a running Sekisho, or to its tests, in one command; nothing but Python 3.11 is needed.

Owns the environment in .venv: makes it with uv, fills it from the hashed lock files, and hands over to the
`sekisho` command. Knows nothing of the product itself. Standard library only, because a bare Debian has
neither pip nor ensurepip: there root gets python3-venv, and others are told to install it. Called by people,
by `.ci/run`, and never imported by the product.
"""

import base64
import hashlib
import html.parser
import http.client
import importlib
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zipfile
from collections.abc import Collection
from pathlib import Path
from urllib.request import Request, urlopen  # noqa: TID251 - runs before the product's own client can be imported

# Everything above and the whole syntax of this file must be readable by older Pythons, or they would answer with a
# SyntaxError instead of this sentence.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("Sekisho needs Python 3.11 or newer; this is Python {}.{}.".format(*sys.version_info[:2]))

HELP = """\
python3 run.py [demo] [--port N] [--data DIR] [--json FILE]   start the demo
python3 run.py test [--no-lint] [pytest arguments]            all checks and tests; with arguments only pytest
python3 run.py test --quick                                   most tests in five minutes, for while you work
python3 run.py WORD ...                                       any other `sekisho` command; `sekisho --help` lists them

The first run makes the environment in .venv, from the hashed lock files; later ones start at once.
Behind a company mirror set PIP_INDEX_URL.

python3 run.py          デモを起動します（初回は .venv に環境を用意します）
python3 run.py test     静的検査とテストをすべて実行します（引数を付けると pytest だけを実行します）
python3 run.py test --quick  大部分のテストを5分ほどで実行します（作業中の確認用です）
python3 run.py WORD …   そのほかの sekisho コマンドを実行します（一覧は `python3 run.py sekisho --help`）
社内ミラーを使う場合は、環境変数 PIP_INDEX_URL を設定してください。
"""

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
SITE_PACKAGES = VENV / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
STAMP = VENV / "synced-lock.sha256"
TOOLS = ROOT / "var" / "tools"
RUNTIME_LOCK = ROOT / "requirements.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"

SIMPLE_API = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
UV_VERSION = "0.13.9"
UV_OLDEST = (0, 11)  # the first series that knows UV_SYSTEM_CERTS
UV_LIMIT_BYTES = 100 * 1024 * 1024
# The hashes are written here, and not taken from the index, so that an index that lies is noticed.
UV_WHEELS = {
    ("linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("linux", "x86_64", "musl"): (
        "musllinux_1_1_x86_64",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("linux", "aarch64", "glibc"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("linux", "aarch64", "musl"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("darwin", "arm64", ""): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
    ("darwin", "x86_64", ""): (
        "macosx_10_12_x86_64",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
}

WITHOUT_PIP = "Install python3-venv or uv, or set PIP_INDEX_URL to a package index, and start run.py again."
APT_INSTALL = ["install", "--yes", "--no-install-recommends"]

# Debian package: (a command that shows it is there although dpkg does not know it, what its absence costs).
DEBIAN_PACKAGES = {
    "chromium": ("chromium", "browser tests"),
    "libatomic1": (None, "browser tests"),
    "fonts-noto-cjk": (None, "screenshots with Japanese text"),
    "fonts-noto-core": (None, "screenshots"),
    "postgresql": (None, "PostgreSQL tests"),
    "apache2": (None, "tests against a foreign relying party"),
    "libapache2-mod-auth-openidc": (None, "tests against a foreign relying party"),
    "libapache2-mod-auth-mellon": (None, "tests against foreign SAML service providers"),
    "libapache2-mod-shib": (None, "tests against foreign SAML service providers"),
    "simplesamlphp": (None, "tests against foreign SAML service providers"),
    "php-cli": ("php", "tests against foreign SAML service providers"),
    "php-mbstring": (None, "tests against foreign SAML service providers"),
    "php-sqlite3": (None, "tests against foreign SAML service providers"),
    "php-xml": (None, "tests against foreign SAML service providers"),
    "libmagic1": (None, "tests with a foreign password-only tool"),
    "xmlsec1": (None, "tests with a foreign implementation of XML signatures"),
    "nodejs": ("node", "tests of the Node examples"),
    "npm": ("npm", "tests of the Node examples"),
}

LINTERS = (
    ("ruff check", ["-m", "ruff", "check", "."]),
    ("ruff format", ["-m", "ruff", "format", "--check", "."]),
    ("mypy", ["-m", "mypy"]),
    ("lint-imports", ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]),
)


class Stop(Exception):
    """An expected failure; its text is one or two sentences for the person at the keyboard."""


def main(arguments: list[str]) -> int:
    """Run one command. arguments: without the program's name. Returns the exit code, unless it became the command."""
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(HELP, end="")
        return 0
    if os.name != "posix":
        raise Stop("Sekisho runs on Linux and macOS; on Windows, use WSL.")
    if arguments[:1] == ["test"]:
        return run_tests(arguments[1:])
    become_sekisho(arguments)
    return 0


def become_sekisho(arguments: list[str]) -> None:
    """Replace this process by the `sekisho` command, so that signals and the exit code are its own."""
    if arguments[:1] == ["sekisho"]:
        words = arguments[1:]
    elif not arguments or arguments[0].startswith("-"):
        words = ["demo", *arguments]
    else:
        words = arguments
    prepare(testing=False)
    sys.stdout.flush()
    os.execve(PYTHON, [str(PYTHON), "-m", "idp.cli", *words], os.environ)


# --- the environment -------------------------------------------------------------------------------------------------


def prepare(*, testing: bool) -> None:
    """Make .venv agree with the lock file; does nothing, and needs no network, when it already does."""
    stamps = lock_stamps()
    # The dev lock contains the runtime lock, so an environment made for tests also serves the product.
    wanted = [stamps["dev"]] if testing else [stamps["dev"], stamps["runtime"]]
    if usable_venv() and STAMP.exists() and STAMP.read_text() in wanted:
        return
    note("Preparing the environment in .venv (the first time takes a minute) ...")
    uv = find_uv()
    if not usable_venv():
        run_uv([uv, "venv", "--quiet", "--clear", "--relocatable", "--no-project", str(VENV)])
    # Gone first: an interrupted sync must not be taken for a finished one.
    STAMP.unlink(missing_ok=True)
    lock = DEV_LOCK if testing else RUNTIME_LOCK
    run_uv([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(PYTHON), str(lock)])
    # The clone itself is the installed product. A relative line keeps .venv right when the folder is moved.
    (SITE_PACKAGES / "sekisho.pth").write_text("../../../..\n")
    STAMP.write_text(stamps["dev" if testing else "runtime"])


def lock_stamps() -> dict[str, str]:
    """The SHA-256, in hex, that stands for an environment of each kind."""
    runtime, dev = RUNTIME_LOCK.read_bytes(), DEV_LOCK.read_bytes()
    return {"runtime": hashlib.sha256(runtime).hexdigest(), "dev": hashlib.sha256(runtime + dev).hexdigest()}


def usable_venv() -> bool:
    """Whether .venv belongs to the Python minor version that runs now, and its interpreter still exists."""
    return PYTHON.exists() and SITE_PACKAGES.is_dir()


def run_uv(command: list[str]) -> None:
    if subprocess.run(command, cwd=ROOT, env=uv_environment(), check=False).returncode != 0:
        raise Stop(
            "uv could not prepare the environment (its reason is above). "
            "Without a network this works only once .venv is complete; behind a company mirror set PIP_INDEX_URL."
        )


def uv_environment() -> dict[str, str]:
    """The caller's environment, with the interpreter fixed and the index, if configured, in uv's own variable."""
    # These two would aim uv at the system's Python, or hide the locked versions from it.
    env = {name: value for name, value in os.environ.items() if name not in ("UV_SYSTEM_PYTHON", "UV_EXCLUDE_NEWER")}
    env.update(UV_PYTHON=sys.executable, UV_PYTHON_DOWNLOADS="never", UV_SYSTEM_CERTS="1")
    index = configured_index()
    if index is not None:
        env["UV_DEFAULT_INDEX"] = index
    return env


# --- uv --------------------------------------------------------------------------------------------------------------


def find_uv() -> str:
    """The path of a uv: the one on PATH if recent enough, else the pinned one, downloaded if need be.

    No index is named here: without one in the environment, pip is asked, which knows its own, as uv does later.
    """
    found = shutil.which("uv")
    if found is not None and version_of(found) >= UV_OLDEST:
        return found
    pinned = TOOLS / f"uv-{UV_VERSION}" / "uv"
    if not pinned.exists():
        note(f"Downloading uv {UV_VERSION} ...")
        name, digest = pinned_wheel()
        index = configured_index()
        unpack_uv(download_by_pip() if index is None else download(name, digest, index), pinned)
    return str(pinned)


def version_of(uv: str) -> tuple[int, ...]:
    """(major, minor, patch), or () for a uv that does not start, such as a version manager's empty shim."""
    try:
        answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", answer)
    return tuple(int(part) for part in match.groups()) if match else ()


def pinned_wheel() -> tuple[str, str]:
    """File name and SHA-256 (hex) of the pinned uv for this machine."""
    libc = "" if sys.platform == "darwin" else platform.libc_ver()[0] or "musl"
    key = (sys.platform, platform.machine().lower(), libc)
    if key not in UV_WHEELS:
        raise Stop(f"No uv is pinned for {' '.join(key)}; install uv {UV_VERSION} or newer and put it on PATH.")
    tags, digest = UV_WHEELS[key]
    return f"uv-{UV_VERSION}-py3-none-{tags}.whl", digest


def configured_index() -> str | None:
    """The package index named by the environment, as a URL that may carry a user name and a password."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        value = os.environ.get(name, "").strip()
        if value:
            return re.sub(r"^[\w.-]+=", "", value)  # uv also takes "name=URL"
    return None


def download(name: str, digest: str, index: str) -> bytes:
    """Fetch one wheel from a simple index (PEP 503 or PEP 691). digest: SHA-256 in hex, which the bytes must have."""
    page, page_url = fetch(index.rstrip("/") + "/uv/", index)
    link = links_in(page).get(name)
    if link is None:
        raise Stop(f"The package index at {host(index)} has no {name}.")
    wheel, _ = fetch(urllib.parse.urljoin(page_url, link), index)
    return verified(wheel, [digest], f"{name} from {host(index)}")


def verified(wheel: bytes, digests: Collection[str], name: str) -> bytes:
    """The wheel itself. digests: SHA-256 in hex, one of which the bytes must have."""
    if hashlib.sha256(wheel).hexdigest() not in digests:
        raise Stop(f"Refused: {name} is not the file that run.py pins (SHA-256 differs). Nothing was installed.")
    return wheel


def fetch(url: str, index: str) -> tuple[bytes, str]:
    """The body and the final address of url; the index's credentials are sent to the index's own host only."""
    try:
        request = Request(without_credentials(url), headers={"Accept": SIMPLE_API})
        login = urllib.parse.urlsplit(index)
        if login.username and host(url) == host(index):
            pair = urllib.parse.unquote(f"{login.username}:{login.password or ''}")
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        with urlopen(request, timeout=60) as answer:
            body = answer.read(UV_LIMIT_BYTES + 1)
            if len(body) > UV_LIMIT_BYTES:
                raise Stop(f"The answer of {host(url)} is far larger than uv; stopped.")
            return body, answer.url
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Stop(
            f"Cannot download uv from {host(url)}: {error}. Check the network, set PIP_INDEX_URL to your mirror, "
            f"or install uv {UV_VERSION} yourself."
        ) from error


def links_in(page: bytes) -> dict[str, str]:
    """File name → address, absolute or relative, from a project page in either form; an index may ignore Accept."""
    text = page.decode("utf-8", "replace")
    try:
        return {file["filename"]: file["url"] for file in json.loads(text)["files"]}
    except (ValueError, KeyError, TypeError):
        parser = LinkParser()
        parser.feed(text)
        return {urllib.parse.unquote(urllib.parse.urlsplit(link).path.split("/")[-1]): link for link in parser.links}


class LinkParser(html.parser.HTMLParser):
    """Collects the targets of all links, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.links.append(target)


def without_credentials(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def download_by_pip() -> bytes:
    """Fetch the wheel that suits this machine from the index that pip is set to use; nothing of pip's stays behind."""
    digests = sorted({digest for _, digest in UV_WHEELS.values()})
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pip-", dir=TOOLS) as name:
        scratch = Path(name)
        pip = find_pip(scratch / "venv")
        requirements = scratch / "requirements.txt"
        requirements.write_text(" ".join([f"uv=={UV_VERSION}", *(f"--hash=sha256:{digest}" for digest in digests)]))
        command = [*pip, "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements)]
        # A person's pip may be told to install into virtual environments only; this installs nothing.
        answer = failure([*command, "--dest", str(scratch)], {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"})
        wheel = next(scratch.glob("*.whl"), None)
        if answer is not None or wheel is None:
            note(answer or "pip said nothing.")
            raise Stop(
                "pip could not download uv (its reason is above). Check the network, set PIP_INDEX_URL to your mirror, "
                f"or install uv {UV_VERSION} yourself."
            )
        return verified(wheel.read_bytes(), digests, f"{wheel.name} from pip")


def find_pip(venv: Path) -> list[str]:
    """The command of a pip: this Python's own, else one in a virtual environment made at venv."""
    # -P: a pip.py in the current folder is not meant.
    own = [sys.executable, "-P", "-m", "pip"]
    if failure([*own, "--version"]) is None:
        return own
    if not has_ensurepip():
        install_python_venv()
    answer = failure([sys.executable, "-P", "-m", "venv", str(venv)])
    if answer is not None:
        note(answer)
        raise Stop(f"This Python cannot make a virtual environment (its reason is above). {WITHOUT_PIP}")
    return [str(venv / "bin" / "python"), "-I", "-m", "pip"]


def has_ensurepip() -> bool:
    """Whether a virtual environment will have a pip; Debian keeps that part of Python in a package of its own."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("ensurepip") is not None


def install_python_venv() -> None:
    """Get ensurepip from Debian or a relative of it, if that is where this Python is from and root is asking."""
    if os.geteuid() == 0 and sys.base_prefix == "/usr" and shutil.which("apt-get"):
        note(
            "Installing the Debian package python3-venv, to download uv with ... / "
            "uv の取得に必要な Debian パッケージ python3-venv をインストールします ..."
        )
        # The package lists may be good as they are, which saves reading them anew.
        if (apt_get([*APT_INSTALL, "python3-venv"]) is None or apt_install(["python3-venv"])) and has_ensurepip():
            return
        raise Stop(f"apt-get could not install python3-venv (its reason is above). Check the network. {WITHOUT_PIP}")
    raise Stop(f"This Python has neither pip nor ensurepip, so it cannot download uv. {WITHOUT_PIP}")


def unpack_uv(wheel: bytes, target: Path) -> None:
    """Put only the binary in place, by a rename, so that a second run.py never meets half a file."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        binary = archive.read(f"uv-{UV_VERSION}.data/scripts/uv")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"uv.{os.getpid()}")
    fresh.write_bytes(binary)
    fresh.chmod(0o755)
    fresh.replace(target)


# --- checks and tests ------------------------------------------------------------------------------------------------


def run_tests(arguments: list[str]) -> int:
    """All linters, then pytest; with pytest arguments only pytest. Returns 0 if everything passed.

    pytest runs last and prints last, because whoever reads a log looks for its closing line at the end.
    """
    lint = "--no-lint" not in arguments
    chosen = [argument for argument in arguments if argument != "--no-lint"]
    in_ci = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    prepare(testing=True)
    env = {**os.environ, "SEKISHO_REQUIRE_ALL": "1"} if in_ci else dict(os.environ)
    if chosen == ["--quick"]:
        chosen += ["-n", "auto"]
    if chosen:
        return run_python(["-m", "pytest", *chosen], env)
    ensure_debian_packages(required=in_ci)
    failed = [name for name, command in LINTERS if not passes(name, command, env)] if lint else []
    print("pytest ...", flush=True)
    code = run_python(["-m", "pytest", "-n", "auto"], env)
    if failed:
        print("FAILED before pytest: " + ", ".join(failed))
    return code or int(bool(failed))


def run_python(command: list[str], env: dict[str, str]) -> int:
    return subprocess.run([str(PYTHON), *command], cwd=ROOT, env=env, check=False).returncode


def passes(name: str, command: list[str], env: dict[str, str]) -> bool:
    """Run one linter, print one line, and its whole output only if it failed."""
    began = time.monotonic()
    done = subprocess.run(
        [str(PYTHON), *command],
        cwd=ROOT,
        env=env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    good = done.returncode == 0
    if not good:
        sys.stdout.write(done.stdout.decode("utf-8", "replace"))
    print(f"{name:14}{'ok' if good else 'FAILED':8}{time.monotonic() - began:6.1f} s", flush=True)
    return good


def ensure_debian_packages(*, required: bool) -> None:
    """Install what a full test run wants, as root on Debian; elsewhere say what will be skipped, or stop if required."""
    missing = missing_debian_packages()
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() == 0:
        note(f"Installing Debian packages for the tests: {names}")
        if apt_install(missing):
            return
        reason = f"these Debian packages could not be installed: {names}"
    else:
        reason = f"not root, so these Debian packages are not installed: {names}"
    if required:
        raise Stop("CI needs every tool, but " + reason + ".")
    skipped = sorted({DEBIAN_PACKAGES[name][1] for name in missing})
    note(f"Going on without some tools: {reason}. Skipped: {', '.join(skipped)}.")


def missing_debian_packages() -> list[str]:
    """Names in DEBIAN_PACKAGES' order; empty on anything but Debian, whose packages are named otherwise."""
    try:
        if platform.freedesktop_os_release().get("ID") != "debian":
            return []
    except OSError:
        return []
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *DEBIAN_PACKAGES]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    have = {line.split()[0] for line in listed if line.endswith(" installed")}
    return [
        name
        for name, (command, _) in DEBIAN_PACKAGES.items()
        if name not in have and not (command and shutil.which(command))
    ]


def apt_install(packages: list[str]) -> bool:
    """Whether apt-get installed them; its own words appear only when it did not."""
    for command in (["update"], [*APT_INSTALL, *packages]):
        answer = apt_get(command)
        if answer is not None:
            note(answer)
            return False
    return True


def apt_get(command: list[str]) -> str | None:
    return failure(["apt-get", "--quiet", *command], {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def failure(command: list[str], env: dict[str, str] | None = None) -> str | None:
    """Run a command in silence. Returns None if it succeeded, else the end of what it said."""
    done = subprocess.run(
        command,
        env=env,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return None if done.returncode == 0 else done.stdout.decode("utf-8", "replace")[-3000:]


def note(text: str) -> None:
    """To standard error, so that a command's own output stays clean."""
    print(text, file=sys.stderr, flush=True)


def guarded_main() -> int:
    try:
        return main(sys.argv[1:])
    except Stop as stop:
        note(f"run.py: {stop}")
        return 1
    except OSError as error:
        note(f"run.py: {error}. Sekisho must be able to write to {ROOT}.")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(guarded_main())
