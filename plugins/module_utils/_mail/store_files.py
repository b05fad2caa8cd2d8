# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The directory as files: the truth (directory.json) and what Dovecot, Postfix and rspamd read, all in one folder.

The order of a change makes sure that no lookup fails meanwhile, and that a run cut short at any point leaves a host
that
serves: first the truth, then every table with what was and what is to be, then without what was, so that Dovecot
knows a mailbox before Postfix takes mail for it, and after. The next run compares every file with the truth, so it
finishes what was begun; no journal is needed for that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from .. import _files, _recover
from .._command import CommandError, run
from .._files import File, FileError
from .._source import source_of
from . import addresses, hashes
from . import directory as directory_module
from .directory import Alias, Directory, Mailbox, Tables, derive

DEFAULT_PATH = "/etc/postmeister/directory"
TRUTH = "directory.json"
#: a second one: the ad hoc entries stand nowhere else, and an editor's slip must not cost them
COPY = "directory.json.copy"
#: digests of what the last run left; where it is lost, the next run looks at everything
STATE = ".state"
FORMAT = 1

_NOTE = "# Written by postmeister.host.mail_directory; changes made here do not last.\n"


class StoreError(Exception):
    """The directory on the disk cannot be read or written; the text names the file and the way out."""


@dataclass(frozen=True)
class _Table:
    """One derived file: which table it holds, how it is written down, who reads it."""

    name: str
    table: str
    group: str
    kind: str  # passwd, list, lmdb, map

    def text(self, tables: Tables) -> bytes:
        """The content; for LMDB what `postmap -s` says of it: keys in the order of their bytes."""
        rows = getattr(tables, self.table)
        order = sorted(rows)
        if self.kind == "lmdb":
            return "".join([f"{key}\t{rows[key]}\n" for key in order]).encode()
        if self.kind == "passwd":
            return (_NOTE + "".join([f"{key}:{rows[key]}\n" for key in order])).encode()
        if self.kind == "list":
            return (_NOTE + "".join([f"{key}\n" for key in order])).encode()
        return (_NOTE + "".join([f"{key} {rows[key]}\n" for key in order])).encode()


#: In the order in which something new becomes known; what goes is taken away in the opposite order.
_TABLES = (
    _Table("dovecot-users", "users", "dovecot", "passwd"),
    _Table("dovecot-disabled", "disabled", "dovecot", "list"),
    _Table("sender_logins.lmdb", "senders", "postfix", "lmdb"),
    _Table("sender_logins.map", "senders", "_rspamd", "map"),
    _Table("forwards.map", "forwards", "_rspamd", "map"),
    _Table("virtual_mailboxes.lmdb", "mailboxes", "postfix", "lmdb"),
    _Table("virtual_aliases.lmdb", "aliases", "postfix", "lmdb"),
    _Table("virtual_domains.lmdb", "domains", "postfix", "lmdb"),
)


# --- the truth ------------------------------------------------------------------------------------------------------


def dump(directory: Directory) -> bytes:
    """Write a directory down, one entry a line, always the same way."""

    def box(address: str, item: Mailbox) -> str:
        quota = "null" if item.quota is None else item.quota
        enabled = "true" if item.enabled else "false"
        return (
            f'{quoted(address)}: {{"password": {quoted(item.password)}, "quota": {quota}, '
            f'"enabled": {enabled}, "origin": {quoted(item.origin)}}}'
        )

    def alias(address: str, item: Alias) -> str:
        destinations = json.dumps(item.destinations)
        return f'{quoted(address)}: {{"destinations": {destinations}, "origin": {quoted(item.origin)}}}'

    domains, boxes, aliases = directory.domains, directory.mailboxes, directory.aliases
    parts = (
        f'"format": {FORMAT}',
        f'"recipient_delimiter": {quoted(directory.delimiter)}',
        f'"allow_external": {json.dumps(directory.allow_external)}',
        _object("domains", [f'{quoted(key)}: {{"origin": {quoted(domains[key])}}}' for key in sorted(domains)]),
        _object("mailboxes", [box(key, boxes[key]) for key in sorted(boxes)]),
        _object("aliases", [alias(key, aliases[key]) for key in sorted(aliases)]),
    )
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _object(name: str, lines: list[str]) -> str:
    return f'"{name}": {{' + ("\n" + ",\n".join(lines) + "\n" if lines else "") + "}"


