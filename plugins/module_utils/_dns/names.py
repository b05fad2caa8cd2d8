# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Names as DNS carries them: absolute, lower case, with the trailing dot."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


class DnsError(Exception):
    """What is wanted cannot be; the message names the record, the value and the reason."""


def absolute(name: str, what: str = "name", host: bool = False, wildcard: bool = False) -> str:
    """Return the name in lower case and with the trailing dot; the dot may be left out in what is given.

    host: letters, digits and hyphens only (RFC 1123 2.1). wildcard: the first label may be an asterisk.
    Raises DnsError for what DNS cannot carry: labels of 1 to 63 octets, 255 octets in all (RFC 1035 3.1).
    """
    text = name.strip().lower()
    if text == ".":
        return text
    text = text[:-1] if text.endswith(".") else text
    if not text:
        raise DnsError(f"{what} is empty")
    labels = text.split(".")
    for position, label in enumerate(labels):
        if label == "*" and wildcard and position == 0:
            continue
        if not label:
            raise DnsError(f"{what} {name!r}: an empty label (two dots in a row?)")
        if not label.isascii():
            raise DnsError(f"{what} {name!r}: only ASCII; write label {label!r} in its xn-- form")
        if len(label) > 63:
            raise DnsError(f"{what} {name!r}: label {label!r} has {len(label)} characters, DNS carries 63")
        if not (_HOST_LABEL if host else _LABEL).fullmatch(label):
            allowed = "letters, digits and inner hyphens" if host else "letters, digits, underscores and inner hyphens"
            raise DnsError(f"{what} {name!r}: label {label!r}: only {allowed}")
    if len(text) > 253:
        raise DnsError(f"{what} {name!r}: {len(text)} characters, DNS carries 253")
    return text + "."


def wire_length(name: str) -> int:
    """Octets of an absolute name on the wire, uncompressed."""
    return 1 if name == "." else len(name) + 1


def below(name: str, zone: str) -> bool:
    """Whether the absolute name is the zone's apex or lies below it."""
    return zone == "." or name == zone or name.endswith("." + zone)


def longest(name: str, zones: Iterable[str]) -> str | None:
    """The zone with the longest match, or None."""
    return max((zone for zone in zones if below(name, zone)), key=len, default=None)


def parents(name: str) -> list[str]:
    """The name itself, then each name above it, without the root."""
    labels = name.rstrip(".").split(".")
    return [".".join(labels[start:]) + "." for start in range(len(labels))]


def sort_key(name: str) -> tuple[str, ...]:
    """Order of a zone: by labels from the right (RFC 4034 6.1)."""
    return tuple(reversed(name.rstrip(".").split(".")))
