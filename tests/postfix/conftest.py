# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container of each release, set up by the role postfix alone; the tests are strangers that connect to it.

Environment: POSTMEISTER_IMAGE_13, POSTMEISTER_IMAGE_12 (images), POSTMEISTER_APT_13, POSTMEISTER_APT_12 (volumes for
apt's cache), CONTAINERS_CONF (podman's own), ANSIBLE_COLLECTIONS_PATH (where the collection lies).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = Path(__file__).resolve().parent
DEFAULTS = {
    "IMAGE_13": "postmeister-lab/trixie",
    "IMAGE_12": "postmeister-lab/bookworm",
    "APT_13": "pm-apt-13",
    "APT_12": "pm-apt-12",
}


def setting(kind: str, release: str) -> str:
    return os.environ.get(f"POSTMEISTER_{kind}_{release}", DEFAULTS[f"{kind}_{release}"])


def podman(*argv: str, stdin: bytes | None = None, check: bool = True) -> str:
    done = subprocess.run(["podman", *argv], input=stdin, capture_output=True, check=False, timeout=600)
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(argv)}: {done.returncode}\n{(done.stderr + done.stdout).decode()}")
    return done.stdout.decode()


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


class Host:
    """The container, and how a stranger talks to it."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.name = f"postmeister-postfix-{release}-{uuid.uuid4().hex[:6]}"
        self.address = ""
        #: when the first run was over
        self.since = 0

    def start(self) -> None:
        options = []
        with contextlib.suppress(OSError):  # no network: the image may have a mirror of its own
            options = ["--add-host", f"deb.debian.org:{socket.gethostbyname('deb.debian.org')}"]
        cache = f"--volume={setting('APT', self.release)}:/var/cache/apt/archives:O"
        argv = ["--detach", f"--name={self.name}", "--systemd=always", "--dns=none", "--hostname=mail.example.test"]
        podman("run", *argv, cache, *options, setting("IMAGE", self.release))
        self.address = podman(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name
        ).strip()
        for _turn in range(100):
            if self.sh("systemctl is-system-running", check=False).strip() in ("running", "degraded"):
                break
            time.sleep(0.1)
        self.put("/etc/ssl/mail.pem", certificate("mail.example.test"), 0o600)
        self.put("/root/peers.py", (HERE / "peers.py").read_bytes(), 0o644)
        self.sh("systemd-run --quiet --unit=peers python3 /root/peers.py")

    def put(self, path: str, content: bytes, mode: int) -> None:
        podman("exec", "-i", self.name, "sh", "-c", f"umask 077; cat > {path}; chmod {mode:o} {path}", stdin=content)

    def sh(self, script: str, check: bool = True) -> str:
        return podman("exec", self.name, "sh", "-c", script, check=check)

    def play(self, *options: str, **variables: Any) -> tuple[int, str]:
        """Run site.yml; returns the exit status and the output."""
        inventory = {
            "ansible_connection": "containers.podman.podman",
            "ansible_python_interpreter": "/usr/bin/python3",
            "postfix_ipv4": self.address,
            **variables,
        }
        program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) or "ansible-playbook"
        argv = [program, "-i", f"{self.name},", str(HERE / "site.yml"), "-e", json.dumps(inventory), *options]
        environment = {**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600, env=environment)
        return done.returncode, done.stdout + done.stderr

    def resolve_here(self) -> None:
        # After the packages came: from here on the peers' DNS is the only one. /etc/resolv.conf is no bind mount here.
        self.sh("echo nameserver 127.0.0.1 > /etc/resolv.conf")

    def client(
        self, port: int = 25, login: str = "", tls: bool = True, helo: str = "client.remote.test"
    ) -> smtplib.SMTP:
        if port == 465:
            client: smtplib.SMTP = smtplib.SMTP_SSL(self.address, 465, helo, timeout=30, context=trust_anything())
        else:
            client = smtplib.SMTP(self.address, port, helo, timeout=30)
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

    def got(self, count: int, patience: float = 15) -> list[dict[str, Any]]:
        """Messages that arrived, by LMTP or at the other provider: so many, or what is there at the end of patience."""
        deadline = time.monotonic() + patience
        while True:
            lines = self.sh("for f in /run/peers/got/*.json; do [ -e $f ] && cat $f && echo; done; true").splitlines()
            if len(lines) >= count or time.monotonic() > deadline:
                return [json.loads(line) for line in lines]
            time.sleep(0.2)

    def clear(self) -> None:
        self.sh("rm -f /run/peers/got/*; postsuper -d ALL", check=False)


@pytest.fixture(scope="session", params=["13", "12"])
def prepared(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host(request.param)
    try:
        host.start()
        host.sh("apt-get -qq update", check=False)
        status, output = host.play()
        assert status == 0, output
        host.resolve_here()
        host.since = int(time.time()) + 1
        time.sleep(1)
        yield host
    finally:
        podman("rm", "--force", "--time=2", host.name, check=False)


@pytest.fixture
def host(prepared: Host) -> Host:
    prepared.clear()
    return prepared
