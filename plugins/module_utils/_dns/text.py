# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Zone text: master file lines as RFC 1035 5.1 has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .names import longest, sort_key
from .record import Record, RRset


def strings(value: bytes) -> list[bytes]:
    """Split a TXT value in the character-strings of at most 255 octets that DNS stores."""
    return [value[start : start + 255] for start in range(0, len(value), 255)] or [b""]


def quoted(value: bytes) -> str:
    """A character-string in quotes; quotes and backslashes escaped, what is not printable as a decimal escape."""
    parts = []
    for octet in value:
        char = chr(octet)
        if char in '"\\':
            parts.append("\\" + char)
        elif " " <= char <= "~":
            parts.append(char)
        else:
            parts.append(f"\\{octet:03d}")
    return '"' + "".join(parts) + '"'


def rdata(rrtype: str, value: str) -> list[str]:
    """A canonical value as the words of a zone file; one word, or the strings of a TXT record."""
    if rrtype != "TXT":
        return [value]
    # Foreign values hold one character per octet; ours are ASCII.
    return [quoted(part) for part in strings(value.encode("latin-1"))]


def line(name: str, ttl: int, rrtype: str, value: str) -> str:
    """One record on one line."""
    return f"{name} {ttl} IN {rrtype} {' '.join(rdata(rrtype, value))}"


def lines(rrset: RRset | None) -> list[str]:
    """The lines of an RRset, sorted; none for None."""
    if rrset is None:
        return []
    return sorted(line(rrset.name, rrset.ttl, rrset.type, value) for value in rrset.values)


def render(records: Iterable[Record], groups: Sequence[str] = ()) -> str:
    """Text to paste into a zone: grouped, in columns, long TXT values over several lines.

    groups are absolute names (zones or domains); a record stands in the group that matches longest.
    """
    ordered = sorted(
        records, key=lambda record: (sort_key(longest(record.name, groups) or "."), sort_key(record.name), record.type)
    )
    width = max((len(record.name) for record in ordered), default=0)
    out: list[str] = []
    group: str | None = None
    for record in ordered:
        found = longest(record.name, groups) or ""
        if found != group:
            group = found
            out += ["", f"; {group.rstrip('.') or 'other names'}"]
        if (record.match and "_" not in record.name) or not record.exclusive:
            out.append(f"; beside the other {record.type} records of this name:")
        for value in record.values:
            head = f"{record.name:<{width}} {record.ttl:>6} IN {record.type:<5} "
            words = rdata(record.type, value)
            if len(words) == 1:
                out.append(head + words[0])
            else:
                out += [head + "(", *("    " + word for word in words), ")"]
    return "\n".join(out).lstrip("\n") + ("\n" if out else "")
