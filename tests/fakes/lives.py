"""People with one of everything that can be cut, made by the domain's own issuing functions, in one transaction each.

For tests that need dozens of them; what a browser would have to do for it is tested elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

from idp.core import clock
from idp.core.db import transaction
from idp.domain.applications.names import FORMATS
from idp.domain.directory import people
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening, SamlName
from idp.domain.tokens import grants
from idp.domain.tokens.grants import CodeRequest, Grant
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI, RelyingParty, World
from tests.saml import ServiceProvider

AAL1 = "urn:sekisho:aal1"


def furnish(world: World, parties: Sequence[RelyingParty | ServiceProvider], number: str) -> uuid.UUID:
    """Somebody with a login session, and at each relying party an app session, a code and a family,
    at each service provider an app session. Returns the account.

    The code lives an hour and not a minute: a cut does not end one that has run out, and a busy machine takes its time.
    """
    now = clock.now()
    with world.app.app_context(), transaction() as session:
        company = people.get_company(session, "AOBA")
        place = Place(company, people.get_store(session, company.id, "S1", None, Power.HIRE))
        account = people.add_account(
            session, place, login_name=number, name="山本 健", kana="ヤマモト", role=Role.STAFF, actor=CLI, now=now
        )
        how = Opening(AAL1, ("pwd",), 1800, 43200)
        cookie = live.open_login(
            session, account_id=account.id, company_id=company.id, epoch=account.epoch, how=how, actor=CLI, now=now
        )
        login = live.look(session, cookie or "", now=now)
        assert login is not None
        for party in parties:
            if isinstance(party, ServiceProvider):
                name = SamlName(account.subject, FORMATS["persistent"], now + timedelta(hours=12))
                live.open_app_session(session, login, party.application_id, now=now, name=name)
                continue
            opened = live.open_app_session(session, login, party.application_id, now=now)
            wish = CodeRequest("https://x.example/callback", None, None, "openid", {})
            grants.issue_code(
                session, opened.id, party.application_id, account.id, wish, epoch=account.epoch, life=timedelta(hours=1), now=now
            )  # fmt: skip
            grant = Grant(
                uuid.uuid4(), opened.id, opened.sid, account.id, company.id, False, "openid", AAL1, ("pwd",), now
            )
            grants.open_family(
                session, grant, party.application_id, generation=1, life=timedelta(days=1),
                access_until=now + timedelta(seconds=300), now=now,
            )  # fmt: skip
        return account.id


def cut(
    world: World,
    account_id: uuid.UUID,
    *,
    key: str | None = None,
    scope: Scope = Scope.ACCOUNT,
    target: uuid.UUID | None = None,
) -> str:
    """Revoke through the only entrance, as the command line does. Returns the receipt's number."""
    with world.app.app_context(), transaction(reserved=True) as session:
        order = Order(Reason.LEFT, Door.CLI, key, world.services.settings.give_up_after)
        wish = Target(scope, target or account_id)
        return cascade.revoke(session, wish, order, actor=CLI, now=clock.now()).number
