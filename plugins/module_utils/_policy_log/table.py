# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""A report as lines for a terminal, and the words that the page uses too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: counts of a report → what they are called
TOTALS = {
    "accepted": "taken in",
    "greylisted": "greylisted",
    "deferred": "deferred",
    "rejected": "rejected",
    "warned": "on trial",
}


def when(text: str) -> str:
    """2026-11-21T10:00:00Z → 2026-11-21 10:00"""
    return text[:16].replace("T", " ")


def period(report: Mapping[str, Any]) -> str:
    return f"{when(report['since'])} to {when(report['until'])} UTC"


def gap(report: Mapping[str, Any]) -> str:
    """What to say where the journal does not reach back far enough; '' where it does."""
    begins = report["journal_begins"]
    if not begins:
        return "The journal is empty."
    return f"The journal begins at {when(begins)} only." if begins > report["since"] else ""


def effect(rule: Mapping[str, Any]) -> str:
    if rule["warning"]:
        return "on trial"
    if rule["temporary"] == rule["count"]:
        return "deferred"
    return "rejected" if rule["temporary"] == 0 else "rejected, some deferred"


def duration(seconds: int) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            return f"{seconds // size} {unit}{'' if seconds == size else 's'}"
    return f"{seconds} seconds"


def delay(seconds: int) -> str:
    return f"up to {duration(seconds)}" if seconds else "longer"


def fates(greylist: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What became of mail at the greylist: (words, how often)."""
    return [
        ("first attempts", greylist["new"]),
        ("attempts before the delay was over", greylist["early_retries"]),
        ("came back and passed", greylist["passed_after_retry"]),
        ("did not come back so far", greylist["not_back"]),
        ("known already", greylist["known"]),
        *((f"exempt: {reason}", count) for reason, count in greylist["exempt"].items()),
    ]


def columns(rows: Sequence[Sequence[Any]], numbers: Sequence[int]) -> list[str]:
    """Align the rows of a table; numbers: the columns that are set to the right."""
    widths = [max(len(str(row[index])) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            str(cell).rjust(width) if index in numbers else str(cell).ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def table(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal: host by host the totals, the rules, the lists and the greylist."""
    lines: list[str] = []
    for host, report in reports.items():
        lines += [f"{host}: {period(report)}"]
        lines += [note for note in [gap(report)] if note]
        lines += [", ".join(f"{report[kind]} {words}" for kind, words in TOTALS.items())]
        if report["rules"]:
            rows: list[Sequence[Any]] = [("rule", "list", "effect", "count", "mails", "clients", "codes")]
            rows += [
                (
                    rule["rule"],
                    rule["list"],
                    effect(rule),
                    rule["count"],
                    rule["mails"],
                    rule["clients"],
                    " ".join(rule["codes"]),
                )
                for rule in report["rules"]
            ]
            lines += ["", *columns(rows, (3, 4, 5))]
        if len(report["lists"]) > 1:
            rows = [("list", "rejected", "on trial")]
            rows += [(entry["list"], entry["rejected"], entry["warned"]) for entry in report["lists"]]
            lines += ["", *columns(rows, (1, 2))]
        if report["greylist"]["by"]:
            rows = [(f"greylist ({', '.join(report['greylist']['by'])})", "count"), *fates(report["greylist"])]
            lines += ["", *columns(rows, (1,))]
        lines.append("")
    return lines[:-1]
