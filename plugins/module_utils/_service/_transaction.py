# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One transaction per service: compare, stage, check, journal, swap, reload or restart, probe; or the former set again.

States of a service's folder below /var/lib/postmeister/services (root-only):
lock           held by a run
state.json     there since the first success: digests of the inputs, options of the probe that passed
stage/         the tree that the checker reads, during a run
journal-*.json an open change (see _recover)
"""

from __future__ import annotations

import contextlib
import grp
import inspect
import json
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _recover
from .._command import CommandError, run
from .._files import (
    File,
    FileError,
    FileSet,
    Found,
    digest,
    equal,
    gid_of,
    lock,
    look,
    make_folders,
    prepare,
    uid_of,
    write,
)
from .._plan import PlanError, by_key
from ._base import Change, Service, ServiceError, Stage

SYSTEMD = "/etc/systemd/system"
SCRIPT = "/usr/local/lib/postmeister/recover.py"
UNIT = f"{SYSTEMD}/postmeister-recover.service"
ENABLED = f"{SYSTEMD}/sysinit.target.wants/postmeister-recover.service"
UNIT_TEXT = f"""# Made by postmeister.host.service_config.
# Before sysinit.target: no ordinary service starts until a change that was cut short is undone.
[Unit]
Description=Bring back service configurations whose change was cut short
DefaultDependencies=no
RequiresMountsFor={_recover.SERVICES} /etc {os.path.dirname(SCRIPT)}
After=local-fs.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
ConditionPathExistsGlob={_recover.SERVICES}/*/journal-*.json

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {SCRIPT}

[Install]
WantedBy=sysinit.target
"""
EXPECTED = (ServiceError, CommandError, FileError, OSError)


class TransactionError(Exception):
    """The change was refused or undone; the message holds the daemon's own words and says what serves now."""


class Refused(Exception):
    """What was asked for cannot be right; nothing was looked at yet. The message names the item and the reason."""


ERRORS = (TransactionError, Refused, *EXPECTED)


@dataclass(frozen=True)
class Difference:
    """A file that is not as wanted."""

    file: File
    found: Found | None

    @property
    def change(self) -> Change:
        return Change(self.file.path, self.found.content if self.found else None, self.file.content)

    def diff(self) -> dict[str, str]:
        """Ansible's diff of this file: attributes where they differ, then the content where it differs."""
        file, found = self.file, self.found
        before = after = ""
        if file.path in (SCRIPT, UNIT):
            # The collection's own: its text is of no interest to somebody who reviews his mail host.
            before = "[another version]\n" if found else ""
            after = "[this version]\n"
            return {"before_header": file.path, "after_header": file.path, "before": before, "after": after}
        if found and file.content is not None:
            was, will = attributes(found), attributes_of(file)
            if was != will:
                before, after = f"[{was}]\n", f"[{will}]\n"
        old = found.content if found else None
        if found and not found.regular:
            before += "[not a regular file]\n"
        if old != file.content:
            if file.secret:
                before += "" if old is None else "[secret content]\n"
                after += "" if file.content is None else "[secret content, changed]\n" if old else "[secret content]\n"
            else:
                before += _text(old)
                after += _text(file.content)
        return {"before_header": file.path, "after_header": file.path, "before": before, "after": after}


@dataclass
class Outcome:
    """What was done, or would be."""

    differences: list[Difference] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    #: '', 'started', 'reloaded' or 'restarted'
    action: str = ""
    restart_reason: str = ""
    recovered: str = ""
    #: why there is something to do although no file differs
    reasons: list[str] = field(default_factory=list)
    #: what follows once the daemon serves, as Ansible's diff
    afterwards: list[dict[str, str]] = field(default_factory=list)
    running: bool = True

    @property
    def changed(self) -> bool:
        return bool(not self.serves_as_wanted or self.afterwards)

    @property
    def serves_as_wanted(self) -> bool:
        """Whether nothing is left but what follows."""
        return not (self.differences or self.inputs or self.reasons or self.recovered)

    def result(self) -> dict[str, Any]:
        """The module's return values."""
        return {
            "changed": self.changed,
            "files": [difference.file.path for difference in self.differences]
            + [entry["before_header"] for entry in self.afterwards if "before_header" in entry],
            "inputs": self.inputs,
            "action": self.action,
            "restart_reason": self.restart_reason,
            "recovered": self.recovered,
        }

    def diff(self) -> list[dict[str, str]]:
        result = [difference.diff() for difference in self.differences]
        notes = [f"changed since the last reload: {path}" for path in self.inputs] + self.reasons
        if self.recovered:
            notes.insert(0, f"a change that was cut short: {self.recovered}")
        if notes:
            result.append({"prepared": "".join(f"{note}\n" for note in notes)})
        return result + self.afterwards


def files_from(entries: Sequence[Mapping[str, Any]]) -> list[File]:
    """Make files of the options; raises Refused naming the entry, the value and the reason."""
    result = []
    for index, entry in enumerate(entries):
        where = f"files[{index}]"
        dest = str(entry.get("dest") or "")
        if not dest.startswith("/") or os.path.normpath(dest) != dest or dest == "/":
            raise Refused(f"{where}.dest: {dest!r} is not a plain absolute path")
        if f"{dest}/".startswith(f"{os.path.dirname(_recover.SERVICES)}/") or dest in (SCRIPT, UNIT, ENABLED):
            raise Refused(f"{where}.dest: {dest} belongs to service_config itself")
        secret = bool(entry.get("secret"))
        mode = entry.get("mode") or ("0600" if secret else "0644")
        if not isinstance(mode, str) or not re.fullmatch(r"0[0-7]{3}", mode):
            raise Refused(f"{where}.mode: {mode!r} of {dest} is not a string of four octal digits like '0644'")
        if secret and int(mode, 8) & 0o137:
            raise Refused(f"{where}.mode: {mode} of {dest} is looser than 0640, and the file is secret")
        content = entry.get("content")
        if entry.get("state") == "absent":
            content = None
        elif not isinstance(content, str):
            raise Refused(f"{where}: {dest} has neither content nor template")
        result.append(
            File(
                path=dest,
                content=None if content is None else content.encode("utf-8", "surrogateescape"),
                mode=int(mode, 8),
                owner=str(entry.get("owner") or "root"),
                group=str(entry.get("group") or "root"),
                secret=secret,
            )
        )
    try:
        paths = by_key(result, lambda file: file.path, "files")
    except PlanError as exc:
        raise Refused(str(exc)) from exc
    for path in paths:
        for other in paths:
            if other.startswith(f"{path}/"):
                raise Refused(f"files: {path} cannot be a file and the folder of {other} at once")
    return result


def secrets_of(files: Sequence[File]) -> set[str]:
    """What must not show up in a message that quotes a checker: of each secret file, wanted and live, the lines, the
    values after = or :, and the words that look like no word of a language.

    Nothing under six characters: masking every "yes" would leave no message to read.
    """
    result: set[str] = set()
    for file in files:
        if not file.secret:
            continue
        try:
            found = look(file.path)
        except FileError:  # a folder, for instance; it is what is complained of
            found = None
        for content in (file.content, found.content if found else None):
            for line in (content or b"").decode(errors="replace").splitlines():
                value = re.split(r"[=:]", line, maxsplit=1)[-1].strip().strip("\"'")
                words = [word for word in re.split(r"[\s\"'=:;,{}]+", line) if not re.fullmatch(r"[a-z_]*", word)]
                result.update(text for text in (line.strip(), value, *words) if len(text) >= 6)
    return result


class Transaction:
    """All files of one service, brought to what is wanted, or left as they were."""

    def __init__(
        self,
        service: Service,
        files: Sequence[File],
        inputs: Sequence[str] = (),
        wait: float = 60.0,
        root: str = _recover.SERVICES,
    ) -> None:
        self.service = service
        # What refers to other files goes in last, and what is to go, goes when nothing refers to it any more.
        self.files = sorted(files, key=lambda file: (file.content is None, service.swap_rank(file.path)))
        self.inputs = list(inputs)
        self.wait = wait
        self.folder = os.path.join(root, service.name)

    def plan(self) -> Outcome:
        """Compare; reads only."""
        outcome = Outcome()
        for file in [*recovery_files(), *self.files]:
            found = look(file.path)
            if not equal(file, found):
                outcome.differences.append(Difference(file, found))
        remembered = self._state().get("inputs", {})
        outcome.inputs = [path for path in self.inputs if digest(path) != remembered.get(path)]
        if not os.path.islink(ENABLED):
            outcome.reasons.append("postmeister-recover.service: not enabled")
        if not self._state():
            outcome.reasons.append(f"{self.service.name}: was never configured by a run that succeeded")
        for unit, state in unit_states(self.service.units).items():
            if state not in ("", "enabled"):
                outcome.reasons.append(f"{unit}: {state}")
        outcome.reasons += self.service.missing()
        outcome.afterwards = self.service.afterwards()
        outcome.running = self._running()
        if not outcome.running:
            outcome.reasons.append(f"{self.service.name}: not running")
        return outcome

    def check_mode(self) -> Outcome:
        """What apply() would do."""
        outcome = self.plan()
        opened = _recover.find(self.folder)
        if opened:
            outcome.recovered = "would be undone" if opened[0] == "swap" else "would be cleaned up"
        return outcome

    def apply(self) -> Outcome:
        """Make it so.

        Raises TransactionError, with the former set serving again, or FileError where nothing was touched.
        """
        for file in self.files:
            if file.content is not None:
                try:
                    uid_of(file.owner)
                    gid_of(file.group)
                except FileError as exc:
                    raise FileError(f"{file.path}: {exc}") from exc
        with lock(os.path.join(self.folder, "lock"), self.wait):
            recovered = _recover.mend(self.folder)
            self._tidy()
            outcome = self.plan()
            outcome.recovered = recovered
            if not outcome.changed:
                return outcome
            if outcome.serves_as_wanted:
                self.service.probe()
                self.service.follow_up()
                return outcome
            install_recovery(self.wait)
            self.service.provide()
            self._check()
            self._swap(outcome)
            self.service.follow_up()
            return outcome

    def _tidy(self) -> None:
        """Remove what a run leaves that was killed before its journal was there; it holds copies of secrets."""
        shutil.rmtree(os.path.join(self.folder, "stage"), ignore_errors=True)
        _recover.remove(_recover.aside(_recover.journal_path(self.folder, "prepare"), "new"))

    def _check(self) -> None:
        stage = Stage(os.path.join(self.folder, "stage"))
        try:
            build_stage(stage, self.service.folders, self.files, self.service.date_back)
            self.service.check(stage)
        except EXPECTED as exc:
            words = str(exc).replace(stage.root, "")
            raise TransactionError(f"{words}\nNothing was changed: the check of the new files failed.") from exc
        finally:
            shutil.rmtree(stage.root, ignore_errors=True)

    def _swap(self, outcome: Outcome) -> None:
        service = self.service
        own = {file.path for file in self.files}
        changes = [difference.change for difference in outcome.differences if difference.file.path in own]
        was_running = outcome.running
        former = bool(self._state()) or was_running
        reason = (service.restart_reason(changes) or unit_reason(service, changes)) if was_running else None
        todo = [difference.file for difference in outcome.differences if difference.file.path in own]
        files = FileSet(
            self.folder,
            [*todo, self._new_state()],
            {"service": service.name, "units": list(service.units), "former": former},
            service.date_back,
        )
        files.prepare()
        since = time.time()
        try:
            files.swap()
            outcome.action = self._activate(changes, was_running, reason)
            outcome.restart_reason = reason or ""
            service.probe()
            disabled = [unit for unit, unit_state in unit_states(service.units).items() if unit_state == "disabled"]
            if disabled:
                run(["systemctl", "enable", "--quiet", *disabled])
            files.commit()
        except BaseException as exc:
            log = ""
            with contextlib.suppress(Exception):  # whatever goes wrong here, the rollback must follow
                log = service.words(since) if isinstance(exc, (ServiceError, CommandError)) else ""
            now = self._roll_back(files, changes, former)
            if not isinstance(exc, EXPECTED):
                raise
            raise TransactionError("\n".join(part for part in (str(exc), log, now) if part)) from exc

    def _activate(self, changes: Sequence[Change], was_running: bool, reason: str | None) -> str:
        masked = [unit for unit, state in unit_states(self.service.units).items() if state == "masked"]
        if masked:
            run(["systemctl", "unmask", "--quiet", *masked])
        if masked or touches_systemd(changes):
            run(["systemctl", "daemon-reload"])
        if not was_running or reason:
            self.service.restart()
            return "restarted" if was_running else "started"
        self.service.reload()
        return "reloaded"

    def _roll_back(self, files: FileSet, changes: Sequence[Change], former: bool) -> str:
        files.rollback()
        service = self.service
        if touches_systemd(changes):
            run(["systemctl", "daemon-reload"], check=False)
        if not former:
            service.stop()
            for unit in service.units:
                run(["systemctl", "mask", "--quiet", unit], check=False)
            files.close()
            return "The change was undone. There is no former configuration, so the service is stopped and masked."
        service = type(service)(service.debian, self._state().get("probe") or service.options)
        for attempt in (service.reload, service.restart):
            try:
                if attempt == service.reload and (not service.running() or touches_systemd(changes)):
                    continue
                attempt()
                service.probe()
            except EXPECTED as exc:
                answer = f"The former files are back, but the service does not serve: {exc}"
            else:
                answer = "The former files are back, and the service serves with them."
                break
        files.close()
        return answer

    def _running(self) -> bool:
        try:
            return self.service.running()
        except CommandError:
            return False  # not installed

    def _state(self) -> dict[str, Any]:
        try:
            with open(os.path.join(self.folder, "state.json"), encoding="utf-8") as handle:
                return json.load(handle)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}

    def _new_state(self) -> File:
        """What a success is remembered by; part of the set, so that a rollback forgets it as well.

        The inputs are read before the reload: a later change of theirs is a change for the next run.
        """
        state = {"inputs": {path: digest(path) for path in self.inputs}, "probe": dict(self.service.options)}
        text = json.dumps(state, indent=1, sort_keys=True).encode()
        return File(os.path.join(self.folder, "state.json"), text, 0o600)


def recovery_files() -> list[File]:
    """The script that mends at boot, and its unit."""
    return [
        File(SCRIPT, inspect.getsource(_recover).encode(), 0o644),
        File(UNIT, UNIT_TEXT.encode(), 0o644),
    ]


def install_recovery(wait: float) -> None:
    """Put the script and the unit on the host, enabled, before the first journal is written."""
    files = recovery_files()
    with lock(os.path.join(os.path.dirname(_recover.SERVICES), "recover.lock"), wait):
        for path in [*(file.path for file in files), ENABLED]:
            make_folders(os.path.dirname(path))
        write(files)
        if not os.path.islink(ENABLED):
            # Not by systemctl: a link is all it is, and it must be durable before the journal is.
            os.symlink(UNIT, ENABLED)
            _recover.fsync_folders([os.path.dirname(ENABLED)])


def build_stage(stage: Stage, folders: Iterable[str], files: Sequence[File], age: int = 0) -> None:
    """Copy the folders into a root-only tree and put the wanted files there."""
    shutil.rmtree(stage.root, ignore_errors=True)
    os.mkdir(stage.root, 0o700)
    for folder in folders:
        if os.path.isdir(folder):
            _copy_folder(folder, stage.path(folder))
    for file in files:
        path = stage.path(file.path)
        _own_folders(stage.root, os.path.dirname(path))
        if file.content is None:
            _recover.remove(path)
        else:
            prepare(file, path, age, durable=False)


def _copy_folder(source: str, target: str) -> None:
    def special(folder: str, names: list[str]) -> list[str]:
        # Sockets and pipes are no configuration, and reading a pipe would wait for ever.
        kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
        modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
        return [name for name, mode in modes.items() if not any(kind(mode) for kind in kinds)]

    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copytree(source, target, symlinks=True, ignore=special)


def _own_folders(root: str, path: str) -> None:
    """Make path below root of real folders: through a copied symlink a write would reach the live tree."""
    current = root
    for part in os.path.relpath(path, root).split(os.sep):
        current = os.path.join(current, part)
        if os.path.islink(current):
            target = os.path.join(os.path.dirname(current[len(root) :]), os.readlink(current))
            os.unlink(current)
            if os.path.isdir(target):
                _copy_folder(target, current)
                continue
        if not os.path.isdir(current):
            os.mkdir(current)


def unit_states(units: Sequence[str]) -> dict[str, str]:
    """State of each unit: enabled, disabled, masked, not installed, or '' where systemd does not say."""
    if not units:
        return {}
    result = run(["systemctl", "show", "--property=Id,LoadState,UnitFileState", *units], check=False)
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines()) for block in result.out.strip().split("\n\n")
    ]
    states = {}
    for unit, block in zip(units, blocks):
        state = block.get("UnitFileState", "")
        if block.get("LoadState") == "masked":
            state = "masked"
        elif block.get("LoadState") == "not-found":
            state = "not installed"
        elif state.startswith("enabled") or state in ("static", "generated", "indirect", "alias", "transient"):
            state = "enabled"
        states[unit] = state
    return states


def touches_systemd(changes: Iterable[Change]) -> bool:
    return any(change.dest.startswith(f"{SYSTEMD}/") for change in changes)


def unit_reason(service: Service, changes: Iterable[Change]) -> str | None:
    """A unit of the service, an instance of it, or a drop-in for either, changed: only a restart lets that count."""
    for change in changes:
        name = os.path.relpath(change.dest, SYSTEMD).split(os.sep, maxsplit=1)[0]
        for unit in service.units:
            if name in (unit, f"{unit}.d") or name.startswith(f"{os.path.splitext(unit)[0]}@"):
                return change.dest
    return None


def attributes(found: Found) -> str:
    try:
        owner = pwd.getpwuid(found.uid).pw_name
    except KeyError:
        owner = str(found.uid)
    try:
        group = grp.getgrgid(found.gid).gr_name
    except KeyError:
        group = str(found.gid)
    return f"mode {found.mode:04o}, owner {owner}, group {group}"


def attributes_of(file: File) -> str:
    try:
        return attributes(Found(None, file.mode, uid_of(file.owner), gid_of(file.group)))
    except FileError:  # check mode on a bare host: the package that brings the user is not installed
        return f"mode {file.mode:04o}, owner {file.owner}, group {file.group}"


def _text(content: bytes | None) -> str:
    if content is None:
        return ""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"[{len(content)} bytes that are not text]\n"
