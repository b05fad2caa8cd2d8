# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The rules of port 25 for strangers: presets, what the operator changed of them, and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .lists import CHECKS, CLIENT, ERROR_CODES, NAMES, BlockList, ListError, zone_name

REJECT, WARN, OFF = "reject", "warn", "off"

#: Postfix's restrictions in the order in which they are asked: what costs nothing, then what costs a question to DNS.
#: Beside each, the presets that have it.
RULES: dict[str, tuple[str, ...]] = {
    "reject_invalid_helo_hostname": ("small", "strict"),
    "reject_non_fqdn_helo_hostname": ("small", "strict"),
    "reject_non_fqdn_sender": ("small", "strict"),
    "reject_unknown_sender_domain": ("small", "strict"),
    "reject_unknown_reverse_client_hostname": ("small", "strict"),
    "reject_unknown_client_hostname": ("strict",),
    "reject_unknown_helo_hostname": ("strict",),
}
#: Lists that are free for small hosts, with RFC 5782's test entries.
#: zen: 127.0.0.30 (servers that control bots) and dbl: 127.0.1.102 and up (good domains that were abused) are no reason
#: to refuse mail, and are left out on purpose.
LISTS: dict[str, dict[str, Any]] = {
    "zen.spamhaus.org": {"replies": "127.0.0.[2..11]", "checks": [CLIENT], "presets": ("small", "strict")},
    "dbl.spamhaus.org": {"replies": "127.0.1.[2..99]", "checks": list(NAMES), "presets": ("small", "strict")},
    "bl.spamcop.net": {"replies": "127.0.0.2", "checks": [CLIENT], "presets": ("strict",)},
    "psbl.surriel.com": {"replies": "127.0.0.2", "checks": [CLIENT], "presets": ("strict",)},
}
PRESETS = ("small", "strict", "open")
RESTRICTION = {
    "client": "reject_rbl_client",
    "sender": "reject_rhsbl_sender",
    "helo": "reject_rhsbl_helo",
    "reverse_client": "reject_rhsbl_reverse_client",
}
FAILING = ("leave_out", "fail")
_KEYS = ("preset", "rules", "lists", "failing_lists")
_LIST_KEYS = ("replies", "checks", "mode")


class Problem(NamedTuple):
    """One refused item: where it stands, its value, and why."""

    where: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.value!r} {self.reason}" if self.value else f"{self.where}: {self.reason}"


