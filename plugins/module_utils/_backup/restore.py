# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Bring files back from a snapshot. What is replaced is kept beside, and nothing is deleted."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._command import CommandError, run
from .._files import FileError, lock, make_folders
from . import mail_host, owners
from .job import Job, JobError, inside
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
    accounts: list[str] = field(default_factory=list)  # users and groups that were not there

    def diff(self) -> dict[str, str]:
        """For people: a line for each name."""
        lines = [*(f"+ {shown(name)}" for name in self.new), *(f"! {shown(name)}" for name in self.replaced)]
        return {"prepared": "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[2:]))}

    @property
    def changed(self) -> bool:
        return bool(self.new or self.replaced or self.accounts)


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
    source = place(job.destination, name)
    names, options = _names(job, source, path, name), ["--recursive", "--hard-links"]
    if names and not path:
        # /etc and /var of another host are not this one's.
        options.append("--no-implied-dirs")
    if check_mode:
        return _restore(job, source, to, names, options, name, check_mode)
    if job.is_mail_host and to == job.source.path:
        refuse_running(names or [])
    with lock(f"{job.state}/lock", 0):
        return _restore(job, source, to, names, options, name, check_mode)


def _names(job: Job, source: str, path: str, snapshot: str) -> list[str] | None:
    """What to bring back, relative to the source; None for all. Raises SnapshotError for what is not there."""
    names = [path] if path else [os.path.relpath(one, job.source.path) for one in job.paths]
    if not names:
        return None
    with tempfile.TemporaryDirectory() as empty:
        listed = rsync(job, ["--dry-run", "--dirs"], source, f"{empty}/", names, good=(0, PARTIAL_ERROR))
    there = {item.name.split(" -> ")[0] for item in items(listed.out)}
    found = [one for one in names if one in there]
    if not found:
        raise SnapshotError(f"path: {', '.join(names)} is not in the snapshot {snapshot} of job {job.name}")
    return found


def refuse_running(names: Sequence[str]) -> None:
    """Raises SnapshotError where a service of a mail host would go on with its former data, and write it back."""
    touched = [
        unit
        for folder, unit in mail_host.SERVICES.items()
        if any(inside(folder, f"/{name}") or inside(f"/{name}", folder) for name in names)
    ]
    running = [unit for unit in touched if run(["systemctl", "is-active", "--quiet", unit], check=False).rc == 0]
    if running:
        raise SnapshotError(
            f"{' and '.join(running)} would write over what is brought back. For a part of the mail say path, such as "
            f"var/vmail/example.org/alice; for all: systemctl stop postfix dovecot {' '.join(running)}, bring it back, "
            "then run the playbook mailserver"
        )


def _restore(
    job: Job, source: str, to: str, names: list[str] | None, options: list[str], name: str, check_mode: bool
) -> Restored:
    owned = _owners(job, source)
    if not check_mode:
        owned.make()
    options = [*options, *owned.options(made=not check_mode)]
    # rsync makes no plan for a folder that is not there.
    with tempfile.TemporaryDirectory() as empty:
        into = to if os.path.isdir(to) else empty
        try:
            found = items(rsync(job, [*options, "--dry-run"], source, f"{into}/", names).out)
        except CommandError as exc:
            # Such as a folder that is not empty, in the place of a file.
            raise SnapshotError(f"nothing was brought back: {exc}") from exc
    kept = ""
    if not check_mode and found:
        kept = _keep(job, to, [item.name for item in found])
        make_folders(to)
        try:
            rsync(job, options, source, f"{to}/", names)
        except CommandError as exc:
            former = f"; the former files are in {kept}" if kept else ""
            raise SnapshotError(f"{to} may be restored in part{former}; run again to complete it. {exc}") from exc
    if job.is_mail_host and to == job.source.path and not check_mode:
        kept = place_postgrey(job, names or [], kept)
    new, replaced = [item.name for item in found if item.new], [item.name for item in found if not item.new]
    return Restored(name, to, new, replaced, kept, owned.names)


def _owners(job: Job, source: str) -> owners.Plan:
    """Whose the files are on this host. A snapshot that holds no names keeps its numbers."""
    record: dict[str, list[dict[str, Any]]] = {"users": [], "groups": []}
    if job.is_mail_host:
        with tempfile.TemporaryDirectory() as folder:
            inner_name = mail_host.ACCOUNTS.lstrip("/")
            rsync(job, ["--no-owner", "--no-group"], source, f"{folder}/", [inner_name], good=(0, PARTIAL_ERROR))
            with contextlib.suppress(FileNotFoundError), open(f"{folder}/{inner_name}", encoding="utf-8") as handle:
                record = json.load(handle)
    return owners.plan(record)


def _kept(job: Job) -> str:
    """A new folder for what is replaced."""
    folder = f"{job.state}/replaced"
    make_folders(folder)
    os.chmod(folder, 0o700)
    return tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d-%H%M%S.", time.gmtime()), dir=folder)


def _keep(job: Job, to: str, names: list[str]) -> str:
    """Copy what will be replaced; returns where. (rsync would ask the other host for its --backup-dir, too.)"""
    former = [name for name in names if is_former(to, name)]
    if not former:
        return ""
    kept = _kept(job)
    rsync(job, [], f"{to}/", f"{kept}/", former)
    return kept


def place_postgrey(
    job: Job,
    names: Sequence[str],
    kept: str,
    staged: str = f"{mail_host.STAGE}/postgrey",
    home: str = mail_host.POSTGREY,
) -> str:
    """Put the copy of postgrey's database where postgrey looks for it; returns the folder of what was replaced."""
    if not os.path.isdir(staged) or not any(inside(staged, f"/{name}") for name in names):
        return kept
    if _tables(home) == _tables(staged):
        return kept
    if os.path.lexists(home):
        kept = kept or _kept(job)
        make_folders(f"{kept}{os.path.dirname(home)}")
        shutil.move(home, f"{kept}{home}")
    run(["cp", "--archive", staged, home])
    return kept


def _tables(folder: str) -> dict[str, bytes]:
    found = {}
    for path in sorted(glob.glob(f"{folder}/postgrey*.db")):
        with open(path, "rb") as handle:
            found[os.path.basename(path)] = hashlib.sha256(handle.read()).digest()
    return found


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
