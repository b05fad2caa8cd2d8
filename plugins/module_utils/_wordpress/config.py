# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Constants of wp-config.php: what is wanted, where the file lies, and its replacement.

All files are read, edited (by PHP's own tokenizer, config_php) and checked with php -l before the first is replaced.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._command import CommandError, run
from .._files import File, FileError, Found, look, prepare
from .._plan import Plan
from .._recover import fsync_folders, remove
from .config_php import PROGRAM

HIDDEN = "(not shown)"
_NAME = re.compile(r"[A-Za-z_\u0080-\U0010ffff][0-9A-Za-z_\u0080-\U0010ffff]*")
_RESERVED = {"true", "false", "null", "__compiler_halt_offset__"}
_SECRET = re.compile(r"PASS|SECRET|TOKEN|_KEY$|_SALT$")


class ConfigError(Exception):
    """What is wanted makes no sense, or a file cannot be edited; each line names the file or item and the reason."""


@dataclass(frozen=True)
class Wanted:
    """The constants of one site. path is WordPress' folder, or the file that holds constants."""

    path: str
    #: as the PHP program takes them: name with value, raw or absent
    constants: tuple[Mapping[str, Any], ...]
    #: names whose values must not be shown
    secret: frozenset[str]


@dataclass
class Edit:
    """A file and what the PHP program made of it."""

    path: str
    wanted: Wanted
    found: Found | None  # None: not there yet (check mode)
    content: bytes | None = None  # None: stays
    plan: Plan[str, str] = field(default_factory=Plan)

    @property
    def names(self) -> list[str]:
        """Constants that change."""
        return sorted([*self.plan.create, *self.plan.change, *self.plan.delete])

    def diff(self) -> dict[str, str]:
        """The touched definitions only: the file is full of secrets."""
        return self.plan.diff(lambda name, value: f"define( '{name}', {value} );", self.path)


def looks_secret(name: str) -> bool:
    """Whether a constant of this name holds a secret, whoever gave it: DB_PASSWORD, AUTH_KEY, NONCE_SALT …"""
    return bool(_SECRET.search(name.upper()))


def parse(index: int, site: Mapping[str, Any]) -> Wanted:
    """One item of the module's sites; raises ConfigError naming the item."""
    where = f"sites[{index}]"
    constants: dict[str, dict[str, Any]] = {}

    def add(kind: str, name: str, item: dict[str, Any]) -> None:
        place = f"{where}.{kind}: {name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise ConfigError(f"{place} is no name of a PHP constant")
        if name in constants:
            raise ConfigError(f"{place} is given twice")
        constants[name] = {"name": name, **item}

    for kind in ("constants", "secrets"):
        for name, value in (site.get(kind) or {}).items():
            if not (value is None or isinstance(value, (bool, int, float, str))):
                raise ConfigError(f"{where}.{kind}.{name}: a list or dictionary: write it as a raw expression")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{where}.{kind}.{name}: not a finite number")
            if isinstance(value, int) and not -(2**63) < value < 2**63:
                raise ConfigError(f"{where}.{kind}.{name}: a number beyond 64 bits; write it as a string")
            add(kind, name, {"value": value})
    for name, value in (site.get("raw") or {}).items():
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{where}.raw.{name}: not a PHP expression")
        add("raw", name, {"raw": value.strip()})
    for name in site.get("absent") or []:
        add("absent", name, {"absent": True})
    secret = frozenset(name for name in constants if looks_secret(name) or name in (site.get("secrets") or {}))
    return Wanted(os.path.normpath(site["path"]), tuple(constants.values()), secret)


def locate(path: str) -> str:
    """The file of constants for a folder with WordPress, where WordPress itself would find it; raises ConfigError."""
    if os.path.isfile(path):
        return _real(path)
    if not os.path.isdir(path):
        raise ConfigError(f"{path}: there is no such folder or file")
    if not os.path.isfile(os.path.join(path, "wp-includes", "version.php")):
        raise ConfigError(f"{path}: no WordPress here (no wp-includes/version.php)")
    here, above = os.path.join(path, "wp-config.php"), os.path.join(os.path.dirname(path), "wp-config.php")
    if os.path.lexists(here):
        return _real(here)
    if os.path.isfile(above) and not os.path.exists(os.path.join(os.path.dirname(path), "wp-settings.php")):
        return _real(above)
    raise ConfigError(f"{path}: no wp-config.php here, nor in the folder above")


def _real(path: str) -> str:
    """Where a symlink leads; only one of root's, or of the file's own owner, is followed."""
    try:
        link, target = os.lstat(path), os.stat(path)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if link.st_uid not in (0, target.st_uid):
        raise ConfigError(f"{path}: a symlink of another user than its target's")
    return os.path.realpath(path)


def absent(path: str) -> bool:
    """Whether there is nothing at all yet, so that an earlier task of a run in check mode may have to make it."""
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def lock(paths: Sequence[str], wait: float = 60.0) -> Iterator[None]:
    """Hold the folders of these files against another run; wait is in seconds. Raises FileError."""
    deadline = time.monotonic() + wait
    with contextlib.ExitStack() as held:
        for folder in sorted({os.path.dirname(path) for path in paths}):
            try:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as exc:
                raise FileError(f"{folder}: {exc.strerror}") from exc
            held.callback(os.close, handle)
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise FileError(f"{folder}: another run is at work there") from None
                    time.sleep(0.1)
        yield


def edit(php: str, files: Sequence[tuple[str, Wanted]]) -> list[Edit]:
    """Read the files and compute what they should be; raises ConfigError with every file that cannot be edited."""
    edits = []
    troubles = []
    for path, wanted in files:
        try:
            found = look(path)
        except FileError as exc:
            troubles.append(str(exc))
            continue
        if found is None or found.content is None:
            troubles.append(f"{path}: is not a file")
            continue
        edits.append(Edit(path, wanted, found))
    job = {
        "files": [
            {
                "code": base64.b64encode((each.found and each.found.content) or b"").decode(),
                # A file that was named may be one that wp-config.php includes, and hold nothing but constants.
                "fragment": os.path.isfile(each.wanted.path) and os.path.basename(each.path) != "wp-config.php",
                "constants": each.wanted.constants,
            }
            for each in edits
        ]
    }
    for each, answer in zip(edits, _program(php, job)):
        for error in answer["errors"]:
            line = f":{error['line']}" if error["line"] else ""
            troubles.append(f"{each.path}{line}: {error['message']}")
        if not answer["errors"]:
            each.content = None if answer["code"] is None else base64.b64decode(answer["code"])
            each.plan = plan(answer["changes"], each.wanted.secret)
    if troubles:
        raise ConfigError("\n".join(troubles))
    return edits


def plan(changes: Sequence[Mapping[str, Any]], secret: frozenset[str]) -> Plan[str, str]:
    """The program's list of changes, without what must not be shown."""
    result: Plan[str, str] = Plan()
    for change in changes:
        name = change["name"]
        hide = name in secret or looks_secret(name)
        before, after = (HIDDEN if hide and text is not None else text for text in (change["before"], change["after"]))
        if before is None:
            result.create[name] = after
        elif after is None:
            result.delete[name] = before
        else:
            result.change[name] = (before, after)
    return result


def planned(path: str, wanted: Wanted) -> Edit:
    """What would be done to a file that is not there yet."""
    changes = [
        {"name": item["name"], "before": None, "after": item.get("raw", json.dumps(item.get("value")))}
        for item in wanted.constants
        if "absent" not in item
    ]
    return Edit(path, wanted, None, b"", plan(changes, wanted.secret))


def replace(php: str, edits: Sequence[Edit]) -> None:
    """Write the changed files, once php -l has passed all of them; raises ConfigError and FileError."""
    todo = [each for each in edits if each.content is not None and each.found is not None]
    # Its name ends like the file's own: a web server that is asked for it runs it rather than show it.
    beside = {each.path: _beside(each.path) for each in todo}
    try:
        for each in todo:
            prepare(_file(each), beside[each.path])
        for each in todo:
            check(php, beside[each.path], each.path)
        for each in todo:
            try:
                os.rename(beside[each.path], each.path)
            except OSError as exc:
                raise FileError(f"{each.path}: {exc.strerror}") from exc
    finally:
        for path in beside.values():
            with contextlib.suppress(OSError):
                remove(path)
    fsync_folders(os.path.dirname(each.path) for each in todo)


def _beside(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name.removesuffix('.php')}.postmeister-new.php")


def _file(each: Edit) -> File:
    found = each.found
    if found is None:
        raise ValueError(each.path)
    return File(each.path, each.content, found.mode, found.uid, found.gid, secret=True)


def check(php: str, path: str, shown: str) -> None:
    """Have PHP compile a file; raises ConfigError with the line, under the name that the file will have."""
    result = run([php, "-d", "display_errors=stderr", "-l", path], check=False)
    if result.rc:
        match = re.search(r"(?:PHP )?\w+ error: +(.*) in .* on line (\d+)", result.words)
        words = f"{shown}:{match[2]}: {match[1]}" if match else f"{shown}: {result.words}"
        raise ConfigError(f"{words} (php -l; nothing was changed)")


def _program(php: str, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the program. It comes as a file because standard input holds the job; the file has no secrets."""
    with tempfile.NamedTemporaryFile("w", suffix=".php") as program:
        program.write(PROGRAM)
        program.flush()
        try:
            result = run([php, "-d", "display_errors=stderr", program.name], json.dumps(job), check=False)
        except CommandError as exc:
            raise ConfigError(str(exc)) from exc
    if result.rc:
        raise ConfigError(f"{php} cannot edit wp-config.php (needs PHP 8.2 with tokenizer): {result.words}")
    answers: list[dict[str, Any]] = json.loads(result.out)
    return answers
