# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Whether an address's name in the reverse tree leads back to it (forward-confirmed reverse DNS, RFC 8499 §2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: asks for the records of a name and type; raises LookupFailed without an answer
Ask = Callable[[str, str], Sequence[str]]


class LookupFailed(Exception):
    """The resolver gave no answer; the message says why."""


@dataclass(frozen=True)
class Reverse:
    """What the reverse tree says of an address."""

    names: tuple[str, ...]
    #: why it is not confirmed; empty where it is
    reason: str = ""
    #: whether the resolver answered all that was asked
    answered: bool = True


def confirm(address: str, ask: Ask) -> Reverse:
    """Ask for the names of an address, and for the addresses of these. Raises ValueError for what is no address."""
    wanted = ipaddress.ip_address(address)
    try:
        names = tuple(sorted(name.rstrip(".").lower() for name in ask(f"{wanted.reverse_pointer}.", "PTR")))
    except LookupFailed as exc:
        return Reverse((), f"its PTR record could not be looked up: {exc}", answered=False)
    if not names:
        return Reverse((), "it has no PTR record")
    rrtype = "AAAA" if wanted.version == 6 else "A"
    failures = []
    for name in names:
        try:
            if wanted in [ipaddress.ip_address(found) for found in ask(f"{name}.", rrtype)]:
                return Reverse(names)
        except LookupFailed as exc:
            failures.append(f"; {name} could not be looked up: {exc}")
    reason = f"its PTR record names {', '.join(names)}, which does not lead back to it{''.join(failures)}"
    return Reverse(names, reason, answered=not failures)
