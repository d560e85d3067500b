"""`demo`: a whole small world on this machine: two companies, web, worker, gateway and engine, two consoles, two tools.

Everything in it is the product itself: the same commands, tables and processes. What is special is that the passwords are
made up here, kept in `demo.json` beside the data and printed, so that somebody can try them.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import click
import pyotp

from connectors.demo.coupons import saml as coupon_saml
from idp.app import create_app, create_database_app
from idp.cli.database import make_files, make_keys, prepare_database
from idp.cli.seed import seed
from idp.cli.seed_tools import seed_tools
from idp.core import clock, ids, logs
from idp.core.db import db
from idp.core.migrate import upgrade
from idp.core.settings import PROJECT_ROOT, Settings
from idp.edges.tools import certifying

START_S = 60
#: the gateway's port, after the demo's
GATEWAY = 12
STOP_S = 35
ROTATE_S = 30
CERTIFY_TRIES = 9


@click.command()
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(1024, 65000),
    help="Of the login pages; consoles, gateway and tools get PORT+10 to PORT+14.",
)
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Where everything is kept. [default: var/demo]"
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write addresses, logins and clients here.",
)
def demo(port: int, data: Path | None, json_file: Path | None) -> None:
    """Set up and run a demonstration: SQLite, two companies, every process, consoles and tools."""
    logs.configure(level="WARNING")
    folder = (data or PROJECT_ROOT / "var" / "demo").resolve()
    _refuse_busy(port, *range(port + 10, port + 15))
    environment = _environment(folder, port)
    world = prepare(folder, port, environment)
    if json_file is not None:
        _write_private(json_file, world)
    processes = _start(folder, port, world, environment)
    try:
        _wait_until_up(port, processes)
        _announce(world)
        _stay(processes, world, environment)
    finally:
        _stop(processes)


def _refuse_busy(*ports: int) -> None:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise click.ClickException(
                    f"ポート {port} は使われています。--port で変えられます。 / Port {port} is in use; choose another with --port."
                ) from None


def _environment(folder: Path, port: int) -> dict[str, str]:
    """The settings of every process of the demo."""
    return {
        "SEKISHO_ENVIRONMENT": "development",
        "SEKISHO_ISSUER": f"http://localhost:{port}",
        "SEKISHO_PORT": str(port),
        "SEKISHO_DATABASE_URL": f"sqlite:///{folder}/data/sekisho.sqlite",
        "SEKISHO_ROOT_KEY_FILE": str(folder / "keys" / "root.key"),
        "SEKISHO_PEPPER_FILE": str(folder / "keys" / "pepper"),
        "SEKISHO_GATEWAY_DOMAIN": f"gw.localhost:{port + GATEWAY}",
        "SEKISHO_GATEWAY_PORT": str(port + GATEWAY),
        # in a container everybody is root, and the only tools here are our own two (VA-45)
        "SEKISHO_ENGINE_ROOT": "development" if os.geteuid() == 0 else "refused",
    }


def prepare(folder: Path, port: int, environment: dict[str, str]) -> dict[str, Any]:
    """Make keys, database and people, or find them again. Returns what `demo.json` holds."""
    os.environ.update(environment)
    settings, file, now = Settings.read(), folder / "demo.json", clock.now()
    make_files(settings)
    prepare_database(settings)
    app = create_database_app(settings)
    with app.app_context():
        upgrade(db.engine)
        make_keys(settings, now=now)
    if file.exists():
        world: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if world["issuer"] != settings.issuer:
            raise click.ClickException(
                f"{folder} は {world['issuer']} で作られています。同じ --port か、別の --data を使ってください。"
                f" / {folder} was made for {world['issuer']}; use the same --port or another --data."
            )
        return world
    product = create_app(settings)
    with product.app_context():
        product.extensions["sekisho"].signer.refresh(now=now)
        coupons = f"http://localhost:{port + 11}"
        key = coupon_saml.load_key(folder / "coupons" / "key.pem", now=now)
        world = seed(
            product.extensions["sekisho"], console=f"http://localhost:{port + 10}", coupons=coupons,
            coupons_metadata=coupon_saml.metadata(coupons, key), now=now,
        )  # fmt: skip
        world["tools"] = seed_tools(product.extensions["sekisho"], port=port, now=now)
    world["console"]["session_secret"] = ids.new_secret()
    _write_private(file, world)
    return world


def _write_private(file: Path, world: dict[str, Any]) -> None:
    """Write with mode 0600: the file holds passwords."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(world, out, ensure_ascii=False, indent=1)


