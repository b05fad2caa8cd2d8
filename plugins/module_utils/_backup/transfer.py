# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""rsync between a job's snapshots and this host, with the job's own key: what restore and verify share."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from .._command import CommandError, Result, run
from .commands import Contents
from .job import BIN, Job, Location
from .run import Destination
from .shim import PARTIAL_ERROR, RSYNC, VANISHED, VARIABLE

#: what a snapshot keeps of a file: rsync's options without a walk through folders
KEEP = ("--links", "--perms", "--times", "--group", "--owner", "-D", "--numeric-ids")
LATEST = "latest"
DAY = 86400
# rsync(1), --itemize-changes: the letters behind the kind of update and the kind of file.
ATTRIBUTES = {
    "c": "content",
    "s": "size",
    "t": "time",
    "T": "time",
    "p": "mode",
    "o": "owner",
    "g": "group",
    "a": "ACL",
    "x": "xattrs",
}


__all__ = ("PARTIAL_ERROR", "VANISHED")  # rsync(1): some files could not be transferred; some vanished meanwhile


class SnapshotError(Exception):
    """What was asked for cannot be had from the backup; the message says why."""


@dataclass(frozen=True)
class Item:
    """One line of rsync --out-format='%i %M %n'."""

    name: str
    folder: bool
    new: bool
    differs: tuple[str, ...]
    modified: str  # of the sender's file, UTC, as the names of snapshots: 2030-01-31-021106


def items(text: str) -> list[Item]:
    """What rsync would do, or did, name by name."""
    found = []
    for line in text.split("\n"):
        parts = re.fullmatch(r"([<>ch.*][fdLDS])(\S{9}) ([0-9/]{10})-([0-9:]{8}) (.*)", line)
        if not parts:
            continue
        kind, letters, day, clock, name = parts.groups()
        plain = plain_name(name)
        differs = tuple(dict.fromkeys(ATTRIBUTES[letter] for letter in letters if letter in ATTRIBUTES))
        stamp = f"{day.replace('/', '-')}-{clock.replace(':', '')}"
        found.append(Item(plain.rstrip("/"), kind[1] == "d", letters.startswith("+"), differs, stamp))
    return found


def plain_name(text: str) -> str:
    """A name as rsync prints it in the C locale: a byte that is no printable ASCII is \\#, then three octal digits."""
    plain = re.sub(rb"\\#([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text.encode())
    return os.fsdecode(plain)


def shown(name: str) -> str:
    """A name for people and JSON; one that is no UTF-8 shows its bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def choose(job: Job, there: Contents, wanted: str) -> str:
    """The name of a snapshot that is whole; raises SnapshotError with those that are there."""
    # A run sets the link when its snapshot is whole, so what is newer is not.
    whole = [name for name in there.snapshots if name <= there.latest]
    if not whole:
        hint = (
            f"; {len(there.snapshots)} lie there, but without the link {LATEST}, which says up to which they are whole"
            if there.snapshots
            else ""
        )
        raise SnapshotError(f"job {job.name}: {job.destination} has no whole snapshot{hint}")
    if wanted == LATEST:
        return whole[-1]
    if wanted not in whole:
        raise SnapshotError(
            f"job {job.name}: there is no whole snapshot {wanted!r}; the newest are {', '.join(whole[-10:])}"
        )
    return wanted


def snapshots(job: Job) -> Contents:
    """What the job's destination holds. Raises RunError with ssh's words, SnapshotError."""
    found = Destination(job).contents()
    if not found.marker:
        raise SnapshotError(f"job {job.name}: {job.destination} has no backup.marker: is its disk mounted?")
    return found


def place(end: Location, folder: str = "") -> str:
    """One end of a transfer as rsync takes it, the content of a folder."""
    path = os.path.join(end.path, folder).rstrip("/")
    return f"{end.user}@{end.host}:{path}/" if end.remote else f"{path}/"


def rsync(
    job: Job,
    options: Sequence[str],
    source: str,
    target: str,
    names: Sequence[str] | None = None,
    good: Sequence[int] = (0,),
) -> Result:
    """Run rsync with the job's key; names: only these, relative to source, each alone.

    Raises CommandError with rsync's words where its exit status is not among the good ones (rsync(1), EXIT VALUES).
    """
    attributes = [flag for flag in ("--acls", "--xattrs") if job.options[flag.strip("-")]]
    argv = [RSYNC, *KEEP, *attributes, "--out-format=%i %M %n", f"--rsh={BIN}/ssh", *options]
    # Times are compared with the names of snapshots, which are in UTC.
    environment = {VARIABLE: job.name, "TZ": "UTC"}
    with tempfile.NamedTemporaryFile() as listed:
        if names is not None:
            listed.write(b"".join(os.fsencode(name) + b"\0" for name in names))
            listed.flush()
            argv += [f"--files-from={listed.name}", "--from0"]
        done = run([*argv, "--", source, target], timeout=DAY, check=False, env=environment)
    if done.rc not in good:
        raise CommandError(f"rsync from {source} to {target}: exit status {done.rc}: {done.err.strip() or done.words}")
    return done
