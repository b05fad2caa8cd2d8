# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The model of one mail host: what the inventory says, checked, and what follows from it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Callable

from .addresses import AddressError, comparable, normalize_address, normalize_domain
from .directory import Directory, DirectoryError, Problem, build_directory, parse_quota, target

# RFC 1035 §2.3.1 letters, digits, hyphen; a selector may have several labels (RFC 6376 §3.1).
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_TIME = re.compile(r"[1-9][0-9]*[smhdw]\Z")

DOMAIN_STATES = ("active", "staged", "absent")
DMARC_POLICIES = ("none", "quarantine", "reject")


class SiteError(Exception):
    """The inventory cannot become a mail host; holds all problems found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Checker:
    """Collects problems, so that the operator sees all of them at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def refuse(self, where: str, value: Any, reason: str) -> None:
        self.problems.append(Problem(where, "" if value is None else str(value), reason))

    def parsed(self, where: str, value: Any, parse: Callable[[str], str]) -> str | None:
        try:
            return parse(str(value))
        except (AddressError, ValueError) as exc:
            self.refuse(where, value, str(exc))
            return None

    def choice(self, where: str, value: str, choices: tuple[str, ...]) -> None:
        if value not in choices:
            self.refuse(where, value, f"must be one of {', '.join(choices)}")


def host_name(value: str) -> str:
    """A host name with at least one dot (RFC 5321 §4.1.1.1 wants a fully qualified name in EHLO)."""
    name = normalize_domain(value)
    if "." not in name:
        raise ValueError("is no fully qualified host name: it has no dot")
    return name


def ip_address(version: int) -> Callable[[str], str]:
    """A parser for one exact address of that IP version; '' stays ''."""

    def parse(value: str) -> str:
        if not value:
            return ""
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            raise ValueError(f"is no IPv{version} address") from None
        if address.version != version:
            raise ValueError(f"is an IPv{address.version} address where an IPv{version} address is due")
        if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
            raise ValueError("other hosts cannot reach this address")
        return str(address)

    return parse


def selector_name(value: str) -> str:
    """A DKIM selector that DNS can carry: labels of letters, digits and hyphens (RFC 6376 §3.1)."""
    name = value.lower()
    if not name or not all(_LABEL.match(label) for label in name.split(".")):
        raise ValueError("is no DKIM selector: labels are letters, digits and hyphens, at most 63 of them")
    return name


def derive(site: Mapping[str, Any]) -> dict[str, Any]:
    """Check the inventory of one mail host and derive what all roles share.

    site has the options of the action mail_plan. The plan holds plain values and no secret.
    Raises SiteError with all problems.
    """
    check = _Checker()
    hostname = check.parsed("mailserver_hostname", site["hostname"], host_name) or ""
    ipv4 = check.parsed("mailserver_ipv4", site.get("ipv4") or "", ip_address(4)) or ""
    ipv6 = check.parsed("mailserver_ipv6", site.get("ipv6") or "", ip_address(6)) or ""
    if not site.get("ipv4") and not site.get("ipv6"):
        check.refuse(
            "mailserver_ipv4", None, "neither mailserver_ipv4 nor mailserver_ipv6 is set: mail needs an address"
        )
    domains = _domains(site.get("domains") or [], hostname, check)
    selectors = _selectors(site.get("dkim_selectors") or [], [d["name"] for d in domains] or [hostname], check)
    _settings(site, check)
    postmaster = check.parsed("mailserver_postmaster", site.get("postmaster") or "", _postmaster)
    if postmaster and postmaster.endswith(f"@{hostname}"):
        # Mail to the host's own name goes to the postmaster.
        check.refuse("mailserver_postmaster", postmaster, "is at the host's own name, whose mail would lead to itself")
    directory = _directory(site, domains, postmaster or "", check)
    if check.problems:
        raise SiteError(check.problems)
    active = [domain for domain in domains if domain["state"] == "active"]
    served = [domain for domain in domains if domain["state"] != "absent"]
    return {
        "hostname": hostname,
        "ipv4": ipv4,
        "ipv6": ipv6,
        "postmaster": postmaster,
        "quota": _quota(site),
        "probe_recipient": f"postmaster@{served[0]['name']}",
        # What a mail program that leaves out the domain of a sender means
        "submission_origin": served[0]["name"],
        "directory": directory,
        "dkim_keys": [
            {"domain": name, **selector} for name in [*(d["name"] for d in served), hostname] for selector in selectors
        ],
        "publish": {
            "hostname": hostname,
            "ipv4": ipv4,
            "ipv6": ipv6,
            "domains": active,
            "services": _services(site),
            "dmarc_policy": site["dmarc_policy"],
            "caa": _caa(site),
            "ttl": site["dns_ttl"],
        },
    }


