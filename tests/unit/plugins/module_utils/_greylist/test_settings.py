# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._greylist import settings
from ansible_collections.postmeister.host.plugins.module_utils._greylist.settings import SettingsError

DEFAULTS = {name: spec["default"] for name, spec in settings.SPEC.items()}


def checked(**given: Any) -> settings.Settings:
    return settings.settings({**DEFAULTS, **given})


def refused(**given: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        checked(**given)
    return str(caught.value).splitlines()


def test_the_defaults_are_postgreys_own() -> None:
    made = checked()
    assert (made.delay, made.retry_window, made.lifetime) == (300, 48, 35)
    assert (made.ipv4_prefix, made.ipv6_prefix, made.auto_whitelist) == (24, 64, 5)
    assert (made.clients, made.recipients, made.domains) == ((), (), ())


def test_without_subnets_the_address_counts() -> None:
    made = checked(by_subnet=False, ipv4_prefix=16)
    assert (made.ipv4_prefix, made.ipv6_prefix) == (32, 128)


@pytest.mark.parametrize(
    ("value", "expected"), [("1s", 1), ("300s", 300), ("5m", 300), ("48h", 172800), ("35d", 3024000), (" 2m ", 120)]
)
def test_durations(value: str, expected: int) -> None:
    assert settings.seconds(value) == expected


@pytest.mark.parametrize("value", ["", "5", "5 m", "m", "1.5h", "5w", "-", None, "0x5s", "5m5s"])
def test_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        settings.seconds(value)


@pytest.mark.parametrize("value", ["0s", "-5m", "-0h"])
def test_durations_that_are_no_time(value: str) -> None:
    with pytest.raises(ValueError, match="not longer than nothing"):
        settings.seconds(value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"delay": "48h"}, "delay: 48h and retry_window 48h overlap"),
        ({"delay": "3d"}, "delay: 3d and retry_window 48h overlap"),
        ({"retry_window": "35d"}, "retry_window: 35d and lifetime 35d overlap"),
        ({"retry_window": "61m"}, "retry_window: '61m' is not a number of whole hours"),
        ({"lifetime": "36h"}, "lifetime: '36h' is not a number of whole days"),
        ({"delay": "-1s"}, "delay: '-1s' is not longer than nothing"),
        ({"port": 0}, "port: 0 is no number from 1 to 65535"),
        ({"ipv4_prefix": 33}, "ipv4_prefix: 33 is no number from 8 to 32"),
        ({"ipv6_prefix": -1}, "ipv6_prefix: -1 is no number from 16 to 128"),
        ({"auto_whitelist_clients": -1}, "auto_whitelist_clients: -1 is no number from 0 to 1000"),
        ({"address": "198.51.100.1"}, "address: '198.51.100.1' is not this machine's own"),
        ({"address": "localhost"}, "address: 'localhost' is no address"),
        ({"text": ""}, "text: '' is no line"),
        ({"text": 'say "no"'}, "text: 'say \"no\"' is no line of plain ASCII text"),
        ({"text": "two\nlines"}, "text: 'two\\nlines' is no line"),
        ({"text": "550 go away"}, "text: '550 go away' begins with a digit"),
        ({"exempt_clients": "198.51.100.1"}, "exempt_clients: '198.51.100.1' is no list"),
        ({"domains": [1]}, "domains[0]: 1 is no domain"),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], expected: str) -> None:
    (line,) = refused(**given)
    assert line.startswith(expected)


def test_all_mistakes_are_named_at_once() -> None:
    lines = refused(delay="x", exempt_clients=["198.51.100.1", "x"], exempt_recipients=["@", "a@b.test", "c"])
    assert [line.partition(":")[0] for line in lines] == [
        "delay",
        "exempt_clients[1]",
        "exempt_recipients[0]",
        "exempt_recipients[2]",
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7/32", "198.51.100.7"),
        ("198.51.100.0/24", "198.51.100.0/24"),
        ("2001:DB8:51::/64", "2001:db8:51::/64"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("Mail.Example.ORG", "mail.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1und1.example", "1und1.example"),
        ("abc.de", "abc.de"),
        (r"/^mx\d+\.example\.org$/", r"/^mx\d+\.example\.org$/"),
    ],
)
def test_clients(entry: str, expected: str) -> None:
    assert settings.client(entry) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("", "is no domain"),
        ("localhost", "is no domain with at least two labels"),
        ("198.51.100", "is no address and no network"),
        ("198.51.100.256", "is no address and no network"),
        ("198.51.100.0/33", "is no address and no network"),
        ("198.51.100.7/24", "198.51.100.0/24 is the network"),
        ("2001:db8::1/64", "2001:db8::/64 is the network"),
        ("2001:db8::g", "is no domain"),
        ("0.0.0.0/0", "would exempt everybody"),
        ("::/0", "would exempt everybody"),
        (".example.org", "example.org includes its subdomains"),
        ("example.org/24", "is no domain"),
        ("exa mple.org", "is no domain"),
        ("bücher.example", "xn--"),
        ("example..org", "is no domain"),
        ("/", "no regular expression"),
        ("/a b/", "no regular expression"),
        ("/a#b/", "write \\x23"),
    ],
)
def test_no_clients(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        settings.client(entry)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("example.org", "example.org"),
        ("alice@Example.org", "alice@example.org"),
        ("postmaster@", "postmaster@"),
        ("login+*@example.org", r"/^login\+[^@]*\@example\.org$/"),
        ("*+login@", r"/^[^@]*\+login\@/"),
        ("a.b-c@example.org", "a.b-c@example.org"),
        # a number sign ends postgrey's line
        ("a#b@example.org", r"/^a\x23b\@example\.org$/"),
        ("/^x@/", "/^x@/"),
    ],
)
def test_recipients(entry: str, expected: str) -> None:
    assert settings.recipient(entry) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("@example.org", "its local part is empty"),
        ("a b@example.org", "needs quotes"),
        ("a@b@example.org", "needs quotes"),
        ("alice@localhost", "is no domain"),
        ("*@example.org", "write example.org"),
        ("*@", "would exempt everybody"),
        ("@", "its local part is empty"),
        ("älice@example.org", "needs quotes"),
    ],
)
def test_no_recipients(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        settings.recipient(entry)


@pytest.mark.parametrize(
    ("entry", "matching", "other"),
    [
        (
            "login+*@example.org",
            ["login+bank@example.org"],
            ["login@example.org", "xlogin+a@example.org", "login+a@x.org"],
        ),
        ("*+login@", ["a+login@x.org", "b.c+login@y.org"], ["login@x.org", "a+login2@x.org"]),
        ("a#b@example.org", ["a#b@example.org"], ["a@example.org", "a#b@example.orga"]),
    ],
)
def test_wildcards_mean_what_they_say(entry: str, matching: list[str], other: list[str]) -> None:
    pattern = re.compile(settings.recipient(entry)[1:-1], re.IGNORECASE)
    assert [address for address in matching + other if pattern.search(address)] == matching


def test_an_entry_counts_once() -> None:
    assert checked(exempt_clients=["a.test", "A.test", "198.51.100.1", "198.51.100.1/32"]).clients == (
        "a.test",
        "198.51.100.1",
    )


def test_problems_know_the_names_of_variables() -> None:
    assert settings.problems({}) == []
    lines = settings.problems({"delay": "x"}, "postgrey_", mailserver_never_delay=["a.test", "b"])
    assert [line.partition(" ")[0] for line in lines] == ["postgrey_delay:", "mailserver_never_delay[1]:"]
