"""The console's configuration: read once from the environment, frozen, and refused when it could not be safe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from connectors.demo.console.misbehave import Misbehaviour

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MIN_SECRET_CHARS = 32


class ConfigError(ValueError):
    """The environment does not describe a console that may start; the text names the variable and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the console knows before its first request.

    issuer: exactly as in discovery and in every token, without a trailing slash unless the provider has one.
    client_secret: empty for a public client. redirect_uri: ends in `/callback`; its scheme decides `Secure`.
    secret: at least 32 characters, keys the CSRF tokens. database: path of the SQLite file, made when absent.
    """

    issuer: str
    client_id: str
    client_secret: str
    redirect_uri: str
    post_logout_redirect_uri: str
    database: Path
    secret: str
    host: str = "127.0.0.1"
    port: int = 8010
    scope: str = "openid profile"
    cookie: str = "console_session"
    misbehaviour: Misbehaviour = Misbehaviour.NONE

    def __post_init__(self) -> None:
        """Raises ConfigError for what no caller may start with (RFC 9700 §2.6: TLS outside loopback)."""
        for name, url in (("OIDC_ISSUER", self.issuer), ("OIDC_REDIRECT_URI", self.redirect_uri)):
            parts = urlsplit(url)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
                raise ConfigError(f"{name} must be https, or http on localhost: {url!r}")
        if urlsplit(self.redirect_uri).path != "/callback":
            raise ConfigError(f"OIDC_REDIRECT_URI must end in /callback: {self.redirect_uri!r}")
        if len(self.secret) < MIN_SECRET_CHARS:
            raise ConfigError(f"CONSOLE_SECRET needs at least {MIN_SECRET_CHARS} characters")

    @property
    def origin(self) -> str:
        """The console's own origin, taken from the redirect URI and never from a Host header."""
        return origin_of(self.redirect_uri)

    @property
    def secure(self) -> bool:
        """Whether cookies carry `Secure`."""
        return self.origin.startswith("https:")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Config":
        """Build from environment variables; the table is in `connectors/demo/console/README.md`.

        Raises ConfigError for a missing, malformed or unsafe value.
        """
        missing = [name for name in ("OIDC_ISSUER", "OIDC_CLIENT_ID", "CONSOLE_SECRET") if not env.get(name)]
        if missing:
            raise ConfigError(f"not set: {', '.join(missing)}")
        try:
            port = int(env.get("CONSOLE_PORT") or "8010")
            misbehaviour = Misbehaviour(env.get("CONSOLE_MISBEHAVE", ""))
        except ValueError as error:
            raise ConfigError(f"CONSOLE_PORT or CONSOLE_MISBEHAVE: {error}") from error
        redirect_uri = env.get("OIDC_REDIRECT_URI") or f"http://localhost:{port}/callback"
        return cls(
            issuer=env["OIDC_ISSUER"],
            client_id=env["OIDC_CLIENT_ID"],
            client_secret=env.get("OIDC_CLIENT_SECRET", ""),
            redirect_uri=redirect_uri,
            post_logout_redirect_uri=env.get("OIDC_POST_LOGOUT_REDIRECT_URI")
            or f"{origin_of(redirect_uri)}/logged-out",
            database=Path(env.get("CONSOLE_DATABASE") or "console.sqlite3"),
            secret=env["CONSOLE_SECRET"],
            host=env.get("CONSOLE_HOST") or "127.0.0.1",
            port=port,
            scope=env.get("OIDC_SCOPE") or "openid profile",
            cookie=env.get("CONSOLE_COOKIE") or "console_session",
            misbehaviour=misbehaviour,
        )


def origin_of(url: str) -> str:
    """`scheme://host[:port]` of an absolute URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
