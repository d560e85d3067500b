"""Who walks in the console's tests: a browser, and the configuration of the console it visits."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from console_fake_provider import CLIENT_ID, CLIENT_SECRET, FakeProvider
from flask import Flask
from werkzeug.test import Client, TestResponse

from connectors.demo.console import Config


class Browser:
    """One browser at the console: a cookie jar, the walk through the provider, and forms with their hidden fields."""

    def __init__(self, app: Flask, provider: FakeProvider) -> None:
        self.app = app
        self.client: Client = app.test_client()
        self.provider = provider

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.get(path, **kwargs)

    def start(self, path: str = "/login") -> str:
        """Begin a login and return the callback path with which the provider answers."""
        answer = self.client.get(path)
        assert answer.status_code == 303, answer.text
        query = parse_qs(urlsplit(answer.location).query)
        callback = urlsplit(self.provider.authorize({name: values[0] for name, values in query.items()}))
        return f"{callback.path}?{callback.query}"

    def login(self, path: str = "/login") -> TestResponse:
        return self.client.get(self.start(path))

    def post(self, page: str, action: str, **fields: str) -> TestResponse:
        """Submit a form of `page` to `action` with the hidden fields that the page has."""
        html = self.client.get(page).text
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', html))
        return self.client.post(action, data={**hidden, **fields})

    @property
    def logged_in(self) -> bool:
        return self.client.get("/whoami").status_code == 200

    @property
    def sid(self) -> str:
        return str(self.client.get("/whoami").json["sid"])


def make_config(provider: FakeProvider, folder: Path) -> Config:
    return Config(
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        redirect_uri="http://localhost:8010/callback",
        post_logout_redirect_uri="http://localhost:8010/logged-out",
        database=folder / "console.sqlite3",
        secret="a secret of the tests, long enough",
    )
