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
SPAMMER = 68  # its name is on the list of domains
FADING = 69  # listed by MORTAL only
POOL = (70, 71)  # what big.test sends from
ATTACKER = 72  # nothing is wrong with it but what it tries
KEYED = 73  # listed by the list that wants a key
# Networks of other customers; a host needs a route to see them: ip -6 route add 2001:db8:51:72::/64 dev eth0
ELSEWHERE = ("2001:db8:51:72::1", "2001:db8:51:72::2", "2001:db8:51:73::1")

# Lists of addresses and one of domains, in all states of health. As in the world, most are not signed.
DNSBL = "dnsbl.test"
DOMAINS = "dbl.test"
ALWAYS = "always.test"  # lists everything, as one whose domain was sold
REFUSING = "refusing.test"  # answers this resolver with its operator's error code
MORTAL = "mortal.test"  # healthy until a test changes it
PRIVATE = "dqs.test"  # a customer's key is part of the name
KEY = "canary-dqs-kq7wtz3m"
SILENT = "silent.test"  # delegated to a server that does not exist
# What stands in test. itself, with its PTR.
EXTRA_NAMES = {
    "listed": LISTED,
    "mail.spammer": SPAMMER,
    "fading": FADING,
    "attacker": ATTACKER,
    "keyed": KEYED,
}
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
    lists = _lists()
    below = [*customers, "remote.test", "big.test", *lists, "insecure.test", "bogus.test"]
    test = [*_address("ns", 53), *_address("ca", 14), *_address("client", 90), *_address("gateway", GATEWAY)]
    for label, number in EXTRA_NAMES.items():
        test += _address(label, number)
    # Senders: on the list of domains, on it with a code that does not count, without MX and address, wanting no mail.
    test += ["spammer MX 10 mail.spammer", "abused MX 10 client", 'nothing TXT "v=spf1 -all"', "nullmx MX 0 ."]
    test += [f"{SILENT}. NS ns.{SILENT}.", f"ns.{SILENT}. A {ipv4(252)}"]
    test += [line for child in below for line in _cut(f"{child}.")]
    zones.append(Zone("test", _zone("test.", ["@ NS ns.test.", *test]), "."))
    for name, host in customers.items():
        zones.append(Zone(name, _zone(f"{name}.", ["@ NS ns.test."]), "test", key=host.zones[0]))
    zones += [
        Zone("remote.test", _zone("remote.test.", [*_remote(), *remote_records]), "test"),
        Zone("big.test", _zone("big.test.", _big()), "test"),
        *[Zone(name, _zone(f"{name}.", lines), "test", signed=name == DNSBL) for name, lines in lists.items()],
        Zone("insecure.test", _zone("insecure.test.", ["@ NS ns.test.", "@ A 198.51.100.90"]), "test", signed=False),
        Zone("bogus.test", _zone("bogus.test.", ["@ NS ns.test.", "@ A 198.51.100.90"]), "test", bogus=True),
    ]
    names = {GATEWAY: "gateway.test.", UNCONFIRMED: "mail.remote.test."}
    names.update({number: f"{label}.test." for label, number in EXTRA_NAMES.items()})
    names.update({number: f"out{place}.big.test." for place, number in enumerate(POOL, 1)})
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


def _big() -> list[str]:
    # Its SPF is behind an include, as with the providers that it stands for.
    pool = " ".join(f"ip4:{ipv4(number)} ip6:{ipv6(number)}" for number in POOL)
    lines = [
        "@ NS ns.test.",
        "@ MX 10 out1",
        '@ TXT "v=spf1 include:_spf.big.test -all"',
        f'_spf TXT "v=spf1 {pool} -all"',
    ]
    for place, number in enumerate(POOL, 1):
        lines += _address(f"out{place}", number)
    return lines


def _lists() -> dict[str, list[str]]:
    domains = {"test": 2, "spammer.test": 2, "*.spammer.test": 2, "abused.test": 102}
    lines = [line for name, code in domains.items() for line in _listing(name, f"127.0.1.{code}")]
    return {
        DNSBL: ["@ NS ns.test.", *_addresses(LISTED)],
        MORTAL: ["@ NS ns.test.", *_addresses(FADING)],
        PRIVATE: ["@ NS ns.test.", *_addresses(KEYED, f".{KEY}")],
        DOMAINS: ["@ NS ns.test.", *lines],
        ALWAYS: ["@ NS ns.test.", *_listing("*", "127.0.0.2")],
        REFUSING: ["@ NS ns.test.", *_listing("*", "127.255.255.254")],
    }


def _addresses(number: int, below: str = "") -> list[str]:
    # RFC 5782: 127.0.0.2 and ::FFFF:7F00:2 are always listed, 127.0.0.1 and ::FFFF:7F00:1 never.
    lines = []
    for address in ("127.0.0.2", "::ffff:7f00:2", ipv4(number), ipv6(number)):
        pointer = ipaddress.ip_address(address).reverse_pointer
        owner = pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        lines += _listing(owner + below, "127.0.0.2")
    return lines


def _listing(owner: str, code: str) -> list[str]:
    return [f"{owner} A {code}", f'{owner} TXT "listed for tests"']
