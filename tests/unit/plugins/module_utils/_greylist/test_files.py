# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

from ansible_collections.postmeister.host.plugins.module_utils._greylist import files, settings
from ansible_collections.postmeister.host.plugins.module_utils._service import _postgrey_watch as watch

DEFAULTS = {name: spec["default"] for name, spec in settings.SPEC.items()}


def contents(**given: Any) -> dict[str, str]:
    return files.contents(settings.settings({**DEFAULTS, **given}))


def test_options_are_postgreys() -> None:
    text = contents(delay="2m", retry_window="2d", lifetime="60d", auto_whitelist_clients=0, text="Later")[
        files.DEFAULTS
    ]
    assert text.splitlines()[1:] == [
        'POSTGREY_OPTS="--inet=127.0.0.1:10023 --delay=120 --retry-window=48h --max-age=60'
        ' --ipv4cidr=24 --ipv6cidr=64 --auto-whitelist-clients=0"',
        'POSTGREY_TEXT="Later"',
    ]
    options = files.options_of(text)
    assert files.times_of(options) == (120, 172800, 5184000)
    assert options["auto-whitelist-clients"] == "0"
    assert watch.where(text) == ("127.0.0.1", 10023)


def test_ipv6_has_brackets() -> None:
    text = contents(address="::1", port=12345)[files.DEFAULTS]
    assert "--inet=[::1]:12345 " in text
    assert watch.where(text) == ("::1", 12345)


def test_postgreys_own_defaults() -> None:
    assert files.times_of(files.options_of('POSTGREY_OPTS="--inet=10023"\n')) == (300, 172800, 3024000)
    assert files.times_of({"retry-window": "6h"})[1] == 21600
    assert files.options_of("") == {}
    assert watch.where('POSTGREY_OPTS="--inet=10023"') == ("127.0.0.1", 10023)


def test_lists_keep_their_order() -> None:
    made = contents(exempt_clients=["b.test", "a.test"], exempt_recipients=["x@a.test", "login+*@a.test"])
    assert made[files.CLIENTS].splitlines()[-2:] == ["b.test", "a.test"]
    assert made[files.RECIPIENTS].splitlines()[-2:] == ["x@a.test", r"/^login\+[^@]*\@a\.test$/"]
    assert files.entries(made[files.CLIENTS]) == 2
    assert files.entries(made[files.RECIPIENTS]) == 2


def test_a_domain_that_did_not_opt_in_is_exempt() -> None:
    text = contents(domains=["a.test", "b-c.test"])[files.RECIPIENTS]
    pattern = re.compile(text.splitlines()[-1][1:-1], re.IGNORECASE)
    assert pattern.search("x@other.test")
    assert pattern.search("x@sub.a.test")
    assert pattern.search("x@a.test.example")
    assert not pattern.search("x@a.test")
    assert not pattern.search("x+y@B-C.test")


def test_the_token_stands_for_the_state_of_both_lists() -> None:
    states = [
        contents(),
        contents(exempt_clients=["a.test"]),
        contents(exempt_recipients=["a.test"]),
        contents(exempt_recipients=["b.test"]),
    ]
    tokens = [files.token(state[files.CLIENTS]) for state in states]
    assert len(set(tokens)) == len(tokens)
    assert all(re.fullmatch(r"s[0-9a-f]{16}\.postgrey\.invalid", token) for token in tokens)
    assert files.token(contents(delay="1m")[files.CLIENTS]) == tokens[0]
    assert files.token("") == ""


def test_the_watch_asks_by_a_name_that_is_exempt() -> None:
    assert (files.NAME, files.OWN) == (watch.NAME, watch.OWN)
    assert watch.NAME in contents()[files.CLIENTS].splitlines()
