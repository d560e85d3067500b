"""A mail server of a test (RFC 5321, STARTTLS of RFC 3207, AUTH PLAIN of RFC 4954): what it heard before and after TLS."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from types import TracebackType
from typing import Any, Self


class MailServer(socketserver.ThreadingTCPServer):
    """Listens on loopback for as long as its block lasts. Its threads are joined at the end."""

    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None, *, at_once: bool = False, refuse: str = "") -> None:
        """context: for TLS; None: it knows none. at_once: TLS from the first byte. refuse: the command that it always refuses."""
        super().__init__(("127.0.0.1", 0), _Talk)
        self.context, self.at_once, self.refuse = context, at_once, refuse
        self.heard = Heard()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, *_: Any) -> None:
        """A handshake that a client breaks off is what these tests are about."""


@dataclass
class Heard:
    """What reached the server."""

    plain: list[bytes] = field(default_factory=list)  # lines before TLS
    passwords: list[str] = field(default_factory=list)
    mail: list[Message] = field(default_factory=list)
    envelopes: list[str] = field(default_factory=list)


class _Talk(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.safe = False
        if self.server.at_once:
            self._secure()
        self._say("220 mail.localhost")
        while line := self.rfile.readline():
            if not self.safe:
                self.server.heard.plain.append(line)
            word, _, rest = line.decode().strip().partition(" ")
            if word.upper() == self.server.refuse:
                self._say("550 no")
            elif not self._answer(word.upper(), rest):
                break
        self.connection.close()

    def _answer(self, word: str, rest: str) -> bool:
        if word == "EHLO":
            offers = ["AUTH PLAIN"] + (["STARTTLS"] if self.server.context and not self.safe else [])
            self._say("250-mail.localhost", *[f"250-{offer}" for offer in offers], "250 SMTPUTF8")
        elif word == "STARTTLS":
            self._say("220 go on")
            self._secure()
        elif word == "AUTH":
            self.server.heard.passwords.append(base64.b64decode(rest.split()[1]).split(b"\0")[2].decode())
            self._say("235 welcome")
        elif word == "DATA":
            self._say("354 go on")
            lines = iter(self.rfile.readline, b".\r\n")
            self.server.heard.mail.append(message_from_bytes(b"".join(line.removeprefix(b".") for line in lines)))
            self._say("250 taken")
        elif word == "QUIT":
            self._say("221 bye")
            return False
        else:
            if word == "RCPT":
                self.server.heard.envelopes.append(rest)
            self._say("250 yes")
        return True

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _secure(self) -> None:
        assert self.server.context is not None
        self.connection = self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.safe = True
