# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One test of the lists and what follows from it: what dnsbl does, and mail_host_facts asks about."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from .._service import _timer, dnsbl
from . import health
from .lists import CHECKS, BlockList, parse_all

LIST: dict[str, Any] = {
    "zone": {"type": "str", "required": True},
    "replies": {"type": "str", "required": True},
    "checks": {"type": "list", "elements": "str", "choices": list(CHECKS), "default": ["client"]},
}
SPEC: dict[str, Any] = {
    "lists": {"type": "list", "elements": "dict", "options": LIST, "required": True},
    "failing": {"type": "str", "choices": ["leave_out", "fail"], "default": "leave_out"},
    "timer": {"type": "bool", "default": False},
}


_NOBODY_TO_ASK: dict[str, Any] = {"changed": True, "lists": {}, "out_of_service": [], "diff": []}


def run(params: Mapping[str, Any], check_mode: bool) -> tuple[dict[str, Any], list[str]]:
    """The module's result and its warnings. Raises ListError, HealthError and _transaction.ERRORS."""
    lists = parse_all(params["lists"])
    if check_mode and not (health.HAVE_DNSPYTHON and os.path.exists(health.CONTROL)):
        # The roles install both before, except in check mode.
        result, warnings = _NOBODY_TO_ASK.copy(), list[str]()
    elif check_mode:
        result, warnings = _work(lists, params["failing"], check_mode)
    else:
        with health.locked():
            result, warnings = _work(lists, params["failing"], check_mode)
    if params["timer"]:
        timer = _timer.install(dnsbl.Dnsbl, dnsbl.files(), check_mode)
        result["files"] = timer.result()["files"]
        result["changed"] = result["changed"] or timer.changed
        result["diff"] = [*result["diff"], *timer.diff()]
    return result, warnings


def _work(lists: list[BlockList], failing: str, check_mode: bool) -> tuple[dict[str, Any], list[str]]:
    """Test the lists and do what follows."""
    places = health.Places()
    verdicts = health.look(lists)
    outcome = health.plan(lists, verdicts, places, time.time())
    words = [f"{zone}: {verdict.reason}" for zone, verdict in outcome.failing.items()]
    if words and failing == "fail":
        raise health.HealthError("lists that failed their test (RFC 5782); nothing was changed:\n" + "\n".join(words))
    if not check_mode:
        health.apply(outcome, places)
    result = {
        "changed": outcome.changed,
        "lists": {zone: verdict._asdict() for zone, verdict in verdicts.items()},
        "out_of_service": sorted(outcome.failing),
        "diff": outcome.diff,
    }
    return result, [f"list out of service: {line}" for line in words]
