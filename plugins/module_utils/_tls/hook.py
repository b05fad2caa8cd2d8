# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Hook of dehydrated for DNS-01 (RFC 8555 §8.4): TXT records by dynamic update (RFC 2136) with TSIG (RFC 8945).

Called by dehydrated as: hook FOLDER deploy_challenge|clean_challenge NAME TOKEN VALUE. FOLDER/dns.json (0600) holds
server, port, key_name, key_secret, key_algorithm and wait (seconds).
"""

# dehydrated starts this program, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import time
from typing import Any

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.query
    import dns.rcode
    import dns.rdatatype
    import dns.resolver
    import dns.tsig
    import dns.tsigkeyring
    import dns.update

    HAVE_DNSPYTHON = True
except ImportError:
    HAVE_DNSPYTHON = False

TTL = 60
TIMEOUT = 10.0


class HookError(Exception):
    """The record could not be published; the message says where and why, without the key's secret."""


def published_tlsa(hostname: str) -> set[str] | None:
    """Ask the host's resolver for the SPKI hashes of TLSA 3 1 1 at port 25; None when there is no answer to trust."""
    if not HAVE_DNSPYTHON:
        return None
    try:
        answer = dns.resolver.resolve(f"_25._tcp.{hostname}.", "TLSA", raise_on_no_answer=False, lifetime=TIMEOUT)
    except dns.resolver.NXDOMAIN:
        return set()
    except dns.exception.DNSException:
        return None
    return {item.cert.hex() for item in answer.rrset or () if (item.usage, item.selector, item.mtype) == (3, 1, 1)}


def address_of(server: str) -> str:
    """Turn a server's name into an address; an address stays. Raises HookError."""
    try:
        return str(ipaddress.ip_address(server))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(server, 53, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as exc:
        raise HookError(f"{server}: the name of the DNS server cannot be looked up ({exc.strerror})") from exc


def find_zone(name: Any, server: str, port: int) -> Any:
    """Find the zone a name lies in: the owner of the SOA that the server answers with (RFC 2308 §3)."""
    query = dns.message.make_query(name, dns.rdatatype.SOA)
    query.flags &= ~dns.flags.RD
    answer = dns.query.tcp(query, server, timeout=TIMEOUT, port=port)
    for section in (answer.answer, answer.authority):
        for rrset in section:
            if rrset.rdtype == dns.rdatatype.SOA:
                return rrset.name
    raise HookError(f"{server}: is not authoritative for {name} ({dns.rcode.to_text(answer.rcode())})")


def change(settings: dict[str, Any], owner: str, value: str, add: bool) -> Any:
    """Add or delete one TXT value; returns the zone. Raises HookError, or DNSException and OSError of the transport."""
    server, port = address_of(settings["server"]), int(settings["port"])
    name = dns.name.from_text(owner)
    zone = find_zone(name, server, port)
    keyname = dns.name.from_text(settings["key_name"])
    try:
        keyring = dns.tsigkeyring.from_text({settings["key_name"]: settings["key_secret"]})
    except ValueError as exc:
        raise HookError("the secret of the TSIG key is not base64") from exc
    update = dns.update.UpdateMessage(
        zone, keyring=keyring, keyname=keyname, keyalgorithm=settings["key_algorithm"].rstrip(".") + "."
    )
    if add:
        update.add(name, TTL, "TXT", f'"{value}"')
    else:
        update.delete(name, "TXT", f'"{value}"')
    problem = f"{settings['server']}: refuses to change {owner} TXT in zone {zone} with key {settings['key_name']}"
    try:
        answer = dns.query.tcp(update, server, timeout=TIMEOUT, port=port)
    except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadTime, dns.tsig.BadKey) as exc:
        raise HookError(f"{problem}: {exc}") from exc
    if answer.rcode() != dns.rcode.NOERROR:
        raise HookError(f"{problem}: {dns.rcode.to_text(answer.rcode())}")
    return zone


def servers_of(zone: Any) -> dict[str, list[str]]:
    """Addresses of the zone's name servers by name, as far as the host's resolver knows them."""
    found: dict[str, list[str]] = {}
    try:
        for item in dns.resolver.resolve(zone, "NS", lifetime=TIMEOUT):
            for rrtype in ("A", "AAAA"):
                try:
                    answer = dns.resolver.resolve(item.target, rrtype, lifetime=TIMEOUT)
                except dns.exception.DNSException:
                    continue
                found.setdefault(item.target.to_text(), []).extend(address.to_text() for address in answer)
    except dns.exception.DNSException:
        return {}
    return found


def shows(address: str, port: int, owner: str, value: str) -> bool:
    query = dns.message.make_query(owner, dns.rdatatype.TXT)
    query.flags &= ~dns.flags.RD
    try:
        answer = dns.query.tcp(query, address, timeout=5, port=port)
    except (OSError, EOFError, dns.exception.DNSException):
        return False
    return any(value.encode() in item.strings for rrset in answer.answer for item in rrset if rrset.rdtype == 16)


def wait_for(settings: dict[str, Any], zone: Any, owner: str, value: str) -> None:
    """Wait until every name server of the zone shows the record; the authority may ask any of them."""
    waiting = {settings["server"]: [(address_of(settings["server"]), int(settings["port"]))]}
    for name, addresses in servers_of(zone).items():
        waiting[name] = [(address, 53) for address in addresses]
    deadline = time.monotonic() + float(settings.get("wait", 120))
    while waiting:
        for name, places in list(waiting.items()):
            # one address per server is enough: the other may be unreachable from here (IPv6)
            if any(shows(address, port, owner, value) for address, port in places):
                del waiting[name]
        if waiting and time.monotonic() >= deadline:
            raise HookError(f"{owner} TXT was set, but is not shown by: {', '.join(sorted(waiting))}")
        if waiting:
            time.sleep(1)


def _note(folder: str, event: str, challenge: list[str]) -> None:
    with open(os.path.join(folder, event), "a", encoding="utf-8") as handle:
        handle.write(" ".join(challenge) + "\n")


def clean_up(folder: str) -> None:
    """Take back records that dehydrated set and, having failed in between, did not take back itself."""
    noted = {}
    for event in ("deploy_challenge", "clean_challenge"):
        try:
            with open(os.path.join(folder, event), encoding="utf-8") as handle:
                noted[event] = handle.read().splitlines()
        except FileNotFoundError:
            noted[event] = []
    for line in set(noted["deploy_challenge"]) - set(noted["clean_challenge"]):
        main([folder, "clean_challenge", *line.split(" ")])


def main(argv: list[str]) -> int:
    """Run one event; dehydrated wants 0 for events that a hook does not know."""
    if len(argv) < 5 or argv[1] not in ("deploy_challenge", "clean_challenge"):
        return 0
    folder, event, hostname, _token, value = argv[:5]
    owner = f"_acme-challenge.{hostname}."
    try:
        _note(folder, event, argv[2:5])
        with open(os.path.join(folder, "dns.json"), encoding="utf-8") as handle:
            settings = json.load(handle)
        zone = change(settings, owner, value, add=event == "deploy_challenge")
        if event == "deploy_challenge":
            wait_for(settings, zone, owner, value)
    except (HookError, OSError, EOFError, dns.exception.DNSException) as exc:
        words = str(exc) or type(exc).__name__
        print(f"dns-01: {words}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
