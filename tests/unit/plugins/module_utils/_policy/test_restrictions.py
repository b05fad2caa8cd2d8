# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._policy.restrictions import PolicyError, derive

SMALL = [
    "reject_invalid_helo_hostname",
    "reject_non_fqdn_helo_hostname",
    "reject_non_fqdn_sender",
    "reject_unknown_sender_domain",
    "reject_unknown_reverse_client_hostname",
    "reject_rbl_client zen.spamhaus.org=127.0.0.[2..11]",
    "reject_rhsbl_sender dbl.spamhaus.org=127.0.1.[2..99]",
    "reject_rhsbl_helo dbl.spamhaus.org=127.0.1.[2..99]",
    "reject_rhsbl_reverse_client dbl.spamhaus.org=127.0.1.[2..99]",
    "warn_if_reject reject_rbl_client zen.spamhaus.org=127.255.255.[1..255]",
    "warn_if_reject reject_rhsbl_sender dbl.spamhaus.org=127.255.255.[1..255]",
]


def lines(**policy: Any) -> list[str]:
    return derive(policy)["restrictions"]


def test_small_is_the_default() -> None:
    assert lines() == SMALL == lines(preset="small")
    assert derive({})["lists"] == [
        {"zone": "zen.spamhaus.org", "replies": "127.0.0.[2..11]", "checks": ["client"]},
        {"zone": "dbl.spamhaus.org", "replies": "127.0.1.[2..99]", "checks": ["sender", "helo", "reverse_client"]},
    ]
    assert derive({})["failing_lists"] == "leave_out"


def test_strict_has_more_and_open_nothing() -> None:
    strict = lines(preset="strict")
    assert set(strict) - set(SMALL) == {
        "reject_unknown_client_hostname",
        "reject_unknown_helo_hostname",
        "reject_rbl_client bl.spamcop.net=127.0.0.2",
        "reject_rbl_client psbl.surriel.com=127.0.0.2",
        "warn_if_reject reject_rbl_client bl.spamcop.net=127.255.255.[1..255]",
        "warn_if_reject reject_rbl_client psbl.surriel.com=127.255.255.[1..255]",
    }
    assert [line for line in strict if line in SMALL] == SMALL
    # What asks no list comes before what does.
    assert strict.index("reject_unknown_helo_hostname") < strict.index(SMALL[5])
    assert derive({"preset": "open"}) == {"restrictions": [], "lists": [], "failing_lists": "leave_out"}


def test_each_rule_can_be_switched_and_tried_first() -> None:
    for name in SMALL[:5]:
        assert lines(rules={name: False}) == lines(rules={name: "off"}) == [line for line in SMALL if line != name]
        assert lines(rules={name: "warn"}) == [f"warn_if_reject {line}" if line == name else line for line in SMALL]
    assert lines(preset="open", rules={"reject_unknown_client_hostname": "warn"}) == [
        "warn_if_reject reject_unknown_client_hostname"
    ]
    assert lines(preset="open", rules={"reject_non_fqdn_sender": True}) == ["reject_non_fqdn_sender"]


def test_each_list_can_be_switched_and_tried_first() -> None:
    assert [line for line in lines(lists={"zen.spamhaus.org": "off"}) if "zen" in line] == []
    assert [line for line in lines(lists={"zen.spamhaus.org": {"mode": "warn"}}) if "zen" in line] == [
        "warn_if_reject reject_rbl_client zen.spamhaus.org=127.0.0.[2..11]",
        "warn_if_reject reject_rbl_client zen.spamhaus.org=127.255.255.[1..255]",
    ]
    assert "reject_rbl_client zen.spamhaus.org=127.0.0.[2;3]" in lines(
        lists={"zen.spamhaus.org": {"replies": "127.0.0.[2;3]"}}
    )
    # A list that a preset knows needs no more than its name.
    assert lines(preset="open", lists={"bl.spamcop.net": True}) == [
        "reject_rbl_client bl.spamcop.net=127.0.0.2",
        "warn_if_reject reject_rbl_client bl.spamcop.net=127.255.255.[1..255]",
    ]
    own = {"own.test": {"replies": "127.0.0.2", "checks": ["reverse_client", "client"], "mode": "warn"}}
    assert lines(preset="open", lists=own) == [
        "warn_if_reject reject_rbl_client own.test=127.0.0.2",
        "warn_if_reject reject_rhsbl_reverse_client own.test=127.0.0.2",
        "warn_if_reject reject_rbl_client own.test=127.255.255.[1..255]",
    ]


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"presets": "small"}, "mailserver_policy.presets: is unknown: there are preset, rules, lists, failing_lists"),
        ({"preset": "lax"}, "mailserver_policy.preset: 'lax' must be one of small, strict, open"),
        ({"failing_lists": "ignore"}, "mailserver_policy.failing_lists: 'ignore' must be one of leave_out, fail"),
        ({"rules": ["reject"]}, "mailserver_policy.rules: \"['reject']\" is no dictionary of restrictions"),
        (
            {"rules": {"reject_unkown_sender_domain": True}},
            "mailserver_policy.rules.reject_unkown_sender_domain: is no",
        ),
        (
            {"rules": {"reject_non_fqdn_sender": "yes, please"}},
            "mailserver_policy.rules.reject_non_fqdn_sender: 'yes, please' must be reject, warn or off",
        ),
        (
            {"lists": ["zen.spamhaus.org"]},
            "mailserver_policy.lists: \"['zen.spamhaus.org']\" is no dictionary of lists",
        ),
        ({"lists": {"own.test": True}}, "mailserver_policy.lists[own.test].replies: is not set"),
        ({"lists": {"own": {"replies": "127.0.0.2"}}}, "mailserver_policy.lists[own]: is no name of a list"),
        (
            {"lists": {"own.test": {"replies": "127.0.0.[2..x]"}}},
            "mailserver_policy.lists[own.test].replies: '127.0.0.[2..x]' is no filter like 127.0.0.[2..11]",
        ),
        (
            {"lists": {"own.test": {"replies": "127.255.255.254"}}},
            "mailserver_policy.lists[own.test].replies: '127.255.255.254' holds 127.255.255.x",
        ),
        (
            {"lists": {"own.test": {"replies": "127.0.0.2", "checks": ["recipient"]}}},
            "mailserver_policy.lists[own.test].checks: \"['recipient']\" is no list of client, sender, helo",
        ),
        (
            {"lists": {"own.test": {"reply": "127.0.0.2", "replies": "127.0.0.2"}}},
            "mailserver_policy.lists[own.test].reply: is unknown: there are replies, checks, mode",
        ),
        ({"lists": {"zen.spamhaus.org": "maybe"}}, "mailserver_policy.lists[zen.spamhaus.org]: 'maybe' must be reject"),
    ],
)
def test_mistakes_are_named(policy: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        derive(policy)
    assert str(caught.value).startswith(problem)
    assert len(caught.value.problems) == 1


def test_all_problems_come_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        derive({"preset": "lax", "lists": {"own.test": True}}, sources=["key"], malformed=["zen.spamhaus.org"])
    assert [problem.where for problem in caught.value.problems] == [
        "mailserver_list_sources",
        "mailserver_list_sources[zen.spamhaus.org]",
        "mailserver_policy.preset",
        "mailserver_policy.lists[own.test].replies",
    ]
