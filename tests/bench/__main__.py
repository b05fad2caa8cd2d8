# SPDX-License-Identifier: GPL-3.0-or-later

"""script/bench: measure, print a table, write JSON. Called inside the virtual environment of script/bootstrap."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

# Each of these registers its figures, in the order of the table.
# pylint: disable=unused-import
import backup  # noqa: F401
import debops  # noqa: F401
import directory  # noqa: F401
import greylist  # noqa: F401
import load  # noqa: F401
import policy  # noqa: F401
import records  # noqa: F401
import runs  # noqa: F401
import wordpress  # noqa: F401
from figures import FIGURES, ORDER, Figure, Result
from lab import BenchError, say


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="script/bench", description="Measure, or only the named figures.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write {NAME: {value, unit, goal, detail}} there")
    parser.add_argument("--list", action="store_true", help="show the figures and what they are")
    parser.add_argument("name", nargs="*", help="a figure; all where none is named")
    found = parser.parse_args()
    unknown = set(found.name) - set(FIGURES)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    return found


def measure(figure: Figure) -> Result:
    """One figure; one that cannot be measured, or whose host then answered wrongly, has no value."""
    say(f"{figure.name} …")
    started = time.monotonic()
    try:
        result = figure.measure()
    except BenchError as problem:
        result = Result(None, str(problem))
    say(f"{figure.name}: {shown(figure, result)} ({time.monotonic() - started:.0f} s)")
    return result


def shown(figure: Figure, result: Result) -> str:
    """Value and unit as the table has them."""
    return "failed" if result.value is None else f"{result.value:g} {figure.unit}".rstrip()


def table(results: dict[str, Result]) -> str:
    """What was measured, against the goals."""
    rows = [("figure", "value", "goal", "", "detail")]
    for name, result in results.items():
        figure = FIGURES[name]
        rows.append((name, shown(figure, result), figure.goal, figure.verdict(result), result.detail))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [[*(f"{cell:<{width}}" for cell, width in zip(row, widths)), row[4]] for row in rows]
    return "\n".join(" ".join(line).rstrip() for line in lines)


def main() -> int:
    """Entry point; the exit status: 0 where every figure could be measured, whether it meets its goal or not."""
    asked = arguments()
    names = [name for name in ORDER if not asked.name or name in asked.name]
    if asked.list:
        say("\n".join(f"{name:<30} {FIGURES[name].goal:<10} {FIGURES[name].measure.__doc__}" for name in names))
        return 0
    results = {name: measure(FIGURES[name]) for name in names}
    say(f"\n{table(results)}\nload of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if asked.json:
        found = {name: FIGURES[name].as_dict(result) for name, result in results.items()}
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(result.value is None for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
