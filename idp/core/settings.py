"""Settings: read once from the environment, frozen, and refused when they would make a promise false.

Every name is the field in upper case with the prefix `SEKISHO_` (`SEKISHO_ISSUER`). Secrets are files, not values:
environments leak into process lists and crash dumps.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def is_loopback(host: str) -> bool:
    """True for the names of this machine itself that a setting may have."""
    return host in {"localhost", "127.0.0.1", "::1"}


class RefusedToStart(Exception):
    """The settings would break a promise. The text says which and what to change."""


class Settings(BaseSettings):
    """One installation. Units are in the names; every default is safe for production unless it says otherwise."""

    model_config = SettingsConfigDict(env_prefix="SEKISHO_", frozen=True, extra="ignore")

    environment: Literal["production", "development"] = "production"
    issuer: str = "http://localhost:8000"
    database_url: str = "sqlite:///var/sekisho.sqlite"
    root_key_file: Path | None = None
    #: base64 of 32 bytes; development only (D10): an environment is visible in process lists
    root_key: str | None = Field(default=None, repr=False)
    pepper_file: Path | None = None
    templates: Path | None = None

    host: str = "127.0.0.1"
    port: int = 8000
    web_processes: int = Field(default=1, ge=1, le=64)
    web_threads: int = Field(default=32, ge=2, le=256)
    proxies: int = Field(default=0, ge=0, le=5, description="reverse proxies in front that set X-Forwarded-* (WB-04)")

    #: the domain below which every opened tool gets an origin of its own, of another site than the issuer; with its port where
    #: that is not the scheme's own. Empty: no gateway, except beside a loopback issuer, where it is gw.localhost
    gateway_domain: str = ""
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8001, ge=1, le=65535)

    #: Argon2id, the OWASP minimum, never weaker (AC-03)
    argon2_memory_kib: int = Field(default=19 * 1024, ge=19 * 1024)
    argon2_time: int = Field(default=2, ge=2)
    hash_slots: int = Field(default_factory=lambda: os.cpu_count() or 2, ge=1)
    #: logins that may wait for a slot before the next one is told to come back (429)
    hash_queue: int = Field(default=16, ge=1)

    #: at most 5 minutes: this number is the residual that a receipt prints (D3, OA-17)
    access_token_s: int = Field(default=300, ge=30, le=300)
    code_s: int = Field(default=60, ge=10, le=60)
    login_idle_s: int = Field(default=30 * 60, ge=60, le=3600)
    login_life_s: int = Field(default=12 * 3600, ge=300, le=24 * 3600)
    admin_idle_s: int = Field(default=15 * 60, ge=60, le=15 * 60)
    admin_life_s: int = Field(default=8 * 3600, ge=300, le=8 * 3600)
    step_up_s: int = Field(default=5 * 60, ge=30, le=15 * 60)
    family_life_s: int = Field(default=30 * 86400, ge=3600, le=30 * 86400)
    refresh_grace_s: int = Field(default=10, ge=0, le=10)
    activation_s: int = Field(default=72 * 3600, ge=600, le=14 * 86400)
    reset_s: int = Field(default=15 * 60, ge=60, le=15 * 60)
    jwks_cache_s: int = Field(default=600, ge=10, le=86400)

    #: networks a relying party's logout endpoint may lie in although they are private (WB-20), CIDR, comma separated
    outbound_private_allow: str = ""
    outbound_ports: str = "443,8443"
    worker_slots: int = Field(default=16, ge=1, le=256)
    #: deliveries to one destination at the same time: one hung relying party delays nobody else (RE-05)
    destination_slots: int = Field(default=2, ge=1, le=16)
    delivery_give_up_s: int = Field(default=24 * 3600, ge=1)
    #: logins and rotations that the engine does at a time; a login in a browser takes up to 100 MiB
    engine_slots: int = Field(default=4, ge=1, le=32)
    #: credentials that one engine may open in a minute; above it opens no more until somebody has looked (VA-32)
    opens_per_minute: int = Field(default=60, ge=4, le=10_000)
    #: `container`: the engine may run as root inside a container, and then starts no browser (docs/operations/engine.md);
    #: `development`: as root with a browser that has no sandbox, where every tool is on this machine
    engine_root: Literal["refused", "container", "development"] = "refused"
    database_pool: int = Field(default=10, ge=2, le=200)

    #: the name of the audit log in its checkpoints; by default the issuer's host and `/log`. It never changes afterwards
    log_origin: str | None = Field(default=None, pattern=r"^[^\s+]{1,150}$")
    #: the second store of AU-03; by default beside the database, which protects less than another disk would
    log_head_file: Path | None = None
    #: second places for checkpoints (AU-05), comma separated: a folder, an https URL, or mailto:name@example.jp
    anchors: str = ""
    anchor_s: int = Field(default=60, ge=10, le=3600)
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_from: str = ""
    smtp_user: str = ""
    smtp_password_file: Path | None = None
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"

    #: where the log is streamed to (AU-13): https://…, syslog+tls://host:6514, syslog+tcp://host:514 or syslog+udp://host:514
    siem_url: str = ""
    siem_shape: Literal["plain", "ocsf"] = "plain"
    #: sent as `Authorization: Bearer` to an https address; read at each delivery, so that it can be replaced
    siem_token_file: Path | None = None
    #: the authority that signed the syslog server's certificate; by default those of the system
    siem_ca_file: Path | None = None
    siem_batch: int = Field(default=500, ge=1, le=5000)
    siem_alarm_s: int = Field(default=300, ge=10, le=86400)

    #: retention per class (AU-09): login detail 13 months, evidence 7 years; the place in the tree stays for ever
    keep_login_days: int = Field(default=396, ge=90, le=36500)
    keep_evidence_days: int = Field(default=2557, ge=396, le=36500)

    @field_validator("issuer")
    @classmethod
    def _issuer_is_an_origin(cls, value: str) -> str:
        parts = urlsplit(value)
        port = parts.port  # raises ValueError for what is no port
        exact = value == f"{parts.scheme}://{parts.netloc}" == value.lower() and "@" not in parts.netloc
        if parts.scheme not in {"http", "https"} or not parts.hostname or not exact:
            raise ValueError(
                "must be an origin such as https://login.example.jp, lower case, without a path or a final slash"
            )
        if port == {"http": 80, "https": 443}[parts.scheme]:
            raise ValueError("must not name the default port: browsers leave it out, and then no request would match")
        return value

    @cached_property
    def issuer_is_loopback(self) -> bool:
        """True while the issuer is a plain-http loopback address: the only case in which http is spoken (WB-20)."""
        parts = urlsplit(self.issuer)
        return parts.scheme == "http" and is_loopback(parts.hostname or "")

    @cached_property
    def issuer_host(self) -> str:
        """Host and, if any, port of the issuer: the only Host header that is answered (WB-04)."""
        return urlsplit(self.issuer).netloc

    @property
    def gateway_at(self) -> str:
        """The domain of the gateway with its port; empty when there is none, and then no tool can be opened."""
        if self.gateway_domain:
            return self.gateway_domain
        return f"gw.localhost:{self.gateway_port}" if self.issuer_is_loopback else ""

    @property
    def gateway_scheme(self) -> str:
        """https, except beside a loopback issuer (WB-20)."""
        return "http" if self.issuer_is_loopback else "https"

    @property
    def log_name(self) -> str:
        """The origin of the audit log."""
        return self.log_origin or f"{self.issuer_host}/log"

    @property
    def log_head(self) -> Path:
        """Where the second store of the audit log lies."""
        if self.log_head_file is not None:
            return self.log_head_file.resolve()
        url = make_url(self.database_url)
        if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
            return Path(url.database + ".log-head").resolve()
        return Path(f"var/{url.database or 'sekisho'}.log-head").resolve()

    @property
    def anchor_places(self) -> list[str]:
        """The second places, as they were written."""
        return [place.strip() for place in self.anchors.split(",") if place.strip()]

    @property
    def give_up_after(self) -> timedelta:
        """How long a delivery is tried before a person is asked (RE-05)."""
        return timedelta(seconds=self.delivery_give_up_s)

    @classmethod
    def from_env(cls, **over: object) -> Settings:
        """Read the environment; keyword arguments win. Raises RefusedToStart with every reason at once."""
        return cls.read(**over).checked(pepper=True)

    @classmethod
    def without_pepper(cls, **over: object) -> Settings:
        """The same for a process that checks nobody's password (VA-30)."""
        return cls.read(**over).checked(pepper=False)

    def checked(self, *, pepper: bool) -> Settings:
        """Itself, once nothing speaks against it. Raises RefusedToStart."""
        if reasons := list(self.refusals(pepper=pepper)):
            raise RefusedToStart("\n".join(reasons))
        return self

    @classmethod
    def read(cls, **over: object) -> Settings:
        """The environment as it is, before there are keys: no refusals but those of values that cannot be read."""
        try:
            return cls(**over)  # type: ignore[arg-type]
        except ValidationError as error:
            lines = [f"SEKISHO_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise RefusedToStart("\n".join(lines)) from None

    def refusals(self, *, pepper: bool = True) -> list[str]:
        """Every reason not to start; empty when all is well."""
        reasons = []
        if sys.flags.optimize:
            reasons.append("Python runs with -O, which removes checks; start it without (SA-33).")
        if not self.issuer.startswith("https://") and not self.issuer_is_loopback:
            reasons.append("SEKISHO_ISSUER is http outside loopback; use https (WB-20).")
        if self.environment == "production" and self.root_key is not None:
            reasons.append("SEKISHO_ROOT_KEY is for development; in production use SEKISHO_ROOT_KEY_FILE (D10, VA-22).")
        if self.root_key_file is None and self.root_key is None:
            reasons.append("No root key: set SEKISHO_ROOT_KEY_FILE (`sekisho init` makes one).")
        if pepper and self.pepper_file is None:
            reasons.append("No pepper: set SEKISHO_PEPPER_FILE (`sekisho init` makes one) (AC-04).")
        if self.root_key_file is not None and self.root_key_file == self.pepper_file:
            reasons.append("Root key and pepper are the same file; a leak of one must not be a leak of both.")
        if os.environ.get("AUTHLIB_INSECURE_TRANSPORT") and not self.issuer_is_loopback:
            reasons.append("AUTHLIB_INSECURE_TRANSPORT is set although the issuer is not a loopback address; unset it.")
        for place in self.anchor_places:
            if not place.startswith(("https://", "mailto:", "/")):
                reasons.append(f"SEKISHO_ANCHORS: {place} is no absolute folder, https URL or mailto: address (AU-05).")
            if place.startswith("mailto:") and not (self.smtp_host and self.smtp_from):
                reasons.append("SEKISHO_ANCHORS names an e-mail address; set SEKISHO_SMTP_HOST and SEKISHO_SMTP_FROM.")
        if self.smtp_password_file is not None and self.smtp_tls == "none" and not is_loopback(self.smtp_host):
            reasons.append("SEKISHO_SMTP_TLS=none would send the password readable; use starttls or tls (AU-05).")
        reasons += [*self._siem_refusals(), *self._gateway_refusals(), *self._engine_refusals()]
        if os.environ.get("DEBUG", "").startswith("pw:"):
            reasons.append("DEBUG=pw:* prints what a browser types; unset it (VA-45).")
        return reasons

    def _siem_refusals(self) -> list[str]:
        if not self.siem_url:
            return []
        try:
            parts = urlsplit(self.siem_url)
            good = bool(parts.hostname) and (parts.port or 1) > 0 and "@" not in parts.netloc
        except ValueError:
            good = False
        if not good or parts.scheme not in {"https", "http", "syslog+tls", "syslog+tcp", "syslog+udp"}:
            return [
                "SEKISHO_SIEM_URL: use https://, syslog+tls://, syslog+tcp:// or syslog+udp:// with a host and no password."
            ]
        if parts.scheme == "http" and not self.issuer_is_loopback:
            return ["SEKISHO_SIEM_URL is http; the log would cross the network in clear. Use https or syslog+tls."]
        return []

    def _engine_refusals(self) -> list[str]:
        """A browser without its sandbox gives a hostile page everything that its user has (VA-45)."""
        if self.engine_root == "development" and not (self.environment == "development" and self.issuer_is_loopback):
            return [
                "SEKISHO_ENGINE_ROOT=development is for development on loopback; run the engine as its own OS user."
            ]
        return []

    def _gateway_refusals(self) -> list[str]:
        """A tool's page must be of another site than ours, or it could plant cookies for our host and ride on SameSite (VA-51)."""
        if not self.gateway_domain:
            return []
        name, issuer = self.gateway_domain.partition(":")[0], urlsplit(self.issuer).hostname or ""
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d{1,5})?", self.gateway_domain):
            return [
                "SEKISHO_GATEWAY_DOMAIN must be a domain in lower case such as tools.example.net, without https://."
            ]
        if self.issuer_is_loopback:
            return (
                []
                if name.endswith(".localhost")
                else ["SEKISHO_GATEWAY_DOMAIN: beside a loopback issuer use *.localhost."]
            )
        own = PublicSuffixList().privatesuffix
        if (own(name) or name) == (own(issuer) or issuer):
            return [
                "SEKISHO_GATEWAY_DOMAIN is of the same site as SEKISHO_ISSUER; register another domain for it (VA-51)."
            ]
        return []

    @property
    def template_folder(self) -> Path:
        """Templates of a wheel, of a clone, or the ones set."""
        return self.templates or shipped_templates()


def shipped_templates() -> Path:
    """The templates and catalogues that came with the program: beside it in a checkout, inside it in a package."""
    packaged = Path(__file__).resolve().parents[1] / "_templates"
    return packaged if packaged.is_dir() else PROJECT_ROOT / "templates"
