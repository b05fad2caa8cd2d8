# SPDX-License-Identifier: GPL-3.0-or-later

"""SMTP word by word. Needs nothing but Python, so that any container can run it: see talk() in clients.py."""

from __future__ import annotations

import json
import smtplib
import ssl
import sys
from typing import Any


def dial(address: str, port: int, tls: bool = True, source: str = "", helo: str = "client.test") -> smtplib.SMTP:
    """A connection as far as EHLO, with TLS where the port asks for it; source: which of its addresses to use."""
    own = (source, 0) if source else None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client: smtplib.SMTP
    if port == 465:
        client = smtplib.SMTP_SSL(address, port, local_hostname=helo, timeout=120, source_address=own, context=context)
    else:
        client = smtplib.SMTP(address, port, local_hostname=helo, timeout=120, source_address=own)
        if port == 587 and tls:
            client.starttls(context=context)
    client.ehlo()
    return client


def one_line(code: int, text: bytes) -> str:
    return f"{code} {text.decode('ascii', 'replace')}".replace("\n", " | ")


def speak(address: str, port: int, lines: list[str], tls: bool = True, **who: str) -> list[str]:
    """Each line's answer. The line after DATA is the whole message, without the dot that ends it; who: see dial()."""
    client = dial(address, port, tls, **who)
    answers: list[str] = []
    for line in lines:
        if answers and answers[-1].startswith("354 "):
            client.send(f"{line}\r\n.\r\n".encode())
            answers.append(one_line(*client.getreply()))
        else:
            answers.append(one_line(*client.docmd(line)))
    client.close()
    return answers


if __name__ == "__main__":
    asked: dict[str, Any] = json.load(sys.stdin)
    to = (asked["address"], asked["port"])
    json.dump([speak(*to, lines, asked["tls"], **asked["who"]) for lines in asked["sessions"]], sys.stdout)
