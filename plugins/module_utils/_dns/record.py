# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Records as they are wanted: checked, in one form, and measured."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from .names import DnsError, absolute, wire_length

#: Octets that one RRset may take, so that it fits in one UPDATE of 64 KiB with its prerequisite, header and TSIG.
RRSET_LIMIT = 30000


@dataclass(frozen=True)
class Record:
    """What shall be at one name and type.

    ttl is in seconds. TXT values are the text itself: no quotes, not split; others as in a zone file, names absolute.
    match: only values that start with this word are meant (TXT). exclusive: no other value may stand in what is meant.
    """

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]
    match: str = ""
    exclusive: bool = True

    @property
    def slot(self) -> tuple[str, str, str]:
        return (self.name, self.type, self.match)

    @property
    def title(self) -> str:
        return f"{self.type} {self.name}" + (f" ({self.match})" if self.match else "")

    def means(self, value: str) -> bool:
        """Whether a value found at this name and type is one that this record speaks of."""
        return not self.match or starts_with_word(value, self.match)


def starts_with_word(value: str, word: str) -> bool:
    """Whether a TXT value starts with the word, case ignored: v=spf1 is not the start of v=spf10 (RFC 7208 4.5)."""
    head, rest = value[: len(word)], value[len(word) :]
    return head.lower() == word.lower() and (not rest or not rest[0].isalnum())


