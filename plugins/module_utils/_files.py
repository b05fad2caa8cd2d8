# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Files: locked, fsynced, atomic writes that are private from birth, and sets of files with a durable journal.

A wanted file is written beside its place (mode and owner are set before a byte of content is there), fsynced, renamed,
and its folder fsynced. A reader sees the former or the new file, never a part. The name beside is fixed, so what a
killed run left behind is replaced by the next one; callers that may run twice at once take lock() first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _recover


class FileError(Exception):
    """A file could not be read, locked or written; the message names it and the reason."""


@dataclass(frozen=True)
class File:
    """A wanted file. content None means: no such file. mode is a number (0o640); owner and group are names or ids."""

    path: str
    content: bytes | None
    mode: int = 0o644
    owner: str | int = "root"
    group: str | int = "root"
    #: the content must not be shown; only says how diffs treat it
    secret: bool = False


@dataclass(frozen=True)
class Found:
    """A file as it is on the disk. content is None for what is not a regular file (a symlink)."""

    content: bytes | None
    mode: int
    uid: int
    gid: int

    @property
    def regular(self) -> bool:
        return self.content is not None


def uid_of(owner: str | int) -> int:
    """Look a user up; raises FileError when there is none."""
    try:
        return pwd.getpwnam(owner).pw_uid if isinstance(owner, str) else owner
    except KeyError as exc:
        raise FileError(f"there is no user {owner}") from exc


def gid_of(group: str | int, missing: int | None = None) -> int:
    """Look a group up; missing is the id to take when there is none, without it FileError is raised."""
    try:
        return grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    except KeyError as exc:
        if missing is not None:
            return missing
        raise FileError(f"there is no group {group}") from exc


def look(path: str) -> Found | None:
    """Read a file with its mode and owner; None when there is none.

    Raises FileError for a directory, and for a relative path, which every writer refuses: so check mode does, too.
    """
    _refuse_relative(path)
    try:
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            raise FileError(f"{path}: is a directory")
        content: bytes | None = None
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as handle:
                info = os.fstat(handle.fileno())
                content = handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise FileError(f"{path}: {exc.strerror}") from exc
    return Found(content, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)


def equal(wanted: File, found: Found | None) -> bool:
    """Whether the disk already holds what is wanted, mode and owner included. An unknown owner is never equal."""
    if wanted.content is None or found is None:
        return wanted.content is None and found is None
    if found.content != wanted.content or found.mode != wanted.mode:
        return False
    try:
        return found.uid == uid_of(wanted.owner) and found.gid == gid_of(wanted.group)
    except FileError:
        return False


