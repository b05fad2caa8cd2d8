# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The host's own resolver, asked with dnspython."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

try:
    import dns.exception
    import dns.resolver
    import dns.reversename

    HAVE_DNSPYTHON = True
except ImportError:
    HAVE_DNSPYTHON = False

from .._command import CommandError, run
from .reverse import LookupFailed

#: seconds for one question
PATIENCE = 10.0


def records(name: str, rrtype: str) -> list[str]:
    """The values of a name and type, [] where there are none; raises LookupFailed without an answer."""
    try:
        resolver = dns.resolver.Resolver()
        answer = resolver.resolve(name, rrtype, raise_on_no_answer=False, search=False, lifetime=PATIENCE)
    except dns.resolver.NXDOMAIN:
        return []
    except dns.exception.DNSException as exc:
        raise LookupFailed(str(exc)) from exc
    return [record.to_text() for record in answer.rrset or ()]


def forget(address: str, names: Sequence[str]) -> None:
    """Let Unbound forget what it knows of an address and its names; another resolver forgets in its own time."""
    for name in [str(dns.reversename.from_address(address)), *(f"{name}." for name in names)]:
        with contextlib.suppress(CommandError):
            run(["unbound-control", "flush", name], check=False)
