# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Wait until every authoritative server of a zone answers with the new data. Needs dnspython."""

from __future__ import annotations

import ipaddress
import socket
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .names import DnsError
from .rfc2136 import as_text

DNSPYTHON_IMPORT_ERROR: str | None = None
try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype
    import dns.resolver
except ImportError:
    DNSPYTHON_IMPORT_ERROR = traceback.format_exc()

#: name and type → the values that must be there, and those that must not
Expected = Mapping[tuple[str, str], tuple[set[str], set[str]]]


def authoritative(zone: str, primary: str, port: int, timeout: float = 5.0) -> dict[str, list[str]]:
    """Addresses of each name server in the zone's NS records, as the primary server tells them.

    Addresses outside of what the primary knows come from the resolver of this machine. Raises DnsError for a server
    without any.
    """
    answer = _ask(zone, "NS", primary, port, timeout)
    names = [
        str(rdata.target).lower() for rrset in answer.answer if rrset.rdtype == dns.rdatatype.NS for rdata in rrset
    ]
    if not names:
        raise DnsError(f"zone {zone}: {primary} shows no NS records")
    return {name: _addresses(name, zone, primary, port, timeout) for name in sorted(names)}


def _addresses(name: str, zone: str, primary: str, port: int, timeout: float) -> list[str]:
    found: list[str] = []
    for rrtype in ("A", "AAAA"):
        answer = _ask(name, rrtype, primary, port, timeout)
        if answer.flags & dns.flags.AA:
            found += [str(rdata) for rrset in answer.answer for rdata in rrset if hasattr(rdata, "address")]
            found = [word.split()[-1] for word in found]
    if found:
        return found
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name.rstrip("."), 53, type=socket.SOCK_DGRAM)})
    except OSError as exc:
        raise DnsError(f"zone {zone}: the address of its name server {name} is unknown ({exc.strerror})") from exc


def _ask(name: str, rrtype: str, address: str, port: int, timeout: float) -> dns.message.Message:
    query = dns.message.make_query(name, rrtype, use_edns=0, payload=1232)
    query.flags &= ~dns.flags.RD
    try:
        answer, _tcp = dns.query.udp_with_fallback(query, address, timeout=timeout, port=port)
    except (OSError, dns.exception.DNSException) as exc:
        raise DnsError(f"{address} port {port}: {exc or type(exc).__name__}") from exc
    return answer


def split_server(text: str) -> tuple[str, int]:
    """An address, or address@port. Raises DnsError for anything else."""
    address, _at, port = text.partition("@")
    try:
        ipaddress.ip_address(address)
        return address, int(port or 53)
    except ValueError as exc:
        raise DnsError(f"{text!r}: an IP address, or address@port, is due") from exc


def _missing(server: tuple[str, int], expected: Expected, timeout: float) -> str:
    """What a server does not show yet; '' when all is there."""
    for (name, rrtype), (there, gone) in expected.items():
        try:
            answer = _ask(name, rrtype, server[0], server[1], timeout)
        except DnsError as exc:
            return str(exc)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return f"answers {dns.rcode.to_text(answer.rcode())} for {rrtype} {name}"
        values = {
            as_text(rrtype, rdata)
            for rrset in answer.answer
            if str(rrset.name).lower() == name and rrset.rdtype == dns.rdatatype.from_text(rrtype)
            for rdata in rrset
        }
        if not there <= values or gone & values:
            return f"{rrtype} {name} still has {', '.join(sorted(values)) or 'no value'}"
    return ""


def wait(
    servers: Sequence[tuple[str, int]],
    expected: Expected,
    seconds: float,
    timeout: float = 5.0,
    pause: float = 1.0,
) -> None:
    """Ask the servers until all show what is expected; raises DnsError naming those that do not after the seconds."""
    deadline = time.monotonic() + seconds
    open_servers = list(dict.fromkeys(servers))
    with ThreadPoolExecutor(max_workers=8) as pool:
        while True:
            reasons = list(pool.map(lambda server: _missing(server, expected, timeout), open_servers))
            late = [(server, reason) for server, reason in zip(open_servers, reasons) if reason]
            if not late:
                return
            open_servers = [server for server, _reason in late]
            if time.monotonic() >= deadline:
                text = "; ".join(f"{address} port {port}: {reason}" for (address, port), reason in late)
                raise DnsError(
                    f"the records are published, but after {seconds:g} s not every server shows them: {text}"
                )
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))


def servers_of(zones: Iterable[str], primary: str, port: int) -> list[tuple[str, int]]:
    """All addresses of all name servers of the zones, on port 53; without those to which this machine has no route.

    Raises DnsError for a server of which no address is left: a machine without IPv6 still reaches it by IPv4.
    """
    result = []
    for zone in sorted(set(zones)):
        for name, addresses in authoritative(zone, primary, port).items():
            reached = [(address, 53) for address in addresses if _has_route(address)]
            if not reached:
                raise DnsError(f"zone {zone}: no route to its name server {name} ({', '.join(addresses)})")
            result += reached
    return result


def _has_route(address: str) -> bool:
    """Connecting a datagram socket sends nothing; it only looks for a route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
    except OSError:
        return False
    return True