def digest(path: str) -> str:
    """SHA-256 over content of a file, or over names and contents below a folder; '' when there is nothing.

    Plain, so only for root-only places: the hash of a short secret can be guessed.
    """
    total = hashlib.sha256()
    if os.path.isdir(path):
        for folder, names, files in os.walk(path):
            names.sort()
            for name in sorted(files):
                full = os.path.join(folder, name)
                total.update(f"{os.path.relpath(full, path)}\0{digest(full)}\n".encode())
        return total.hexdigest()
    try:
        with open(path, "rb") as handle:
            for chunk in iter(lambda: handle.read(1 << 20), b""):
                total.update(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        raise FileError(f"{path}: {exc.strerror}") from exc
    return total.hexdigest()


@contextlib.contextmanager
def lock(path: str, wait: float = 60.0) -> Iterator[None]:
    """Hold an exclusive lock; wait is in seconds. The lock file and a folder made for it are root-only.

    Raises FileError when somebody else still holds it after the wait. The kernel drops the lock with the process.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise _error(path, exc) from exc
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FileError(f"{path}: another run is at work and did not end within {wait:g} s") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def prepare(wanted: File, path: str | None = None, age: int = 0, durable: bool = True) -> str:
    """Write a wanted file to path (default: beside its place) and fsync it; returns where it lies.

    age: seconds by which its time of modification is dated back. durable False: a copy that nobody needs after a crash.
    Raises FileError and leaves nothing behind when that fails, for instance on a full disk.
    """
    if wanted.content is None:
        raise ValueError(f"{wanted.path}: nothing to write")
    uid, gid = uid_of(wanted.owner), gid_of(wanted.group)
    path = path or _recover.aside(wanted.path, "new")
    try:
        _recover.remove(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, wanted.mode)
            rest = memoryview(wanted.content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if age:
                os.utime(handle, (time.time() - age, time.time() - age))
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        with contextlib.suppress(OSError):
            _recover.remove(path)
        raise _error(wanted.path, exc) from exc
    return path


def _refuse_relative(path: str) -> None:
    if not os.path.isabs(path):
        raise FileError(f"{path}: is not an absolute path")


def _missing(path: str) -> list[str]:
    """A folder and its parents as far as they are not there, outermost first."""
    _refuse_relative(path)
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing[::-1]


def make_folders(path: str) -> list[str]:
    """Make a folder and its missing parents, 0755; returns those that were made, outermost first."""
    missing = _missing(path)
    for folder in missing:
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # noqa: S103 (whatever the umask says)
        except OSError as exc:
            raise _error(folder, exc) from exc
    _recover.fsync_folders(os.path.dirname(folder) for folder in missing)
    return missing


def write(files: Sequence[File]) -> list[str]:
    """Bring files to what is wanted, in the order given; returns the paths that changed ([] when all are equal).

    All new files are on the disk before the first is renamed; a failure until then changes nothing.
    content None removes. The folders must exist.
    """
    todo = [file for file in files if not equal(file, look(file.path))]
    prepared: list[str] = []
    try:
        for file in todo:
            if file.content is not None:
                prepared.append(prepare(file))
        for file in todo:
            if file.content is None:
                _recover.remove(file.path)
            else:
                os.rename(_recover.aside(file.path, "new"), file.path)
    except OSError as exc:
        raise _error(exc.filename or "", exc) from exc
    finally:
        for path in prepared:
            with contextlib.suppress(OSError):
                _recover.remove(path)
    _recover.fsync_folders(os.path.dirname(file.path) for file in todo)
    return [file.path for file in todo]


class FileSet:
    """Files that change as one. Until commit(), a crash is undone by _recover: the former files come back.

    folder is a root-only folder for the journal, held under lock() by the caller; files come in the order of the swap.
    facts goes into the journal for whoever recovers (units, former). Call prepare, swap, then commit, or rollback and
    close.
    """

    def __init__(self, folder: str, files: Sequence[File], facts: Mapping[str, Any], age: int = 0) -> None:
        self.folder = folder
        self.age = age
        self.files = list(files)
        self.journal: dict[str, Any] = {
            **facts,
            "files": [{"dest": file.path, "had": os.path.lexists(file.path)} for file in files],
            "folders": [],
        }

    def prepare(self) -> None:
        """Write the new files beside the live ones and keep the former; a failure leaves nothing behind."""
        missing: list[str] = []
        for file in self.files:
            if file.content is not None:
                missing += [folder for folder in _missing(os.path.dirname(file.path)) if folder not in missing]
        self.journal["folders"] = missing
        text = json.dumps(self.journal, indent=1).encode()
        try:
            write([File(_recover.journal_path(self.folder, "prepare"), text, 0o600)])
            for path in missing:
                make_folders(path)
            for file, entry in zip(self.files, self.journal["files"]):
                if file.content is not None:
                    prepare(file, age=self.age)
                if entry["had"]:
                    old = _recover.aside(file.path, "old")
                    _recover.remove(old)
                    os.link(file.path, old, follow_symlinks=False)
            _recover.fsync_folders(os.path.dirname(file.path) for file in self.files)
            _recover.advance(self.folder, "prepare", "swap")
        except (OSError, FileError) as exc:
            self._abandon()
            if isinstance(exc, FileError):
                raise
            raise _error(exc.filename or self.folder, exc) from exc

    def _abandon(self) -> None:
        phase = next(iter(_recover.find(self.folder) or ("prepare",)))
        with contextlib.suppress(OSError):
            _recover.clean(self.folder, self.journal, str(phase))

    def swap(self) -> None:
        """Rename all files into place, in order, and make that durable."""
        try:
            for file in self.files:
                if file.content is None:
                    _recover.remove(file.path)
                else:
                    os.rename(_recover.aside(file.path, "new"), file.path)
            _recover.fsync_folders(os.path.dirname(file.path) for file in self.files)
        except OSError as exc:
            raise _error(exc.filename or "", exc) from exc

    def rollback(self) -> None:
        """Bring the former files back. The journal stays until close()."""
        _recover.restore(self.journal)

    def close(self) -> None:
        """After a rollback whose result was looked at: forget the change."""
        _recover.clean(self.folder, self.journal, "swap")

    def commit(self) -> None:
        """The change holds: forget the former files."""
        _recover.advance(self.folder, "swap", "done")
        _recover.clean(self.folder, self.journal, "done")


def _error(path: str, exc: OSError) -> FileError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileError(f"{path}: the disk is full; nothing was changed")
    return FileError(f"{path}: {exc.strerror}")
