# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Restore a sample of a snapshot into a scratch folder and compare it with the source, as rsync sees both."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._command import CommandError
from .job import STATE, Job, JobError, load
from .run import RunError
from .transfer import PARTIAL_ERROR, VANISHED, Item, SnapshotError, choose, items, place, rsync, shown, snapshots

ERRORS = (SnapshotError, RunError, JobError, CommandError, OSError)


@dataclass
class Verdict:
    """What the comparison found. Names are relative to the job's source."""

    job: str
    snapshot: str
    files: int
    compared: int
    changed_since: list[str] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As the module returns it."""
        return asdict(self)


def judge(
    found: Sequence[Item], sample: set[str], stamp: str, changed: Callable[[str], str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Sort differences into what changed after the snapshot began and what the backup has wrong.

    stamp: name of the snapshot. changed: the time of a source's last change of any kind, in the same form, or ''.
    """
    since: list[str] = []
    faults: list[dict[str, Any]] = []
    for item in found:
        # The time of a folder changes with its content, which need not be in the sample.
        differs = [what for what in item.differs if not (item.folder and what == "time")]
        if item.name not in sample and not item.folder:
            continue
        if not item.new and not differs:
            continue
        if max(item.modified, changed(item.name)) >= stamp:
            since.append(shown(item.name))
        else:
            faults.append({"name": shown(item.name), "differs": ["missing"] if item.new else differs})
    return since, faults


def verify(job: Job, snapshot: str, size: int, seed: str | None, scratch: str) -> Verdict:
    """Verify a job; raises SnapshotError, RunError, CommandError."""
    name = choose(job, snapshots(job), snapshot)
    folder = tempfile.mkdtemp(prefix="verify.", dir=scratch)
    try:
        listed = [item for item in items(_list(job, folder)) if not item.folder]
        names = [item.name for item in listed]
        sample = random.Random(seed).sample(names, min(size, len(names)))  # noqa: S311 (no secret)
        verdict = Verdict(job.name, name, len(names), len(sample))
        if not sample:
            raise SnapshotError(f"job {job.name}: the source {job.source} has no file to compare")
        # What the snapshot does not have is found by the comparison.
        rsync(job, [], place(job.destination, name), f"{folder}/", sample, good=(0, PARTIAL_ERROR))
        # Of a source in use, such as mail, files go meanwhile.
        options = ["--dry-run", "--checksum", "--ignore-missing-args"]
        differences = items(rsync(job, options, place(job.source), f"{folder}/", sample, good=(0, VANISHED)).out)

        def changed(inner: str) -> str:
            try:
                moment = os.lstat(os.path.join(job.source.path, inner)).st_ctime
            except OSError:
                return ""
            return time.strftime("%Y-%m-%d-%H%M%S", time.gmtime(moment))

        when = (lambda _name: "") if job.source.remote else changed
        verdict.changed_since, verdict.faults = judge(differences, set(sample), name, when)
        return verdict
    finally:
        # Nothing is lost where it stays; the verdict counts.
        shutil.rmtree(folder, ignore_errors=True)


def verify_all(
    names: Sequence[str], snapshot: str, size: int, seed: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Verify jobs by name, each whatever became of the others; verdicts, and what is wrong."""
    verdicts, wrong = [], []
    for name in names:
        try:
            verdict = verify(load(name), snapshot, size, seed, STATE)
        except ERRORS as exc:
            text = str(exc)
            wrong.append(text if text.startswith(f"job {name}: ") else f"job {name}: {text}")
            continue
        verdicts.append(verdict.told())
        if verdict.faults:
            shown = [f"{fault['name']}: {', '.join(fault['differs'])}" for fault in verdict.faults[:20]]
            wrong.append(f"job {name}: {len(verdict.faults)} would not come back as they are: {'; '.join(shown)}")
    return verdicts, wrong


def _list(job: Job, folder: str) -> str:
    """What a backup of the source would hold now."""
    options = ["--recursive", "--dry-run", f"--exclude-from={job.exclude_file}"]
    options += ["--one-file-system"] if job.options["one_file_system"] else []
    return rsync(job, options, place(job.source), f"{folder}/", good=(0, VANISHED)).out
