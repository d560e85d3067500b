"""How well access to one application can be cut, decided from facts and before any promise (vault-and-gateway.md §9).

The worst that applies holds: one person who knows the password makes the best gateway a class E. A class says what a cut
needs; it never raises the state of a receipt line, which only evidence does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class CutClass(StrEnum):
    """A to E, best first; `max()` is the worst."""

    PICTURE = "A"
    GATEWAY = "B"
    CHANNEL = "C"
    OWN_SESSION = "D"
    KNOWN_SECRET = "E"


Lane = Literal["gateway", "viewer", "none"]
Certification = Literal["valid", "expired", "missing", "withdrawn"]
Channel = Literal["backchannel_logout", "saml_slo", "scim", "none"]
RecoveryOwner = Literal["company", "store", "person", "unknown"]
EndsSessions = Literal["at_once", "after", "never", "untested"]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Who may know the secret.

    known_to_people: a person typed it, or nobody proved a machine-made one since; revealed: shown to a person since the
    last proven rotation; recovery_owner: whose mailbox a password reset reaches (109 of 111 large sites offer one).
    """

    known_to_people: bool
    revealed: bool = False
    recovery_owner: RecoveryOwner = "unknown"

    @property
    def by_a_person(self) -> bool:
        """Whether somebody could log in without us."""
        return self.known_to_people or self.revealed or self.recovery_owner in {"person", "unknown"}


@dataclass(frozen=True, slots=True)
class Promise:
    """What the catalogue and the revoke dialog may say of a class.

    opening, closed: contract states (requirements.md 13.1) of its line at the cut and at its best end; stays_ja,
    stays_en: what the leaver keeps.
    """

    opening: str
    closed: str
    stays_ja: str
    stays_en: str


PROMISES: Final[dict[CutClass, Promise]] = {
    CutClass.PICTURE: Promise("LOCAL_DEAD", "VERIFIED", "見た画面とダウンロードした物", "what was seen or downloaded"),
    CutClass.GATEWAY: Promise(
        "LOCAL_DEAD", "VERIFIED", "表示済みの画面とダウンロードした物", "pages already shown, downloads"
    ),
    CutClass.CHANNEL: Promise("UNCONFIRMED", "ACKED", "先方の答えが正しければ、なし", "nothing, if the answer is true"),
    CutClass.OWN_SESSION: Promise(
        "RESIDUAL", "RESIDUAL", "決まった時刻までのログイン状態", "that session until the stated time"
    ),
    CutClass.KNOWN_SECRET: Promise(
        "UNCONFIRMED",
        "VERIFIED",
        "変更されるまでのパスワード。変更で切れないツールでは、その中のログイン状態も",
        "the password until it is changed; sessions of the tool if a change does not end them",
    ),
}


def effective(lane: Lane, certification: Certification, knowledge: Knowledge | None, channel: Channel) -> CutClass:
    """The class of one way into an application.

    knowledge: of the password behind it; None where there is none (a federated application whose own password login is
    off). An uncertified gateway is not class B: that the login never reaches the device is what certification proves.
    """
    if knowledge is not None and knowledge.by_a_person:
        return CutClass.KNOWN_SECRET
    if lane == "none":
        return CutClass.OWN_SESSION if channel == "none" else CutClass.CHANNEL
    if certification == "withdrawn":  # drift, or a secret was found in an answer
        return CutClass.KNOWN_SECRET
    if certification != "valid":
        return CutClass.OWN_SESSION
    return CutClass.PICTURE if lane == "viewer" else CutClass.GATEWAY


def lines(
    lane: Lane,
    certification: Certification,
    knowledge: Knowledge | None,
    channel: Channel,
    *,
    change_ends_sessions: EndsSessions,
    own_password_login: bool = False,
) -> tuple[CutClass, ...]:
    """The classes of all lines that a cut of one application needs, the main one first.

    change_ends_sessions: measured (VA-40); where a new password does not end old sessions at once, a session that a person
    opened with the old one lives on and gets its own line. own_password_login: a federated application whose password
    login was left on, which is a second way in.
    """
    main = effective(lane, certification, knowledge, channel)
    found = [main]
    if own_password_login and main is not CutClass.KNOWN_SECRET:
        found.append(CutClass.KNOWN_SECRET)
    if CutClass.KNOWN_SECRET in found and change_ends_sessions != "at_once":
        found.append(CutClass.OWN_SESSION)
    return tuple(found)


def opening_state(cut_class: CutClass, *, end_known: bool = True, machine_can_change: bool = True) -> str:
    """The contract state of a line when the cut commits.

    end_known: of a session that cannot be cut; without it the line is a task for a person and never RESIDUAL.
    machine_can_change: whether a recipe can change the password.
    """
    if cut_class is CutClass.OWN_SESSION and not end_known:
        return "MANUAL"
    if cut_class is CutClass.KNOWN_SECRET and not machine_can_change:
        return "MANUAL"
    return PROMISES[cut_class].opening
