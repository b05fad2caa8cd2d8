# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""An SMTP transaction as a client would do it, up to RCPT: no mail is sent."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass

from ._base import ServiceError


class NoAnswer(ServiceError):
    """Nobody answers (yet)."""


@dataclass(frozen=True)
class Listener:
    """Where and how to ask. tls: '' (none), 'starttls' or 'implicit'. login: the port is for the host's own users."""

    address: str
    port: int
    tls: str = ""
    login: bool = False

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Wanted:
    """What a healthy server answers.

    recipient is accepted on the port for other servers; foreign is refused, '' skips that. ordinary may be refused for
    many reasons, but not for a fault of the configuration: rules that spare the postmaster are reached with it.
    """

    helo: str
    recipient: str
    foreign: str = ""
    auth: bool = True
    ordinary: str = ""


def transaction(where: Listener, wanted: Wanted, timeout: float = 20.0) -> None:
    """EHLO, MAIL, RCPT, and DATA on a port without login; raises ServiceError with the server's answer, NoAnswer when
    there is none. No message is sent: the connection ends before one.

    A misspelt restriction still greets with 220 and then answers 451 to everybody, so a greeting proves nothing.
    """
    try:
        client = _connect(where, wanted, timeout)
        try:
            _talk(client, where, wanted)
            if where.login:  # else it waits for a message
                client.docmd("RSET")
                client.docmd("QUIT")
        finally:
            client.close()
    except smtplib.SMTPServerDisconnected as exc:
        raise NoAnswer(f"{where}: closed the connection: {exc}") from exc
    except smtplib.SMTPResponseException as exc:
        raise ServiceError(f"{where}: answers {exc.smtp_code} {_text(exc.smtp_error)}") from exc
    except ssl.SSLError as exc:
        raise ServiceError(f"{where}: TLS fails: {exc.reason or exc}") from exc
    except smtplib.SMTPException as exc:
        raise ServiceError(f"{where}: {exc}") from exc
    except OSError as exc:
        raise NoAnswer(f"{where}: {exc.strerror or exc}") from exc


def _context() -> ssl.SSLContext:
    # Whether the service works is asked here, not whether others trust its certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _connect(where: Listener, wanted: Wanted, timeout: float) -> smtplib.SMTP:
    if where.tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            where.address, where.port, local_hostname=wanted.helo, timeout=timeout, context=_context()
        )
    else:
        client = smtplib.SMTP(where.address, where.port, local_hostname=wanted.helo, timeout=timeout)
    return client


def _talk(client: smtplib.SMTP, where: Listener, wanted: Wanted) -> None:
    _expect(where, "EHLO", *client.ehlo(), 250)
    if where.tls == "starttls":
        if not client.has_extn("starttls"):
            raise ServiceError(f"{where}: STARTTLS is not offered")
        client.starttls(context=_context())
        _expect(where, "EHLO after STARTTLS", *client.ehlo(), 250)
    if where.login and wanted.auth and not client.has_extn("auth"):
        raise ServiceError(f"{where}: AUTH is not offered")
    code, text = client.docmd("MAIL", "FROM:<>")
    if where.login and _refused(code):
        return
    _expect(where, "MAIL FROM:<>", code, text, 250)
    if wanted.foreign:
        code, text = client.docmd("RCPT", f"TO:<{wanted.foreign}>")
        if code // 100 == 2:
            raise ServiceError(
                f"{where}: is an open relay: RCPT TO:<{wanted.foreign}> is accepted: {code} {_text(text)}"
            )
        if not _refused(code):
            raise ServiceError(f"{where}: RCPT TO:<{wanted.foreign}> is not refused for good: {code} {_text(text)}")
    code, text = client.docmd("RCPT", f"TO:<{wanted.recipient}>")
    # Without a login such a port refuses everybody; that it refuses by its rules and not by 451 is what is asked.
    if not (where.login and _refused(code)):
        _expect(where, f"RCPT TO:<{wanted.recipient}>", code, text, 250)
    if wanted.ordinary and not where.login:
        _configured(where, f"RCPT TO:<{wanted.ordinary}>", *client.docmd("RCPT", f"TO:<{wanted.ordinary}>"), 250)
    if not where.login:
        # Rules may refuse what has no sender and several recipients.
        _configured(where, "DATA", *client.docmd("DATA"), 354)


def _configured(where: Listener, what: str, code: int, text: bytes, wanted: int) -> None:
    """Any answer will do but none, and that of a fault in the configuration (RFC 3463 §3.4: X.3.5)."""
    if code == -1 or (code == 451 and text.startswith(b"4.3.5")):
        _expect(where, what, code, text, wanted)


def _refused(code: int) -> bool:
    """A refusal by the rules: 5xx, or what soft_bounce and defer_unauth_destination make of it (454, 430)."""
    return code // 100 == 5 or code in (454, 430)


def _expect(where: Listener, what: str, code: int, text: bytes, wanted: int) -> None:
    if code == -1:
        raise NoAnswer(f"{where}: closed the connection at {what}")
    if code != wanted:
        raise ServiceError(f"{where}: {what} is answered {code} {_text(text)}")


def _text(text: bytes | str) -> str:
    return (text.decode(errors="backslashreplace") if isinstance(text, bytes) else text).replace("\n", " ")
