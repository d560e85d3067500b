"""Which hosts a recipe may name (VA-56, WB-20): public names, and never banks, addresses or ourselves."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

from publicsuffixlist import PublicSuffixList

from connectors.recipes import urls

LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
#: reserved or local by RFC 6761, RFC 6762, RFC 8375 and ICANN's decision on .internal
PRIVATE_SUFFIXES: Final = frozenset(
    {"local", "localhost", "internal", "invalid", "onion", "arpa", "lan", "home", "corp"}
)
#: reading accounts for customers needs a registration in Japan (電子決済等代行業), so these are refused
BANKS: Final = frozenset(
    {
        "aeonbank.co.jp", "bk.mufg.jp", "gmo-aozora.com", "japannetbank.co.jp", "jibunbank.co.jp", "jp-bank.japanpost.jp",
        "jp-bank.jp", "mizuhobank.co.jp", "mufg.jp", "netbk.co.jp", "paypay-bank.co.jp", "rakuten-bank.co.jp",
        "resonabank.co.jp", "saitamaresona.co.jp", "sevenbank.co.jp", "shinkin.co.jp", "smbc.co.jp", "smtb.jp", "sonybank.jp",
        "sonybank.net", "ui-bank.co.jp",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """What the installation adds to the rules.

    today: for the age of the terms; loopback: plain http and loopback hosts are allowed, because the issuer itself is an
    http loopback address; own_domains: names of this installation, which no recipe may lead to; values: the values of
    fields that host placeholders use, frozen per tool account (empty while a recipe is only checked).
    """

    today: date
    loopback: bool = False
    own_domains: Collection[str] = ()
    values: Mapping[str, str] | None = None


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=True)


@lru_cache(maxsize=512)  # asked for every page
def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine by its name or address."""
    name = urls.parts(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def why_forbidden(host: str, ground: Ground) -> tuple[str, str] | None:
    """The reason, in Japanese and English, why a recipe cannot name a host; None when it can. host: lower case."""
    if is_loopback(host):
        return None if ground.loopback else ("この機械自身です", "this machine itself")
    name, colon, port = host.partition(":")
    labels = name.split(".")
    if _is_address(name):
        return ("IPアドレスです。名前を書いてください", "an address; write a name")
    well_formed = len(labels) >= 2 and len(name) <= 253 and all(LABEL.fullmatch(label) for label in labels)
    reasons = (
        (colon and port != "443", "ポート番号は書けません", "no port number"),
        (not well_formed, "ホスト名ではありません", "not a full host name"),
        (labels[-1] in PRIVATE_SUFFIXES, "社内だけの名前です", "a name of private networks"),
        (_suffixes().publicsuffix(name) == name, "だれのものでもない共通の名前です", "a public suffix"),
        (
            any(_under(name, own.lower()) for own in ground.own_domains),
            "Sekisho 自身の名前です",
            "a name of this Sekisho",
        ),
        (
            labels[-1] == "bank" or any(_under(name, bank) for bank in BANKS),
            "銀行は対象外です",
            "banks are out of scope",
        ),
    )
    return next(((ja, en) for holds, ja, en in reasons if holds), None)


def _under(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


def _is_address(name: str) -> bool:
    last = name.rstrip(".").rsplit(".", 1)[-1]
    return name.startswith("[") or last.isdigit() or last.startswith("0x")


def scheme_allowed(url: str, ground: Ground) -> bool:
    """https, or http to this machine while the issuer is an http loopback address (WB-20)."""
    parts = urls.parts(url)
    return parts.scheme == "https" or (parts.scheme == "http" and ground.loopback and is_loopback(parts.netloc.lower()))
