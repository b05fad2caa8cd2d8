# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The shell commands that rsync-time-backup sends to the host of a folder, and what they do there, without a shell.

Both implementations know a dozen forms, which differ in quotes and small words only. What is not one of them is
refused: a restricted key serves nothing else, and a new version of upstream that does something new is noticed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .._command import run
from .job import SNAPSHOT

MARKER, RUNNING, LATEST = "backup.marker", "backup.inprogress", "latest"
PARTIAL = rf"backup\.partial\.{SNAPSHOT}"
VERSION = "rsync --version"
STAMPS = '"????-??-??-??????"'

_SNAPSHOT, _FOLDER = rf"(?P<name>{SNAPSHOT})", r"(?P<folder>/[^ ;&|]*?)"
FORMS = {
    "exists": rf"find {_FOLDER}/(?P<name>{MARKER}|{RUNNING}|{SNAPSHOT})(?: -type d| -maxdepth 0)?",
    "snapshots": rf"find {_FOLDER}/ -maxdepth 1 -type d -name \?{{4}}-\?\?-\?\?-\?{{6}} -prune \| sort -r",
    "absolute": rf"cd {_FOLDER}/{_SNAPSHOT}(?:;| && )pwd",
    "make": rf"mkdir -p -- {_FOLDER}/{_SNAPSHOT}",
    "unlink": rf"rm -f -- {_FOLDER}/(?P<name>{LATEST}|{RUNNING})",
    "remove": rf"rm -rf -- {_FOLDER}/(?P<name>{SNAPSHOT}|{PARTIAL})",
    "link": rf"ln -s -- {_SNAPSHOT} {_FOLDER}/{LATEST}",
    "filesystem": rf"df -T {_FOLDER}/?",
    "running": rf"cat {_FOLDER}/{RUNNING}",
    "start": rf"echo (?P<name>[0-9]+) > {_FOLDER}/{RUNNING}",
    "move": rf"mv -- {_FOLDER}/{_SNAPSHOT} (?P=folder)/(?P<target>{SNAPSHOT}|{PARTIAL})",
    "there": rf"test -e {_FOLDER}/?",
    "list": rf"ls -1A -- {_FOLDER}/",
    "latest": rf"readlink -- {_FOLDER}/{LATEST}",
}


@dataclass(frozen=True)
class Command:
    """One of FORMS, by its name. folder is where snapshots lie (or the source); name and target are entries of it."""

    form: str
    folder: str
    name: str = ""
    target: str = ""


def parse(text: str) -> Command | None:
    """Recognise a command; None for anything else. Quotes mean nothing: no path of a job holds a space."""
    plain = text.replace("'", "").replace('"', "").strip()
    for form, expression in FORMS.items():
        found = re.fullmatch(expression, plain)
        if found:
            parts = found.groupdict()
            return Command(form, parts["folder"].rstrip("/") or "/", parts.get("name") or "", parts.get("target") or "")
    return None


def perform(command: Command) -> tuple[int, str]:
    """Do it here; returns exit status and output as the command's own. Raises CommandError, OSError."""
    folder = command.folder
    path = os.path.join(folder, command.name)
    if command.form in ("exists", "there"):
        there = os.path.lexists(path.rstrip("/") or "/")
        return int(not there), f"{path}\n" if there and command.form == "exists" else ""
    if command.form in ("snapshots", "list"):
        names = sorted(os.listdir(folder))
        if command.form == "list":
            return 0, "".join(f"{name}\n" for name in names)
        names = [name for name in names if re.fullmatch(SNAPSHOT, name) and is_folder(os.path.join(folder, name))]
        return 0, "".join(f"{folder}/{name}\n" for name in reversed(names))
    if command.form == "absolute":
        return (0, f"{path}\n") if is_folder(path) else (1, "")
    if command.form == "latest":
        with contextlib.suppress(OSError):
            return 0, f"{os.readlink(os.path.join(folder, LATEST))}\n"
        return 1, ""
    if command.form == "running":
        with open(os.path.join(folder, RUNNING), encoding="utf-8", errors="replace") as handle:
            return 0, handle.read(100)
    if command.form != "filesystem":
        _change(command, path)
    # No table of df: whether a file system is FAT makes no difference here, as it keeps neither links nor owners.
    return 0, ""


def _change(command: Command, path: str) -> None:
    folder = command.folder
    if command.form == "make":
        os.mkdir(path, 0o755)
    elif command.form == "unlink":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif command.form == "remove":
        if not os.path.lexists(os.path.join(folder, MARKER)):
            raise PermissionError(f"{folder} has no {MARKER}, so nothing is removed there")
        run(["rm", "-rf", "--one-file-system", "--", path], timeout=86400)
    elif command.form == "link":
        os.symlink(command.name, os.path.join(folder, LATEST))
    elif command.form == "start":
        with open(os.path.join(folder, RUNNING), "w", encoding="utf-8") as handle:
            handle.write(f"{command.name}\n")
    elif command.form == "move":
        os.rename(path, os.path.join(folder, command.target))


def is_folder(path: str) -> bool:
    """A folder, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


@dataclass(frozen=True)
class Contents:
    """What lies in a destination, by name, oldest first."""

    marker: bool
    running: bool
    latest: str
    snapshots: tuple[str, ...]
    partial: tuple[str, ...]

    def unfinished(self, known: Collection[str], killed: bool) -> list[str]:
        """The snapshot that a run left half, if any: one run leaves at most one, the newest that nobody knows as whole.

        known: snapshots remembered as whole. killed: a run of ours began and did not end. Without that, and without
        upstream's own mark, nothing is half, whatever its name: snapshots may have been brought here by hand.
        """
        if not (self.running or killed):
            return []
        if known:
            return [name for name in self.snapshots if name not in known and name != self.latest][-1:]
        return [name for name in self.snapshots[-1:] if name != self.latest]


def contents(names: Sequence[str], latest: str) -> Contents:
    """Sort the names of a destination's entries."""
    return Contents(
        marker=MARKER in names,
        running=RUNNING in names,
        latest=latest.strip(),
        snapshots=tuple(sorted(name for name in names if re.fullmatch(SNAPSHOT, name))),
        partial=tuple(sorted(name for name in names if re.fullmatch(PARTIAL, name))),
    )
