# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Bring files back from a snapshot. What is replaced is kept beside, and nothing is deleted."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass

from .._command import CommandError
from .._files import FileError, lock, make_folders
from .job import Job, JobError
from .run import RunError
from .transfer import PARTIAL_ERROR, SnapshotError, choose, items, place, rsync, shown, snapshots

ERRORS = (SnapshotError, RunError, JobError, CommandError, FileError, OSError)


@dataclass(frozen=True)
class Wanted:
    """What to bring back, and where to. path is relative to the job's source, empty for all."""

    snapshot: str
    path: str
    to: str
    confirm: str


@dataclass(frozen=True)
class Restored:
    """What was, or in check mode would be, brought back."""

    snapshot: str
    to: str
    new: list[str]
    replaced: list[str]
    kept: str  # folder that holds what was replaced; empty where nothing was

    def diff(self) -> dict[str, str]:
        """For people: a line for each name."""
        lines = [*(f"+ {shown(name)}" for name in self.new), *(f"! {shown(name)}" for name in self.replaced)]
        return {"prepared": "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[2:]))}

    @property
    def changed(self) -> bool:
        return bool(self.new or self.replaced)


def target(job: Job, to: str) -> str:
    """Folder to restore into; raises SnapshotError."""
    if not to:
        if job.source.remote:
            raise SnapshotError(
                f"job {job.name}: its source {job.source} is on another host, and the key may only read there; "
                "say where to restore (to)"
            )
        return job.source.path
    to = to.rstrip("/") or "/"
    if not to.startswith("/") or os.path.normpath(to) != to:
        raise SnapshotError(f"to: {to!r} is not a plain absolute path")
    if os.path.lexists(to) and not os.path.isdir(to):
        raise SnapshotError(f"to: {to} is no folder")
    if not job.destination.remote and f"{to}/".startswith(f"{job.destination.path}/"):
        raise SnapshotError(f"to: {to} lies among the snapshots of job {job.name}")
    return to


def inner(path: str) -> str:
    """A path inside the source, relative to it, empty for all of it; raises SnapshotError."""
    plain = path.strip("/")
    if plain == ".":
        return ""
    if "\0" in plain or (plain and os.path.normpath(plain) != plain) or plain.split("/")[0] == "..":
        raise SnapshotError(f"path: {path!r} is not a plain path inside the source")
    return plain


def restore(job: Job, wanted: Wanted, check_mode: bool) -> Restored:
    """Do it; raises ERRORS. What fails halfway says where the former files are; a second run completes it."""
    path, to = inner(wanted.path), target(job, wanted.to)
    name = choose(job, snapshots(job), wanted.snapshot)
    password = f"{job.name} {name}"
    if not check_mode and wanted.confirm != password:
        raise SnapshotError(
            f"confirm: bringing {job.name} of {name} back into {to} changes what is there; look with --check --diff, "
            f"then say confirm: '{password}'"
        )
    source, names = place(job.destination, name), [path] if path else None
    options = ["--recursive", "--hard-links"]
    if path and not _there(job, source, path):
        raise SnapshotError(f"path: {path} is not in the snapshot {name} of job {job.name}")
    # rsync makes no plan for a folder that is not there.
    with tempfile.TemporaryDirectory() as empty:
        into = to if os.path.isdir(to) else empty
        found = items(rsync(job, [*options, "--dry-run"], source, f"{into}/", names).out)
    kept = ""
    if not check_mode and found:
        with lock(f"{job.state}/lock", 0):
            kept = _keep(job, to, [item.name for item in found])
            make_folders(to)
            try:
                rsync(job, options, source, f"{to}/", names)
            except CommandError as exc:
                former = f"; the former files are in {kept}" if kept else ""
                raise SnapshotError(f"{to} may be restored in part{former}; run again to complete it. {exc}") from exc
    new, replaced = [item.name for item in found if item.new], [item.name for item in found if not item.new]
    return Restored(name, to, new, replaced, kept)


def _keep(job: Job, to: str, names: list[str]) -> str:
    """Copy what will be replaced; returns where. (rsync would ask the other host for its --backup-dir, too.)"""
    former = [name for name in names if is_former(to, name)]
    if not former:
        return ""
    folder = f"{job.state}/replaced"
    make_folders(folder)
    os.chmod(folder, 0o700)
    kept = tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d-%H%M%S.", time.gmtime()), dir=folder)
    rsync(job, [], f"{to}/", f"{kept}/", former)
    return kept


def is_former(to: str, name: str) -> bool:
    """Whether what is there now under that name would be lost: a file, or a file or link where a folder is to be.

    What lies behind a link to a folder stays, as the link itself is replaced.
    """
    path = os.path.join(to, name)
    above = os.path.dirname(name)
    if not os.path.lexists(path) or os.path.realpath(os.path.join(to, above)) != os.path.normpath(
        os.path.join(os.path.realpath(to), above)
    ):
        return False
    return os.path.islink(path) or not os.path.isdir(path)


def _there(job: Job, source: str, path: str) -> bool:
    with tempfile.TemporaryDirectory() as empty:
        return rsync(job, ["--dry-run", "--dirs"], source, f"{empty}/", [path], good=(0, PARTIAL_ERROR)).rc == 0
