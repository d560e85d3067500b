"""The only mail client of `idp` (AU-05): one message, TLS checked, a deadline. Nothing a company enters chooses the server."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage

from idp.core.settings import Settings

TIMEOUT_S = 10.0


class NotSent(Exception):
    """The server did not take the message; the text is a short word for the log."""


def send(settings: Settings, *, to: str, subject: str, text: str, files: Mapping[str, str]) -> None:
    """Hand one plain text to the configured server. files: name → text, attached byte for byte, since the lines of a mail's own
    text end as every program on its way likes them. Raises NotSent; no second try."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.smtp_from, to, subject
    message.set_content(text)
    for name, content in files.items():
        message.add_attachment(content.encode(), maintype="application", subtype="octet-stream", filename=name)
    context = ssl.create_default_context()
    try:
        if settings.smtp_tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S, context=context
            )
        else:
            client = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S)
        with client:
            if settings.smtp_tls == "starttls":
                client.starttls(context=context)
            if settings.smtp_password_file is not None:
                client.login(settings.smtp_user, settings.smtp_password_file.read_text(encoding="utf-8").strip())
            client.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(type(error).__name__) from error
