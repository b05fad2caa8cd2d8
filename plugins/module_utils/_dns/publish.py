# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What a mail host must publish, derived from plain data, in the order in which it is published.

addresses: A, AAAA and CAA of the host, before a certificate is asked for.
tlsa:      keys of the certificate, current and next (RFC 7672, RFC 7671 8.1), before the service uses them.
dkim:      keys of signatures (RFC 6376 3.6.1), before mail is signed with them.
mail:      who may send and how it is judged (SPF, DMARC), and where clients connect (SRV).
mx:        last, when the host accepts mail.

Every function returns items of the `records` option of dns_records, and raises DnsError for data that DNS or the RFCs
do not allow.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from . import text
from .names import DnsError, absolute, below
from .record import parse_all

PHASES = ("addresses", "tlsa", "dkim", "mail", "mx")

#: RFC 7672 asks for TLSA records of port 25 only. No client of the other ports is known to look, and each further
#: name is one more that a change of keys must not forget. So it is port 25, unless the site names more.
TLSA_PORTS = (25,)

#: Service, port and priority (RFC 6186 3, RFC 8314 5.1, RFC 5804 1.8): the lower one is preferred among those that
#: serve the same purpose; TLS from the first byte before STARTTLS, IMAP before POP3.
SERVICES: Mapping[str, tuple[int, int]] = {
    "submissions": (465, 0),
    "submission": (587, 10),
    "imaps": (993, 0),
    "imap": (143, 10),
    "pop3s": (995, 20),
    "pop3": (110, 30),
    "sieve": (4190, 0),
}

#: RFC 7208 4.6.4
SPF_LOOKUPS = 10
#: RFC 7208 3.4: then the answer fits in 512 octets, whatever the name
SPF_OCTETS = 450


@dataclass(frozen=True)
class Domain:
    """A mail domain. staged accepts mail and publishes nothing; absent is gone.

    spf are further mechanisms; what is empty is as the site says.
    """

    name: str
    state: str = "active"
    spf: tuple[str, ...] = ()
    dmarc_policy: str = ""
    dmarc_rua: tuple[str, ...] = ()


@dataclass(frozen=True)
class Issuer:
    """Who may issue certificates for the host (RFC 8659, RFC 8657)."""

    domain: str
    accounturi: str = ""
    validationmethods: tuple[str, ...] = ()


@dataclass(frozen=True)
class DkimRecord:
    """Owner name and text of a key's record, and the domain that it signs for, as dkim_key returns them."""

    domain: str
    name: str
    record: str


@dataclass(frozen=True)
class Site:
    """All that the records follow from.

    ttl is in seconds; services are names of SERVICES that are offered; dmarc_rua are addresses for aggregate reports.
    """

    hostname: str
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    domains: tuple[Domain, ...] = ()
    services: tuple[str, ...] = ("submissions", "submission", "imaps", "pop3s")
    dkim: tuple[DkimRecord, ...] = ()
    tlsa: tuple[str, ...] = ()
    tlsa_ports: tuple[int, ...] = TLSA_PORTS
    dmarc_policy: str = "quarantine"
    dmarc_subdomain_policy: str = ""
    dmarc_rua: tuple[str, ...] = ()
    spf: tuple[str, ...] = ()
    caa: tuple[Issuer, ...] = ()
    tls_rpt: tuple[str, ...] = ()
    ttl: int = 3600

    @property
    def active(self) -> list[Domain]:
        return [domain for domain in self.domains if domain.state == "active"]

    @property
    def senders(self) -> list[Domain]:
        """The active domains, and the host's own name, which is not among them as a rule."""
        # Nobody but bounces and root's mail uses it, and they are signed: no reason to be lenient.
        own = Domain(self.hostname, "active", (), "reject")
        names = [absolute(domain.name) for domain in self.active]
        return self.active if absolute(self.hostname) in names else [*self.active, own]


