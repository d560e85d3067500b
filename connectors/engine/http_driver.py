"""The `http` driver: server-made forms over several pages, without a browser (§6, §7).

Before a value leaves, the page, its form and every redirect are on declared hosts over TLS, no frame is in the page and no
unknown password field in the form. One job has one empty jar; nothing is written anywhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import aiohttp
from yarl import URL

from connectors.cookies import Jar
from connectors.egress import Refused, judge_url
from connectors.engine import forms
from connectors.engine.failures import Failed
from connectors.engine.outcome import LoginResult, Standing, asks_for_human, result, standing, why_not
from connectors.engine.tool_time import ToolTime
from connectors.ports import NewSecret, Now, Revealable
from connectors.recipes import urls
from connectors.recipes.checks import Page, holds
from connectors.recipes.model import NEW, Recipe, Step

USER_AGENT: Final = "Mozilla/5.0 (compatible; Sekisho login engine)"
MAX_PAGE: Final = 2 * 1024 * 1024
MAX_REDIRECTS: Final = 10
#: waits before the probe page is looked at again, in seconds: a look sends no password, and the login before it cost a try
LOOKS_S: Final = (0.5, 1.0, 2.0)
_META_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
Change = Literal["changed", "rule_broken", "unclear"]
BeforeSubmit = Callable[[], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


class HttpDriver:
    """One job at one tool account; made anew for each, so no two jobs share a cookie.

    before_submit: awaited before the first request that carries a secret; it commits `submitted_at` and counts the try. The
    tool's time stands still meanwhile.
    device: cookies by which the tool remembers this device, from an earlier login.
    sleep: waits between two looks at a probe page that did not come.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        recipe: Recipe,
        values: Mapping[str, Revealable],
        *,
        now: Now,
        new_secret: NewSecret,
        loopback: bool,
        before_submit: BeforeSubmit,
        device: Jar | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client, self._recipe, self._values = client, recipe, values
        self._now, self._new_secret, self._loopback = now, new_secret, loopback
        self._before_submit, self._sleep = before_submit, sleep
        self._jar = Jar(device or (), user_agent=USER_AGENT)
        self._page = Page("", 0)
        self._charset = recipe.charset
        self._time = ToolTime(self, recipe.login.timeout_s)
        self._at_last_step = False
        self.submitted = False

    async def login(self) -> LoginResult:
        """Log in and prove it. Raises Failed.

        Where only the answer to the last step was lost, the probe may still tell: many tools turn the session that their login
        page gave into the login. What it does not show then is no refusal.
        """
        try:
            async with self._time.running():
                if self._recipe.login.basic_auth is not None:
                    await self._use_basic()
                await self._walk(self._recipe.login.url, self._recipe.login.steps, self._values)
                await self._prove(answered=True)
        except Failed as failed:
            sent = self.submitted and self._at_last_step and not self._jar.authorization  # with Basic a look is a login
            if failed.code != "tool_away" or not sent:
                raise
            async with self._time.running():
                await self._prove(answered=False)
        return result(self._recipe, self._jar, self._values, self._new_secret)

    async def change(self, jar: Jar, new: Revealable) -> Change:
        """Fill the tool's form for a new password with a jar that is logged in.

        `changed` is the tool's word and proves nothing: a login with the new password does (VA-43). Raises Failed.
        """
        change = self._recipe.password.change if self._recipe.password else None
        if change is None:
            raise Failed("recipe_drift")
        self._jar = Jar(jar, authorization=jar.authorization, user_agent=jar.user_agent)
        named = {f"{name}{NEW}": new for name in self._recipe.secret_fields}
        async with self._time.running():
            await self._walk(change.url, change.steps, {**self._values, **named})
        if holds(change.success, self._page):
            return "changed"
        # The form again, without success: the tool named a rule. Whatever else it shows may come after a change.
        still = any(forms.is_visible(node) for node in self._page.tree.css("input[type=password]"))
        return "rule_broken" if still and self._page.status < 500 else "unclear"

    async def probe(self, jar: Jar) -> Standing:
        """Whether a jar is logged in, seen from the probe page. Raises Failed `tool_away`."""
        async with self._time.running():
            return standing(self._recipe, await self._look(jar))

    async def log_out(self, jar: Jar) -> bool:
        """Send the tool's logout; True when the probe then refuses the jar as it was, whatever the tool answered.

        Many tools only tell the browser to forget its cookie. What somebody has kept goes on working then, so it is the kept
        jar that is tried.
        """
        logout, kept = self._recipe.session.logout, Jar.from_json(jar.to_json())
        if logout is not None:
            async with self._time.running():
                await self._send(logout.method, logout.url, jar, b"" if logout.method == "POST" else None)
        return await self.probe(kept) == "logged_out"

    # --- the walk through the pages ----------------------------------------------------------------------------------

    async def _walk(self, url: str, steps: tuple[Step, ...], values: Mapping[str, Revealable]) -> None:
        await self._open("GET", url)
        filled = forms.Filled()
        for step in steps:
            self._at_last_step = step is steps[-1]
            if step.kind == "open" and step.url is not None:
                await self._open("GET", step.url)
                filled = forms.Filled()
                continue
            if asks_for_human(self._page):
                raise Failed("human_check", submitted=self.submitted, line=step.line)
            if self.submitted and not self._has(step):
                raise Failed(why_not(self._recipe, self._page), submitted=True, line=step.line)
            node = forms.find(self._page, step, submitted=self.submitted)
            if step.kind == "fill" and step.field is not None:
                if step.field not in values:
                    raise Failed("field_missing", submitted=self.submitted, line=step.line)
                filled.texts[node.mem_id] = values[step.field].reveal()
                if self._recipe.fields[step.field.removesuffix(NEW)].secret:
                    filled.secret.add(node.mem_id)
            elif step.kind == "choose" and step.value is not None:
                option = forms.option_named(node, step.value, submitted=self.submitted, line=step.line)
                filled.texts[node.mem_id] = option
            elif step.kind == "check":
                filled.checked.add(node.mem_id)
            elif step.kind == "submit":
                ready = forms.submission(self._page, node, filled, submitted=self.submitted, line=step.line)
                await self._submit(ready, step)
                filled = forms.Filled()
        self._at_last_step = False

    def _has(self, step: Step) -> bool:
        try:
            forms.find(self._page, step, submitted=True)
        except Failed as failed:
            return failed.code == "ambiguous_field"
        return True

    async def _submit(self, form: forms.Submission, step: Step) -> None:
        if form.multipart:
            raise Failed("recipe_drift", submitted=self.submitted, line=step.line)
        self._judge(form.url, step.line)
        if form.holds_secret:
            if form.method != "POST":
                raise Failed("secret_in_url", submitted=self.submitted, line=step.line)
            if self._page.tree.css_first("iframe:not(noscript iframe), frame") is not None:
                raise Failed("origin_mismatch", submitted=self.submitted, line=step.line)
            await self._time.stopped(self._before_submit)
            self.submitted = True
        body = form.encoded(self._charset)
        if form.method == "POST":
            await self._open("POST", form.url, body)
        else:
            await self._open("GET", f"{form.url.partition('?')[0]}?{body.decode('ascii')}")

    async def _open(self, method: str, url: str, body: bytes | None = None) -> None:
        """Load a page, following redirects one by one, each judged (§7.2)."""
        for _ in range(MAX_REDIRECTS):
            referer = self._page.url or None
            page = await self._send(method, url, self._jar, body, referer=referer)
            if page.location is None:
                if page.status >= 500:
                    raise Failed("tool_away", submitted=self.submitted)
                if page.status == 401 and self._jar.authorization:
                    raise Failed("refused", submitted=True)  # each further page would be one more wrong password
                self._page = page
                return
            if page.status in (307, 308) and body is not None:
                # The tool asks to send the password again, elsewhere: that is not the form that was certified.
                raise Failed("origin_mismatch", submitted=self.submitted)
            method, url, body = "GET", page.location, None
        raise Failed("recipe_drift", submitted=self.submitted)

    async def _send(
        self, method: str, url: str, jar: Jar, body: bytes | None = None, *, referer: str | None = None
    ) -> Page:
        """One exchange. Raises Failed `origin_mismatch` or `tool_away`."""
        self._judge(url, None)
        headers = {"User-Agent": jar.user_agent or USER_AGENT, "Accept": "text/html,application/xhtml+xml,*/*;q=0.5"}
        headers["Accept-Encoding"] = "gzip, deflate"
        headers["Accept-Language"] = "ja,en;q=0.5"
        if cookies := jar.header_for(url, now=self._now()):
            headers["Cookie"] = cookies
        if jar.authorization:
            headers["Authorization"] = jar.authorization
        if referer:
            headers["Referer"] = referer
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            parts = urls.parts(referer or url)
            headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
        try:
            async with self._client.request(
                method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
            ) as answer:
                data = await _read(answer)
                for line in answer.headers.getall("Set-Cookie", ()):
                    jar.set_from(line, url=url, now=self._now())
                location = answer.headers.get("Location") if 300 <= answer.status < 400 else None
                target = urls.joined(url, location) if location else None
                return Page(url, answer.status, self._decode(data, answer), target)
        except Refused:
            raise Failed("origin_mismatch", submitted=self.submitted) from None
        except aiohttp.ClientConnectorDNSError as error:
            code = "origin_mismatch" if isinstance(error.__cause__, Refused) else "tool_away"
            raise Failed(code, submitted=self.submitted) from None
        except aiohttp.ClientConnectorCertificateError:
            raise Failed("origin_mismatch", submitted=self.submitted) from None
        except (aiohttp.ClientError, TimeoutError):
            raise Failed("tool_away", submitted=self.submitted) from None

    def _decode(self, data: bytes, answer: aiohttp.ClientResponse) -> str:
        """The text of a page; remembers its charset, in which its forms are sent."""
        if not answer.content_type.endswith(("html", "xml")):
            return ""
        found = _META_CHARSET.search(data[:2048])
        for name in (answer.charset, found.group(1).decode("ascii") if found else None, self._recipe.charset):
            try:
                text = data.decode(name or "", "replace")
            except LookupError:
                continue
            self._charset = name or self._recipe.charset
            return text
        return data.decode("utf-8", "replace")

    def _judge(self, url: str, line: int | None) -> None:
        try:
            judge_url(url, self._recipe.hosts.declared, loopback=self._loopback)
        except (Refused, ValueError):
            raise Failed("origin_mismatch", submitted=self.submitted, line=line) from None

    # --- proof -------------------------------------------------------------------------------------------------------

    async def _prove(self, *, answered: bool) -> None:
        """`logged_in` with the new jar, `logged_out` with an empty one; either alone can be an accident (§7.4).

        answered: the tool's answer to the login came, so that its page says why somebody is not in.
        """
        stuck = self._page
        inside = standing(self._recipe, await self._look(self._jar))
        if inside != "logged_in":
            raise Failed(why_not(self._recipe, stuck) if answered else "tool_away", submitted=self.submitted)
        if standing(self._recipe, await self._look(Jar(user_agent=USER_AGENT))) != "logged_out":
            raise Failed("check_unproven", submitted=self.submitted)

    async def _look(self, jar: Jar) -> Page:
        """The probe page, asked for again when it did not come: one broken answer must not cost the try of the login before it.

        Never again with Basic: there a look is a login. Raises Failed `tool_away`.
        """
        for wait in (*(() if jar.authorization else LOOKS_S), None):
            try:
                page = await self._send("GET", self._recipe.checks.probe, jar)
            except Failed as failed:
                if failed.code != "tool_away":
                    raise
            else:
                if page.status < 500:
                    return page
            if wait is not None:
                await self._sleep(wait)
        raise Failed("tool_away", submitted=self.submitted)

    async def _use_basic(self) -> None:
        user, password = self._recipe.login.basic_auth or ("", "")
        if user not in self._values or password not in self._values:
            raise Failed("field_missing")
        await self._time.stopped(self._before_submit)
        self.submitted = True
        self._jar.authorization = aiohttp.encode_basic_auth(
            self._values[user].reveal(), self._values[password].reveal()
        )


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body: a page is never longer, and a tool must not fill our memory."""
    data = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        data += chunk
        if len(data) > MAX_PAGE:
            break
    return bytes(data)
