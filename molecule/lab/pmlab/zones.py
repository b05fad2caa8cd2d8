# SPDX-License-Identifier: GPL-3.0-or-later

"""The name space of the lab: a root of its own, test., what hangs below it, and both reverse trees."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from .inventory import Host
from .settings import REVERSE4, REVERSE6, ipv4, ipv6

# Addresses without a container of their own; client has them beside its own (hosts/client).
GATEWAY = 1
NAMELESS = 66  # no PTR at all
UNCONFIRMED = 67  # its PTR names a host that has another address
LISTED = 91  # forward-confirmed, but on the DNSBL
DNSBL = "dnsbl.test"
# Short, so that what a test changes is seen at once.
TTL = 30


@dataclass(frozen=True)
class Zone:
    """One zone: its first content and how it is served."""

    name: str  # without the last dot; the root is "."
    text: str
    parent: str | None
    key: str | None = None  # TSIG key that may change it, beside the lab's own
    signed: bool = True
    bogus: bool = False  # the parent gets a DS that fits no key


def build(hosts: dict[str, Host], remote_records: list[str]) -> list[Zone]:
    """All zones. remote_records: DKIM and TLSA records of remote.test, which follow from keys."""
    root = ["@ NS ns.test.", *_glue("ns.test."), *_cut("test."), *_cut(f"{REVERSE4}."), *_cut(f"{REVERSE6}.")]
    zones = [Zone(".", _zone(".", root), None)]
    customers = {zone: host for host in hosts.values() for zone in host.zones}
    below = [*customers, "remote.test", DNSBL, "insecure.test", "bogus.test"]
    test = [*_address("ns", 53), *_address("ca", 14), *_address("client", 90), *_address("gateway", GATEWAY)]
    test += _address("listed", LISTED)
    test += [line for child in below for line in _cut(f"{child}.")]
    zones.append(Zone("test", _zone("test.", ["@ NS ns.test.", *test]), "."))
    for name, host in customers.items():
        zones.append(Zone(name, _zone(f"{name}.", ["@ NS ns.test."]), "test", key=host.zones[0]))
    zones += [
        Zone("remote.test", _zone("remote.test.", [*_remote(), *remote_records]), "test"),
        Zone(DNSBL, _zone(f"{DNSBL}.", _dnsbl()), "test"),
        Zone("insecure.test", _zone("insecure.test.", ["@ NS ns.test.", "@ A 198.51.100.90"]), "test", signed=False),
        Zone("bogus.test", _zone("bogus.test.", ["@ NS ns.test.", "@ A 198.51.100.90"]), "test", bogus=True),
    ]
    names = {GATEWAY: "gateway.test.", LISTED: "listed.test.", UNCONFIRMED: "mail.remote.test."}
    names.update({host.number: f"{host.fqdn}." for host in hosts.values()})
    for apex, of in ((REVERSE4, ipv4), (REVERSE6, ipv6)):
        owners = {ipaddress.ip_address(of(number)).reverse_pointer: name for number, name in sorted(names.items())}
        lines = [f"{owner}. PTR {name}" for owner, name in owners.items()]
        zones.append(Zone(apex, _zone(f"{apex}.", ["@ NS ns.test.", *lines]), "."))
    return zones


def _zone(origin: str, lines: list[str]) -> str:
    # The last number of the SOA is how long a resolver remembers that a name is not there.
    soa = "@ SOA ns.test. hostmaster.test. 1 60 30 86400 5"
    return "\n".join([f"$ORIGIN {origin}", f"$TTL {TTL}", soa, *lines, ""])


def _cut(name: str) -> list[str]:
    return [f"{name} NS ns.test."]


def _glue(name: str) -> list[str]:
    return [f"{name} A {ipv4(53)}", f"{name} AAAA {ipv6(53)}"]


def _address(label: str, number: int) -> list[str]:
    return [f"{label} A {ipv4(number)}", f"{label} AAAA {ipv6(number)}"]


def _remote() -> list[str]:
    return [
        "@ NS ns.test.",
        "@ MX 10 mail",
        *_address("mail", 80),
        '@ TXT "v=spf1 mx -all"',
        'mail TXT "v=spf1 a -all"',
        '_dmarc TXT "v=DMARC1; p=reject; adkim=s; aspf=s"',
        '_dmarc.mail TXT "v=DMARC1; p=reject"',
    ]


def _dnsbl() -> list[str]:
    # RFC 5782: 127.0.0.2 and ::FFFF:7F00:2 are always listed, 127.0.0.1 and ::FFFF:7F00:1 never.
    listed = ["127.0.0.2", "::ffff:7f00:2", ipv4(LISTED), ipv6(LISTED)]
    lines = ["@ NS ns.test."]
    for address in listed:
        pointer = ipaddress.ip_address(address).reverse_pointer
        owner = pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        lines += [f"{owner} A 127.0.0.2", f'{owner} TXT "listed for tests"']
    return lines
