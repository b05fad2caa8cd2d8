# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of each release, set up by the role postfix alone; the tests are strangers that connect to it."""

from __future__ import annotations

import json
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pmlab.machine import Machine, Run

HERE = Path(__file__).resolve().parent


def certificate(name: str) -> bytes:
    """Key and self-signed certificate in one PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def trust_anything() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Host(Machine):
    """The machine, and how a stranger talks to it."""

    def __init__(self, release: int) -> None:
        super().__init__(release, "postfix", hostname="mail.example.test")
        #: when the first run was over
        self.since = 0

    def start(self) -> None:
        super().start()
        self.put("/etc/ssl/mail.pem", certificate("mail.example.test"), 0o600)
        self.put("/root/peers.py", (HERE / "peers.py").read_bytes())
        self.sh("systemd-run --quiet --unit=peers python3 /root/peers.py")
        # The peers' DNS is the only one.
        self.sh("echo nameserver 127.0.0.1 > /etc/resolv.conf")

    def site(self, *options: str, **variables: Any) -> Run:
        """Run site.yml."""
        return self.play(HERE / "site.yml", *options, postfix_ipv4=self.address, **variables)

    def client(
        self, port: int = 25, login: str = "", tls: bool = True, helo: str = "client.remote.test"
    ) -> smtplib.SMTP:
        if port == 465:
            client: smtplib.SMTP = smtplib.SMTP_SSL(self.address, 465, helo, timeout=60, context=trust_anything())
        else:
            client = smtplib.SMTP(self.address, port, helo, timeout=60)
        client.ehlo()
        if port == 587 and tls:
            client.starttls(context=trust_anything())
            client.ehlo()
        if login:
            client.login(login, "secret")
        return client

    def asked(self, client: smtplib.SMTP, sender: str, recipient: str) -> tuple[int, str]:
        """The answer to RCPT, or to MAIL where that is refused."""
        code, text = client.docmd("MAIL", f"FROM:<{sender}>")
        if code == 250:
            code, text = client.docmd("RCPT", f"TO:<{recipient}>")
        client.docmd("RSET")
        return code, text.decode()

    def got(self, count: int, patience: float = 60) -> list[dict[str, Any]]:
        """Messages that arrived, by LMTP or at the other provider: so many, or what is there at the end of patience."""
        deadline = time.monotonic() + patience
        while True:
            lines = self.sh("for f in /run/peers/got/*.json; do [ -e $f ] && cat $f && echo; done; true").splitlines()
            if len(lines) >= count or time.monotonic() > deadline:
                return [json.loads(line) for line in lines]
            time.sleep(0.2)

    def rests(self) -> bool:
        """Nothing is in the queue. postqueue(1) may miss what moves on while it looks: twice."""
        return self.sh("postqueue -j; postqueue -j") == ""

    def until(self, holds: Callable[[], bool], seconds: float = 60) -> bool:
        """Whether something holds, at the latest after so many seconds."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True

    def clear(self) -> None:
        self.sh("rm -f /run/peers/got/*; postsuper -d ALL", check=False)


@pytest.fixture(scope="session", params=[13, 12])
def prepared(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Host(request.param) as host:
        host.site().good()
        host.since = int(time.time()) + 1
        time.sleep(1)  # the journal is read from a whole second on
        yield host


@pytest.fixture
def host(prepared: Host) -> Host:
    prepared.clear()
    return prepared
