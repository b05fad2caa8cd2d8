# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Knot in a container: signed zones, TSIG.

POSTMEISTER_KNOT names a running container to use instead of a new one; it must be Debian with knot installed.
Without podman, or without the lab's image, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.tsigkeyring
import dns.update
import dns.zone
import pytest

IMAGE = "localhost/postmeister-lab/trixie"
KEYS = {
    "full": ("hmac-sha256", "Zm9yIHRlc3RzIG9ubHksIGZ1bGwga2V5IDEyMzQ1Njc="),
    "update-only": ("hmac-sha256", "Zm9yIHRlc3RzIG9ubHksIHVwZGF0ZSBrZXkgMTIzNDU="),
    "powerless": ("hmac-sha512", "Zm9yIHRlc3RzIG9ubHksIHBvd2VybGVzcyAxMjM0NTY="),
}
SIGNER = ("RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY")
ZONES = ("example.test", "second.test", "child.second.test")
ZONE = """$ORIGIN {zone}.
$TTL 3600
@ SOA ns1 hostmaster 1 3600 900 604800 300
@ NS ns1
ns1 A {address}
@ TXT "site-verification=abc"
deleg NS ns.elsewhere.test.
{more}
"""


def podman(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(["podman", *words], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}{done.stdout}"
    return done.stdout


@dataclass
class Knot:
    name: str
    address: str
    keys = KEYS

    def reset(self, zone: str = "", more: str = "") -> None:
        """All zones, or one with further lines, as at the beginning."""
        script = []
        for each in [zone] if zone else ZONES:
            text = ZONE.format(zone=each, address=self.address, more=more)
            script.append(f"knotc -f zone-purge +journal +zonefile +timers {each} >/dev/null 2>&1 || true")
            script.append(f"cat > /var/lib/knot/zones/{each}.zone <<'END'\n{text}END")
            script.append(f"chown knot:knot /var/lib/knot/zones/{each}.zone; knotc -b zone-reload {each}")
        podman("exec", "-i", self.name, "sh", "-e", stdin="\n".join(script))

    def lines(self, zone: str = "example.test") -> list[str]:
        """What the server holds, as it tells itself; records of signers left out."""
        lines = podman("exec", self.name, "knotc", "zone-read", zone).splitlines()
        records = [line.partition("] ")[2] for line in lines]
        return [line for line in records if line.split()[2] not in SIGNER]

    def zone(self, zone: str = "example.test") -> dns.zone.Zone:
        return dns.zone.from_text("\n".join(self.lines(zone)), origin=zone + ".", relativize=False)

    def values(self, name: str, rrtype: str, zone: str = "example.test") -> set[str]:
        rdataset = self.zone(zone).get_rdataset(dns.name.from_text(name), rrtype)
        return {rdata.to_text() for rdata in rdataset or ()}

    def serial(self, zone: str = "example.test") -> int:
        return int(self.zone(zone).get_soa().serial)

    def edit(self, zone: str, act: Callable[[Any], None]) -> None:
        """An update by somebody else."""
        algorithm, secret = KEYS["full"]
        update = dns.update.UpdateMessage(zone + ".", keyring=dns.tsigkeyring.from_text({"full": (algorithm, secret)}))
        act(update)
        assert dns.query.tcp(update, self.address, timeout=5).rcode() == 0


@pytest.fixture(scope="session")
def knot() -> Iterator[Knot]:
    if not shutil.which("podman"):
        pytest.skip("podman is not there")
    name = os.environ.get("POSTMEISTER_KNOT", "")
    made = not name
    if made:
        if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode:
            pytest.skip(f"the image {IMAGE} is not there")
        name = f"postmeister-test-knot-{os.getpid()}"
        hosts = ["--add-host", f"deb.debian.org:{_debian()}"]
        podman("run", "-d", "--name", name, "--systemd=always", "--dns=none", *hosts, IMAGE)
    try:
        if made:
            podman(
                "exec", name, "sh", "-c",
                "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends knot"
                " knot-dnssecutils",
            )  # fmt: skip
        yield _start(name)
    finally:
        if made:
            podman("rm", "-f", "-t", "1", name)


def _debian() -> str:
    done = subprocess.run(["getent", "ahostsv4", "deb.debian.org"], capture_output=True, text=True, check=False)
    return done.stdout.split()[0] if done.stdout else "127.0.0.1"


def _start(name: str) -> Knot:
    conf = Path(__file__).with_name("knot.conf").read_text(encoding="utf-8")
    podman(
        "exec",
        "-i",
        name,
        "sh",
        "-c",
        "umask 027; cat > /etc/knot/knot.conf; chown root:knot /etc/knot/knot.conf",
        stdin=conf,
    )
    podman(
        "exec",
        name,
        "sh",
        "-c",
        "mkdir -p /var/lib/knot/zones; chown -R knot:knot /var/lib/knot; systemctl restart knot",
    )
    address = podman("exec", name, "hostname", "-I").split()[0]
    server = Knot(name, address)
    for _attempt in range(50):
        if (
            subprocess.run(["podman", "exec", name, "knotc", "status"], capture_output=True, check=False).returncode
            == 0
        ):
            break
        time.sleep(0.1)
    server.reset()
    return server