class PolicyError(Exception):
    """The policy cannot be followed; holds all problems found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def derive(
    policy: Mapping[str, Any],
    where: str = "mailserver_policy",
    sources: Sequence[str] = (),
    malformed: Sequence[str] = (),
) -> dict[str, Any]:
    """Check a policy and derive the restrictions and the lists from it.

    sources: zones whose answers come from another name, which holds a key and so is not given here; malformed: those of
    them whose other name is none.
    Returns restrictions (lines for smtpd_recipient_restrictions), lists (as BlockList.plain()) and failing_lists.
    Raises PolicyError with all problems.
    """
    problems = _sources(sources, malformed)
    for key in policy:
        if key not in _KEYS:
            problems.append(Problem(f"{where}.{key}", "", f"is unknown: there are {', '.join(_KEYS)}"))
    preset = policy.get("preset") or "small"
    if preset not in PRESETS:
        problems.append(Problem(f"{where}.preset", str(preset), f"must be one of {', '.join(PRESETS)}"))
    failing = policy.get("failing_lists") or FAILING[0]
    if failing not in FAILING:
        problems.append(Problem(f"{where}.failing_lists", str(failing), f"must be one of {', '.join(FAILING)}"))
    lines = _rules(policy.get("rules") or {}, preset, f"{where}.rules", problems)
    lists = _lists(policy.get("lists") or {}, preset, f"{where}.lists", problems)
    if problems:
        raise PolicyError(problems)
    for mode, item in lists:
        lines += [_line(mode, f"{RESTRICTION[check]} {item.zone}={item.replies.text}") for check in item.checks]
    # A list that refuses this resolver lists nobody; that it does so is to be seen in the log.
    for _mode, item in lists:
        lines.append(_line(WARN, f"{RESTRICTION[item.checks[0]]} {item.zone}={ERROR_CODES}"))
    return {"restrictions": lines, "lists": [item.plain() for _mode, item in lists], "failing_lists": failing}


def _sources(sources: Sequence[str], malformed: Sequence[str]) -> list[Problem]:
    problems = []
    for zone in sources:
        try:
            zone_name(zone)
        except ListError as exc:
            problems.append(Problem("mailserver_list_sources", zone, str(exc)))
    for zone in malformed:
        problems.append(
            Problem(f"mailserver_list_sources[{zone}]", "", "is no name in DNS (it may hold a key, and is not shown)")
        )
    return problems


def _line(mode: str, restriction: str) -> str:
    return f"warn_if_reject {restriction}" if mode == WARN else restriction


def _mode(value: Any, where: str, problems: list[Problem]) -> str:
    """reject (or true), warn, off (or false: YAML reads off so)."""
    mode = {True: REJECT, False: OFF}.get(value, value) if isinstance(value, bool) else value
    if mode not in (REJECT, WARN, OFF):
        problems.append(Problem(where, str(value), "must be reject, warn or off"))
        return OFF
    return str(mode)


def _rules(given: Any, preset: str, where: str, problems: list[Problem]) -> list[str]:
    if not isinstance(given, Mapping):
        problems.append(
            Problem(where, str(given), "is no dictionary of restrictions like {reject_non_fqdn_sender: warn}")
        )
        return []
    modes = {name: REJECT if preset in presets else OFF for name, presets in RULES.items()}
    for name, value in given.items():
        if name not in RULES:
            problems.append(
                Problem(f"{where}.{name}", "", f"is no restriction that can be switched here: {', '.join(RULES)}")
            )
            continue
        modes[name] = _mode(value, f"{where}.{name}", problems)
    return [_line(mode, name) for name, mode in modes.items() if mode != OFF]


def _lists(given: Any, preset: str, where: str, problems: list[Problem]) -> list[tuple[str, BlockList]]:
    if not isinstance(given, Mapping):
        problems.append(Problem(where, str(given), "is no dictionary of lists like {zen.spamhaus.org: {mode: warn}}"))
        return []
    wanted: dict[str, dict[str, Any]] = {
        zone: {"mode": REJECT, **entry} for zone, entry in LISTS.items() if preset in entry["presets"]
    }
    for name, value in given.items():
        here = f"{where}[{name}]"
        entry = value if isinstance(value, Mapping) else {"mode": value}
        for key in entry:
            if key not in _LIST_KEYS:
                problems.append(Problem(f"{here}.{key}", "", f"is unknown: there are {', '.join(_LIST_KEYS)}"))
        try:
            zone = zone_name(str(name))
        except ListError as exc:
            problems.append(Problem(here, "", str(exc)))
            continue
        wanted[zone] = {"mode": REJECT, **(wanted.get(zone) or LISTS.get(zone) or {}), **entry}
    found: list[tuple[str, BlockList]] = []
    for zone, entry in wanted.items():
        here = f"{where}[{zone}]"
        mode = _mode(entry["mode"], here, problems)
        if mode == OFF:
            continue
        item = _block_list(zone, entry, here, problems)
        if item is not None:
            found.append((mode, item))
    return found


def _block_list(zone: str, entry: Mapping[str, Any], here: str, problems: list[Problem]) -> BlockList | None:
    if not entry.get("replies"):
        # Without a filter an error code of the list's operator counts as a listing, and all mail is refused.
        reason = "is not set: say which answers are listings, like 127.0.0.[2..11]; the list's own pages name them"
        problems.append(Problem(f"{here}.replies", "", reason))
        return None
    checks = entry.get("checks") or [CLIENT]
    if isinstance(checks, str) or any(check not in CHECKS for check in checks):
        problems.append(Problem(f"{here}.checks", str(checks), f"is no list of {', '.join(CHECKS)}"))
        return None
    ordered = [check for check in CHECKS if check in checks]
    try:
        return BlockList.parse({"zone": zone, "replies": entry["replies"], "checks": ordered})
    except ListError as exc:
        problems.append(Problem(f"{here}.replies", str(entry["replies"]), str(exc)))
        return None