def load(content: bytes) -> Directory:
    """Read what dump() wrote; raises ValueError where it is damaged."""
    try:
        data: dict[str, Any] = json.loads(content)
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} is not known to this version")
        boxes = {
            key: Mailbox(item["password"], item["quota"], item["enabled"], item["origin"])
            for key, item in data["mailboxes"].items()
        }
        for box in boxes.values():
            if not (isinstance(box.password, str) and isinstance(box.enabled, bool) and isinstance(box.origin, str)):
                raise ValueError("a mailbox is not as it was written")
            if box.quota is not None and (isinstance(box.quota, bool) or not isinstance(box.quota, int)):
                raise ValueError("a quota is not as it was written")
        return Directory(
            {str(key): str(item["origin"]) for key, item in data["domains"].items()},
            boxes,
            {
                key: Alias(tuple(str(each) for each in item["destinations"]), str(item["origin"]))
                for key, item in data["aliases"].items()
            },
            str(data["recipient_delimiter"]),
            bool(data["allow_external"]),
        )
    except (KeyError, TypeError, AttributeError, UnicodeError) as exc:
        raise ValueError(f"not as it was written: {type(exc).__name__} {exc}") from None


# --- the folder -----------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """A derived file on the disk."""

    wanted: bytes
    found: bytes | None  # None: missing, unreadable, or of another mode or owner

    @property
    def stale(self) -> bool:
        return self.wanted != self.found


