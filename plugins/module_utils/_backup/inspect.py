# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What became of this host's jobs: their records, and what systemd knows of their timers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from .._command import CommandError, run
from .._files import FileError, lock
from . import status
from .job import JOBS, UNIT, JobError, load


def known() -> list[str]:
    """Names of the jobs that this host has."""
    names = os.listdir(JOBS) if os.path.isdir(JOBS) else []
    return sorted(name[: -len(".json")] for name in names if name.endswith(".json"))


def chosen(names: Sequence[str]) -> list[str]:
    """All jobs, or those named; raises JobError for one that is not there."""
    there = known()
    for name in names:
        if name not in there:
            raise JobError(f"there is no job {name} on this host; there are: {', '.join(there) or 'none'}")
    return list(names or there)


def jobs(names: Sequence[str]) -> list[dict[str, Any]]:
    """What became of all jobs, or of those named; raises JobError for one that is not there."""
    result = []
    for name in chosen(names):
        job = load(name)
        told = status.summary(job, status.read(job.state), time.time(), next_run(name))
        if told["result"] == "interrupted" and at_work(f"{job.state}/lock"):
            told.update(result="running", reason="")
        result.append(told)
    return result


def at_work(path: str) -> bool:
    """Whether a run holds its lock."""
    try:
        with lock(path, 0):
            return False
    except FileError:
        return True


def next_run(name: str) -> float | None:
    """When the timer elapses next, in seconds of the epoch."""
    argv = ["systemctl", "list-timers", "--all", "--output=json", f"{UNIT}{name}.timer"]
    try:
        timers = json.loads(run(argv).out)
    except (CommandError, ValueError):
        return None
    return timers[0]["next"] / 1e6 if timers and timers[0].get("next") else None
