# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail both ways between the demo's host and the other provider, as two users would send and read it.

Arguments: what to give to ansible so that it finds the host mx (-i …). The password is not shown.
"""

from __future__ import annotations

import email
import email.policy
import imaplib
import json
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import uuid
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Any

STATE = Path(os.environ["CACHE"]) / "lab"
SECONDS = 60


class Imap(imaplib.IMAP4_SSL):
    """IMAP over TLS by address (this machine does not know the lab's DNS); the certificate is checked for the name."""

    def __init__(self, name: str, address: str, context: ssl.SSLContext) -> None:
        self.address = address
        super().__init__(name, 993, ssl_context=context)

    def _create_socket(self, timeout: float | None) -> ssl.SSLSocket:
        return self.ssl_context.wrap_socket(
            socket.create_connection((self.address, 993), 10), server_hostname=self.host
        )


class Smtp(smtplib.SMTP_SSL):
    """Submission over TLS (port 465), likewise."""

    def __init__(self, name: str, address: str, context: ssl.SSLContext) -> None:
        self.address = address
        super().__init__(name, 465, local_hostname="laptop.example.test", context=context)

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:  # type: ignore[override]
        return self.context.wrap_socket(socket.create_connection((self.address, port), 10), server_hostname=host)


def host_variables() -> dict[str, Any]:
    """The host's variables as Ansible has them, templates and vault resolved."""
    wanted = ("mailserver_hostname", "mailserver_ipv4", "mailserver_mailboxes")
    templates = {"demo": {name: f"{{{{ {name} }}}}" for name in wanted}}
    argv = ["ansible", *sys.argv[1:], "mx", "--extra-vars", json.dumps(templates)]
    argv += ["--module-name", "ansible.builtin.debug", "--args", "var=demo"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(shown.partition("=>")[2])["demo"]
    return found


def submit(variables: dict[str, Any], context: ssl.SSLContext, address: str, subject: str) -> None:
    """Alice writes to Carol over port 465."""
    alice = variables["mailserver_mailboxes"][0]
    message = EmailMessage()
    message["From"], message["To"] = alice["address"], "carol@remote.test"
    message["Subject"], message["Date"] = subject, formatdate()
    message.set_content("Hello Carol, this is my new mail host.\n")
    with Smtp(variables["mailserver_hostname"], address, context) as smtp:
        smtp.login(alice["address"], alice["password"])
        smtp.send_message(message)


def at_other_provider(subject: str) -> EmailMessage:
    """The message in Carol's mailbox."""
    argv = [sys.executable, "-m", "pmlab", "read", "carol", f"--subject={subject}", f"--wait={SECONDS}", "--last"]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"Nothing arrived at the other provider within {SECONDS} s: script/lab shell mx journalctl -n 50")
    message = email.message_from_bytes(done.stdout, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def answer(to: str, subject: str) -> None:
    """Carol's provider sends to Alice."""
    text = f"From: carol@remote.test\nTo: {to}\nSubject: {subject}\n\nHello Alice, it looks fine from here.\n"
    argv = ["podman", "exec", "-i", "pm-remote", "sendmail", "-f", "carol@remote.test", to]
    subprocess.run(argv, input=text.encode(), check=True)


def at_our_host(variables: dict[str, Any], context: ssl.SSLContext, address: str, subject: str) -> EmailMessage:
    """The message in Alice's mailbox, over IMAPS."""
    alice = variables["mailserver_mailboxes"][0]
    deadline = time.monotonic() + SECONDS
    with Imap(variables["mailserver_hostname"], address, context) as imap:
        imap.login(alice["address"], alice["password"])
        while time.monotonic() < deadline:
            for folder in ("INBOX", "Junk"):
                if imap.select(folder, readonly=True)[0] != "OK":
                    continue
                for number in imap.search(None, "SUBJECT", f'"{subject}"')[1][0].split():
                    raw = imap.fetch(number, "(BODY.PEEK[])")[1][0]
                    assert isinstance(raw, tuple)
                    message = email.message_from_bytes(raw[1], policy=email.policy.default)
                    assert isinstance(message, EmailMessage)
                    return message
            time.sleep(0.5)
    sys.exit(f"Nothing arrived at Alice's within {SECONDS} s: script/lab shell remote journalctl -n 50")


def verdicts(message: EmailMessage) -> str:
    """The Authentication-Results (RFC 8601) of the receiving provider, one verdict a line."""
    lines = []
    for header in message.get_all("Authentication-Results", []):
        # Comments stand in parentheses and may hold semicolons.
        plain = re.sub(r"\([^()]*\)", "", " ".join(str(header).split()))
        server, *results = [" ".join(part.split()) for part in plain.split(";")]
        lines += [f"  {server}: {result}" for result in results if result and not result.startswith("dkim-atps")]
    return "\n".join(lines) or "  (none)"


def main() -> None:
    """Send, wait, show."""
    variables = host_variables()
    address = variables["mailserver_ipv4"]
    context = ssl.create_default_context(cafile=str(STATE / "acme-root.pem"))
    mark = uuid.uuid4().hex[:8]
    there, back = f"Hello from my own host {mark}", f"Re: hello {mark}"
    print(f"alice@example.test → carol@remote.test, over port 465 of {variables['mailserver_hostname']}", flush=True)
    submit(variables, context, address, there)
    print(f"arrived; the other provider's verdicts:\n{verdicts(at_other_provider(there))}", flush=True)
    print("\ncarol@remote.test → alice@example.test", flush=True)
    answer(variables["mailserver_mailboxes"][0]["address"], back)
    print(f"arrived, read over IMAPS; our host's verdicts:\n{verdicts(at_our_host(variables, context, address, back))}")


if __name__ == "__main__":
    main()
