"""What holds a login back: known devices, and the counters that a try is held against (AC-05)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from idp.core import ids
from idp.domain.authn import throttle
from idp.edges import browser

DEVICE_LIFE = timedelta(days=180)
#: consecutive failures of one account over all unknown devices, before those have to wait too (AC-05)
ACCOUNT_TRIES = 100
#: failures from one address: a ceiling for a whole shop behind one NAT
ADDRESS_TRIES = 300


def device_cookie(account_id: uuid.UUID) -> str:
    """Proof that somebody logged in to this account from this browser before. Signed, so that it cannot be invented to get
    a fresh counter."""
    token = ids.new_secret()
    return f"{token}.{_device_mac(account_id, token)}"


def _device_mac(account_id: uuid.UUID, token: str) -> str:
    key = browser.services().signer.secret("web")
    mac = hmac.new(key, b"device\0" + account_id.bytes + token.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def known_device(account_id: uuid.UUID | None) -> str | None:
    """The device's token when it is known for this account."""
    token, _, mac = browser.read_cookie(browser.DEVICE_COOKIE).partition(".")
    if account_id is None or not mac or not ids.same(mac, _device_mac(account_id, token)):
        return None
    return token


@dataclass(frozen=True)
class Brakes:
    """The counters that one try is held against."""

    own: str
    shared: tuple[str, ...]

    @classmethod
    def of(cls, company: str, number: str, account_id: uuid.UUID | None) -> Brakes:
        """A known device counts alone; everybody else shares (login id, address), and the login id over all addresses."""
        device, where = known_device(account_id), browser.address()
        if device is not None:
            return cls(throttle.key("device", company, number, device), ())
        return cls(
            throttle.key("login", company, number, where),
            (throttle.key("account", company, number), throttle.key("address", where)),
        )

    def check(self, session: Session, *, now: datetime) -> None:
        """Raises Throttled while one of them is paused."""
        throttle.check(session, [self.own, *self.shared], now=now)

    def fail(self, session: Session, *, now: datetime) -> None:
        """Count one failure on all of them."""
        throttle.count_failure(session, self.own, now=now)
        for counter, tries in zip(self.shared, (ACCOUNT_TRIES, ADDRESS_TRIES), strict=False):
            throttle.count_failure(session, counter, now=now, tries=tries)

    def forget(self, session: Session) -> None:
        """A success starts the counters of this person and place over; the address keeps its own."""
        for counter in (self.own, *self.shared[:1]):
            throttle.forget(session, counter)
