# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of a zone: many at once against one by one with another collection's module."""

from __future__ import annotations

import json
from typing import Any

import dns.query
import dns.tsigkeyring
import dns.xfr
import dns.zone
from figures import Result, figure
from lab import CACHE, DOMAIN, HOST_12, BenchError, lab
from plays import median, play, scratch

MANY = 1_000
SERVER = "198.51.100.53"
#: a zone that no other figure needs at this time
ZONE = DOMAIN[HOST_12]


def records(prefix: str) -> list[dict[str, Any]]:
    """RRsets of one value each."""
    return [
        {"name": f"{prefix}{number:04}.{ZONE}", "type": "A", "values": [f"198.51.100.{number % 250 + 1}"]}
        for number in range(MANY)
    ]


def secret() -> str:
    """Of the key that may change the zone."""
    return (CACHE / "lab" / "tsig" / f"{ZONE}.secret").read_text().strip()


def seconds(playbook: str, prefix: str) -> float:
    """Seconds of a play that publishes the records in an empty zone; believed only when the zone has them all."""
    lab("zone", ZONE, "--reset")
    path = scratch("records") / f"{prefix}.json"
    path.touch(mode=0o600)
    variables = {"bench_server": SERVER, "bench_zone": ZONE, "bench_secret": secret(), "bench_records": records(prefix)}
    path.write_text(json.dumps(variables))
    run = play(playbook, "--extra-vars", f"@{path}")
    zone = dns.zone.Zone(f"{ZONE}.", relativize=False)
    keyring = dns.tsigkeyring.from_text({f"{ZONE}.": ("hmac-sha256", secret())})
    dns.query.inbound_xfr(SERVER, zone, dns.xfr.make_query(zone, keyring=keyring)[0], lifetime=30)
    for record in records(prefix):
        found = zone.get_rdataset(f"{record['name']}.", "A")
        if found is None or [str(rdata) for rdata in found] != record["values"]:
            raise BenchError(f"{record['name']}: the zone has {found}")
    lab("zone", ZONE, "--reset")
    return run.seconds


@figure("ratio", "≥ 100")
def records_bulk_vs_nsupdate_loop() -> Result:
    """A play with a loop of community.general.nsupdate over 1,000 RRsets ÷ a play with one dns_records."""
    bulk = median(3, lambda: seconds("records_bulk", "bulk"))
    loop = seconds("records_loop", "loop")
    return Result(round(loop / bulk), f"{loop:.0f} s ÷ {bulk:.2f} s")
