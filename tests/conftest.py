"""Fixtures: one installation per test, on SQLite and on PostgreSQL, reached over HTTP as people and peers reach it.

A template of each database is migrated and given keys once per run; a test gets a copy. Nothing of ours is patched: time is
moved with time-machine, and what leaves the process goes through a recording fake of `Outbound`.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from sqlalchemy import Compiled, Engine, event, make_url
from werkzeug.routing import Rule

from idp.app import create_app, create_database_app
from idp.core.db import db
from idp.core.keys import make_first_keys
from idp.core.migrate import upgrade
from idp.core.settings import Settings
from idp.services import build_services
from tests import memory, postgres
from tests.actors import Browser, World
from tests.fakes.outbound import RecordingOutbound

ISSUER = "http://localhost:8000"
#: what a quick run leaves out: browsers, foreign programs, processes that are killed, and what takes them up
LONG = (
    "tests/interop/",
    "tests/scenarios/",
    "tests/crash/",
    "tests/contract/certify/",
    "tests/house/test_claims.py",
    "tests/house/test_saml_guards.py",
)
TOGETHER = ("tests/interop/", "tests/scenarios/")
REQUIRE_ALL = os.environ.get("SEKISHO_REQUIRE_ALL") == "1"


class CompiledTemplates(BytecodeCache):
    """Compiled templates of this run."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.code[bucket.key] = bucket.bytecode_to_string()


class CompiledRule(Rule):
    """A route whose builders of addresses are compiled once per run: a hundred routes take an application 0.1 s otherwise.

    What is compiled is a function of these texts; the converters are looked up in the rule that it is bound to.
    """

    code: ClassVar[dict[str, Callable[..., tuple[str, str]]]] = {}

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        key = repr((self._trace, self.defaults, append_unknown))
        if key not in self.code:
            self.code[key] = super()._compile_builder(append_unknown)
        return self.code[key]


class CompiledStatements(dict[tuple[object, ...], Compiled]):
    """SQL of this run by dialect and statement. An engine keeps its own, by the dialect object that was made with it; all
    engines of one database here are made alike."""

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: tuple[Any, ...], compiled: Compiled) -> None:
        super().__setitem__((key[0].name, *key[1:]), compiled)


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers, and let every application of this process share what it compiles: each test builds one of its own,
    and templates, routes and SQL of all of them are the same."""
    memory.use()
    Flask.jinja_options = {"bytecode_cache": CompiledTemplates()}
    Flask.url_rule_class = CompiledRule
    statements = CompiledStatements()
    event.listen(Engine, "engine_connect", lambda connection: connection.execution_options(compiled_cache=statements))
    config.addinivalue_line("markers", "guards(*sites): this test goes red when one of these claims is removed")
    config.addinivalue_line("markers", "slow: left out of the default run; a setting asks for it")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, for while one works: `python3 run.py test --quick`."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="on SQLite alone but for races, without browsers, foreign programs and kills",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a quick run leaves out is counted as deselected."""
    if not config.getoption("quick"):
        return
    chosen = [item for item in items if not (item.nodeid.startswith(LONG) or _is_twin(item))]
    config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
    items[:] = chosen


def _is_twin(item: pytest.Item) -> bool:
    """The PostgreSQL half of a test that runs on SQLite as well, where the engine is not what the test is about."""
    found = getattr(item, "callspec", None)
    engines = [value for value in found.params.values() if isinstance(value, str)] if found is not None else []
    return "postgresql" in engines and not item.nodeid.startswith("tests/race/")


def pytest_collection_finish() -> None:
    """What is here now stays: the garbage collector need not look at a hundred thousand objects again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: somebody always waits, for a browser, a peer or a process that is about to die."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep each folder that starts whole installations on one worker, so that it starts them once."""
    from xdist.scheduler import LoadGroupScheduling

    class Grouped(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid)

    return Grouped(config, log)


@dataclass(frozen=True)
class Template:
    """A migrated installation with keys: copied, never used."""

    engine: str
    folder: Path
    server: postgres.PostgresServer | None = None


def settings_for(url: str, folder: Path, **over: object) -> Settings:
    """Cheap password hashing is not among these: the cost is what the product ships with."""
    return Settings(
        environment="development", issuer=str(over.pop("issuer", ISSUER)), database_url=url,
        root_key=base64.b64encode(hashlib.sha256(b"the root key of the tests").digest()).decode(), root_key_file=None,
        pepper_file=folder / "pepper", jwks_cache_s=10,
        log_head_file=over.pop("log_head_file", None) or Path(f"{make_url(url).database}.log-head" if url.startswith("sqlite") else folder / f"{make_url(url).database}.log-head"), **over,
    )  # fmt: skip


def _fill(settings: Settings) -> None:
    app = create_database_app(settings)
    with app.app_context():
        upgrade(db.engine)
        make_first_keys(build_services(settings).vault, now=datetime(2026, 1, 1, tzinfo=UTC))
        for engine in db.engines.values():
            engine.dispose()


def _pepper(folder: Path) -> None:
    path = folder / "pepper"
    path.touch(mode=0o600)
    path.write_text(f"1 {base64.b64encode(b'p' * 32).decode()}\n", encoding="ascii")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """One migrated SQLite file."""
    folder = tmp_path_factory.mktemp("sqlite")
    _pepper(folder)
    _fill(settings_for(f"sqlite:///{folder}/template.sqlite", folder))
    return Template("sqlite", folder)


@pytest.fixture(scope="session")
def postgres_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """One throw-away server with a migrated template database."""
    if reason := postgres.why_not():
        if REQUIRE_ALL:
            pytest.fail(f"PostgreSQL is required in this run: {reason}")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("postgres")
    _pepper(folder)
    server = postgres.PostgresServer()
    try:
        _fill(settings_for(server.create_template("template_sekisho"), folder))
        yield Template("postgresql", folder, server)
    finally:
        server.stop()


@dataclass(frozen=True)
class Database:
    """A fresh copy of an installation: its URL and the folder with its pepper."""

    engine: str
    url: str
    folder: Path

    def settings(self, **over: object) -> Settings:
        """Settings of an installation on this database."""
        return settings_for(self.url, self.folder, **over)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of its own for one test; every test that takes it runs on both engines (D2)."""
    if request.param == "sqlite":
        template: Template = request.getfixturevalue("sqlite_template")
        shutil.copy(template.folder / "template.sqlite", tmp_path / "test.sqlite")
        yield Database("sqlite", f"sqlite:///{tmp_path}/test.sqlite", template.folder)
        return
    template = request.getfixturevalue("postgres_template")
    assert template.server is not None
    name = f"t{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**12}"
    url = template.server.create_database(name, "template_sekisho")
    yield Database("postgresql", url, template.folder)
    template.server.drop_database(name)


@pytest.fixture
def outbound() -> RecordingOutbound:
    """What leaves the process, recorded; a test says what each peer answers."""
    return RecordingOutbound()


def dispose(app: Flask) -> None:
    """Close every connection of an application, so that its database can be dropped."""
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def app(database: Database, outbound: RecordingOutbound) -> Iterator[Flask]:
    """The product, with a recording outbound client."""
    made = create_app(database.settings(), outbound=outbound)
    yield made
    dispose(made)


@pytest.fixture
def world(app: Flask) -> World:
    """Two companies with stores, and ways to add people and applications."""
    return World(app)


@pytest.fixture
def browser(app: Flask) -> Iterator[Browser]:
    """A person's browser: cookies, forms, redirects followed by hand."""
    with Browser(app) as made:
        yield made
