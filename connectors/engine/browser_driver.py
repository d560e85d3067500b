"""The `browser` driver: for tools whose scripts make the form. One fresh context per job, no trace, no profile (§7).

The login itself happens in Chromium, behind a proxy that knows the declared hosts only; the proof happens without it, with
the cookies alone, because that is how the gateway will use them. A login that lives in localStorage fails there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, ElementHandle
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page as Tab

from connectors.cookies import Cookie, Jar
from connectors.egress import Refused, judge_url
from connectors.engine.egress_proxy import EgressProxy
from connectors.engine.failures import Failed
from connectors.engine.http_driver import BeforeSubmit, HttpDriver
from connectors.engine.outcome import LoginResult, asks_for_human, result, why_not
from connectors.engine.tool_time import ToolTime
from connectors.ports import NewSecret, Revealable
from connectors.recipes.checks import Page, condition_holds
from connectors.recipes.glance import folded
from connectors.recipes.model import By, Recipe, Step

POLL_S: Final = 0.1
PROBE_S: Final = 0.4
STILL_S: Final = 1.0
#: a page without any traffic for so long has no more to say: waiting for the end of the login's time would tell no more
STUCK_S: Final = 4.0
_FIELDS: Final = "input, textarea, select"
_BUTTONS: Final = "button, input[type=submit], input[type=button], input[type=image], [role=button], a[href]"
#: read by us, in the page: what a person would see of an element. A hostile page can lie here as it can to a person.
_LOOK: Final = """
elements => elements.map(e => {
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  let seen = e.checkVisibility({opacityProperty: true, visibilityProperty: true}) && box.width > 1 && box.height > 1;
  seen = seen && box.right > 0 && box.bottom > -1 && style.pointerEvents !== 'none' && e.tabIndex !== -1;
  const labels = e.labels ? [...e.labels].map(l => l.innerText) : [];
  const named = (e.getAttribute('aria-labelledby') || '').split(/\\s+/).map(i => document.getElementById(i)?.innerText || '');
  return {seen: seen && !e.disabled, labels: [...labels, ...named, e.getAttribute('aria-label') || ''],
          name: e.getAttribute('name') || '', type: e.type || '', autocomplete: e.getAttribute('autocomplete') || '',
          role: e.getAttribute('role') || (e.tagName === 'A' ? 'link' : 'button'),
          spoken: e.getAttribute('aria-label') || e.innerText || e.value || ''};
})
"""


@dataclass(slots=True)
class _Job:
    """One tab and what has been typed into it."""

    tab: Tab
    typed_secret: bool = False
    passwords: int = 0
    in_flight: int = 0
    moved_at: float = 0.0

    def watch(self) -> None:
        """Count the page's requests, so that a slow answer is not taken for none."""
        self.tab.on("request", lambda _: self._moved(1))
        self.tab.on("requestfinished", lambda _: self._moved(-1))
        self.tab.on("requestfailed", lambda _: self._moved(-1))
        self._moved(0)

    def _moved(self, by: int) -> None:
        self.in_flight += by
        self.moved_at = asyncio.get_running_loop().time()

    def is_still(self, seconds: float) -> bool:
        """Whether the page has had nothing under way for so long."""
        return self.in_flight <= 0 and asyncio.get_running_loop().time() - self.moved_at >= seconds


