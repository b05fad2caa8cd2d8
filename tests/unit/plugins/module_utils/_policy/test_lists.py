# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._policy import lists
from ansible_collections.postmeister.host.plugins.module_utils._policy.lists import BlockList, ListError, Replies

ADDRESSES = BlockList.parse({"zone": "bl.test", "replies": "127.0.0.[2..11]", "checks": ["client"]})
DOMAINS = BlockList.parse({"zone": "dbl.test", "replies": "127.0.1.[2..99]", "checks": ["sender", "helo"]})
BOTH = BlockList.parse({"zone": "all.test", "replies": "127.0.0.2", "checks": ["client", "sender"]})


def answers(item: BlockList, **given: tuple[str, ...] | None) -> dict[str, tuple[str, ...] | None]:
    """A healthy list's answers, and what differs."""
    code = item.replies.text.replace("[2..11]", "2").replace("[2..99]", "2")
    found: dict[str, tuple[str, ...] | None] = dict.fromkeys([*item.listed(), item.listed6()], (code,))
    found.update(dict.fromkeys(item.unlisted(), ()))
    for key, answer in given.items():
        names = {"listed": item.listed(), "unlisted": item.unlisted(), "listed6": [item.listed6()]}
        found.update(dict.fromkeys(names.get(key) or item.questions(), answer))
    return found


def test_addresses_are_reversed_by_octet_and_by_nibble() -> None:
    assert lists.reversed_name("198.51.100.7", "bl.test") == "7.100.51.198.bl.test"
    assert lists.reversed_name("2001:db8::25", "bl.test") == (
        "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test"
    )


def test_the_names_of_the_test() -> None:
    six = "0.0.0.0.0.f.7.f.f.f.f." + "0." * 20
    assert ADDRESSES.listed() == ["2.0.0.127.bl.test"]
    assert ADDRESSES.listed6() == f"2.{six}bl.test"
    assert ADDRESSES.unlisted() == ["1.0.0.127.bl.test", f"1.{six}bl.test"]
    assert DOMAINS.questions() == ["test.dbl.test", "invalid.dbl.test"]
    assert set(BOTH.listed()) == {"2.0.0.127.all.test", "test.all.test"}


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("127.0.0.[2..11]", ["127.0.0.2", "127.0.0.11"], ["127.0.0.12", "127.0.0.30", "127.0.1.2", "10.0.0.2"]),
        ("127.0.0.[2;4;10]", ["127.0.0.4"], ["127.0.0.3"]),
        ("127.0.[0..255].[2..3;9]", ["127.0.7.9", "127.0.255.2"], ["127.1.7.9", "127.0.7.4"]),
        ("127.0.0.2", ["127.0.0.2"], ["127.0.0.20"]),
    ],
)
def test_filters_mean_what_they_mean_to_postfix(text: str, yes: list[str], no: list[str]) -> None:
    replies = Replies(text)
    assert [address for address in yes + no if replies.match(address)] == yes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no filter like"),
        ("127.0.0", "four numbers"),
        ("127.0.0.2.3", "four numbers"),
        ("127.0.0.[2..11", "is no filter like"),
        ("127.0.0.2..11", "is no filter like"),
        ("127.0.0.[11..2]", "is no range between 0 and 255"),
        ("127.0.0.[2..256]", "is no range between 0 and 255"),
        ("127.0.0.[2,3]", "neither a number nor a list of numbers"),
        ("127.0.0.[]", "neither a number nor a list of numbers"),
        ("127.0.0.x", "neither a number nor a list of numbers"),
        ("127.0.0.[2] ", "is no filter like"),
        ("1.2.3.4", "outside 127.0.0.0/8"),
        ("[126..127].0.0.2", "outside 127.0.0.0/8"),
        ("127.255.255.254", "says that it refuses to answer"),
        ("127.[0..255].[0..255].[2..255]", "says that it refuses to answer"),
        ("127.0.0.[1..11]", "holds 127.0.0.1"),
    ],
)
def test_filters_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ListError, match=reason):
        Replies(text)


@pytest.mark.parametrize(
    "zone", ["zen", "zen..org", "-zen.org", "zen.spamhaus.org=127.0.0.2", "a b.org", "x." * 95 + "org", ""]
)
def test_zones_that_are_refused(zone: str) -> None:
    with pytest.raises(ListError):
        lists.zone_name(zone)


def test_problems_name_the_item() -> None:
    good = {"zone": "bl.test", "replies": "127.0.0.2", "checks": ["client"]}
    with pytest.raises(ListError, match=r"lists\[1\] \(bl\.test=127\.0\.0\.\[2\): is no filter"):
        lists.parse_all([good, {**good, "replies": "127.0.0.[2"}])
    with pytest.raises(ListError, match=r"lists\[1\] \(bl\.test\): is there twice"):
        lists.parse_all([good, {**good, "zone": "BL.test"}])
    with pytest.raises(ListError, match=r"checks port: there are client, sender, helo, reverse_client"):
        lists.parse_all([{**good, "checks": ["port"]}])


@pytest.mark.parametrize("item", [ADDRESSES, DOMAINS, BOTH])
def test_verdicts(item: BlockList) -> None:
    found = lists.judge(item, answers(item))
    assert (found.state, found.ipv6) == (lists.HEALTHY, "client" in item.checks)
    assert lists.judge(item, answers(item, listed=())).state == lists.DEAD
    assert lists.judge(item, answers(item, all=None)).state == lists.SILENT
    assert lists.judge(item, answers(item, all=("127.0.0.2",))).state == lists.EVERYTHING
    # A parking place of a sold domain answers with an address of its own.
    assert lists.judge(item, answers(item, all=("198.51.100.9",))).state == lists.EVERYTHING
    refused = lists.judge(item, answers(item, all=("127.255.255.254",)))
    assert (refused.state, "public resolvers" in refused.reason) == (lists.REFUSED, True)


def test_a_list_without_ipv6_is_healthy() -> None:
    found = lists.judge(ADDRESSES, answers(ADDRESSES, listed6=()))
    assert (found.state, found.ipv6) == (lists.HEALTHY, False)


def test_an_answer_that_the_filter_does_not_hold_is_told() -> None:
    found = lists.judge(ADDRESSES, answers(ADDRESSES, listed=("127.0.0.30",)))
    assert found.state == lists.DEAD
    assert "2.0.0.127.bl.test is 127.0.0.30, and 127.0.0.[2..11] does not hold it" in found.reason


def test_one_bad_family_is_enough() -> None:
    six = dict.fromkeys(ADDRESSES.unlisted()[1:], ("127.0.0.2",))
    assert lists.judge(ADDRESSES, {**answers(ADDRESSES), **six}).state == lists.EVERYTHING