_NESTED = {"domains": Domain, "caa": Issuer, "dkim": DkimRecord}


def site(raw: Mapping[str, Any]) -> Site:
    """Make a Site of a plain dictionary with the same keys; lists may be given as one text, '' is an empty list.

    Domains and issuers may be plain names, services a dictionary of name and whether it is offered. Raises DnsError
    for an unknown key and for values that cannot be.
    """
    known = {entry.name for entry in fields(Site)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise DnsError(f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _NESTED:
            values[key] = tuple(_nested(key, item) for item in _list(value))
        elif key == "services":
            offered = [name for name, on in value.items() if on] if isinstance(value, Mapping) else _list(value)
            values[key] = tuple(offered)
        elif key in ("hostname", "ttl", "dmarc_policy", "dmarc_subdomain_policy"):
            values[key] = value
        else:
            values[key] = tuple(_list(value))
    result = Site(**values)
    _check(result)
    return result


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _nested(key: str, item: Any) -> Any:
    kind = _NESTED[key]
    if isinstance(item, kind):
        return item
    if isinstance(item, str):
        item = {"domain" if key == "caa" else "name": item}
    names = {entry.name for entry in fields(kind)}
    lists = {"spf", "dmarc_rua", "validationmethods"}
    return kind(
        **{name: tuple(_list(value)) if name in lists else value for name, value in item.items() if name in names}
    )


def _check(site: Site) -> None:
    host = absolute(site.hostname, "hostname", host=True)
    if host.count(".") < 2:
        raise DnsError(f"hostname {site.hostname!r}: has no dot; a full name is due")
    for version, addresses in ((4, site.ipv4), (6, site.ipv6)):
        for address in addresses:
            _address(address, version)
    seen: set[str] = set()
    for index, domain in enumerate(site.domains):
        name = absolute(domain.name, f"domains[{index}]", host=True)
        if domain.state not in ("active", "staged", "absent"):
            raise DnsError(f"domains[{index}] ({domain.name}): state {domain.state!r}: active, staged or absent")
        if name in seen:
            raise DnsError(f"domains[{index}] ({domain.name}): is given twice")
        seen.add(name)
    stranger = next((name for name in site.services if name not in SERVICES), None)
    if stranger is not None:
        raise DnsError(f"service {stranger!r}: one of {', '.join(SERVICES)} is due")
    for policy in (site.dmarc_policy, site.dmarc_subdomain_policy, *(domain.dmarc_policy for domain in site.domains)):
        if policy not in ("", "none", "quarantine", "reject"):
            raise DnsError(f"dmarc policy {policy!r}: none, quarantine or reject")
    for domain in site.active:
        spf(site, domain)


def _address(address: str, version: int) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise DnsError(f"ipv{version} {address!r}: an IPv{version} address is due") from None
    if parsed.version != version:
        raise DnsError(f"ipv{version} {address!r}: an IPv{version} address is due, this is IPv{parsed.version}")
    return str(parsed)


# -- the texts


def spf(site: Site, domain: Domain | None = None) -> str:
    """The SPF record: exact addresses, what the operator adds, and nobody else (RFC 7208).

    Without a domain it is that of the host's own name. Raises DnsError for terms that weaken it or that the RFC does
    not know, and beyond its limits.
    """
    where = f"spf of {domain.name}" if domain else "spf"
    terms = [
        f"ip{version}:{_address(a, version)}" for version, every in ((4, site.ipv4), (6, site.ipv6)) for a in every
    ]
    lookups = 0
    for term in [*site.spf, *(domain.spf if domain else ())]:
        lookups += _spf_lookups(term, where)
        terms.append(term)
    if lookups > SPF_LOOKUPS:
        raise DnsError(f"{where}: {lookups} terms that need a query, {SPF_LOOKUPS} are allowed (RFC 7208 4.6.4)")
    result = " ".join(["v=spf1", *dict.fromkeys(terms), "-all"])
    if len(result) > SPF_OCTETS:
        raise DnsError(f"{where}: {len(result)} octets; {SPF_OCTETS} fit safely into an answer (RFC 7208 3.4)")
    return result


_SPF_NAME = r"[A-Za-z0-9%{}._+/=-]+"
_SPF_TERM = re.compile(
    rf"[~?-]?(?:(?P<query>include:{_SPF_NAME}|exists:{_SPF_NAME}|(?:a|mx)(?::{_SPF_NAME})?(?:/\d+)?(?://\d+)?)"
    rf"|ip4:(?P<ip4>\S+)|ip6:(?P<ip6>\S+)|exp={_SPF_NAME})",
    re.IGNORECASE,
)


def _spf_lookups(term: str, where: str) -> int:
    """Queries that a term costs by itself. Raises DnsError for one that has no place in our record."""
    if re.fullmatch(r"[+~?-]?all", term, re.IGNORECASE):
        raise DnsError(f"{where}, {term!r}: the record ends in -all already")
    if re.match(r"[+~?-]?ptr\b", term, re.IGNORECASE):
        raise DnsError(f"{where}, {term!r}: ptr is not to be used (RFC 7208 5.5)")
    if term.lower().startswith("redirect="):
        raise DnsError(f"{where}, {term!r}: redirect has no effect beside -all; use include:")
    match = _SPF_TERM.fullmatch(term.lstrip("+"))
    if not match:
        raise DnsError(f"{where}, {term!r}: no mechanism of RFC 7208 5")
    for version in (4, 6):
        network = match[f"ip{version}"]
        if network is None:
            continue
        try:
            parsed = ipaddress.ip_network(network)
        except ValueError as exc:
            raise DnsError(f"{where}, {term!r}: {exc}") from None
        if parsed.version != version:
            raise DnsError(f"{where}, {term!r}: an IPv{version} network is due")
    return 1 if match["query"] else 0


def _report_uri(address: str) -> str:
    """mailto: for an address (RFC 9989 4.7, RFC 8460 3); a whole URI stays. Raises DnsError for neither."""
    uri = address if ":" in address else f"mailto:{address}"
    if not re.fullmatch(r"mailto:[^\s@,;!\"]+@[A-Za-z0-9.-]+|https://[^\s,;!\"]+", uri):
        raise DnsError(f"report address {address!r}: a mail address is due, without commas, semicolons and '!'")
    return uri


def dmarc(policy: str, subdomain_policy: str = "", rua: Sequence[str] = ()) -> str:
    """The DMARC record (RFC 9989 4.7): p second for old readers; none of pct, rf, ri, which are gone."""
    tags = ["v=DMARC1", f"p={policy}"]
    if subdomain_policy:
        tags.append(f"sp={subdomain_policy}")
    if rua:
        tags.append("rua=" + ",".join(map(_report_uri, rua)))
    return "; ".join(tags)


def _caa(issuer: Issuer) -> str:
    parts = [issuer.domain]
    if issuer.accounturi:
        parts.append(f"accounturi={issuer.accounturi}")
    if issuer.validationmethods:
        parts.append("validationmethods=" + ",".join(issuer.validationmethods))
    return f'0 issue "{"; ".join(parts)}"'


# -- the phases


class _Maker:
    def __init__(self, ttl: int) -> None:
        self.ttl = ttl
        self.records: list[dict[str, Any]] = []

    def add(self, name: str, rrtype: str, values: Iterable[str], match: str = "", ttl: int | None = None) -> None:
        every = list(values)
        if every:
            record = {"name": name, "type": rrtype, "ttl": self.ttl if ttl is None else ttl, "values": every}
            self.records.append({**record, "match": match} if match else record)


def addresses(site: Site) -> list[dict[str, Any]]:
    """A, AAAA and CAA at the host's name."""
    made = _Maker(site.ttl)
    made.add(site.hostname, "A", site.ipv4)
    made.add(site.hostname, "AAAA", site.ipv6)
    issue = [_caa(issuer) for issuer in site.caa]
    made.add(site.hostname, "CAA", [*issue, '0 issuewild ";"'] if issue else [])
    return made.records


def tlsa(site: Site) -> list[dict[str, Any]]:
    """TLSA at the host's ports. An hour at most, so that a change of keys need not wait for longer (RFC 7671 8.4)."""
    made = _Maker(min(site.ttl, 3600))
    for port in site.tlsa_ports:
        made.add(f"_{port}._tcp.{site.hostname}", "TLSA", dict.fromkeys(site.tlsa))
    return made.records


def dkim(site: Site) -> list[dict[str, Any]]:
    """The keys of the active domains and of the host's own name.

    A key without a record (check mode makes none) is left out, so are keys of other domains than these.
    """
    made = _Maker(site.ttl)
    for name in (absolute(domain.name) for domain in site.senders):
        for key in site.dkim:
            if absolute(key.domain) == name and key.record:
                made.add(key.name, "TXT", [key.record])
    return made.records


def mail(site: Site) -> list[dict[str, Any]]:
    """SPF, DMARC, SRV and TLS-RPT of the active domains; SPF and DMARC of the host's own name."""
    made = _Maker(site.ttl)
    host = absolute(site.hostname)
    names = [absolute(domain.name) for domain in site.active]
    for domain in site.senders:
        name = absolute(domain.name)
        made.add(name, "TXT", [spf(site, domain if name in names else None)], match="v=spf1")
        rua = domain.dmarc_rua or site.dmarc_rua
        record = dmarc(domain.dmarc_policy or site.dmarc_policy, site.dmarc_subdomain_policy, rua)
        made.add(f"_dmarc.{name}", "TXT", [record], match="v=DMARC1")
        for target in _report_targets(name, rua, names):
            made.add(f"{name}_report._dmarc.{target}", "TXT", ["v=DMARC1"], match="v=DMARC1")
    for name in names:
        for service, (port, priority) in SERVICES.items():
            value = f"{priority} 1 {port} {host}" if service in site.services else "0 0 0 ."
            made.add(f"_{service}._tcp.{name}", "SRV", [value])
        if site.tls_rpt:
            made.add(
                f"_smtp._tls.{name}",
                "TXT",
                ["v=TLSRPTv1; rua=" + ",".join(map(_report_uri, site.tls_rpt))],
                match="v=TLSRPTv1",
            )
    return made.records


def _report_targets(name: str, rua: Sequence[str], ours: Iterable[str]) -> list[str]:
    """Domains of ours that must agree to receive reports about name (RFC 9990 4); related names need not."""
    found = []
    for address in rua:
        uri = _report_uri(address)
        if uri.startswith("mailto:"):
            target = absolute(uri.rpartition("@")[2])
            if target in ours and not below(target, name) and not below(name, target):
                found.append(target)
    return list(dict.fromkeys(found))


def mx(site: Site) -> list[dict[str, Any]]:
    """MX of the active domains: the host, and nobody else."""
    made = _Maker(site.ttl)
    for domain in site.active:
        made.add(absolute(domain.name), "MX", [f"10 {absolute(site.hostname)}"])
    return made.records


def derive(raw: Mapping[str, Any] | Site) -> dict[str, list[dict[str, Any]]]:
    """All phases; the records are checked against each other. Raises DnsError."""
    made = raw if isinstance(raw, Site) else site(raw)
    phases = (addresses, tlsa, dkim, mail, mx)
    result = {phase.__name__: phase(made) for phase in phases}
    parse_all([record for phase in PHASES for record in result[phase]])
    return result


def zone_text(records: Sequence[Mapping[str, Any]], domains: Iterable[str] = ()) -> str:
    """Records as text to paste into a zone, under headings of the domains given."""
    return text.render(parse_all(records), [absolute(domain) for domain in domains])
