# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Zone files: our records in a block of their own, the text around it left alone, the serial raised on change.

Needs dnspython, which reads the file before and after: what it finds in the new text must be what was decided.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .names import DnsError, parents
from .ownership import Step
from .record import RRset
from .rfc2136 import ZoneState
from .text import line

DNSPYTHON_IMPORT_ERROR: str | None = None
try:
    import dns.exception
    import dns.name
    import dns.rdatatype
    import dns.zone
    import dns.zonefile
except ImportError:
    DNSPYTHON_IMPORT_ERROR = traceback.format_exc()

BEGIN = "; BEGIN postmeister.host (these lines are managed; write others outside)"
END = "; END postmeister.host"
#: stands where our block stood while the text around it is edited
_HOLE = "; HOLE postmeister.host\n"

_TOKEN = re.compile(
    r"(?P<space>[ \t]+)|(?P<newline>\r?\n)|(?P<comment>;[^\n]*?(?=\r?\n|$))|(?P<paren>[()])"
    r'|(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>(?:[^\s;()"\\]|\\.)+)',
    re.DOTALL,
)


@dataclass(frozen=True)
class Entry:
    """One entry of a master file: text[start:end], with its line end; words are (text, offset)."""

    start: int
    end: int
    words: tuple[tuple[str, int], ...]
    #: the entry starts with white space, so it is about the owner of the entry before
    inherits: bool


def entries(text: str) -> list[Entry]:
    """Cut a master file in entries (RFC 1035 5.1). Raises DnsError where that is not possible."""
    result: list[Entry] = []
    start = offset = depth = 0
    words: list[tuple[str, int]] = []
    inherits = False
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if not match:
            raise DnsError(f"line {text.count(chr(10), 0, offset) + 1}: not the text of a zone file")
        kind, piece = match.lastgroup, match.group()
        if kind == "space" and offset == start:
            inherits = True
        elif kind == "paren":
            depth += 1 if piece == "(" else -1
        elif kind in ("string", "word"):
            words.append((piece, offset))
        offset = match.end()
        if kind == "newline" and depth == 0:
            if words:
                result.append(Entry(start, offset, tuple(words), inherits))
            start, words, inherits = offset, [], False
    if words:
        result.append(Entry(start, offset, tuple(words), inherits))
    return result


def _without_block(text: str) -> str:
    """The text with a hole where our block stood. Raises DnsError for a block that is cut or doubled."""
    begin = re.compile(r"^; BEGIN postmeister\.host\b[^\n]*\n", re.MULTILINE)
    end = re.compile(r"^; END postmeister\.host\b[^\n]*(?:\n|\Z)", re.MULTILINE)
    begins, ends = list(begin.finditer(text)), list(end.finditer(text))
    if not begins and not ends:
        return text
    if len(begins) != 1 or len(ends) != 1 or ends[0].start() < begins[0].end():
        raise DnsError("the marks of our block (BEGIN, END postmeister.host) are not one pair; set them right by hand")
    return text[: begins[0].start()] + _HOLE + text[ends[0].end() :]


def _parse(text: str, zone: str, what: str) -> Any:
    try:
        # Older versions of dnspython do not know CRLF.
        return dns.zone.from_text(text.replace("\r\n", "\n"), origin=zone, relativize=False, check_origin=True)
    except (dns.exception.DNSException, ValueError, KeyError) as exc:
        raise DnsError(f"{what}: {exc or type(exc).__name__}") from exc


def _state(content: Any, names: Iterable[str]) -> ZoneState:
    state = ZoneState()
    for name in names:
        node = content.get_node(dns.name.from_text(name))
        for rdataset in node or ():
            state.add(name, rdataset)
    return state


def _all_records(content: Any) -> dict[tuple[str, str], RRset]:
    state = ZoneState()
    for name, node in content.nodes.items():
        for rdataset in node:
            if rdataset.rdtype != dns.rdatatype.SOA:
                state.add(str(name).lower(), rdataset)
    return {(name, rrtype): rrset for name, types in state.found.items() for rrtype, rrset in types.items()}


