"""Handing lines to a syslog server: TLS (RFC 5425), TCP (RFC 6587) and UDP (RFC 5426), with one deadline.

The server is a setting of whoever runs the installation, never something that a company enters; the rules of `outbound` for
addresses are therefore not asked here. TCP and TLS count octets: a line break inside a name must not become a second event.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_S = 10.0
#: how long the server may take to close its side after we closed ours; a server that keeps silent has taken what it got
LINGER_S = 2.0
PORTS = {"syslog+tls": 6514, "syslog+tcp": 514, "syslog+udp": 514}


class NotSent(Exception):
    """The server did not take the lines; the text is a short word for the log."""


def send(url: str, lines: Sequence[bytes], *, ca_file: Path | None = None) -> None:
    """Send all lines over one connection. url: `syslog+tls://host:6514`. Raises NotSent; then any of them may have arrived.

    Syslog has no receipt. We close our side and wait for the server's, so that a connection which broke under way is
    noticed; what a server loses after it has read the bytes, nobody can.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        if parts.scheme == "syslog+udp":
            _datagrams(host, port, lines)
            return
        with socket.create_connection((host, port), TIMEOUT_S) as raw:
            stream: socket.socket = raw
            if parts.scheme == "syslog+tls":
                context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
                stream = context.wrap_socket(raw, server_hostname=host)
            with stream:
                stream.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
                _close(stream)
    except OSError as error:
        raise NotSent(type(error).__name__) from error


def _datagrams(host: str, port: int, lines: Sequence[bytes]) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as out:
        out.connect(address)
        for line in lines:
            out.send(line)


def _close(stream: socket.socket) -> None:
    """Close our side and read until the server closes its own. Raises OSError for a reset."""
    stream.settimeout(LINGER_S)
    try:
        if isinstance(stream, ssl.SSLSocket):
            stream.unwrap()
        else:
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):
                pass
    except (TimeoutError, ssl.SSLError):
        return  # silence, or a server that closes without the TLS goodbye: it has read what we sent, as far as anybody can tell
