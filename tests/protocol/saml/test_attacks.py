"""The attack corpus is refused completely, without a 500, and each refusal is in the log by its reason (SA-01 to SA-09, SA-20)."""

from __future__ import annotations

import shutil
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import select

from idp.app import create_app
from idp.core import clock
from idp.domain.sessions.models import LoginSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import RefusalCount
from tests.actors import Browser, Person, World
from tests.conftest import Template, dispose, settings_for
from tests.fakes.outbound import RecordingOutbound
from tests.protocol.saml.corpus import ATTACKS, Case, Sent, good, post
from tests.saml import ServiceProvider, pair


@dataclass
class Stage:
    """One installation for the whole corpus: what is refused changes nothing. One engine: nothing is decided in SQL."""

    world: World
    case: Case
    person: Person
    victim: Browser
    attacker: Browser

    def heal(self) -> None:
        """Somebody whom an attack logged out (a guard was taken out, `tests/mutants.py`) is back before the next one."""
        if not self.victim_is_in():
            self.victim.log_in(self.person)
            self.case = replace(self.case, victim=self.case.sp.sign_on(self.victim))

    def send(self, sent: Sent) -> int:
        """As the attacker's browser, from another site."""
        if sent.method == "POST":
            what = {"data": sent.form} if sent.body is None else {"content": sent.body}
            answer = self.attacker.http.post(sent.path, headers={"Sec-Fetch-Site": "cross-site"}, **what)  # type: ignore[arg-type]
        else:
            answer = self.attacker.http.get(sent.path)
        assert "passwd" not in answer.text
        assert "root:" not in answer.text
        return answer.status_code

    def log(self) -> dict[str, int]:
        """Refusals by their word."""
        rows = self.world.rows(select(RefusalCount.key, RefusalCount.count).where(RefusalCount.tag == Tag.SAML_REFUSED))
        found: dict[str, int] = {}
        for row in rows:
            word = row.key.split(":")[0]
            found[word] = found.get(word, 0) + row.count
        return found

    def victim_is_in(self) -> bool:
        """The session of which every attack wants the end."""
        return len(self.world.rows(select(LoginSession.id).where(LoginSession.ended_at.is_(None)))) == 1


@pytest.fixture(scope="module")
def stage(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Built once."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    shutil.copy(sqlite_template.folder / "template.sqlite", folder / "test.sqlite")
    app = create_app(
        settings_for(f"sqlite:///{folder}/test.sqlite", sqlite_template.folder), outbound=RecordingOutbound()
    )
    world = World(app)
    sp = world.service_provider(ServiceProvider("coupon", redirect_logout=True))
    other = world.service_provider(ServiceProvider("other", pair=pair("other"), signs_requests=True))
    with Browser(app) as victim, Browser(app) as attacker:
        victim.log_in(person := world.person())
        yield Stage(world, Case(sp, sp.sign_on(victim), other), person, victim, attacker)
    dispose(app)


@pytest.fixture
def healed(stage: Stage) -> Stage:
    """The installation, the victim logged in."""
    stage.heal()
    return stage


@pytest.mark.parametrize("name", ATTACKS)
def test_SA_01_to_SA_09_refused_and_named_in_the_log(healed: Stage, name: str) -> None:
    """4xx or a signed no, never a 500, never the victim's logout; the log has one more refusal, by this reason."""
    attack, words = ATTACKS[name]
    before = healed.log()
    with time_machine.travel(clock.now(), tick=False):  # a second more or less decides about some
        status = healed.send(attack(healed.case))
    assert status < 500
    after = healed.log()
    grown = {word for word in after if after[word] > before.get(word, 0)}
    assert grown, "not in the log"
    assert grown <= set(words.split("|")), grown
    assert healed.victim_is_in()


def test_AU_01_a_refusal_names_whose_message_it_was(healed: Stage) -> None:
    """The reason and the entityID that the message claims; without a readable one, the address it came from."""

    def counts() -> Counter[str]:
        found: Counter[str] = Counter()
        for row in healed.world.rows(select(RefusalCount.key, RefusalCount.count)):  # one for each minute
            found[row.key] += row.count
        return found

    before = counts()
    healed.send(ATTACKS["another registered key"][0](healed.case))
    healed.send(ATTACKS["not XML"][0](healed.case))
    assert set(counts() - before) == {f"bad_signature:{healed.case.sp.entity_id}", "not_xml:127.0.0.1"}


def test_SA_06_a_bomb_costs_no_memory(healed: Stage) -> None:
    """40 MB inflated from some KB: we stop at 64 KB."""
    sent = ATTACKS["inflate bomb"][0](healed.case)
    tracemalloc.start()
    healed.send(sent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_the_corpus_attacks_a_door_that_opens(healed: Stage) -> None:
    """The control, last: the honest message of every attack logs the victim out."""
    assert healed.victim_is_in()
    assert healed.send(post(good(healed.case))) < 400
    assert not healed.victim_is_in()
