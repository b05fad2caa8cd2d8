# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of figures. Each is a function in one of the files beside this one, marked with @figure."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

#: the order in which they are measured and shown: what needs bare hosts comes first, what fills them last
ORDER = (
    "first_run_vs_apt",
    "second_run_tasks",
    "second_run_vs_ping",
    "idle_rss_mb",
    "messages_per_s",
    "policy_overhead_ratio",
    "directory_bulk_vs_loop",
    "directory_bulk_vs_ping",
    "directory_100k_first_s",
    "directory_100k_unchanged_s",
    "directory_100k_peak_mb",
    "records_bulk_vs_nsupdate_loop",
    "wordpress_bulk_vs_loop",
    "backup_unchanged_vs_rsync",
    "backup_none_s",
    "backup_zstd_s",
    "backup_lz4_s",
    "postgrey_10k_s",
    "second_run_vs_debops",
)
BETTER = {"≥": operator.ge, "≤": operator.le}


@dataclass(frozen=True)
class Result:
    """A measured value; None where it could not be measured, and detail says why."""

    value: float | None
    detail: str


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    unit: str
    goal: str
    measure: Callable[[], Result]

    def as_dict(self, result: Result) -> dict[str, str | float | None]:
        """One entry of the JSON file."""
        return {"value": result.value, "unit": self.unit, "goal": self.goal, "detail": result.detail}

    def verdict(self, result: Result) -> str:
        """Whether the goal was met."""
        if result.value is None or self.goal == "report":
            return ""
        sign, limit = self.goal.split()
        return "met" if BETTER[sign](result.value, float(limit)) else "missed"


FIGURES: dict[str, Figure] = {}


def figure(unit: str, goal: str) -> Callable[[Callable[[], Result]], Callable[[], Result]]:
    """Put a function on the list under its own name. goal: '≥ N', '≤ N' or 'report'."""

    def register(measure: Callable[[], Result]) -> Callable[[], Result]:
        FIGURES[measure.__name__] = Figure(measure.__name__, unit, goal, measure)
        return measure

    return register
