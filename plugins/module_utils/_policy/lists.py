# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""DNS lists (RFC 5782): how one is written down, what is asked of it, and whether its answers can be believed.

Pure: knows names and answers, asks nobody. The module, the timer on the host and the plan on the controller share it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

#: what of a client is looked up: its address, or one of three names
CLIENT = "client"
NAMES = ("sender", "helo", "reverse_client")
CHECKS = (CLIENT, *NAMES)

#: verdicts
HEALTHY = "healthy"
REFUSED = "refused"  # the operator answers this resolver with an error code
EVERYTHING = "everything"  # lists what must never be listed
DEAD = "dead"  # does not list what must always be listed
SILENT = "silent"  # no answer

# RFC 5782 §5: listed always, and never; a list without IPv6 has neither of the last two.
LISTED, UNLISTED = "127.0.0.2", "127.0.0.1"
LISTED6, UNLISTED6 = "::ffff:127.0.0.2", "::ffff:127.0.0.1"
LISTED_NAME, UNLISTED_NAME = "test", "invalid"

# What an operator says with 127.255.255.x; Spamhaus began it, others follow.
ERRORS = {
    "127.255.255.252": "it knows no zone of this name",
    "127.255.255.254": "it does not answer public resolvers, nor networks without a name of their own",
    "127.255.255.255": "this resolver asked too often",
}
ERROR_CODES = "127.255.255.[1..255]"

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_FIELD = re.compile(r"[^.\[\]]+|\[[^\[\]]*\]")
# 253 octets of text (RFC 1035 §2.3.4), less the 32 nibbles of an IPv6 address with their dots
_ZONE_MAX = 253 - 64


class ListError(ValueError):
    """A list is not written down as it should be; the text is the reason, without the value."""


def reversed_name(address: str, zone: str) -> str:
    """The name that a list knows an address by: octets (IPv4) or all 32 nibbles (IPv6), last first (RFC 5782 §2)."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return f"{pointer.rsplit('.', 2)[0]}.{zone}"


def zone_name(value: str) -> str:
    """Check the name of a list's zone; raises ListError."""
    name = value.lower()
    labels = name.split(".")
    if len(labels) < 2 or not all(_LABEL.match(label) for label in labels):
        raise ListError("is no name of a list: labels of letters, digits and hyphens, at least two of them")
    if len(name) > _ZONE_MAX:
        raise ListError(f"is too long: with an IPv6 address before it DNS can carry {_ZONE_MAX} octets")
    return name


class Replies:
    """The answers that count as a listing, written as Postfix does: 127.0.0.[2..11], 127.0.0.[2;4;10] (postconf(5))."""

    def __init__(self, text: str) -> None:
        """Raises ListError."""
        self.text = text
        parts = _FIELD.findall(text)
        if ".".join(parts) != text or len(parts) != 4:
            raise ListError("is no filter like 127.0.0.[2..11]: four numbers or [lists of them] with dots between")
        self.fields = [_numbers(part) for part in parts]
        first, second, third, fourth = self.fields
        if first != {127}:
            raise ListError("holds answers outside 127.0.0.0/8, which no list gives")
        if 255 in second and 255 in third:
            raise ListError("holds 127.255.255.x: so a list says that it refuses to answer; that is no listing")
        if 0 in second and 0 in third and 1 in fourth:
            raise ListError("holds 127.0.0.1, with which no list says that something is listed (RFC 5782)")

    def match(self, address: str) -> bool:
        """Whether an answer counts."""
        return all(int(octet) in field for octet, field in zip(address.split("."), self.fields))


