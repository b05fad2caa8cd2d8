# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Knot on a machine of its own: signed zones, TSIG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.tsigkeyring
import dns.update
import dns.zone
import pytest
from pmlab.machine import Machine

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


class Knot(Machine):
    """The name server, and what it holds."""

    keys = KEYS

    def start(self) -> None:
        super().start()
        self.sh(
            "export DEBIAN_FRONTEND=noninteractive\n"
            "apt-get update -q\n"
            "apt-get install -o Acquire::Retries=5 -qy --no-install-recommends knot knot-dnssecutils"
        )
        self.put("/etc/knot/knot.conf", Path(__file__).with_name("knot.conf").read_bytes(), 0o640)
        self.sh("chgrp knot /etc/knot/knot.conf; mkdir -p /var/lib/knot/zones; chown -R knot:knot /var/lib/knot")
        self.sh("systemctl restart knot; until knotc status; do sleep 0.1; done", seconds=300)
        self.reset()

    def reset(self, zone: str = "", more: str = "") -> None:
        """All zones, or one with further lines, as at the beginning."""
        script = []
        for each in [zone] if zone else ZONES:
            text = ZONE.format(zone=each, address=self.address, more=more)
            script.append(f"knotc -f zone-purge +journal +zonefile +timers {each} >/dev/null 2>&1 || true")
            script.append(f"cat > /var/lib/knot/zones/{each}.zone <<'END'\n{text}END")
            script.append(f"chown knot:knot /var/lib/knot/zones/{each}.zone; knotc -b zone-reload {each}")
        self.sh("\n".join(["set -e", *script]))

    def lines(self, zone: str = "example.test") -> list[str]:
        """What the server holds, as it tells itself; records of signers left out."""
        lines = self.sh(f"knotc zone-read {zone}").splitlines()
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
        assert dns.query.tcp(update, self.address, timeout=60).rcode() == 0


@pytest.fixture(scope="session")
def knot() -> Iterator[Knot]:
    with Knot(13, "knot") as server:
        yield server