class FileStore:
    """The folder. open() first; then load, compare and write."""

    def __init__(self, path: str = DEFAULT_PATH) -> None:
        self.path = path
        self.warnings: list[str] = []

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextlib.contextmanager
    def locked(self, check_mode: bool) -> Iterator[None]:
        """One run at a time; check mode leaves no trace and takes no lock."""
        if check_mode:
            yield
            return
        _files.make_folders(self.path)
        with _files.lock(self.file(".lock"), wait=600):
            yield

    def load(self) -> Directory:
        """What is there; empty where there is nothing yet. Raises StoreError where the truth is damaged."""
        reasons = []
        damaged = False
        for name in (TRUTH, COPY):
            found = _files.look(self.file(name))
            if found is None or found.content is None:
                reasons.append(f"{self.file(name)} is missing")
                continue
            try:
                directory = load(found.content)
            except ValueError as exc:
                reasons.append(f"{self.file(name)} is damaged ({exc})")
                damaged = True
                continue
            if name == COPY:
                self.warnings.append(f"{reasons[0]}; its copy was taken")
            return directory
        if damaged:
            raise StoreError(
                f"{', and '.join(reasons)}: mailboxes made ad hoc stand nowhere else. Bring the file back from a"
                " backup, or delete both to begin anew from the inventory"
            )
        return Directory()

    def stale(self, directory: Directory, only: Container[str] | None = None) -> list[str]:
        """Names of the files that are not as this directory wants them; only: the others are known to be right."""
        return self._survey(directory, derive(directory), only)[0]

    def _survey(
        self, directory: Directory, tables: Tables, only: Container[str] | None
    ) -> tuple[list[str], dict[str, _State]]:
        names = []
        if not self._folder_ok():
            names.append(".")
        truth = [file for file in self._truth(directory, only) if not _files.equal(file, _files.look(file.path))]
        names += [os.path.basename(file.path) for file in truth]
        del truth
        states = {}
        with tempfile.TemporaryDirectory(prefix="postmeister-") as config:
            _write_config(config)
            digests = self._state().get("files") or {}
            for table in _TABLES:
                if only is None or table.name in only:
                    wanted, found = table.text(tables), self._found(table, config, digests.get(table.name))
                    # One copy in memory is enough where both are the same.
                    states[table.name] = _State(wanted, wanted if found == wanted else found)
        names += [name for name, each in states.items() if each.stale]
        return names, states

    def _folder_ok(self) -> bool:
        """Whether the folder lets the daemons in and nobody else write; one that is missing will be made so."""
        try:
            info = os.stat(self.path)
        except OSError:
            return True
        return stat.S_IMODE(info.st_mode) == 0o755 and (info.st_uid, info.st_gid) == (0, 0)

    def _truth(self, directory: Directory, only: Container[str] | None) -> list[File]:
        """The wanted directory.json and its copy, as far as they are to be looked at."""
        names = [name for name in (TRUTH, COPY) if only is None or name in only]
        content = dump(directory) if names else b""
        return [File(self.file(name), content, 0o600, 0, 0, secret=True) for name in names]

    def _private(self, table: _Table) -> bool:
        """Whether the file is there with the mode and owner that it should have."""
        try:
            info = os.lstat(self.file(table.name))
        except OSError:
            return False
        group = _files.gid_of(table.group, missing=0)
        return stat.S_ISREG(info.st_mode) and (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (
            0o640,
            0,
            group,
        )

    def _found(self, table: _Table, config: str, digest: str | None) -> bytes | None:
        """The content on the disk (of LMDB: its rows), None where anything about the file is not as it should be.

        digest is of the file as it was left; without one a database counts by its rows alone.
        """
        path = self.file(table.name)
        if not self._private(table):
            return None
        if table.kind != "lmdb":
            found = _files.look(path)
            return found.content if found else None
        if digest is not None and self._digest(table.name) != digest:
            return None
        try:
            dumped = run(["postmap", "-c", config, "-s", f"lmdb:{path[: -len('.lmdb')]}"], check=False)
        except CommandError:
            return None
        # A damaged database may end the dump in the middle, or make it say other rows; both differ from what is wanted.
        return dumped.out.encode() if dumped.rc == 0 and not dumped.err else None

    def write(self, former: Directory, directory: Directory, only: Container[str] | None = None) -> list[str]:
        """Bring the folder to this directory; returns the names of the files that were written.

        former is what load() gave; only: the other files are known to be right. Everything is on the disk before
        anything live is replaced.
        """
        build = _Build(self.path)
        build.remove()
        tables = derive(directory)
        names, states = self._survey(directory, tables, only)
        if not names:
            return []
        both = tables if former == directory else tables.with_former(derive(former))
        make: list[tuple[_Table, str]] = []
        drop: list[tuple[_Table, str]] = []
        try:
            for table in _TABLES:
                state = states.get(table.name)
                if state is None or not state.stale:
                    continue
                final = build.make(table, state.wanted, "final")
                text = state.wanted if both is tables else table.text(both)
                if text == state.wanted:
                    make.append((table, final))
                    continue
                # Something goes. Where something comes as well, or the file is damaged, it is written twice.
                if text != state.found:
                    make.append((table, build.make(table, text, "both")))
                drop.append((table, final))
            states.clear()
            if "." in names:
                os.chown(self.path, 0, 0)
                os.chmod(self.path, 0o755)  # noqa: S103 (its files are not for everybody)
            _files.write(self._truth(directory, names))
            for table, path in [*make, *reversed(drop)]:
                self._swap(table, path)
        except OSError as exc:
            raise FileError(f"{exc.filename or self.path}: {exc.strerror}") from exc
        finally:
            build.remove()
        return names

    # --- what a run without changes can be told by ---

    def touched(self, source: str) -> list[str] | None:
        """Names of the files that are not as the last run left them, if that run was asked for the same.

        source is the fingerprint of what is asked for. None: it was something else, the truth was touched, or this
        code is not the one that wrote the files; then everything has to be looked at.
        """
        try:
            state = self._state()
            digests = state["files"]
            if state["source"] != source or state["revision"] != _revision():
                return None
            if any(self._digest(name) != digests[name] for name in (TRUTH, COPY)) or not self._folder_ok():
                return None
            return [
                table.name
                for table in _TABLES
                if not self._private(table) or self._digest(table.name) != digests[table.name]
            ]
        except (KeyError, TypeError, FileError):
            return None

    def remember(self, source: str | None) -> None:
        """Note down what the files are now, and what was asked for; None where no fingerprint of it may be kept."""
        names = (TRUTH, COPY, *(table.name for table in _TABLES))
        state = {"source": source, "revision": _revision(), "files": {name: self._digest(name) for name in names}}
        _files.write([File(self.file(STATE), json.dumps(state).encode(), 0o600, 0, 0, secret=True)])

    def _state(self) -> dict[str, Any]:
        """What remember() noted down; empty where there is none, or it is damaged."""
        found = _files.look(self.file(STATE))
        try:
            state = json.loads(found.content) if found and found.content else {}
        except ValueError:
            return {}
        return state if isinstance(state, dict) and isinstance(state.get("files"), dict) else {}

    def _digest(self, name: str) -> str:
        if name in (TRUTH, COPY):
            found = os.stat(self.file(name)) if os.path.exists(self.file(name)) else None
            if found is None or stat.S_IMODE(found.st_mode) != 0o600 or (found.st_uid, found.st_gid) != (0, 0):
                return ""
        return _files.digest(self.file(name))

    def _swap(self, table: _Table, built: str) -> None:
        path = self.file(table.name)
        with contextlib.suppress(FileNotFoundError):
            # Dovecot compares whole seconds and the size, Postfix the time: never the same one twice.
            second = max(int(time.time()), int(os.lstat(path).st_mtime) + 1)
            os.utime(built, (second, second))
        os.rename(built, path)
        _fsync(self.path)


@lru_cache(maxsize=1)
def _revision() -> str:
    """A fingerprint of the code that judges and derives: a new release looks at everything anew."""
    total = hashlib.sha256()
    for module in (addresses, hashes, directory_module, sys.modules[__name__]):
        total.update(source_of(module))
    return total.hexdigest()


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Build:
    """Where new files are made: a root-only folder inside the directory, gone afterwards (or with the next run)."""

    def __init__(self, path: str) -> None:
        self.folder = os.path.join(path, ".build")
        self.config = os.path.join(self.folder, "config")

    def make(self, table: _Table, text: bytes, tag: str) -> str:
        """Make a file, with its mode and owner, durable; returns where it lies. Raises StoreError, FileError."""
        group = _files.gid_of(table.group, missing=0)
        try:
            if not os.path.isdir(self.config):
                self.remove()
                os.mkdir(self.folder, 0o700)
                os.mkdir(self.config, 0o700)
                _write_config(self.config)
            target = os.path.join(self.folder, f"{tag}-{table.name}")
            if table.kind != "lmdb":
                return _files.prepare(File(target, text, 0o640, 0, group, secret=True), target)
            source = target[: -len(".lmdb")]
            with open(source, "wb") as handle:
                handle.write(text)
            done = run(["postmap", "-c", self.config, f"lmdb:{source}"], check=False)
            if done.rc != 0 or done.err:
                if "unsupported" in done.err:
                    raise StoreError(
                        f"postmap: {done.words}: this Postfix cannot make LMDB tables; install postfix-lmdb"
                    )
                raise StoreError(f"postmap: {done.words}")
            os.unlink(source)
            os.chown(target, 0, group)
            os.chmod(target, 0o640)
            _fsync(target)
            return target
        except CommandError as exc:
            raise StoreError(f"{exc}; install postfix and postfix-lmdb first") from exc
        except OSError as exc:
            raise StoreError(f"{exc.filename or self.folder}: {exc.strerror}; nothing was changed") from exc

    def remove(self) -> None:
        """Remove it, and what a run that was killed left half-written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in (TRUTH, COPY, STATE):
            _recover.remove(_recover.aside(os.path.join(os.path.dirname(self.folder), name), "new"))


def _write_config(folder: str) -> None:
    # Postfix may not be configured yet, and postmap wants a main.cf.
    path = os.path.join(folder, "main.cf")
    with open(path, "w", encoding="ascii") as handle:
        handle.write("compatibility_level = 3.6\n")
    # Postfix reads a file of the last second again and again until it has cooled down.
    os.utime(path, (0, 0))


# --- mail on the disk -----------------------------------------------------------------------------------------------


def mail_folder(root: str, address: str) -> str | None:
    """Where the mail of a mailbox lies; None where there is none. Raises StoreError where a symlink leads elsewhere."""
    local, _sep, domain = address.rpartition("@")
    parent = os.path.join(root, domain)
    folder = os.path.join(parent, local)
    for path in (parent, folder):
        if os.path.islink(path):
            raise StoreError(f"{path}: is a symbolic link; mail is not removed through it")
    return folder if os.path.isdir(folder) else None


def remove_mail(folder: str) -> None:
    """Delete a mailbox's folder; raises StoreError."""
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        raise StoreError(f"{exc.filename or folder}: {exc.strerror}") from exc
