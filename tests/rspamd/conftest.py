# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of each release, set up by the roles redis and rspamd alone; the tests are its mail server."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from pmlab.machine import Machine, Run

HERE = Path(__file__).resolve().parent
COLLECTION = HERE.parents[1]
LOGINS = """alice@example.test alice@example.test
sales@example.test alice@example.test,bob@example.test
bob@example.test bob@example.test
busy@example.test busy@example.test
ceo@other.test ceo@other.test
@catchall.test carol@example.test
dave@catchall.test dave@example.test
"""
FORWARDS = """away@example.test forwarded
@gone.test forwarded
kept@gone.test kept
"""
LOCAL = ("localhost", "127.0.0.1")
#: hosts of strangers: the one whose address good.test names in SPF, and another
GOOD, EVIL = ("mx.good.test", "198.51.100.9"), ("mx.evil.test", "198.51.100.66")
RAW = serialization.Encoding.Raw


def public(content: bytes) -> bytes:
    """The DKIM record of a private key as it stands in its file."""
    if content.startswith(b"-----"):
        key = serialization.load_pem_private_key(content, None).public_key()
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(spki)
    seed = ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(content)[:32])
    point = seed.public_key().public_bytes(RAW, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(point)


@dataclass
class Answer:
    """What rspamd did to a message."""

    verdict: str
    added: list[tuple[str, str]]
    removed: list[tuple[str, int]]
    seconds: float
    #: the message with the added headers on top
    text: bytes

    def values(self, field: str) -> list[str]:
        return [" ".join(value.split()) for name, value in self.added if name.lower() == field.lower()]

    @property
    def signers(self) -> list[tuple[str, str]]:
        """Domain and selector of each signature."""
        tags = [dict(tag.strip().split("=", 1) for tag in sig.split(";")) for sig in self.values("DKIM-Signature")]
        return sorted((tag["d"], tag["s"]) for tag in tags)


class Host(Machine):
    """The machine, and how its mail server talks to rspamd."""

    def __init__(self, release: int) -> None:
        super().__init__(release, "rspamd", hostname="mail.example.test")
        self.keys: dict[bytes, bytes] = {}
        self.foreign_key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self._number = 0

    def start(self) -> None:
        super().start()
        utils = "ansible_collections/postmeister/host/plugins/module_utils"
        for name in ("_command.py", "_service/_base.py", "_service/__init__.py", "_service/rspamd.py"):
            self.put(f"/root/collection/{utils}/{name}", (COLLECTION / "plugins/module_utils" / name).read_bytes())
        self.put("/root/milter.py", (HERE / "milter.py").read_bytes())
        zone = {
            "good.test A": [GOOD[1]],
            "good.test MX": ["mx.good.test"],
            "mx.good.test A": [GOOD[1]],
            "mx.evil.test A": [EVIL[1]],
            "evil.test A": [EVIL[1]],
            "evil.test MX": ["mx.evil.test"],
            "good.test TXT": [f"v=spf1 ip4:{GOOD[1]} -all"],
            "_dmarc.good.test TXT": ["v=DMARC1; p=reject"],
            # a domain of this host, with a policy that asks for nothing
            "other.test TXT": ["v=spf1 -all"],
            "_dmarc.other.test TXT": ["v=DMARC1; p=none"],
            "s._domainkey.good.test TXT": [public(self.foreign_key).decode()],
        }
        self.put("/root/zone.json", json.dumps(zone))
        self.sh("systemd-run --quiet --unit=dns python3 /root/milter.py dns")
        self.sh("echo nameserver 127.0.0.1 > /etc/resolv.conf")
        self.directory(LOGINS)
        self.put("/etc/forwards.map", FORWARDS)

    def read_keys(self) -> None:
        """Learn the public keys of this host."""
        names = [("example.test", "r"), ("example.test", "e"), ("other.test", "r"), ("mail.example.test", "r")]
        for domain, selector in names:
            content = self.read(f"/etc/postmeister/dkim/{domain}/{selector}.key").encode()
            self.keys[f"{selector}._domainkey.{domain}.".encode()] = public(content)

    def directory(self, text: str) -> None:
        """Replace the list of logins as the role does: a reader sees the former or the new one."""
        self.put("/etc/sender_logins.map.new", text)
        self.sh("mv /etc/sender_logins.map.new /etc/sender_logins.map")

    def site(self, *options: str, **variables: Any) -> Run:
        """Run site.yml."""
        return self.play(HERE / "site.yml", *options, **variables)

    def send(
        self,
        *authors: str,
        login: str = "",
        sender: str | None = None,
        recipients: Sequence[str] = ("bob@example.test",),
        client: tuple[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: str = "Good morning,\r\nthis is a short text.\r\n",
        raw: bytes = b"",
    ) -> Answer:
        """Hand a message over; one From header for each author. A login comes from an address of its own."""
        self._number += 1
        fields = [("From", f" {author}") for author in authors]
        fields += [(field, f" {value}") for field, value in headers]
        fields += [
            ("To", " Bob <bob@example.test>"),
            ("Subject", " hello"),
            ("Date", " Sat, 01 Nov 2025 10:00:00 +0000"),
            ("Message-ID", f" <{self._number}.{uuid.uuid4().hex}@example.test>"),
            ("MIME-Version", " 1.0"),
            ("Content-Type", " text/plain; charset=us-ascii"),
        ]
        if raw:
            head, _blank, body = raw.decode().partition("\r\n\r\n")
            fields = [tuple(line.split(":", 1)) for line in head.replace("\r\n ", "\n ").split("\r\n")]  # type: ignore[misc]
        order = {
            "sender": sender if sender is not None else login or "x@evil.test",
            "recipients": list(recipients),
            "headers": fields,
            "body": body,
            "client": client or (("client.test", "198.51.100.80") if login else LOCAL),
            "login": login,
        }
        answer = json.loads(self.sh("python3 /root/milter.py", stdin=json.dumps(order)))
        answer["added"] = list(map(tuple, answer["added"]))
        text = "".join(f"{name}: {value}\r\n" for name, value in answer["added"]).replace("\r\n", "\n")
        text += "".join(f"{name}:{value}\n" for name, value in fields) + "\n" + body.replace("\r\n", "\n")
        return Answer(**answer, text=text.replace("\n", "\r\n").encode())

    def good(self, **given: Any) -> Answer:
        """A message that a stranger with nothing to hide sends."""
        return self.send("x@good.test", **{"sender": "x@good.test", "client": GOOD, **given})

    def verify(self, text: bytes) -> list[bool]:
        """Verdict of each DKIM signature, by dkimpy with the keys of this host."""
        message = dkim.DKIM(text)
        count = text.split(b"\r\n\r\n", 1)[0].lower().count(b"dkim-signature:")
        results = []
        for index in range(count):
            try:
                results.append(message.verify(idx=index, dnsfunc=lambda name, timeout=5: self.keys.get(name)))
            except dkim.DKIMException:
                results.append(False)
        return results

    def signed(self, sender: str) -> bytes:
        """A message of good.test with its own signature."""
        text = (
            f"From: {sender}\r\nTo: bob@example.test\r\nSubject: hello\r\nDate: Sat, 01 Nov 2025 10:00:00 +0000\r\n"
            f"Message-ID: <{uuid.uuid4().hex}@good.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
            "Good morning, this is a short text.\r\n"
        ).encode()
        return dkim.sign(text, b"s", b"good.test", self.foreign_key) + text


@pytest.fixture(scope="session", params=[12, 13])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Host(request.param) as made:
        made.site().good()
        made.read_keys()
        yield made
