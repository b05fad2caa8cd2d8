# SPDX-License-Identifier: GPL-3.0-or-later

"""DNS of the lab as others see it, and other records in it for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import dns.tsigkeyring
import dns.update
from clients import Box
from conftest import CACHE

SERVER = "198.51.100.53"
# Validates from the lab's root, and remembers for one second.
RESOLVER = "198.51.100.14"


def resolved(query: dns.message.Message) -> dns.message.Message:
    """What the resolver says; on a busy machine it may lose a packet, or give up on a server that was slow."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer, _tcp = dns.query.udp_with_fallback(query, RESOLVER, timeout=5)
        except dns.exception.Timeout:
            assert time.monotonic() < deadline, f"no answer to {query.question}"
            continue
        if answer.rcode() != dns.rcode.SERVFAIL or time.monotonic() > deadline:
            return answer
        time.sleep(0.5)


def ask(name: str, rrtype: str) -> list[str]:
    """The values there, each as in a zone file; only signed answers count, also those that say: none."""
    query = dns.message.make_query(name, rrtype, want_dnssec=True)
    answer = resolved(query)
    assert answer.flags & dns.flags.AD, f"{name} {rrtype}: not validated\n{answer}"
    assert answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN), f"{name} {rrtype}: {answer}"
    found = answer.get_rrset(answer.answer, query.question[0].name, query.question[0].rdclass, query.question[0].rdtype)
    return sorted(data.to_text() for data in found or ())


def exists(name: str) -> bool:
    """Whether the name is there, with records or with names below it (RFC 8020)."""
    return resolved(dns.message.make_query(name, "TXT")).rcode() == dns.rcode.NOERROR


def served(name: str, rrtype: str) -> dns.rrset.RRset | None:
    """What the zone holds now."""
    query = dns.message.make_query(name, rrtype)
    answer = dns.query.tcp(query, SERVER, timeout=60)
    return answer.get_rrset(answer.answer, query.question[0].name, query.question[0].rdclass, query.question[0].rdtype)


def put(name: str, rrtype: str, values: list[str], ttl: int = 1) -> None:
    """Make these the only records there, by the key that may change every zone of the lab."""
    secret = (CACHE / "lab" / "tsig" / "lab.secret").read_text().strip()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [SERVER]
    zone = dns.resolver.zone_for_name(name, resolver=resolver)
    update = dns.update.UpdateMessage(
        zone, keyring=dns.tsigkeyring.from_text({"lab": secret}), keyalgorithm="hmac-sha256"
    )
    owner = dns.name.from_text(name)
    update.delete(owner, rrtype)
    if values:
        update.add(owner, dns.rrset.from_text_list(owner, ttl, "IN", rrtype, values))
    answer = dns.query.tcp(update, SERVER, timeout=60)
    assert answer.rcode() == dns.rcode.NOERROR, f"{name} {rrtype}: {dns.rcode.to_text(answer.rcode())}"


@contextmanager
def replaced(name: str, rrtype: str, *values: str) -> Iterator[None]:
    """Other records at a name, or none, and afterwards the former ones."""
    former = served(name, rrtype)
    put(name, rrtype, list(values))
    try:
        yield
    finally:
        put(name, rrtype, [data.to_text() for data in former or ()], former.ttl if former else 1)


def forget(box: Box) -> None:
    """A mail host that remembers nothing of DNS: neither its resolver nor a process of its sender."""
    resolver = "if [ -S /run/unbound.ctl ]; then unbound-control reload; else systemctl restart unbound; fi"
    box.sh(f"{resolver} && postfix reload 2>/dev/null")
