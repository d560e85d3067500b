"""The closed lists of revocation: scopes, reasons, doors, kinds of cut, states, grades. Their order lives here only."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What is revoked. The row that ends is the account, the assignment, the app sessions of one, or one login session."""

    ACCOUNT = "account"
    ASSIGNMENT = "assignment"
    APPLICATION = "application"
    LOGIN_SESSION = "login_session"


class Reason(StrEnum):
    """Why. The text is stored; pages translate it."""

    LEFT = "left"
    MOVED = "moved"
    LOST_DEVICE = "lost_device"
    MISUSE = "misuse"
    END_DATE = "end_date"
    OTHER = "other"


class Door(StrEnum):
    """Through which door it came (ux.md 4)."""

    CONSOLE = "console"
    CLI = "cli"
    SCHEDULE = "schedule"


class CutKind(StrEnum):
    """One kind of thing that can be cut. A new kind needs a line in `plan()` and one in the kill test."""

    ENTITLEMENT = "ENTITLEMENT"
    LOGIN_SESSION = "LOGIN_SESSION"
    AUTHENTICATOR = "AUTHENTICATOR"
    ACTIVATION = "ACTIVATION"
    PENDING = "PENDING"
    APP_SESSION = "APP_SESSION"
    AUTHORIZATION_CODE = "AUTHORIZATION_CODE"
    TOKEN_FAMILY = "TOKEN_FAMILY"
    ACCESS_TOKEN = "ACCESS_TOKEN"
    OIDC_LOGOUT = "OIDC_LOGOUT"
    SAML_LOGOUT = "SAML_LOGOUT"
    #: a client secret that the person was shown: the client works on until somebody rotates it (RV-02)
    CLIENT_SECRET = "CLIENT_SECRET"
    #: a login inside an application that has no way to be told
    APPLICATION_LOGIN = "APPLICATION_LOGIN"
    #: somebody inside a password-only tool, through the gateway
    GATEWAY_SESSION = "GATEWAY_SESSION"
    #: our login inside a tool that is one person's alone
    TOOL_SESSION = "TOOL_SESSION"
    #: the password of an account inside a tool that the person may know (VA-42)
    TOOL_PASSWORD = "TOOL_PASSWORD"


class CutState(StrEnum):
    """Where a cut stands. A residual is `waiting` with an end time and is never leased."""

    WAITING = "waiting"
    LEASED = "leased"
    NEEDS_PERSON = "needs_person"
    DONE = "done"


class Grade(StrEnum):
    """How strong the evidence is, strongest first (ux.md 4.2)."""

    VERIFIED = "verified"
    RECORDED = "recorded"
    ACKNOWLEDGED = "acknowledged"
    ATTESTED = "attested"
    NONE = "none"


STRENGTH = tuple(Grade)


def weakest(grades: list[Grade]) -> Grade | None:
    """The weakest of these; None of none."""
    return max(grades, key=STRENGTH.index, default=None)