def _postmaster(value: str) -> str:
    if not value:
        raise ValueError("is not set: RFC 5321 §4.5.1 asks for a postmaster who reads mail")
    return normalize_address(value)


def _domains(entries: list[Mapping[str, Any]], hostname: str, check: _Checker) -> list[dict[str, Any]]:
    domains: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    if not entries:
        check.refuse("mailserver_domains", None, "is empty: a mail host serves at least one domain")
    for index, entry in enumerate(entries):
        where = f"mailserver_domains[{index}]"
        name = check.parsed(f"{where}.name", entry["name"], host_name)
        state = entry.get("state") or "active"
        check.choice(f"{where}.state", state, DOMAIN_STATES)
        policy = entry.get("dmarc_policy") or ""
        if policy:
            check.choice(f"{where}.dmarc_policy", policy, DMARC_POLICIES)
        for mechanism in entry.get("spf") or []:
            if re.search(r"\s|^[+?~-]?all$|^v=spf1", mechanism, re.IGNORECASE):
                check.refuse(
                    f"{where}.spf", mechanism, "is not one further SPF mechanism; `v=spf1` and `-all` are added"
                )
        if name is None:
            continue
        if name in seen:
            check.refuse(f"{where}.name", name, f"is mailserver_domains[{seen[name]}] already")
        if name == hostname:
            # Postfix would have to deliver it both locally and to virtual mailboxes.
            check.refuse(
                f"{where}.name", name, "is the host's own name; mail for it goes to mailserver_postmaster anyway"
            )
        seen.setdefault(name, index)
        domains.append(
            {
                "name": name,
                "state": state,
                "spf": list(entry.get("spf") or []),
                "dmarc_policy": policy,
                "dmarc_rua": list(entry.get("dmarc_rua") or []),
                "catch_all": entry.get("catch_all") or "",
                "postmaster": comparable(entry.get("postmaster") or ""),
            }
        )
    if entries and not any(domain["state"] != "absent" for domain in domains) and not check.problems:
        check.refuse("mailserver_domains", None, "all are absent: a mail host serves at least one domain")
    return domains


def _selectors(entries: list[Mapping[str, Any]], domains: list[str], check: _Checker) -> list[dict[str, str]]:
    selectors: list[dict[str, str]] = []
    for index, entry in enumerate(entries):
        where = f"mailserver_dkim_selectors[{index}]"
        for key in sorted(entry.keys() - {"selector", "type"}):
            check.refuse(f"{where}.{key}", entry[key], "is unknown; a key has selector and type")
        name = check.parsed(f"{where}.selector", entry.get("selector") or "", selector_name)
        check.choice(f"{where}.type", str(entry.get("type")), ("rsa", "ed25519"))
        if name is None:
            continue
        for domain in domains:
            # RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text.
            if len(f"{name}._domainkey.{domain}") > 253:
                check.refuse(f"{where}.selector", name, f"{name}._domainkey.{domain} is longer than DNS allows")
        if any(name == other["selector"] for other in selectors):
            check.refuse(f"{where}.selector", name, "is there twice: each key has a selector of its own")
        selectors.append({"selector": name, "type": str(entry.get("type"))})
    if not any(entry["type"] == "rsa" for entry in selectors) and not check.problems:
        check.refuse(
            "mailserver_dkim_selectors", None, "holds no rsa key: many receivers cannot verify ed25519 (RFC 8463 §6)"
        )
    return selectors