class BrowserDriver:
    """One login at one tool account. http: a driver of the same job, for the proof; watch: may look at the browser's traffic."""

    def __init__(
        self,
        browser: Browser,
        http: HttpDriver,
        recipe: Recipe,
        values: Mapping[str, Revealable],
        *,
        new_secret: NewSecret,
        loopback: bool,
        before_submit: BeforeSubmit,
        watch: Callable[[BrowserContext], None] | None = None,
    ) -> None:
        self._watch = watch
        self._browser, self._http, self._recipe, self._values = browser, http, recipe, values
        self._new_secret, self._loopback, self._before_submit = new_secret, loopback, before_submit
        self._time = ToolTime(self, recipe.login.timeout_s)
        self.submitted = False

    async def login(self) -> LoginResult:
        """Log in and prove it. Raises Failed."""
        hosts = self._recipe.hosts
        proxy = EgressProxy((*hosts.declared, *hosts.public), loopback=self._loopback)
        try:
            async with self._time.running(), proxy.running() as address:
                context = await self._browser.new_context(
                    accept_downloads=False,
                    service_workers="block",
                    locale="ja-JP",
                    proxy={"server": address, "bypass": "<-loopback>"},
                )
                if self._watch is not None:
                    self._watch(context)
                try:
                    jar = await self._in(context)
                finally:
                    await context.close()
        except PlaywrightError:
            # Its text can hold a typed value ("fill(…)"), so nothing of it goes on.
            raise Failed("recipe_drift", submitted=self.submitted) from None
        return result(self._recipe, jar, self._values, self._new_secret)

    async def _in(self, context: BrowserContext) -> Jar:
        job = _Job(await context.new_page())
        job.watch()
        agent = str(await job.tab.evaluate("navigator.userAgent"))  # now: later the page may be moving on
        await self._goto(job, self._recipe.login.url)
        for step in self._recipe.login.steps:
            await self._take(job, step)
        return await self._proven(context, job, agent)

    async def _goto(self, job: _Job, url: str) -> None:
        try:
            answer = await job.tab.goto(url, wait_until="domcontentloaded")
        except PlaywrightError:
            raise Failed("tool_away", submitted=self.submitted) from None
        if answer is not None and answer.status >= 500:
            raise Failed("tool_away", submitted=self.submitted)

    async def _take(self, job: _Job, step: Step) -> None:
        if step.kind == "open" and step.url is not None:
            await self._goto(job, step.url)
        elif step.kind == "wait_for" and step.until is not None:
            while not condition_holds(step.until, await self._facts(job)):  # noqa: ASYNC110 - the login's deadline ends it
                await asyncio.sleep(POLL_S)
        else:
            element = await self._appearing(job, step)
            if step.kind == "fill":
                await self._fill(job, step, element)
            elif step.kind == "choose":
                await element.select_option(label=step.value)
            elif step.kind == "check":
                await element.check()
            else:
                await self._press(job, step, element)

    async def _fill(self, job: _Job, step: Step, element: ElementHandle) -> None:
        field = step.field or ""
        if field not in self._values:
            raise Failed("field_missing", submitted=self.submitted, line=step.line)
        if self._recipe.fields[field].secret:
            await self._judge_place(job, step, element)
            job.typed_secret = True
        job.passwords += await element.get_attribute("type") == "password"
        await element.fill(self._values[field].reveal())

    async def _judge_place(self, job: _Job, step: Step, element: ElementHandle) -> None:
        """Before a secret is typed: origin, form target, no frame (§7.2)."""
        places = [
            job.tab.url,
            await element.evaluate("e => e.form && e.form.action ? String(e.form.action) : location.href"),
        ]
        try:
            for place in places:
                judge_url(place, self._recipe.hosts.declared, loopback=self._loopback)
        except Refused:
            raise Failed("origin_mismatch", submitted=self.submitted, line=step.line) from None
        if len(job.tab.frames) > 1:
            raise Failed("origin_mismatch", submitted=self.submitted, line=step.line)

    async def _press(self, job: _Job, step: Step, element: ElementHandle) -> None:
        if job.typed_secret:
            shown = await job.tab.query_selector_all("input[type=password]")
            if sum([await one.is_visible() for one in shown]) > job.passwords:
                raise Failed("unexpected_field", submitted=self.submitted, line=step.line)
            if not self.submitted:
                await self._time.stopped(self._before_submit)
                self.submitted = self._http.submitted = True
        job.passwords = 0
        job.moved_at = asyncio.get_running_loop().time()
        await element.click()

    async def _appearing(self, job: _Job, step: Step) -> ElementHandle:
        """The element of a step, waited for while the page's scripts make it. Raises Failed."""
        while True:
            try:
                found = await self._find(job, step)
            except PlaywrightError:  # the page moved on while it was being looked at
                found = None
            if found is not None:
                return found
            page = await self._facts(job)
            if asks_for_human(page):
                raise Failed("human_check", submitted=self.submitted, line=step.line)
            if self.submitted and (code := why_not(self._recipe, page)) in {"locked", "code_asked"}:
                raise Failed(code, submitted=True, line=step.line)
            await asyncio.sleep(POLL_S)

    async def _find(self, job: _Job, step: Step) -> ElementHandle | None:
        kinds = _BUTTONS if step.kind in {"submit", "click"} else _FIELDS
        for by in step.by:
            elements = await job.tab.query_selector_all(by.value if by.kind == "css" else kinds)
            looks = await job.tab.evaluate(_LOOK, elements) if elements else []
            fitting = [e for e, look in zip(elements, looks, strict=True) if look["seen"] and _fits(by, look)]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise Failed("ambiguous_field", submitted=self.submitted, line=step.line)
        return None

    async def _facts(self, job: _Job) -> Page:
        try:
            return Page(job.tab.url, 200, await job.tab.content())
        except PlaywrightError:  # between two pages
            return Page(job.tab.url, 200)

    async def _proven(self, context: BrowserContext, job: _Job, agent: str) -> Jar:
        """Probe with the cookies alone until they are logged in; then once without any (§7.4). Raises Failed."""
        while True:
            jar = jar_of(await context.cookies(), agent)
            try:
                if await self._http.probe(jar) == "logged_in":
                    break
                code = why_not(self._recipe, await self._facts(job))
            except Failed as failed:
                code = failed.code
                if code != "tool_away":
                    raise
            known = code not in {"recipe_drift", "tool_away"}
            if job.is_still(STILL_S if known else STUCK_S):
                raise Failed(code, submitted=self.submitted)
            await asyncio.sleep(PROBE_S)
        if await self._http.probe(Jar(user_agent=agent)) != "logged_out":
            raise Failed("check_unproven", submitted=self.submitted)
        return jar


def _fits(by: By, look: Mapping[str, Any]) -> bool:
    if by.kind == "css":
        return True
    if by.kind == "label":
        wanted = folded(by.value).strip(":*")
        return any(folded(text).strip(":*") == wanted for text in look["labels"] if text)
    if by.kind == "role":
        return bool(look["role"] == by.value and folded(look["spoken"]) == folded(by.name or ""))
    return bool(str(look[by.kind]).casefold() == by.value.casefold())


def jar_of(cookies: Any, user_agent: str) -> Jar:
    """Playwright's cookies as a jar."""
    found = []
    for cookie in cookies:
        domain = str(cookie["domain"])
        expires = float(cookie.get("expires", -1))
        found.append(
            Cookie(
                name=cookie["name"],
                value=cookie["value"],
                domain=domain.lstrip("."),
                path=cookie["path"],
                host_only=not domain.startswith("."),
                secure=bool(cookie["secure"]),
                expires=expires if expires > 0 else None,
            )
        )
    return Jar(found, user_agent=user_agent)