def next_serial(serial: int, today: str) -> int:
    """The serial after this one (RFC 1982): a date as YYYYMMDDnn moves to today (YYYYMMDD), others by one; never 0."""
    first = int(today) * 100
    if 1980010100 <= serial < first and re.fullmatch(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d\d", str(serial)):
        return first
    return (serial + 1) % 2**32 or 1


class ZoneFile:
    """The text of one zone."""

    def __init__(self, path: str, zone: str, content: bytes) -> None:
        """Raises DnsError for a file that holds no zone, or another one."""
        self.path = path
        self.zone = zone
        self._text = content.decode("utf-8", "surrogateescape")
        try:
            for entry in entries(self._text):
                if entry.words[0][0].upper() == "$INCLUDE":
                    raise DnsError("$INCLUDE: what other files hold is not seen here, so this file cannot be managed")
            self._outside = _without_block(self._text)
            self._parsed = _parse(self._text, zone, "not a valid zone")
        except DnsError as exc:
            raise DnsError(f"{path} (zone {zone}): {exc}") from exc

    def read(self, names: Sequence[str]) -> dict[str, dict[str, RRset]]:
        """What stands at the names. Raises DnsError for a name that the zone delegates."""
        cuts = {
            str(name).lower()
            for name, node in self._parsed.nodes.items()
            if any(rdataset.rdtype == dns.rdatatype.NS for rdataset in node)
        }
        for name in names:
            for parent in parents(name):
                if parent == self.zone:
                    break
                if parent in cuts:
                    raise DnsError(f"{name}: zone {self.zone} delegates {parent} to other servers (NS records)")
        return _state(self._parsed, names).found

    def new_content(self, groups: Sequence[Sequence[Step]], today: str) -> bytes:
        """The file with the steps applied. Raises DnsError when the new text does not hold what was decided."""
        steps = [step for group in groups for step in group]
        wanted = _all_records(self._parsed)
        for step in steps:
            if step.after is None:
                wanted.pop(step.key, None)
            else:
                wanted[step.key] = step.after
        try:
            text = self._build(steps, wanted, today)
            found = _all_records(_parse(text, self.zone, "the new text is not a valid zone"))
        except DnsError as exc:
            raise DnsError(f"{self.path} (zone {self.zone}): {exc}") from exc
        for key in {**wanted, **found}:
            if key not in wanted or not wanted[key].same(found.get(key)):
                raise DnsError(
                    f"{self.path} (zone {self.zone}): the new text would not hold what is wanted at {key[1]} {key[0]};"
                    " nothing was written"
                )
        return text.encode("utf-8", "surrogateescape")

    def _build(self, steps: Sequence[Step], wanted: Mapping[tuple[str, str], RRset], today: str) -> str:
        outside = self._outside
        # What stands outside and shall go (takeover, or a record that was ours and was moved out of the block).
        for step in steps:
            outside = _cut(outside, self.zone, step)
        remaining = _all_records(_parse(outside, self.zone, "without our block it is not a valid zone"))
        block: list[str] = []
        before = _all_records(self._parsed)
        touched = {step.key for step in steps}
        for key, rrset in sorted(wanted.items(), key=lambda item: (tuple(reversed(item[0][0].split("."))), item[0][1])):
            if key not in touched and key in before and before[key].same(remaining.get(key)):
                continue
            there = remaining[key].values if key in remaining else ()
            block += [line(*_head(rrset), value) for value in rrset.values if value not in there]
        newline = "\r\n" if "\r\n" in self._text else "\n"
        lines = newline.join([BEGIN, *block, END, ""]) if block else ""
        head, hole, tail = outside.partition(_HOLE)
        if lines and not hole and head and not head.endswith("\n"):
            head += newline
        return _with_serial(head + lines + tail, self.zone, today)


def _head(rrset: RRset) -> tuple[str, int, str]:
    return (rrset.name, rrset.ttl, rrset.type)


def _cut(text: str, zone: str, step: Step) -> str:
    """Take the values that shall go out of the text; entries that inherit the owner get it written out."""
    after = set(step.after.values) if step.after else set()
    before = step.before
    if before is None:
        return text
    moved_ttl = step.after is not None and step.after.ttl != before.ttl
    go = {value for value in before.values if value not in after or moved_ttl}
    if not go:
        return text
    return _cut_values(text, zone, step.key, go)


def _cut_values(text: str, zone: str, key: tuple[str, str], go: set[str]) -> str:
    found = entries(text)
    out: list[str] = []
    position = 0
    owner = origin = zone
    ttl = ""
    orphaned = False
    for entry in found:
        word = entry.words[0][0]
        if word.startswith("$"):
            if word.upper() == "$ORIGIN":
                origin = _absolute(entry.words[1][0], origin)
            elif word.upper() == "$TTL":
                ttl = f"$TTL {entry.words[1][0]}\n"
            continue
        if not entry.inherits:
            owner = _absolute(word, origin)
        body = text[entry.start : entry.end]
        if _matches(body, ttl, owner, origin, zone, entry.inherits, key, go):
            out.append(text[position : entry.start])
            position = entry.end
            orphaned = orphaned or not entry.inherits
        elif entry.inherits and orphaned:
            out.append(text[position : entry.start] + owner)
            position = entry.start
            orphaned = False
        elif not entry.inherits:
            orphaned = False
    return "".join([*out, text[position:]])


def _absolute(name: str, origin: str) -> str:
    return str(dns.name.from_text(name, dns.name.from_text(origin))).lower()


def _matches(
    body: str, ttl: str, owner: str, origin: str, zone: str, inherits: bool, key: tuple[str, str], go: set[str]
) -> bool:
    """Whether an entry is one of the records that go."""
    if owner != key[0] or key[1] not in body.upper():
        return False
    head = f"$ORIGIN {origin}\n{ttl or '$TTL 3600' + chr(10)}"
    probe = _Probe(head + (owner if inherits else "") + body, zone)
    return any(rrset.name == key[0] and rrset.type == key[1] and set(rrset.values) & go for rrset in probe.rrsets)


class _Probe:
    """One entry read by dnspython."""

    def __init__(self, text: str, zone: str) -> None:
        content = dns.zone.from_text(text.replace("\r\n", "\n"), origin=zone, relativize=False, check_origin=False)
        self.rrsets = list(_all_records(content).values())


def _with_serial(text: str, zone: str, today: str) -> str:
    for entry in entries(text):
        words = [word.upper() for word, _offset in entry.words]
        if "SOA" in words[:4] and not words[0].startswith("$"):
            at = words.index("SOA") + 3
            if at < len(entry.words) and entry.words[at][0].isdigit():
                serial, offset = entry.words[at]
                return text[:offset] + str(next_serial(int(serial), today)) + text[offset + len(serial) :]
    raise DnsError(f"no SOA record of {zone} with a serial was found in the text")
