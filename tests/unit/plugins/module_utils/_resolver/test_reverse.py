# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._resolver.reverse import Ask, LookupFailed, confirm

FOUR, SIX = "198.51.100.25", "2001:db8:51::25"
POINTER4 = "25.100.51.198.in-addr.arpa."
POINTER6 = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.5.0.0.8.b.d.0.1.0.0.2.ip6.arpa."


def zone(**records: list[str] | None) -> Ask:
    """A resolver that knows these, by "name type"; None means that it gives no answer."""

    def ask(name: str, rrtype: str) -> list[str]:
        found = records.get(f"{name} {rrtype}", [])
        if found is None:
            raise LookupFailed("SERVFAIL")
        return found

    return ask


@pytest.mark.parametrize(("address", "pointer", "rrtype"), [(FOUR, POINTER4, "A"), (SIX, POINTER6, "AAAA")])
def test_confirmed(address: str, pointer: str, rrtype: str) -> None:
    ask = zone(**{f"{pointer} PTR": ["MX.Example.test."], f"mx.example.test. {rrtype}": [address]})
    found = confirm(address, ask)
    assert (found.names, found.reason) == (("mx.example.test",), "")


def test_one_name_of_several_is_enough_and_the_address_may_be_written_in_full() -> None:
    ask = zone(
        **{f"{POINTER6} PTR": ["b.test.", "a.test."], "b.test. AAAA": ["2001:0db8:0051:0:0:0:0:0025", "2001:db8::1"]}
    )
    found = confirm(SIX, ask)
    assert (found.names, found.reason) == (("a.test", "b.test"), "")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({}, "it has no PTR record"),
        ({f"{POINTER6} PTR": None}, "its PTR record could not be looked up: SERVFAIL"),
        (
            {f"{POINTER6} PTR": ["a.test."], "a.test. AAAA": ["2001:db8::1"], "a.test. A": [FOUR]},
            "its PTR record names a.test, which does not lead back to it",
        ),
        (
            {f"{POINTER6} PTR": ["a.test."], "a.test. AAAA": None},
            "its PTR record names a.test, which does not lead back to it; a.test could not be looked up: SERVFAIL",
        ),
    ],
)
def test_not_confirmed(records: dict[str, list[str] | None], reason: str) -> None:
    found = confirm(SIX, zone(**records))
    assert found.reason == reason
    assert found.answered == ("could not be looked up" not in reason)


def test_no_address() -> None:
    with pytest.raises(ValueError, match=r"mx\.example\.test"):
        confirm("mx.example.test", zone())
