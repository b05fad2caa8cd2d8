# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Keys on the disk: PATH/DOMAIN/SELECTOR.key, private from birth, never overwritten."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _files
from . import key as keys
from .record import DkimError, Wanted

FILE_MODE = 0o640
FOLDER_MODE = 0o750


@dataclass(frozen=True)
class Entry:
    """A wanted key, its file, and what is there; key is None for a key that is still to be made."""

    wanted: Wanted
    path: str
    found: _files.Found | None
    key: keys.Key | None

    def facts(self) -> dict[str, Any]:
        """Return value of the module; record and fingerprint are empty for a key that check mode does not make."""
        return {
            "domain": self.wanted.domain,
            "selector": self.wanted.selector,
            "type": self.wanted.type,
            "path": self.path,
            "name": self.wanted.name,
            "record": self.key.record if self.key else "",
            "fingerprint": self.key.fingerprint if self.key else "",
        }


class Store:
    """The folder of the keys. owner and group are ids."""

    def __init__(self, path: str, uid: int, gid: int) -> None:
        self.path = path
        self.uid = uid
        self.gid = gid

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held while keys are looked at and made, so that two runs do not make the same key twice."""
        parent, name = os.path.split(self.path)
        _files.make_folders(parent)
        return _files.lock(os.path.join(parent, f".{name}.lock"))

    def read(self, wanted: Sequence[Wanted]) -> list[Entry]:
        """Look at every key before anything is written. Raises DkimError with all that is wrong, a line each."""
        result = []
        wrong = []
        for each in wanted:
            path = os.path.join(self.path, each.domain, f"{each.selector}.key")
            try:
                found = _files.look(path)
                result.append(Entry(each, path, found, self._key(each, found)))
            except (DkimError, _files.FileError) as exc:
                reason = str(exc) if isinstance(exc, DkimError) else str(exc).partition(": ")[2]
                wrong.append(f"{path} ({each.title}): {reason}")
        if wrong:
            raise DkimError("\n".join([*wrong, "Nothing was changed, and no key is ever overwritten."]))
        return result

    @staticmethod
    def _key(wanted: Wanted, found: _files.Found | None) -> keys.Key | None:
        if found is None:
            return None
        if found.content is None:
            raise DkimError("is not a regular file")
        if keys.CRYPTOGRAPHY_IMPORT_ERROR:
            raise DkimError("python3-cryptography is missing, so the key cannot be read")
        key = keys.load(found.content)
        keys.check(wanted, key)
        return key

    def _folders(self, entries: Sequence[Entry]) -> Iterator[str]:
        if entries:
            yield self.path
            yield from sorted({os.path.dirname(entry.path) for entry in entries})

    def folders_to_mend(self, entries: Sequence[Entry]) -> list[str]:
        """Folders that are missing or have another owner or mode."""
        result = []
        for folder in self._folders(entries):
            try:
                info = os.lstat(folder)
            except (FileNotFoundError, NotADirectoryError):
                result.append(folder)
                continue
            if not stat.S_ISDIR(info.st_mode):
                raise DkimError(f"{folder}: is not a folder")
            if (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) != (FOLDER_MODE, self.uid, self.gid):
                result.append(folder)
        return result

    def files_to_write(self, entries: Sequence[Entry]) -> list[_files.File]:
        """Files that are missing or have another owner or mode; entries must have their keys."""
        return [file for entry, file in self._pairs(entries) if not _files.equal(file, entry.found)]

    def _pairs(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, _files.File]]:
        for entry in entries:
            content = entry.key.content if entry.key else b""
            yield entry, _files.File(entry.path, content, FILE_MODE, self.uid, self.gid, secret=True)

    def write(self, entries: Sequence[Entry]) -> None:
        """Bring folders and files to what is wanted. Raises FileError."""
        try:
            for folder in self.folders_to_mend(entries):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                os.chown(folder, self.uid, self.gid)
                os.chmod(folder, FOLDER_MODE)
        except OSError as exc:
            raise _files.FileError(f"{exc.filename}: {exc.strerror}") from exc
        _files.write(self.files_to_write(entries))


def diff(before: Sequence[Entry], after: Sequence[Entry], mended: Sequence[str]) -> dict[str, str]:
    """Ansible's before/after text: fingerprints of what was made, names of what got its owner or mode back.

    mended are the paths that were there before.
    """
    old: list[str] = []
    new: list[str] = []
    for was, now in zip(before, after):
        if was.key is None:
            kind = f"{now.wanted.type} {now.wanted.bits}" if now.wanted.bits else now.wanted.type
            new.append(f"{now.path}: {kind} {now.key.fingerprint if now.key else '(a new key)'}")
    for path in mended:
        old.append(f"{path}: another owner or mode")
        new.append(f"{path}: owner and mode as wanted")
    return {"before": "".join(f"{line}\n" for line in old), "after": "".join(f"{line}\n" for line in new)}