def _number(text: str, what: str, highest: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > highest:
        raise DnsError(f"{what} {text!r}: a number from 0 to {highest} is due")
    return int(text)


def _fields(value: str, names: str) -> list[str]:
    fields = value.split()
    if len(fields) != len(names.split()):
        raise DnsError(f"value {value!r}: due are: {names}")
    return fields


def _a(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as exc:
        raise DnsError(f"value {value!r}: an IPv4 address is due") from exc


def _aaaa(value: str) -> str:
    try:
        return str(ipaddress.IPv6Address(value))
    except ValueError as exc:
        raise DnsError(f"value {value!r}: an IPv6 address is due") from exc


def _mx(value: str) -> str:
    preference, target = _fields(value, "preference host")
    number = _number(preference, "preference", 65535)
    try:
        ipaddress.ip_address(target)
    except ValueError:
        return f"{number} {absolute(target, 'host', host=True)}"
    raise DnsError(f"value {value!r}: a host name is due, not an address (RFC 5321 5.1)")


def _srv(value: str) -> str:
    priority, weight, port, target = _fields(value, "priority weight port host")
    numbers = [
        _number(text, what, 65535) for text, what in ((priority, "priority"), (weight, "weight"), (port, "port"))
    ]
    return " ".join(map(str, numbers)) + " " + absolute(target, "host", host=True)


_TLSA_LENGTH = {1: 64, 2: 128}


def _tlsa(value: str) -> str:
    parts = value.split(None, 3)
    if len(parts) != 4:
        raise DnsError(f"value {value!r}: due are: usage selector type digest")
    usage, selector = _number(parts[0], "usage", 3), _number(parts[1], "selector", 1)
    matching = _number(parts[2], "matching type", 2)
    digest = "".join(parts[3].split()).lower()
    if not re.fullmatch(r"(?:[0-9a-f]{2})+", digest):
        raise DnsError(f"value {value!r}: the digest must be hexadecimal")
    if matching in _TLSA_LENGTH and len(digest) != _TLSA_LENGTH[matching]:
        raise DnsError(
            f"value {value!r}: matching type {matching} has {_TLSA_LENGTH[matching]} hex digits, not {len(digest)}"
        )
    return f"{usage} {selector} {matching} {digest}"


_CAA = re.compile(r'(\S+)\s+(\S+)\s+(?:"([^"\\]*)"|([^"\\\s]+))')


def _caa(value: str) -> str:
    match = _CAA.fullmatch(value.strip())
    if not match:
        raise DnsError(f'value {value!r}: due are: flags tag "value"')
    flags, tag = _number(match[1], "flags", 255), match[2].lower()
    if not re.fullmatch(r"[a-z0-9]{1,15}", tag):
        raise DnsError(f"value {value!r}: tag {tag!r}: letters and digits only, at most 15")
    return f'{flags} {tag} "{_printable(match[3] if match[3] is not None else match[4])}"'


def _printable(value: str) -> str:
    bad = next((char for char in value if not " " <= char <= "~"), None)
    if bad is not None:
        raise DnsError(f"value {value!r}: printable ASCII only, not {bad!r}")
    return value


def _txt(value: str) -> str:
    if value.startswith('"') and value.endswith('"'):
        raise DnsError(f"value {value!r}: give the text itself, without quotes")
    if not value:
        raise DnsError("value '': is empty")
    return _printable(value)


_FORMS: dict[str, Callable[[str], str]] = {
    "A": _a,
    "AAAA": _aaaa,
    "CAA": _caa,
    "CNAME": lambda value: absolute(value, "target"),
    "MX": _mx,
    "PTR": lambda value: absolute(value, "target", host=True),
    "SRV": _srv,
    "TLSA": _tlsa,
    "TXT": _txt,
}
TYPES = tuple(_FORMS)


def canonical(rrtype: str, value: str) -> str:
    """One form for equal values. Raises DnsError for a value that the type cannot have."""
    return _FORMS[rrtype](value)


def canonical_or_as_is(rrtype: str, value: str) -> str:
    """The same for what stands in somebody's zone: what we would not accept stays as it is."""
    try:
        return canonical(rrtype, value)
    except (DnsError, KeyError):
        return value


def rdata_length(rrtype: str, value: str) -> int:
    """Octets of a canonical value on the wire, uncompressed."""
    if rrtype == "TXT":
        return len(value) + max(1, -(-len(value) // 255))
    if rrtype in ("CNAME", "PTR"):
        return wire_length(value)
    if rrtype == "A":
        return 4
    if rrtype == "AAAA":
        return 16
    head, _space, tail = value.rpartition(" ")
    if rrtype in ("MX", "SRV"):
        return 2 * len(head.split()) + wire_length(tail)
    if rrtype == "TLSA":
        return 3 + len(tail) // 2
    return len(value)


def rrset_length(name: str, rrtype: str, values: Iterable[str]) -> int:
    """Octets of an RRset in a message, uncompressed."""
    return sum(wire_length(name) + 10 + rdata_length(rrtype, value) for value in values)


def parse(raw: Mapping[str, Any], label: str) -> Record:
    """One item of a `records` list. Raises DnsError that starts with the label and names the record."""
    rrtype = str(raw.get("type") or "").upper()
    title = f"{label} ({rrtype} {raw.get('name')})"
    try:
        return _parse(raw, rrtype)
    except DnsError as exc:
        raise DnsError(f"{title}: {exc}") from exc


def _parse(raw: Mapping[str, Any], rrtype: str) -> Record:
    if rrtype not in _FORMS:
        raise DnsError(f"type {rrtype!r}: one of {', '.join(_FORMS)} is due")
    name = absolute(str(raw.get("name") or ""), wildcard=True, host=rrtype in ("A", "AAAA", "MX"))
    ttl = int(3600 if raw.get("ttl") is None else raw["ttl"])
    if not 0 <= ttl <= 2147483647:
        raise DnsError(f"ttl {ttl}: 0 to 2147483647 seconds are possible (RFC 2181 8)")
    match = raw.get("match") or ""
    if match and rrtype != "TXT":
        raise DnsError(f"match {match!r}: only TXT records share an RRset in this way")
    given = raw.get("values") or []
    values = tuple(canonical(rrtype, str(value)) for value in given)
    if not values:
        raise DnsError("values: is empty")
    twice = next((given[at] for at, value in enumerate(values) if value in values[:at]), None)
    if twice is not None:
        raise DnsError(f"values: {twice!r} stands there twice")
    record = Record(name, rrtype, ttl, values, match, bool(raw.get("exclusive", True)))
    stranger = next((value for value in values if not record.means(value)), None)
    if stranger is not None:
        raise DnsError(f"value {stranger!r}: does not start with match {match!r}")
    if rrtype == "CNAME" and len(values) > 1:
        raise DnsError("values: a name has one CNAME at most (RFC 2181 10.1)")
    null = [value for value in values if rrtype in ("MX", "SRV") and value.endswith(" .")]
    if null and len(values) > 1:
        raise DnsError(f"value {null[0]!r}: 'no service' stands alone (RFC 7505 3, RFC 2782)")
    size = rrset_length(name, rrtype, values)
    if size > RRSET_LIMIT:
        raise DnsError(f"{size} octets; {RRSET_LIMIT} fit into one update together with what they replace")
    return record


def parse_all(raws: Sequence[Mapping[str, Any]], label: str = "records") -> list[Record]:
    """All items, checked one by one and against each other; one TTL per RRset (RFC 2181 5.2).

    Raises DnsError with all that is wrong, a line each.
    """
    records: list[Record] = []
    wrong: list[str] = []
    seen: dict[tuple[str, str, str], int] = {}
    for index, raw in enumerate(raws):
        try:
            record = parse(raw, f"{label}[{index}]")
        except DnsError as exc:
            wrong.append(str(exc))
            continue
        if record.slot in seen:
            wrong.append(f"{label}[{index}] ({record.title}): the same record as {label}[{seen[record.slot]}]")
        seen.setdefault(record.slot, index)
        records.append(record)
    aliases = {record.name for record in records if record.type == "CNAME"}
    for record in records:
        if record.name in aliases and record.type != "CNAME":
            wrong.append(
                f"{label}[{seen[record.slot]}] ({record.title}): a CNAME is wanted at the same name (RFC 1034 3.6.2)"
            )
    if wrong:
        raise DnsError("\n".join(wrong))
    lowest: dict[tuple[str, str], int] = {}
    for record in records:
        key = (record.name, record.type)
        lowest[key] = min(record.ttl, lowest.get(key, record.ttl))
    return [replace(record, ttl=lowest[record.name, record.type]) for record in records]


def as_dict(record: Record) -> dict[str, Any]:
    """The item of a `records` list that parse() turns into this record."""
    return {
        "name": record.name,
        "type": record.type,
        "ttl": record.ttl,
        "values": list(record.values),
        "match": record.match,
        "exclusive": record.exclusive,
    }


@dataclass(frozen=True)
class RRset:
    """What stands in a zone; values in canonical form, in the order found."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]

    def same(self, other: RRset | None) -> bool:
        return other is not None and self.ttl == other.ttl and set(self.values) == set(other.values)
