# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests use to look at the lab: containers, mail clients and the other provider's mailboxes."""

from __future__ import annotations

import base64
import email
import email.message
import email.policy
import functools
import imaplib
import json
import poplib
import re
import shlex
import smtplib
import ssl
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, TypeVar

from pmlab.shell import Shells

T = TypeVar("T")


def until(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Ask again and again until look() gives something; fail with what was waited for.

    seconds: what it may take on a quiet machine; a busy one gets twice as long.
    """
    deadline, pause = time.monotonic() + 2 * seconds, 0.2
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not seen within {2 * seconds:g} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, 2)


#: of each container
shells = functools.cache(Shells)


@dataclass(frozen=True)
class Box:
    """A container of the lab."""

    name: str
    fqdn: str
    ipv4: str
    ipv6: str

    @property
    def domain(self) -> str:
        """The first domain that a mail host serves."""
        return self.fqdn.partition(".")[2]

    def run(self, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        """Run a program inside; its standard output. With check, a failure shows what it said."""
        status, out, words = shells(f"pm-{self.name}").run_apart(f"exec {shlex.join(argv)}", (stdin or "").encode())
        text = out.decode()
        assert not check or status == 0, f"{self.name}: {' '.join(argv)}\n{text}{words.decode(errors='replace')}"
        return text

    def sh(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check)

    def journal(self, *units: str, since: str = "-1h") -> str:
        """The host's own words, to the last of them: what was said a moment ago may still be on its way."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "-o", "cat", "--since", since, *(f"-u{unit}" for unit in units))


def new_subject() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def message(sender: str, recipient: str, subject: str, body: str = "Hello.", **fields: str) -> str:
    lines = [f"From: {sender}", f"To: {recipient}", f"Subject: {subject}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", body, ""])


def trusting() -> ssl.SSLContext:
    """A context for a lab whose certificate authority is made anew each time; names are tested where they matter."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def submit(
    address: str, port: int, login: str, password: str, sender: str, recipients: str | list[str], text: str
) -> dict[str, tuple[int, bytes]]:
    """Send as a mail program does, over 465 (TLS from the first byte) or 587 (STARTTLS)."""
    client: smtplib.SMTP
    if port == 465:
        client = smtplib.SMTP_SSL(address, port, local_hostname="laptop.invalid", timeout=120, context=trusting())
    else:
        client = smtplib.SMTP(address, port, local_hostname="laptop.invalid", timeout=120)
        client.starttls(context=trusting())
    with client:
        client.login(login, password)
        return client.sendmail(sender, recipients, text)


def talk(
    address: str, port: int, *sessions: list[str], at: Box | None = None, tls: bool = True, **who: str
) -> list[list[str]]:
    """SMTP word by word, from this machine (the network's gateway) or from a container: each session's answers.

    who: source, one of its addresses, and helo, the name it says.
    """
    source = (Path(__file__).parent / "speak.py").read_text()
    asked = json.dumps({"address": address, "port": port, "sessions": sessions, "tls": tls, "who": who})
    if at:
        told = at.run("python3", "-c", source, stdin=asked)
    else:
        argv = [sys.executable, "-c", source]
        told = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True).stdout
    answers: list[list[str]] = json.loads(told)
    return answers


def auth(login: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{login}\0{password}".encode()).decode()


def search_imap(address: str, login: str, password: str, subject: str, folder: str = "INBOX") -> list[bytes]:
    """All messages with this in their subject, over IMAPS."""
    with imaplib.IMAP4_SSL(address, ssl_context=trusting(), timeout=60) as client:
        client.login(login, password)
        if client.select(folder, readonly=True)[0] != "OK":
            return []
        _status, found = client.search(None, "HEADER", "Subject", f'"{subject}"')
        numbers = found[0].split()
        if not numbers:
            return []
        parts = client.fetch(b",".join(numbers).decode(), "(BODY.PEEK[])")[1]
        return [part[1] for part in parts if isinstance(part, tuple)]


def read_imap(address: str, login: str, password: str, subject: str, folder: str = "INBOX") -> bytes | None:
    """The newest message with this subject over IMAPS; None when there is none."""
    found = search_imap(address, login, password, subject, folder)
    return found[-1] if found else None


def read_pop3(address: str, login: str, password: str, subject: str) -> bytes | None:
    client = poplib.POP3_SSL(address, context=trusting(), timeout=60)
    try:
        client.user(login)
        client.pass_(password)
        for number in range(len(client.list()[1]), 0, -1):
            text = b"\r\n".join(client.retr(number)[1])
            if subject.encode() in text:
                return text
        return None
    finally:
        client.quit()


def parse(raw: bytes | str) -> email.message.EmailMessage:
    data = raw.encode() if isinstance(raw, str) else raw
    return email.message_from_bytes(data, policy=email.policy.default)  # type: ignore[return-value]


def verdicts(raw: bytes | str, authority: str) -> list[str]:
    """What the receiver with this authserv-id (RFC 8601) found: 'spf=pass', 'dkim=pass' …, one each."""
    found: list[str] = []
    for value in parse(raw).get_all("Authentication-Results", []):
        text = re.sub(r"\s+", " ", str(value))
        if text.split(";")[0].split()[0].lower() == authority:
            found += re.findall(r"\b((?:spf|dkim|dmarc|arc)=[a-z]+)", text.lower())
    return found


def domain_of(login: str) -> str:
    return login.rpartition("@")[2]


def at_remote(remote: Box, mailbox: str, subject: str) -> str | None:
    """What lies in the other provider's Maildir."""
    box = f"/srv/mail/{mailbox}"
    search = f"grep -lr 'Subject: {subject}' {box}/new {box}/cur 2>/dev/null | head -n 1 | xargs -r cat"
    return remote.sh(search, check=False)


def from_remote(remote: Box, sender: str, recipient: str, text: str) -> None:
    remote.run("sendmail", "-f", sender, recipient, stdin=text.replace("\r\n", "\n"))


def idle(box: Box, recipient: str) -> bool:
    """Nothing for this recipient waits in the queue, nor for its sub-addresses where it is none itself.

    postqueue(1) looks at one part of the queue after the other, so it may miss what moves on meanwhile: twice.
    """
    queued = [json.loads(line) for line in box.sh("postqueue -j && postqueue -j").splitlines()]
    found = {one["address"].lower() for mail in queued for one in mail["recipients"]}
    wanted = recipient.lower()
    return not {wanted} & {*found, *(re.sub(r"\+[^@]*", "", address) for address in found)}
