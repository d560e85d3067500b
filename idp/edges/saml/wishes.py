"""What an AuthnRequest asks for, and what a person must still do. Pure: verified element in, values out (SA-08, SA-10)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from idp.domain.applications.decide import ACR_ORDER, acr_at_least
from idp.domain.applications.names import FORMATS
from idp.domain.applications.saml import Provider
from idp.domain.sessions.live import LiveLogin
from idp.edges.saml import xml
from idp.edges.saml.guard import Message, Refused
from idp.edges.saml.metadata import POST
from idp.edges.saml.xml import Element, q

AC = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
#: authentication context classes by the assurance that reaches them (D21), the one we report first
CLASSES: dict[str, tuple[str, ...]] = {
    "urn:sekisho:aal1": (
        f"{AC}PasswordProtectedTransport", f"{AC}Password", f"{AC}unspecified", "https://refeds.org/profile/sfa", "urn:sekisho:aal1",
    ),
    "urn:sekisho:aal2": (
        "https://refeds.org/profile/mfa", f"{AC}TimeSyncToken", "urn:sekisho:aal2",
        "http://schemas.microsoft.com/claims/multipleauthn",
    ),
    "urn:sekisho:aal3": ("urn:sekisho:aal3",),
}  # fmt: skip
LEVEL = {name: acr for acr, names in CLASSES.items() for name in names}
UNSPECIFIED = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"


class Refusal(Exception):
    """An answer that says no, to a proven address. code, second: last parts of the status URIs (SAMLCore §3.2.2.2)."""

    def __init__(self, second: str, code: str = "Responder") -> None:
        super().__init__(second)
        self.code = code
        self.second = second


@dataclass(frozen=True)
class Wish:
    """A request as it is kept while a person logs in: verified values only, never the message.

    acs: proven to be the service provider's. subject: a NameID that the answer must be about. classes: in the order asked.
    """

    provider: str
    request_id: str | None
    acs: str
    relay_state: str | None = None
    force: bool = False
    passive: bool = False
    comparison: str = "exact"
    classes: tuple[str, ...] = ()
    name_id_format: str | None = None
    allow_create: bool = True
    subject: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For `pending_request.parameters`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Wish:
        """Back from there."""
        return cls(**{**value, "classes": tuple(value["classes"])})


def acs_of(provider: Provider, root: Element) -> str:
    """The one address to answer to, compared octet by octet. Raises guard.Refused: nothing may be sent anywhere (SA-08)."""
    found = _acs(provider, root)
    if found is None:
        raise Refused("unknown_acs", provider.entity_id)
    return found


def _acs(provider: Provider, root: Element) -> str | None:
    url, index = root.get("AssertionConsumerServiceURL"), root.get("AssertionConsumerServiceIndex")
    if url is not None and index is not None:
        return None
    if url is not None:
        return next((place["url"] for place in provider.acs if place["url"] == url), None)
    if index is not None:
        wanted = int(index) if index.isascii() and index.isdigit() and len(index) < 6 else -1
        return next((place["url"] for place in provider.acs if place["index"] == wanted), None)
    return default_acs(provider)


def default_acs(provider: Provider) -> str:
    """The address of its metadata that counts when a request names none."""
    return str(next((place for place in provider.acs if place["default"]), provider.acs[0])["url"])


def read(message: Message, acs: str) -> Wish:
    """The wishes of a verified AuthnRequest. Raises Refusal for what we do not do, instead of leaving it out."""
    root, provider = message.root, message.provider
    binding = root.get("ProtocolBinding")
    if binding not in {None, POST}:
        raise Refusal("UnsupportedBinding")
    policy = root.find(q("samlp", "NameIDPolicy"))
    wanted = policy.get("Format") if policy is not None else None
    if policy is not None and policy.get("SPNameQualifier") not in {None, provider.entity_id}:
        raise Refusal("InvalidNameIDPolicy")
    _kind(provider, wanted)
    context = root.find(q("samlp", "RequestedAuthnContext"))
    comparison = (context.get("Comparison") or "exact") if context is not None else "exact"
    classes: tuple[str, ...] = ()
    if context is not None:
        classes = tuple(xml.text(node) for node in context.findall(q("saml", "AuthnContextClassRef")))
        if not classes:
            raise Refusal("NoAuthnContext")
    subject = root.find(q("saml", "Subject"))
    if subject is not None and (
        subject.find(q("saml", "NameID")) is None or subject.find(q("saml", "SubjectConfirmation")) is not None
    ):
        raise Refusal("RequestUnsupported")
    return Wish(
        provider=str(provider.id), request_id=message.id, acs=acs, relay_state=message.relay_state, force=_true(root.get("ForceAuthn")),
        passive=_true(root.get("IsPassive")), comparison=comparison, classes=classes, name_id_format=wanted,
        # absent means false in the standard, and nearly nobody means that: only a written "false" forbids (docs/protocols/saml.md)
        allow_create=policy is None or policy.get("AllowCreate") not in {"false", "0"},
        subject=xml.child_text(subject, "saml", "NameID") if subject is not None else None,
    )  # fmt: skip


def _true(text: str | None) -> bool:
    return text in {"true", "1"}


def _kind(provider: Provider, wanted: str | None) -> str:
    """Which name this answer carries: the configured one, or of the two private formats the one asked for. Raises Refusal."""
    if wanted in {None, UNSPECIFIED, FORMATS[provider.name_id]}:
        return provider.name_id
    if provider.name_id in {"persistent", "transient"}:
        for kind in ("persistent", "transient"):
            if wanted == FORMATS[kind]:
                return kind
    raise Refusal("InvalidNameIDPolicy")


def name_kind(provider: Provider, wish: Wish) -> str:
    """The kind of name for this wish, judged again by what the service provider's row says now. Raises Refusal."""
    return _kind(provider, wish.name_id_format)


# --- assurance -------------------------------------------------------------------------------------------------------

Step = Literal["issue", "login", "step_up", "no_passive", "no_context"]


def context_for(wish: Wish, acr: str) -> str | None:
    """The class to report for this assurance, or None when the wish is not met: never a weaker one than was reached asked
    for, and never one that was not reached (SA-10)."""
    if not wish.classes:
        return CLASSES[acr][0]
    known = [name for name in wish.classes if name in LEVEL]
    if not known:
        return None
    levels = [ACR_ORDER.index(LEVEL[name]) for name in known]
    have = ACR_ORDER.index(acr)
    match wish.comparison:
        case "minimum":
            return CLASSES[acr][0] if have >= min(levels) else None
        case "better":
            return CLASSES[acr][0] if have > max(levels) else None
        case "maximum":
            most = max(levels)
            return CLASSES[acr][0] if have <= most else CLASSES[ACR_ORDER[most]][0]
        case _:
            return next((name for name in known if acr_at_least(acr, LEVEL[name])), None)


def context_met(wish: Wish, acr: str) -> str:
    """The same, where one must be there. Raises Refusal."""
    found = context_for(wish, acr)
    if found is None:
        raise Refusal("NoAuthnContext")
    return found


def next_step(wish: Wish, login: LiveLogin | None, *, requested_at: datetime) -> Step:
    """What must happen before an answer."""
    if login is None:
        return "no_passive" if wish.passive else "login"
    if wish.force and login.auth_time < requested_at:
        return "no_passive" if wish.passive else "login"
    if context_for(wish, login.acr) is not None:
        return "issue"
    reachable = context_for(wish, ACR_ORDER[1]) is not None and not acr_at_least(login.acr, ACR_ORDER[1])
    return "step_up" if reachable and not wish.passive else "no_context"
