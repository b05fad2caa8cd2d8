# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The DNS side of a DKIM key: where its record stands and what it says (RFC 6376 3.6, RFC 8463 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = ("rsa", "ed25519")
#: RFC 8301 3.2: signers use at least 2048 bits; more than 4096 need not be verified.
RSA_BITS = (2048, 4096)

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


class DkimError(Exception):
    """A key is not what it should be; the message names the key and the reason, and never quotes a private part."""


@dataclass(frozen=True)
class Wanted:
    """A key that shall exist; bits is 0 for Ed25519."""

    domain: str
    selector: str
    type: str
    bits: int

    @property
    def name(self) -> str:
        """Owner name of the record, without the dot at the end."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def title(self) -> str:
        return f"{self.domain}, selector {self.selector}"


def _labels(text: str, what: str) -> str:
    """Lower case. Raises DkimError for what is no sub-domain of RFC 5321 4.1.2, as RFC 6376 3.1 asks of selectors."""
    name = text.lower()
    for label in name.split("."):
        if len(label) > 63:
            raise DkimError(f"{what} {text!r}: label {label!r} has {len(label)} characters, DNS carries 63")
        if not _LABEL.fullmatch(label):
            raise DkimError(f"{what} {text!r}: label {label!r}: only letters, digits and inner hyphens")
    return name


def parse(raw: Mapping[str, Any]) -> Wanted:
    """One item of `keys`. Raises DkimError."""
    domain = _labels(str(raw["domain"]).rstrip("."), "domain")
    if "." not in domain:
        raise DkimError(f"domain {raw['domain']!r}: has no dot")
    selector = _labels(str(raw["selector"]), "selector")
    bits = int(raw.get("bits") or RSA_BITS[0])
    if raw["type"] == "rsa" and (not RSA_BITS[0] <= bits <= RSA_BITS[1] or bits % 8):
        raise DkimError(f"bits {bits}: {RSA_BITS[0]} to {RSA_BITS[1]}, a multiple of 8 (RFC 8301 3.2)")
    wanted = Wanted(domain, selector, raw["type"], bits if raw["type"] == "rsa" else 0)
    if len(wanted.name) > 253:
        raise DkimError(f"selector {selector!r}: {wanted.name} has {len(wanted.name)} characters, DNS carries 253")
    return wanted


def parse_all(raws: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """All items of `keys`. Raises DkimError with all that is wrong, a line each."""
    result: dict[tuple[str, str], tuple[int, Wanted]] = {}
    wrong = []
    for index, raw in enumerate(raws):
        try:
            wanted = parse(raw)
        except DkimError as exc:
            wrong.append(f"keys[{index}]: {exc}")
            continue
        first = result.setdefault((wanted.domain, wanted.selector), (index, wanted))
        if first[0] != index:
            wrong.append(f"keys[{first[0]}] and keys[{index}]: {wanted.title} is given twice; a selector names one key")
    if wrong:
        raise DkimError("\n".join(wrong))
    return [wanted for _index, wanted in result.values()]


def text(key_type: str, public: str) -> str:
    """The TXT record; public is base64 (RSA: SubjectPublicKeyInfo, Ed25519: the 32 octets)."""
    return f"v=DKIM1; k={key_type}; p={public}"