def _numbers(part: str) -> set[int]:
    """One field of a filter: 2, [2..11], [2;4;10]."""
    found: set[int] = set()
    for item in part.strip("[]").split(";"):
        match = re.fullmatch(r"(\d{1,3})(?:\.\.(\d{1,3}))?", item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or (match[2] and not part.startswith("[")):
            raise ListError(f"is no filter like 127.0.0.[2..11]: {part!r} is neither a number nor a list of numbers")
        if high > 255 or low > high:
            raise ListError(f"is no filter like 127.0.0.[2..11]: {part!r} is no range between 0 and 255")
        found.update(range(low, high + 1))
    return found


@dataclass(frozen=True)
class BlockList:
    """One list: its zone, which answers count, and what is looked up in it."""

    zone: str
    replies: Replies
    checks: tuple[str, ...]

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> BlockList:
        """Read an entry with zone, replies and checks; raises ListError with the reason."""
        checks = tuple(entry["checks"])
        unknown = [check for check in checks if check not in CHECKS]
        if unknown or not checks:
            raise ListError(f"has checks {', '.join(unknown) or 'none'}: there are {', '.join(CHECKS)}")
        return cls(zone_name(str(entry["zone"])), Replies(str(entry["replies"])), checks)

    def plain(self) -> dict[str, Any]:
        """As it is written down."""
        return {"zone": self.zone, "replies": self.replies.text, "checks": list(self.checks)}

    def listed(self) -> list[str]:
        """Names that must be there."""
        found = [reversed_name(LISTED, self.zone)] if CLIENT in self.checks else []
        return found + ([f"{LISTED_NAME}.{self.zone}"] if set(self.checks) & set(NAMES) else [])

    def unlisted(self) -> list[str]:
        """Names that must not be there."""
        found = (
            [reversed_name(address, self.zone) for address in (UNLISTED, UNLISTED6)] if CLIENT in self.checks else []
        )
        return found + ([f"{UNLISTED_NAME}.{self.zone}"] if set(self.checks) & set(NAMES) else [])

    def listed6(self) -> str:
        """The name that is there where a list of addresses knows IPv6."""
        return reversed_name(LISTED6, self.zone)

    def questions(self) -> list[str]:
        """All names that the test asks for."""
        return [*self.listed(), *self.unlisted(), *([self.listed6()] if CLIENT in self.checks else [])]


def parse_all(entries: Iterable[Mapping[str, Any]]) -> list[BlockList]:
    """Read the lists; raises ListError naming the item."""
    found: list[BlockList] = []
    for index, entry in enumerate(entries):
        try:
            item = BlockList.parse(entry)
        except ListError as exc:
            raise ListError(f"lists[{index}] ({entry['zone']}={entry['replies']}): {exc}") from None
        if any(item.zone == other.zone for other in found):
            raise ListError(f"lists[{index}] ({item.zone}): is there twice")
        found.append(item)
    return found


class Verdict(NamedTuple):
    """What the test of a list found."""

    state: str
    reason: str = ""
    #: whether the list knows IPv6 addresses, as far as its test entry tells
    ipv6: bool = False

    @property
    def healthy(self) -> bool:
        return self.state == HEALTHY


def judge(item: BlockList, answers: Mapping[str, tuple[str, ...] | None]) -> Verdict:
    """Judge a list by its answers to questions() (RFC 5782 §5).

    An answer is the addresses that a name has: () where the name does not exist, None where there was no answer.
    """
    for name in item.questions():
        for address in answers[name] or ():
            if address.startswith("127.255.255."):
                meaning = ERRORS.get(address, "its operator's error code")
                return Verdict(REFUSED, f"it refuses to answer this resolver ({address}: {meaning})")
    for name in item.unlisted():
        if answers[name]:
            return Verdict(EVERYTHING, f"it lists what must never be listed: {name} is {_shown(answers[name])}")
    for name in item.questions():
        if answers[name] is None:
            return Verdict(SILENT, f"no answer for {name}")
    for name in item.listed():
        if not answers[name]:
            return Verdict(DEAD, f"it does not list what must always be listed: {name} does not exist")
        if not any(item.replies.match(address) for address in answers[name] or ()):
            return Verdict(
                DEAD, f"{name} is {_shown(answers[name])}, and {item.replies.text} does not hold it: wrong filter?"
            )
    return Verdict(HEALTHY, ipv6=CLIENT in item.checks and bool(answers[item.listed6()]))


def _shown(answer: tuple[str, ...] | None) -> str:
    return ", ".join(sorted(answer or ()))
