"""What a gateway process is told at its start: plain values, no environment read here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """domain: below which every origin of ours lies, with the port where it is not the scheme's own, and of another
    registrable domain than the identity provider; scheme: of these origins; idp: origin of the identity provider;
    loopback: tools on this machine may be called, because the issuer itself is an http loopback address (WB-20).

    sweep_s: how often held connections are checked; lease_s: after how long without a completed sweep everything is
    closed; renew_s: how long a request waits for a fresh login; upstream_s: how long a tool may stay silent.
    """

    domain: str
    idp: str
    scheme: str = "https"
    loopback: bool = False
    sweep_s: float = 0.5
    lease_s: float = 5.0
    renew_s: float = 10.0
    upstream_s: float = 30.0

    def origin(self, host: str) -> str:
        """The origin of a gateway host."""
        return f"{self.scheme}://{host}"

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names an origin of this gateway: exactly one label before the domain."""
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == self.domain
