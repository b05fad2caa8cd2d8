# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Bring back the former files of a change that was cut short (power, kill -9).

This file serves twice: service_config imports it, and writes its source to the host, where a systemd unit runs it
at boot before any service starts. So it uses nothing but Python's standard library and systemctl.

One folder per service below /var/lib/postmeister/services holds at most one journal. Its phase is its name, so that
a change of phase is one rename, which is atomic and needs no space:

journal-prepare.json  new files and links to the former ones are being made; nothing live was touched: clean up
journal-swap.json     the new files are being renamed into place, the daemon reloads and is probed: roll back
journal-done.json     the probe passed: clean up

Beside a live file NAME lie .NAME.postmeister-new (the wanted file) and .NAME.postmeister-old (a hard link to the
former file). Every step may be repeated.
"""

# A program of its own at boot, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

SERVICES = "/var/lib/postmeister/services"
PHASES = ("prepare", "swap", "done")


def aside(dest: str, kind: str) -> str:
    """Name of the file beside dest; kind is new or old. A leading dot keeps it out of include globs."""
    folder, name = os.path.split(dest)
    return os.path.join(folder, f".{name}.postmeister-{kind}")


def fsync_folders(paths: Iterable[str]) -> None:
    """Make the directory entries of these folders durable; a folder that is gone needs nothing."""
    for path in sorted(set(paths)):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: str) -> None:
    """Unlink a file that may not be there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def journal_path(folder: str, phase: str) -> str:
    return os.path.join(folder, f"journal-{phase}.json")


def find(folder: str) -> tuple[str, dict[str, Any]] | None:
    """Return phase and content of the open journal, None when there is none."""
    for phase in PHASES:
        try:
            with open(journal_path(folder, phase), encoding="utf-8") as handle:
                return phase, json.load(handle)
        except FileNotFoundError:
            continue
    return None


def advance(folder: str, phase: str, following: str) -> None:
    os.rename(journal_path(folder, phase), journal_path(folder, following))
    fsync_folders([folder])


def restore(journal: dict[str, Any]) -> None:
    """Bring the former files back; needs no disk space."""
    folders = set()
    # The reverse of the swap: what refers to other files went in last and goes out first.
    for entry in reversed(journal["files"]):
        dest = entry["dest"]
        folders.add(os.path.dirname(dest))
        old = aside(dest, "old")
        if not entry["had"]:
            remove(dest)
        elif os.path.lexists(old):
            if os.path.lexists(dest) and os.path.samestat(os.lstat(old), os.lstat(dest)):
                os.unlink(old)  # never swapped; rename(2) of two links to one file would leave both
            else:
                os.rename(old, dest)
    fsync_folders(folders)


def clean(folder: str, journal: dict[str, Any], phase: str) -> None:
    """Remove what the change left beside the live files, then the journal itself."""
    folders = set()
    for entry in journal["files"]:
        folders.add(os.path.dirname(entry["dest"]))
        remove(aside(entry["dest"], "new"))
        remove(aside(entry["dest"], "old"))
    if phase != "done":
        for path in reversed(journal.get("folders", [])):
            with contextlib.suppress(OSError):  # in use by something else: it stays
                os.rmdir(path)
    fsync_folders(folders)
    shutil.rmtree(os.path.join(folder, "stage"), ignore_errors=True)
    remove(journal_path(folder, phase))
    fsync_folders([folder])


def systemctl(*argv: str) -> int:
    try:
        return subprocess.run(["systemctl", *argv], stdin=subprocess.DEVNULL, check=False).returncode
    except OSError:
        return 127  # the files count more than what systemd thinks of them


def recover_units(journal: dict[str, Any]) -> None:
    """Let systemd follow the restored files.

    At boot the units have not started yet. Without a former configuration they must not start at all: a package's
    defaults would refuse mail.
    """
    units = journal.get("units", [])
    systemctl("daemon-reload")
    if journal.get("former", True):
        for unit in units:
            if systemctl("is-active", "--quiet", unit) == 0:
                systemctl("restart", unit)
        return
    for unit in units:
        systemctl("mask", unit)
        systemctl("stop", "--no-block", unit)


def mend(folder: str) -> str:
    """Undo or finish the change whose journal lies open; the caller holds the lock. Returns what was done."""
    found = find(folder)
    if found is None:
        return ""
    phase, journal = found
    if phase == "swap":
        restore(journal)
        recover_units(journal)
    clean(folder, journal, phase)
    return "the former files are back" if phase == "swap" else "what it left was removed"


def recover(folder: str) -> str:
    """mend() under the lock; '' when there was nothing to do. Raises BlockingIOError while a run is at work."""
    if find(folder) is None:
        return ""
    handle = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return mend(folder)
    finally:
        os.close(handle)


def main(root: str = SERVICES) -> int:
    failed = 0
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        try:
            done = recover(os.path.join(root, name))
        except BlockingIOError:
            print(f"{name}: a run is at work, nothing done")
        except (OSError, ValueError, KeyError) as exc:
            # One service that cannot be mended must not keep the others from being mended.
            print(f"{name}: {exc}", file=sys.stderr)
            failed = 1
        else:
            if done:
                print(f"{name}: {done}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
