# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Events of a period, counted."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .lines import Arrived, Event, Greylist, Refused, Scanned, read

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: seconds that a bar of the chart over time may stand for, and how many bars there are at most
BUCKETS = (600, 3600, 10800, 21600, 86400, 604800)
BARS = 48
#: upper ends of the classes of waiting times, in seconds
DELAYS = (300, 600, 1800, 3600, 14400, 86400)
#: senders' domains that are named for each rule
TOP = 5


class PeriodError(Exception):
    """The period cannot be right; the message names the option, the value and the reason."""


def moment(name: str, text: str, now: float) -> float:
    """Seconds of the epoch for '24h' (before now), 'now', or an ISO date or time, UTC unless it says otherwise."""
    match = re.fullmatch(r"([0-9]+)([smhdw])", text)
    if match:
        return now - int(match[1]) * UNITS[match[2]]
    if text == "now":
        return now
    try:
        found = datetime.datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
    except ValueError as exc:
        raise PeriodError(
            f"{name}: {text!r} is neither a time before now like 24h or 7d, nor a date like 2026-11-30"
        ) from exc
    return (found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)).timestamp()


def period(since: str, before: str, now: float) -> tuple[int, int]:
    """Read both ends; raises PeriodError."""
    start, end = moment("since", since, now), min(moment("before", before, now), now)
    if start >= end:
        raise PeriodError(f"since: {since} is not before {before}")
    return int(start), int(end)


@dataclass
class Rule:
    """What one rule did."""

    count: int = 0
    temporary: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    clients: set[str] = field(default_factory=set)
    #: attempts of one client, sender and recipient are one mail that is tried again
    mails: set[int] = field(default_factory=set)
    domains: Counter[str] = field(default_factory=Counter)

    def add(self, event: Refused) -> None:
        self.count += 1
        self.temporary += event.temporary
        self.codes[event.code] += 1
        self.clients.add(event.client)
        self.mails.add(hash((event.client, event.sender, event.recipient)))
        self.domains[event.sender.rpartition("@")[2].lower() or "<>"] += 1


class Report:
    """Counts of one host and period; add() each event, then as_dict()."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.bucket = next((size for size in BUCKETS if (end - start) / size <= BARS), BUCKETS[-1])
        self.series: dict[int, Counter[str]] = {}
        self.rules: dict[tuple[str, str, bool], Rule] = {}
        self.accepted = 0
        self.verdicts: Counter[str] = Counter()
        self.greylists: Counter[str] = Counter()
        self.exempt: Counter[str] = Counter()
        self.delays: list[int] = []
        self.waiting: set[tuple[str, str, str]] = set()
        self.new = self.early = self.passed = self.known = 0

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            found = read(line)
            if found:
                self.add(*found)

    def add(self, when: float, event: Event) -> None:
        at = int(when) // self.bucket * self.bucket
        bars = self.series.setdefault(at, Counter())
        if isinstance(event, Arrived):
            self.accepted += 1
            bars["accepted"] += 1
        elif isinstance(event, Refused):
            self._refused(event, bars)
        elif isinstance(event, Greylist):
            self._greylist(event)
        else:
            self._scanned(event)

    def _refused(self, event: Refused, bars: Counter[str]) -> None:
        self.rules.setdefault((event.rule, event.zone, event.warning), Rule()).add(event)
        if event.warning:
            bars["warned"] += 1
            return
        if event.queued:
            # It was counted when it arrived
            self.accepted -= 1
            bars["accepted"] -= 1
        if event.rule == "greylisting":
            bars["greylisted"] += 1
        else:
            bars["deferred" if event.temporary else "rejected"] += 1

    def _greylist(self, event: Greylist) -> None:
        self.greylists[event.by] += 1
        triplet = (subnet(event.client), event.sender.lower(), event.recipient.lower())
        if not event.passed:
            self.waiting.add(triplet)
            if event.reason == "new":
                self.new += 1
            else:
                self.early += 1
        elif event.delay is not None:
            self.passed += 1
            self.delays.append(event.delay)
            self.waiting.discard(triplet)
        elif event.reason == "triplet found":
            self.known += 1
            self.waiting.discard(triplet)
        else:
            self.exempt[event.reason] += 1
            self.waiting.discard(triplet)

    def _scanned(self, event: Scanned) -> None:
        self.verdicts[event.verdict] += 1
        if event.greylist:
            self.greylists["rspamd"] += 1
            if event.greylist == "pass":
                self.passed += 1
            elif event.greylist == "greylisted":
                self.new += 1

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain values, the busiest rules first."""
        rules: list[dict[str, Any]] = [
            {
                "rule": rule,
                "list": zone,
                "warning": warning,
                "count": found.count,
                "temporary": found.temporary,
                "mails": len(found.mails),
                "clients": len(found.clients),
                "codes": dict(found.codes.most_common()),
                "sender_domains": [name for name, _count in found.domains.most_common(TOP)],
            }
            for (rule, zone, warning), found in self.rules.items()
        ]
        rules.sort(key=lambda item: (-item["count"], item["rule"], item["list"], item["warning"]))
        refused = [item for item in rules if not item["warning"]]
        return {
            "since": iso(self.start),
            "until": iso(self.end),
            "accepted": self.accepted,
            "rejected": sum(item["count"] - item["temporary"] for item in refused),
            "deferred": sum(item["temporary"] for item in refused if item["rule"] != "greylisting"),
            "greylisted": sum(item["count"] for item in refused if item["rule"] == "greylisting"),
            "warned": sum(item["count"] for item in rules if item["warning"]),
            "rules": rules,
            "lists": self._lists(rules),
            "greylist": {
                "by": sorted(self.greylists),
                "new": self.new,
                "early_retries": self.early,
                "passed_after_retry": self.passed,
                "known": self.known,
                "exempt": dict(self.exempt.most_common()),
                "not_back": len(self.waiting),
                "delays": self._delays(),
            },
            "verdicts": dict(self.verdicts.most_common()),
            "bucket": self.bucket,
            "series": [self._bar(at) for at in range(self.start // self.bucket * self.bucket, self.end, self.bucket)],
        }

    def _bar(self, at: int) -> dict[str, Any]:
        counts = self.series.get(at, Counter())
        kinds = ("accepted", "greylisted", "deferred", "rejected", "warned")
        return {"at": iso(at), **{kind: counts[kind] for kind in kinds}}

    def _delays(self) -> list[dict[str, int]]:
        """How many mails passed after at most so many seconds; 0 stands for all that took longer."""
        edges = [0, *DELAYS]
        classes = [
            {"seconds": high, "count": sum(low < delay <= high or delay == low == 0 for delay in self.delays)}
            for low, high in zip(edges, DELAYS)
        ]
        return [*classes, {"seconds": 0, "count": sum(delay > DELAYS[-1] for delay in self.delays)}]

    @staticmethod
    def _lists(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for item in rules:
            if item["list"]:
                entry = found.setdefault(item["list"], {"list": item["list"], "rejected": 0, "warned": 0})
                entry["warned" if item["warning"] else "rejected"] += item["count"]
        return sorted(found.values(), key=lambda entry: (-entry["rejected"] - entry["warned"], entry["list"]))


def subnet(address: str) -> str:
    """The network that postgrey takes for one client: /24, or /64 for IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{found}/{24 if found.version == 4 else 64}", strict=False))


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