def _start(
    folder: Path, port: int, world: dict[str, Any], environment: dict[str, str]
) -> dict[str, subprocess.Popen[bytes]]:
    console = world["console"]
    (folder / "console").mkdir(exist_ok=True)
    for_console = {
        "OIDC_ISSUER": world["issuer"], "OIDC_CLIENT_ID": console["client_id"], "OIDC_CLIENT_SECRET": console["client_secret"],
        "OIDC_REDIRECT_URI": f"{console['url']}/callback", "OIDC_POST_LOGOUT_REDIRECT_URI": f"{console['url']}/logged-out",
        "CONSOLE_PORT": str(port + 10), "CONSOLE_DATABASE": str(folder / "console" / "console.sqlite"),
        "CONSOLE_SECRET": console["session_secret"],
    }  # fmt: skip
    commands = {
        "web": (["-m", "idp.cli", "serve"], environment),
        "worker": (["-m", "idp.cli", "worker"], environment),
        "console": (["-m", "connectors.demo.console"], for_console),
    }
    if "coupons" in world:  # a data folder of an older version has none
        for_coupons = {
            "COUPONS_URL": world["coupons"]["url"], "COUPONS_IDP": world["issuer"], "COUPONS_FOLDER": str(folder / "coupons"),
        }  # fmt: skip
        commands["coupons"] = (["-m", "connectors.demo.coupons"], for_coupons)
    if "tools" in world:
        commands["gateway"] = (["-m", "idp.cli", "gateway"], environment)
        commands["engine"] = (["-m", "idp.cli", "engine"], environment)
    for tool in world.get("tools", []):
        (folder / "tools").mkdir(exist_ok=True)
        for_tool = {
            "TOOL_PASSWORD": tool["first_password"], "TOOL_STATE": str(folder / "tools" / f"{tool['slug']}.password"),
        }  # fmt: skip
        listen = ["--port", str(urlsplit(tool["url"]).port)]
        commands[tool["slug"]] = (["-m", "connectors.demo.tools", tool["slug"], *listen], for_tool)
    (folder / "logs").mkdir(exist_ok=True)
    started = {}
    for name, (arguments, extra) in commands.items():
        with (folder / "logs" / f"{name}.log").open("ab") as log:
            # a session of its own: Ctrl-C reaches this process alone, which then stops the others in order
            started[name] = subprocess.Popen(
                [sys.executable, *arguments], cwd=PROJECT_ROOT, env={**os.environ, **extra}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
    return started


def _wait_until_up(port: int, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_S
    consoles = [port + 10, *([port + 11] if "coupons" in processes else [])]
    others = list(range(port + GATEWAY, port + 15)) if "gateway" in processes else []
    for wanted in (port, *consoles, *others):
        while not (_listens(wanted) if wanted in others else _answers(wanted)):
            for name, process in processes.items():
                if process.poll() is not None:
                    raise click.ClickException(
                        f"{name} stopped with status {process.returncode}; see logs/{name}.log in the data folder"
                    )
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"nothing answered on port {wanted} within {START_S} s; see the logs in the data folder"
                )
            time.sleep(0.1)


def _certify(world: dict[str, Any], environment: dict[str, str]) -> Iterator[str]:
    """Certify the tools' accounts where that is still due, then let the engine change the passwords that it can.

    As somebody at head office would: with the commands, a browser, and the tools as they run. Gives a line for each tool; without
    a browser nothing is certified, and the portal says so.
    """
    for tool in world.get("tools", []):
        if _account(tool, environment)["certification"] != "valid":
            for _ in range(CERTIFY_TRIES):
                done = _sekisho("tool", "certify", tool["account"], environment=environment)
                if certifying.BUSY not in done.stderr:
                    break
                time.sleep(10)  # somebody was cut meanwhile, and the engine is changing the password
            if done.returncode:
                yield f"  {tool['name']}: まだ開けません / cannot be opened yet: {_last_line(done)}"
                continue
            _sekisho("tool", "rotate", tool["account"], "--trigger", "import", environment=environment)
            for _ in range(ROTATE_S):  # until nobody who saw it deposited knows it any more
                if not _account(tool, environment)["known_to_people"]:
                    break
                time.sleep(1)
        yield f"  {tool['name']}: ポータルから開けます / opens from the portal"


def _account(tool: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    (account,) = json.loads(_sekisho("tool", "show", tool["slug"], "--json", environment=environment).stdout)
    found: dict[str, Any] = account
    return found


def _sekisho(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "idp.cli", *arguments], cwd=PROJECT_ROOT, env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"status {done.returncode}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("localhost", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _announce(world: dict[str, Any]) -> None:
    lines = [
        "",
        f"  関所 Sekisho         {world['issuer']}",
        f"  ポイント管理コンソール  {world['console']['url']}",
        *([f"  販促・クーポン (SAML)  {world['coupons']['url']}"] if "coupons" in world else []),
        "",
        f"  {'だれ / who':<22}{'ログインID / login':<20}パスワード / password",
    ]
    lines += [
        f"  {p['title']:<22}{p['login']:<20}{p['password']}{'   + 6桁 / 6 digits' if p.get('totp_secret') else ''}"
        for p in world["people"]
    ]
    lines += ["", "  Enter: いまの6桁の数字を出す / print the current 6 digits     Ctrl-C: 終わる / stop", ""]
    click.echo("\n".join(lines))
    if sys.stdin.isatty():
        threading.Thread(target=_codes_on_enter, args=(world,), daemon=True).start()


def _codes_on_enter(world: dict[str, Any]) -> None:
    for _ in sys.stdin:
        for person in world["people"]:
            if person.get("totp_secret"):
                click.echo(f"  {person['login']:<20}{pyotp.TOTP(person['totp_secret']).at(clock.now())}")


class _Asked(Exception):
    """Somebody asked us to stop."""


def _stay(processes: dict[str, subprocess.Popen[bytes]], world: dict[str, Any], environment: dict[str, str]) -> None:
    """Make the tools ready, then wait for Ctrl-C, SIGTERM, or the end of one of the processes."""

    def asked(_number: int, _frame: FrameType | None) -> None:
        raise _Asked

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    try:
        for line in _certify(world, environment):
            click.echo(line)
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise click.ClickException(
                        f"{name} stopped with status {process.returncode}; see logs/{name}.log in the data folder"
                    )
            time.sleep(0.5)
    except _Asked:
        click.echo("\n  終わります… / stopping…")


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask all, wait, and only then insist."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for process in processes.values():
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes.values():
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
