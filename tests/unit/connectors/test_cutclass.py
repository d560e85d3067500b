"""The class of a cut is the worst that applies, and never better than the facts (vault-and-gateway.md §9)."""

from __future__ import annotations

from itertools import product
from typing import get_args

from connectors.cutclass import (
    PROMISES,
    Certification,
    Channel,
    CutClass,
    EndsSessions,
    Knowledge,
    Lane,
    RecoveryOwner,
    effective,
    lines,
    opening_state,
)

SAFE = Knowledge(known_to_people=False, recovery_owner="company")


def test_a_gateway_whose_paper_password_was_never_changed_is_class_E() -> None:
    assert effective("gateway", "valid", SAFE, "none") is CutClass.GATEWAY
    assert (
        effective("gateway", "valid", Knowledge(known_to_people=True, recovery_owner="company"), "none")
        is CutClass.KNOWN_SECRET
    )


def test_whoever_may_know_makes_it_class_E_whatever_else_is_good() -> None:
    owners = get_args(RecoveryOwner)
    for lane, certification, channel in product(get_args(Lane), get_args(Certification), get_args(Channel)):
        for known, revealed, owner in product((True, False), (True, False), owners):
            knowledge = Knowledge(known, revealed, owner)
            found = effective(lane, certification, knowledge, channel)
            if known or revealed or owner in {"person", "unknown"}:
                assert found is CutClass.KNOWN_SECRET
            else:
                assert found >= effective(lane, "valid", None, channel), "certification can only make it worse"


def test_an_unproven_gateway_is_not_class_B() -> None:
    assert effective("gateway", "expired", SAFE, "none") is CutClass.OWN_SESSION
    assert effective("gateway", "missing", SAFE, "none") is CutClass.OWN_SESSION
    assert effective("gateway", "withdrawn", SAFE, "none") is CutClass.KNOWN_SECRET


def test_federated_applications() -> None:
    assert effective("none", "missing", None, "backchannel_logout") is CutClass.CHANNEL
    assert effective("none", "missing", None, "none") is CutClass.OWN_SESSION
    with_back_door = lines("none", "missing", None, "saml_slo", change_ends_sessions="at_once", own_password_login=True)
    assert with_back_door == (CutClass.CHANNEL, CutClass.KNOWN_SECRET)


def test_VA_40_a_change_that_leaves_sessions_adds_a_line() -> None:
    known = Knowledge(known_to_people=True)
    for ends in get_args(EndsSessions):
        found = lines("gateway", "valid", known, "none", change_ends_sessions=ends)
        assert (CutClass.OWN_SESSION in found) == (ends != "at_once"), ends


def test_no_class_opens_as_done_without_our_enforcement() -> None:
    for cut_class in CutClass:
        enforced = cut_class in {CutClass.PICTURE, CutClass.GATEWAY}
        assert (opening_state(cut_class) == "LOCAL_DEAD") == enforced
        assert PROMISES[cut_class].stays_ja
    assert opening_state(CutClass.OWN_SESSION, end_known=False) == "MANUAL"
    assert opening_state(CutClass.KNOWN_SECRET, machine_can_change=False) == "MANUAL"
