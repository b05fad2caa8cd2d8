# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a mail host what it makes of addresses: Postfix over port 25, Dovecot by a login over IMAPS."""

from __future__ import annotations

import imaplib
import smtplib
import ssl
from collections.abc import Iterable

from lab import DOMAIN, IPV4, BenchError

#: of every mailbox that is asked about (tests/bench/inventory.yml)
PASSWORD = "bench-Xr5mUw2Q"


def ask(host: str, addresses: Iterable[str]) -> None:
    """Each gets mail and can log in, as nobody else and with no other password; raises BenchError otherwise."""
    for address in addresses:
        code, login = accepts(host, address), logs_in(host, address, PASSWORD)
        if code != 250 or not login:
            raise BenchError(f"{address}: Postfix says {code}, the login {'works' if login else 'fails'}")
        if logs_in(host, address, f"{PASSWORD}-"):
            raise BenchError(f"{address}: logs in with a wrong password")
    stranger = f"nobody-of-that-name@{DOMAIN[host]}"
    if accepts(host, stranger) != 550:
        raise BenchError(f"{stranger}: Postfix says {accepts(host, stranger)}")


def accepts(host: str, address: str) -> int:
    """Postfix's answer to RCPT TO from outside."""
    with smtplib.SMTP(IPV4[host], 25, local_hostname="gateway.test", timeout=60) as client:
        client.ehlo()
        client.mail("carol@remote.test")
        return client.rcpt(address)[0]


def logs_in(host: str, address: str, password: str) -> bool:
    """Whether Dovecot takes the password; names in certificates are tested elsewhere."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with imaplib.IMAP4_SSL(IPV4[host], ssl_context=context, timeout=60) as client:
        try:
            client.login(address, password)
        except imaplib.IMAP4.error as answer:
            if "AUTHENTICATIONFAILED" in str(answer):
                return False
            raise BenchError(f"{address}: {answer}") from answer
        return True
