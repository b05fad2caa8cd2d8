# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The host's own resolver, asked with dnspython."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

try:
    import dns.exception
    import dns.resolver

    HAVE_DNSPYTHON = True
except ImportError:
    HAVE_DNSPYTHON = False

from .._command import CommandError, run
from .reverse import LookupFailed, Reverse, confirm

#: options of reverse_dns_info
REVERSE: dict[str, Any] = {
    "address": {"type": "str", "required": True},
    "consequence": {"type": "str", "default": ""},
}
#: seconds in which an answer has to come: a resolver that was just started may fail at first
PATIENCE = 20.0


def records(name: str, rrtype: str) -> list[str]:
    """The values of a name and type, [] where there are none; raises LookupFailed without an answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            resolver = dns.resolver.Resolver()
            answer = resolver.resolve(name, rrtype, raise_on_no_answer=False, search=False, lifetime=PATIENCE / 4)
        except dns.resolver.NXDOMAIN:
            return []
        except dns.resolver.NoResolverConfiguration as exc:
            raise LookupFailed(str(exc)) from exc
        except dns.exception.DNSException as exc:
            if time.monotonic() + PATIENCE / 4 > deadline:
                raise LookupFailed(str(exc)) from exc
            time.sleep(1)
        else:
            return [record.to_text() for record in answer.rrset or ()]


def reverse(address: str) -> Reverse:
    """Whether the address has a name that leads back to it. Raises ValueError for what is no address."""
    found = confirm(address, records)
    if found.reason and found.answered:
        # What the resolver remembers may be from before somebody set the record.
        forget(found.names)
        found = confirm(address, records)
    return found


def forget(names: Sequence[str]) -> None:
    """Let Unbound forget what it knows of the reverse tree and around the names; another resolver has its own time.

    Whole zones: that a name is not there is also known from what stands beside it (RFC 8198) and above it (RFC 8020).
    """
    for zone in ["in-addr.arpa.", "ip6.arpa.", *{f"{name.partition('.')[2] or name}." for name in names}]:
        with contextlib.suppress(CommandError):
            run(["unbound-control", "flush_zone", zone], check=False)
