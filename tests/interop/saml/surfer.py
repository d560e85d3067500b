"""A browser that carries SAML messages between our origin and the service providers', as redirects, forms and frames lead it."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Self
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

import httpx2

from tests.actors import Browser
from tests.interop.installation import Someone

FRAME = re.compile(r'<iframe src="([^"]+)"')
MOST_STEPS = 25


class _Localhost(DefaultCookiePolicy):
    """As browsers treat localhost: Secure cookies go there without TLS, and a cookie may name it as its domain. Nothing else is met."""

    def set_ok_domain(self, cookie: Cookie, request: Request) -> bool:
        return True

    def return_ok_domain(self, cookie: Cookie, request: Request) -> bool:
        return True

    def domain_return_ok(self, domain: str, request: Request) -> bool:
        return True


class Surfer:
    """One browser profile. Goes to `origins` only: what leads elsewhere is the end of a walk."""

    def __init__(self, issuer: str, origins: Collection[str]) -> None:
        self._issuer = issuer
        self._origins = {issuer, *origins}
        self._browser = Browser(base_url=issuer)
        self.http = self._browser.http
        self.http.cookies.jar.set_policy(_Localhost(secure_protocols=("http", "https")))
        self.page: httpx2.Response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def visit(self, url: str) -> httpx2.Response:
        """Open a page and go wherever it leads."""
        return self._walk(self.http.get(url))

    def enter(self, person: Someone) -> httpx2.Response:
        """Fill in our login form, which is the current page, and go on to the service provider."""
        assert self.asks_for_login, f"{self.page.url}\n{self.page.text[:3000]}"
        return self._submit(login_id=person.login, password=person.password)

    @property
    def asks_for_login(self) -> bool:
        """True when the person stands before our login form."""
        return self.page.url.path == "/login" and 'name="login_id"' in self.page.text

    def log_out_here(self) -> httpx2.Response:
        """Press the logout button on our portal, and let the page do what it does with its frames."""
        self.visit(f"{self._issuer}/")
        return self._submit("/logout")

    def links(self, page: httpx2.Response, path: str) -> list[str]:
        """The links of a page that lead to this path."""
        return [
            urljoin(str(page.url), html.unescape(one))
            for one in re.findall(r'<a [^>]*href="([^"]+)"', page.text)
            if path in one
        ]

    def parts(self, page: httpx2.Response) -> list[str]:
        """What the page after a logout says of each service provider that was asked through the browser."""
        return re.findall(r'data-part="\d+" data-state="(\w+)"', page.text)

    def _submit(self, action: str | None = None, **values: str) -> httpx2.Response:
        forms = self._browser.forms(self.page)
        form = next(f for f in forms if f["method"] == "post" and (action is None or f["action"] == action))
        target = urljoin(str(self.page.url), form["action"])
        headers = {"Sec-Fetch-Site": "same-origin"}
        return self._walk(self.http.post(target, data={**form["fields"], **values}, headers=headers))

    def _walk(self, answer: httpx2.Response) -> httpx2.Response:
        """Follow redirects, forms that send themselves and pages that go on by themselves, as a browser would."""
        for _ in range(MOST_STEPS):
            onward = self._next(answer)
            if onward is None:
                break
            answer = onward
        else:
            raise AssertionError(f"goes round in circles: {answer.url}\n{answer.text[:2000]}")
        self.page = answer
        return answer

    def _next(self, answer: httpx2.Response) -> httpx2.Response | None:
        here = str(answer.url)
        if answer.has_redirect_location:
            target = urljoin(here, answer.headers["location"])
            return self.http.get(target) if _origin(target) in self._origins else None
        carried = [f for f in self._browser.forms(answer) if {"SAMLRequest", "SAMLResponse"} & set(f["fields"])]
        if carried:
            target = urljoin(here, carried[0]["action"])
            assert _origin(target) in self._origins, target
            headers = {"Origin": _origin(here), "Sec-Fetch-Site": "cross-site"}
            return self.http.post(target, data=carried[0]["fields"], headers=headers)
        if frames := FRAME.findall(answer.text):
            return self._frames(answer, frames)
        return None

    def _frames(self, answer: httpx2.Response, frames: list[str]) -> httpx2.Response:
        """Load each frame to its end; then the page is what its refresh leads to."""
        self.http.headers["Sec-Fetch-Dest"] = "iframe"
        for source in frames:
            self._walk(self.http.get(urljoin(str(answer.url), html.unescape(source))))
        self.http.headers["Sec-Fetch-Dest"] = "document"
        refresh = re.search(r'http-equiv="refresh" content="\d+;url=([^"]+)"', answer.text)
        assert refresh, answer.text[:3000]
        return self.http.get(urljoin(str(answer.url), html.unescape(refresh[1])))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
