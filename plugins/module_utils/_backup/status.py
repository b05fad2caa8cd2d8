# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What is remembered of a job's runs: one JSON file per job, written by the run, read by rsync_time_backup_info.

{"started": seconds of the epoch, while a run is at work or was killed
 "last_run": {"started", "ended", "result": ok | partial | failed, "rsync_status", "reason", "snapshot", "errors"},
 "last_success": seconds of the epoch of the start of the last run whose result was ok,
 "snapshots": {name: {"result": ok | partial, "size": bytes}}}
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from .._files import File, make_folders, write
from .job import Job

EMPTY: dict[str, Any] = {"started": None, "last_run": None, "last_success": None, "snapshots": {}}


def path(folder: str) -> str:
    return os.path.join(folder, "status.json")


def read(folder: str) -> dict[str, Any]:
    """The status of a job; an empty one where nothing was remembered, or nothing that can be read."""
    try:
        with open(path(folder), encoding="utf-8") as handle:
            found = json.load(handle)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return dict(EMPTY, snapshots={})
    return {**EMPTY, "snapshots": {}, **found}


def save(folder: str, status: dict[str, Any]) -> None:
    """Replace it; a crash leaves the former or the new one. Raises FileError."""
    make_folders(folder)
    write([File(path(folder), (json.dumps(status, indent=1) + "\n").encode(), 0o600)])


def summary(job: Job, known: Mapping[str, Any], now: float, next_run: float | None) -> dict[str, Any]:
    """What rsync_time_backup_info tells of a job. Times are ISO 8601 in UTC, age is in seconds."""
    last = known["last_run"] or {}
    interrupted = known["started"] is not None
    names = sorted(known["snapshots"])
    newest = known["snapshots"][names[-1]] if names else {}
    good = known["last_success"]
    return {
        "name": job.name,
        "source": str(job.source),
        "destination": str(job.destination),
        # "running" is put right by who knows whether a run is at work
        "result": "interrupted" if interrupted else last.get("result", "never"),
        "reason": "the last run did not end" if interrupted else last.get("reason", ""),
        "errors": [] if interrupted else last.get("errors", []),
        "rsync_status": last.get("rsync_status"),
        "last_run": iso(known["started"] if interrupted else last.get("started")),
        "last_success": iso(good),
        "age": None if good is None else int(now - good),
        "size": newest.get("size"),
        "snapshots": [{"name": name, "result": known["snapshots"][name]["result"]} for name in names],
        "next_run": iso(next_run),
    }


def iso(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