def _settings(site: Mapping[str, Any], check: _Checker) -> None:
    check.choice("mailserver_dmarc_policy", site["dmarc_policy"], DMARC_POLICIES)
    check.choice("mailserver_mail_format", site["mail_format"], ("maildir", "mbox"))
    check.choice("mailserver_tls_method", site["tls_method"], ("acme", "files", "selfsigned"))
    check.choice("mailserver_acme_challenge", site["acme_challenge"], ("http-01", "dns-01"))
    check.choice("mailserver_dns_provider", site["dns_provider"], ("none", "rfc2136", "zonefile"))
    if not _TIME.match(str(site["queue_lifetime"])):
        check.refuse(
            "mailserver_queue_lifetime", site["queue_lifetime"], "is no time like 5d or 48h (postconf(5), time units)"
        )
    try:
        parse_quota(site["quota"])
    except ValueError as exc:
        check.refuse("mailserver_quota", site["quota"], str(exc))
    # Without a private key the certificate is one that was ordered with the host's own next.csr.
    if site["tls_method"] == "files" and not site.get("tls_certificate"):
        check.refuse("mailserver_tls_certificate", None, "is not set, and mailserver_tls_method is files")
    if site["dns_provider"] == "rfc2136":
        for name in ("dns_server", "dns_key_name"):
            if not site.get(name):
                check.refuse(f"mailserver_{name}", None, "is not set, and mailserver_dns_provider is rfc2136")
        if not site.get("dns_key_given"):
            check.refuse("mailserver_dns_key_secret", None, "is not set, and mailserver_dns_provider is rfc2136")
    elif site["tls_method"] == "acme" and site["acme_challenge"] == "dns-01":
        check.refuse(
            "mailserver_acme_challenge", "dns-01", "needs mailserver_dns_provider: rfc2136, which writes the challenge"
        )
    if site["dns_provider"] == "zonefile" and not site.get("dns_zonefile"):
        check.refuse("mailserver_dns_zonefile", None, "is not set, and mailserver_dns_provider is zonefile")


def _quota(site: Mapping[str, Any]) -> str:
    """The default quota in a unit that Dovecot 2.3 and 2.4 read alike; a bare number is KiB to the former."""
    size = parse_quota(site["quota"])
    return f"{size}B" if size else ""


def _services(site: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "submissions": True,
        "submission": bool(site["starttls_submission"]),
        "imaps": True,
        "pop3s": bool(site["pop3"]),
        "sieve": bool(site["managesieve"]),
    }


def _caa(site: Mapping[str, Any]) -> list[str]:
    """Who may issue for the host's name (RFC 8659 §4.2); nobody said, nothing published."""
    return list(site.get("acme_issuers") or []) if site["tls_method"] == "acme" else []


def _read_by_somebody(directory: Directory, postmaster: str, check: _Checker) -> None:
    """Root's mail, and that of each domain's postmaster, which RFC 5321 §4.5.1 asks for, has to reach a mailbox."""
    if postmaster and target(directory, postmaster)[0] == "nowhere":
        check.refuse("mailserver_postmaster", postmaster, "is neither a mailbox nor an alias")
    for name in directory.domains:
        if target(directory, f"postmaster@{name}")[0] == "nowhere":
            words = f"nobody reads postmaster@{name} (RFC 5321 §4.5.1): a role address, mailbox or alias is due"
            check.refuse("mailserver_role_addresses", None, words)


def _directory(
    site: Mapping[str, Any], domains: list[dict[str, Any]], postmaster: str, check: _Checker
) -> dict[str, list[dict[str, Any]]]:
    """Domains and aliases for mail_directory: what the operator wrote, and the role addresses of RFC 2142."""
    aliases = [dict(entry) for entry in site.get("aliases") or []]
    own = len(aliases)
    places = [f"mailserver_aliases[{index}]" for index in range(len(aliases))]
    taken = {comparable(str(entry.get("address", ""))) for entry in [*(site.get("mailboxes") or []), *aliases]}

    def add(place: str, address: str, recipient: str) -> None:
        if recipient and address not in taken:
            aliases.append({"address": address, "destinations": [recipient]})
            places.append(place)

    for index, domain in enumerate(domains):
        if domain["state"] == "absent":
            continue
        add(f"mailserver_domains[{index}].catch_all", f"@{domain['name']}", domain["catch_all"])
        place = f"mailserver_domains[{index}].postmaster" if domain["postmaster"] else "mailserver_postmaster"
        for role in site.get("role_addresses") or []:
            address = f"{role}@{domain['name']}".lower()
            if address != (domain["postmaster"] or postmaster):
                add(place, address, domain["postmaster"] or postmaster)
    served = [
        {"name": domain["name"], "state": "absent" if domain["state"] == "absent" else "present"} for domain in domains
    ]
    # A large directory lies in a file, which mail_directory judges before it writes anything.
    if not site.get("directory_src") and not check.problems:
        wheres = {"aliases": places, "domains": [f"mailserver_domains[{index}]" for index in range(len(domains))]}
        try:
            directory = build_directory(
                served,
                site.get("mailboxes") or [],
                aliases,
                allow_external=bool(site.get("forwarding")),
                place=lambda kind, index: wheres[kind][index] if kind in wheres else f"mailserver_{kind}[{index}]",
            )
        except DirectoryError as exc:
            check.problems.extend(exc.problems)
        else:
            _read_by_somebody(directory, postmaster, check)
    return {"domains": served, "aliases": aliases[:own], "fallback_aliases": aliases[own:]}
