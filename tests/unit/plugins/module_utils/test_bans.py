# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _bans

OPTIONS = {
    "exempt": [],
    "maxretry": 5,
    "findtime": "10m",
    "bantime": "10m",
    "bantime_max": "1w",
    "ports": [993, 465, 465],
    "settings": {},
}
HOST = ["127.0.0.0/8", "::1"]


def test_jail():
    made = _bans.jail({**OPTIONS, "settings": {"blocktype": "drop"}}, "2001:db8:51::9 50022 2001:db8:51::25 22")
    assert made == {
        "exempt": [*HOST, "2001:db8:51::/64"],
        "maxretry": 5,
        "findtime": 600,
        "bantime": 600,
        "bantime_max": 604800,
        "ports": [465, 993],
        "settings": {"blocktype": "drop"},
        "memory": 605400,
    }


@pytest.mark.parametrize(
    ("given", "controller", "result"),
    [
        ([], "", []),
        ([], "198.51.100.9", ["198.51.100.9"]),
        ([], "::ffff:198.51.100.9", ["198.51.100.9"]),
        ([], "fe80::1%eth0", ["fe80::/64"]),
        ([], "127.0.0.1", []),
        (["198.51.100.0/24"], "198.51.100.9", ["198.51.100.0/24"]),
        (["2001:db8:51::/48"], "2001:db8:51:7::9", ["2001:db8:51::/48"]),
        # a ban of a neighbour would ban these as well
        (["2001:db8:51::25"], "2001:db8:51::9", ["2001:db8:51::/64"]),
        (["2001:db8:51:0:8000::/65", "203.0.113.0/30"], "", ["2001:db8:51::/64", "203.0.113.0/30"]),
        (["203.0.113.7", "203.0.113.7"], "", ["203.0.113.7"]),
    ],
)
def test_exempt(given, controller, result):
    assert _bans.exempt(given, controller) == [*HOST, *result]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("exempt", ["198.51.100.300"], "exempt[0]: '198.51.100.300' is neither an address nor a network"),
        ("exempt", ["::1", "198.51.100.1/24"], "exempt[1]: '198.51.100.1/24' is neither an address nor a network"),
        ("exempt", ["office.example.org"], "exempt[0]: 'office.example.org' is neither"),
        ("exempt", ["0.0.0.0/0"], "exempt[0]: 0.0.0.0/0 is everybody"),
        ("exempt", ["::/0"], "exempt[0]: ::/0 is everybody"),
        ("exempt", [7], "exempt[0]: 7 is not text"),
        ("bantime", "-5m", "bantime: '-5m' is no time"),
        ("bantime", "0", "bantime: '0' is no time"),
        ("findtime", "ten minutes", "findtime: 'ten minutes' is no time"),
        ("findtime", True, "findtime: True is no time"),
        ("bantime_max", "1m", "bantime_max: 1m is shorter than bantime, 10m"),
        ("maxretry", 0, "maxretry: 0 wrong passwords"),
        ("maxretry", "five", "maxretry: 'five' is no whole number"),
        ("ports", [993, "imaps"], "ports[1]: 'imaps' is no whole number"),
        ("ports", [993, 25], "ports[1]: 25 is where mail arrives"),
        ("ports", [0], "ports[0]: 0 is no port"),
        ("ports", [], "ports: none is named"),
        ("settings", {"bantime": "1h"}, "settings.bantime: is said by bantime"),
        ("settings", {"port": "25"}, "settings.port: is said by ports"),
        ("settings", {"usedns": "no\n[other]"}, "settings.usedns: is no option of a jail on one line"),
        ("settings", {"Bad Name": 1}, "settings.Bad Name: is no option"),
    ],
)
def test_refused(option, value, words):
    with pytest.raises(_bans.BanError) as told:
        _bans.jail({**OPTIONS, option: value})
    assert str(told.value).startswith(words)


@pytest.mark.parametrize(("text", "result"), [("600", 600), (90, 90), ("90s", 90), ("2h", 7200), ("1w", 604800)])
def test_seconds(text, result):
    assert _bans.seconds("bantime", text) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [("198.51.100.9 50022 198.51.100.25 22", "198.51.100.9"), ("", ""), ("\n", ""), ("a b c", "")],
)
def test_controller(text, result):
    assert _bans.controller_of(text) == result


def test_banned_though_exempt():
    banned = ["198.51.100.7", "203.0.113.7", "2001:db8:51::7", "2001:db8:52::7", "10.0.0.0/8", "what"]
    assert _bans.banned_though_exempt(banned, ["198.51.100.0/24", "2001:db8:51::/64"]) == [
        "198.51.100.7",
        "2001:db8:51::7",
    ]
