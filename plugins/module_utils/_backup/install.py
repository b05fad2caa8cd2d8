# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Bring a host to its jobs and peers: programs, job files, keys, units, markers, authorized_keys; one transaction."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import pwd
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .. import _recover
from .._command import CommandError, run
from .._files import File, FileError, FileSet, equal, lock, look, make_folders, write
from . import commands, inspect, mail_host, peer, shim, status, tell
from . import run as runner
from .job import (
    BIN,
    JOBS,
    KEYS,
    NAME,
    PROGRAM,
    PROGRAMS,
    STATE,
    UNIT,
    UPSTREAM,
    Job,
    JobError,
    inside,
    left_out,
    parse_all,
    parse_location,
    patterns,
    public_key,
)
from .upstream import UpstreamError, program

PACKAGE = __package__ or ""
ABOVE = PACKAGE.rpartition(".")[0]
#: what the host gets a copy of
SOURCES = {
    ABOVE: ("_command.py", "_files.py", "_recover.py"),
    PACKAGE: (
        "__init__.py",
        "commands.py",
        "job.py",
        "mail_host.py",
        "peer.py",
        "run.py",
        "shim.py",
        "status.py",
        "tell.py",
    ),
}
#: programs in bin, and the call behind each
PROGRAMS_BIN = {
    "peer": (peer, "sys.argv[1:]"),
    "rsync": (shim, '["rsync", *sys.argv[1:]]'),
    "run": (runner, "sys.argv[1]"),
    "ssh": (shim, '["ssh", *sys.argv[1:]]'),
    "tell": (tell, "sys.argv[1]"),
}
SYSTEMD = "/etc/systemd/system"
WANTS = f"{SYSTEMD}/timers.target.wants"
MADE, PEERS = f"{STATE}/made.json", f"{STATE}/peers.json"
NOTE = "# Written by Ansible, from the collection postmeister.host; changes are overwritten.\n"
#: marks our lines of authorized_keys
COMMENT = "postmeister-backup:"
ERRORS = (JobError, UpstreamError, FileError, CommandError, OSError)


@dataclass
class Outcome:
    """What was done, or would be."""

    changed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    public_keys: dict[str, str] = field(default_factory=dict)
    diff: list[dict[str, str]] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        return {"changed": bool(self.changed), "changes": self.changed, "public_keys": self.public_keys}


@dataclass(frozen=True)
class Peer:
    """A key of another host, and the folder that it may use."""

    name: str
    public_key: str
    path: str
    access: str
    user: str
    addresses: tuple[str, ...]

    @property
    def line(self) -> str:
        """Its line in authorized_keys (sshd(8))."""
        limits = [f'from="{",".join(self.addresses)}"'] if self.addresses else []
        limits.append(f'command="{BIN}/peer {self.access} {self.path}"')
        return f"restrict,{','.join(limits)} {self.public_key} {COMMENT}{self.name}"


def parse_peers(entries: Sequence[Mapping[str, Any]]) -> list[Peer]:
    """Check the peers; raises JobError."""
    result: list[Peer] = []
    for entry in entries:
        name = str(entry["name"])
        try:
            if not NAME.fullmatch(name):
                raise JobError("name: lower case letters, digits and hyphens only, at most 48")
            if any(name == other.name for other in result):
                raise JobError("is there twice")
            location = parse_location(str(entry["path"]))
            if location.remote or (location.path == "/" and entry["access"] == "write"):
                raise JobError(f"path: {entry['path']} is not a folder for snapshots on this host")
            key = public_key(entry["public_key"])
            twin = next((other for other in result if other.public_key == key and other.user == entry["user"]), None)
            if twin:
                raise JobError(f"public_key: is that of {twin.name} as well; sshd would take the first line only")
            for address in entry["from"]:
                if not re.fullmatch(r"[A-Za-z0-9.:*?!/_-]+", address):
                    raise JobError(f"from: {address!r} is not a pattern of sshd(8)")
        except JobError as exc:
            raise JobError(f"peer {name}: {exc}") from exc
        result.append(Peer(name, key, location.path, entry["access"], entry["user"], tuple(entry["from"])))
    return result


def home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError as exc:
        raise JobError(f"there is no user {user}") from exc


def keys_file(user: str) -> str:
    return f"{home(user)}/.ssh/authorized_keys"


def program_files() -> list[File]:
    """Our own programs, read from where this module runs."""
    files = [File(f"{PROGRAM}/__init__.py", NOTE.encode())]
    for package, names in SOURCES.items():
        folder = PROGRAM if package == ABOVE else f"{PROGRAM}/{_last(package)}"
        for name in names:
            content = pkgutil.get_data(package, name)
            if content is None:
                raise FileError(f"{package}/{name}: cannot be read from the module")
            files.append(File(f"{folder}/{name}", content))
    for name, (module, arguments) in PROGRAMS_BIN.items():
        text = (
            f"#!/usr/bin/python3 -I\n{NOTE}import sys\n\nsys.path.insert(0, {os.path.dirname(PROGRAM)!r})\n"
            f"from {os.path.basename(PROGRAM)}.{_last(PACKAGE)}.{_last(module.__name__)} import main\n\n"
            f"sys.exit(main({arguments}))\n"
        )
        files.append(File(f"{BIN}/{name}", text.encode(), 0o755))
    return files


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def service_unit(job: Job) -> str:
    """systemd.service(5) of a job. What it writes to is the job's to say, so there is no sandbox."""
    network = "Wants=network-online.target\nAfter=network-online.target nss-lookup.target\n" if job.remote else ""
    ionice = f"IOSchedulingClass={job.options['ionice']}\n" if job.options["ionice"] != "none" else ""
    return (
        f"{NOTE}[Unit]\nDescription=Backup {job.name} of {job.source}\n{network}"
        f"OnFailure={UNIT}failed@{job.name}.service\n\n"
        f"[Service]\nType=oneshot\nExecStart={BIN}/run {job.name}\nNice={job.options['nice']}\n{ionice}"
        "TimeoutStopSec=30s\n"
    )


def timer_unit(job: Job) -> str:
    """systemd.timer(5) of a job."""
    given = job.options
    return (
        f"{NOTE}[Unit]\nDescription=When to run the backup {job.name}\n\n[Timer]\nOnCalendar={given['schedule']}\n"
        f"RandomizedDelaySec={given['random_delay']}\nPersistent={'true' if given['persistent'] else 'false'}\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


FAILED_UNIT = f"""{NOTE}[Unit]
Description=Tell the operator that the backup %i failed

[Service]
Type=oneshot
ExecStart={BIN}/tell %i
"""


def read_json(path: str, empty: Any) -> Any:
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return empty


def as_json(path: str, value: Any) -> File:
    return File(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), 0o600)


class Host:
    """What should be on this host, against what is."""

    def __init__(
        self,
        jobs: Sequence[Mapping[str, Any]],
        peers: Sequence[Mapping[str, Any]],
        implementation: str,
        source: str,
        checksum: str,
        check: bool,
    ) -> None:
        self.jobs = parse_all(jobs)
        self.peers = parse_peers(peers)
        self.implementation = implementation
        self.source, self.checksum = source, checksum
        self.check = check
        self.outcome = Outcome()

    # Both are read when a change that was cut short is undone, and no sooner: it may bring former jobs back.

    @cached_property
    def gone(self) -> list[str]:
        """Jobs of this host that are listed no more."""
        return [name for name in inspect.known() if name not in {job.name for job in self.jobs}]

    @cached_property
    def made(self) -> set[str]:
        """Folders whose marker was made once, or was found there."""
        return set(read_json(MADE, []))

    # --- what must be so before anything changes ----------------------------------------------------------------------

    def examine(self) -> None:
        """Refuse what cannot be; in check mode only warn of what another task may have yet to make."""
        for job in self.jobs:
            if not job.source.remote and not os.path.isdir(job.source.path):
                self._refuse(f"job {job.name}: source: there is no folder {job.source.path}")
            if not job.source.remote:
                self._examine_paths(job)
            if not (job.source.remote or job.destination.remote):
                self._examine_local(job)
            mount = job.options["mount"]
            if mount and not os.path.ismount(mount):
                self._refuse(f"job {job.name}: mount: nothing is mounted on {mount}")
            self._systemd(job)
        for entry in self.peers:
            if entry.access == "read" and not os.path.isdir(entry.path):
                self._refuse(f"peer {entry.name}: path: there is no folder {entry.path}")
            try:
                home(entry.user)
            except JobError as exc:
                self._refuse(f"peer {entry.name}: user: {exc}")

    def _examine_paths(self, job: Job) -> None:
        for path in job.paths:
            # Which of its own a mail host has depends on its options.
            if not os.path.lexists(path) and path not in mail_host.PATHS:
                self._refuse(f"job {job.name}: paths: there is no {path}")
        astray = mail_host.astray(job.paths)
        if astray:
            self._refuse(f"job {job.name}: paths: {astray}")

    def _examine_local(self, job: Job) -> None:
        """As parse() does, but through symbolic links."""
        source, destination = os.path.realpath(job.source.path), os.path.realpath(job.destination.path)
        if (source, destination) == (job.source.path, job.destination.path):
            return
        within = inside(destination, source) and not left_out(
            os.path.relpath(destination, source), patterns(job.options)
        )
        if inside(source, destination) or (within and not job.options["mount"]):
            raise JobError(
                f"job {job.name}: {job.source} is {source}, {job.destination} is {destination}: one lies in the other"
            )

    def _refuse(self, reason: str) -> None:
        if not self.check:
            raise JobError(reason)
        self.outcome.warnings.append(f"{reason} (yet?)")

    @staticmethod
    def _systemd(job: Job) -> None:
        asked = {"schedule": "calendar", "random_delay": "timespan"}
        for option, verb in asked.items():
            value = job.options[option]
            if option == "schedule" and not value:
                return
            if "\n" in value or run(["systemd-analyze", verb, value], check=False).rc:
                raise JobError(f"job {job.name}: {option}: systemd-analyze {verb} does not understand {value!r}")

    # --- files --------------------------------------------------------------------------------------------------------

    def files(self) -> list[File]:
        """All wanted files, and those that are to go (content None), in the order of the swap."""
        files = [*program_files(), *self._upstream()] if self.jobs or self.peers or os.path.isdir(PROGRAM) else []
        for job in self.jobs:
            excludes = "".join(f"{line}\n" for line in patterns(job.options))
            hosts = "".join(f"{job.name} {key}\n" for key in job.options["host_keys"]) if job.remote else None
            files += [
                File(job.file, job.text().encode(), 0o600, secret=True),
                File(job.exclude_file, excludes.encode(), 0o600),
                File(job.known_hosts_file, None if hosts is None else hosts.encode(), 0o600),
                File(f"{SYSTEMD}/{UNIT}{job.name}.service", service_unit(job).encode()),
            ]
            timer = timer_unit(job).encode() if job.options["schedule"] else None
            files.append(File(f"{SYSTEMD}/{UNIT}{job.name}.timer", timer))
            if timer is None:
                files.append(File(f"{WANTS}/{UNIT}{job.name}.timer", None))
        if self.jobs:
            files.append(File(f"{SYSTEMD}/{UNIT}failed@.service", FAILED_UNIT.encode()))
        for name in self.gone:
            paths = [f"{JOBS}/{name}{suffix}" for suffix in (".json", ".exclude", ".known_hosts")]
            paths += [f"{KEYS}/{name}", f"{KEYS}/{name}.pub", status.path(f"{STATE}/{name}")]
            paths += [f"{SYSTEMD}/{UNIT}{name}.service", f"{SYSTEMD}/{UNIT}{name}.timer", f"{WANTS}/{UNIT}{name}.timer"]
            files += [File(path, None) for path in paths]
        return files + self._authorized_keys()

    def _upstream(self) -> list[File]:
        if not self.jobs:
            return []
        path = f"{UPSTREAM}/{PROGRAMS[self.implementation]}"
        others = [File(f"{UPSTREAM}/{name}", None) for name in PROGRAMS.values() if not path.endswith(f"/{name}")]
        found = look(self.source) if self.source else None
        if found is None and self.check:
            # The role downloads it before, except in check mode.
            self.outcome.changed += [] if os.path.exists(path) else [path]
            return others
        if found is None or found.content is None:
            raise UpstreamError(f"source: there is no file {self.source}")
        return [File(path, program(self.implementation, found.content, self.checksum, self.source), 0o755), *others]

    def _authorized_keys(self) -> list[File]:
        before: dict[str, str] = read_json(PEERS, {})
        after = {entry.name: entry.user for entry in self.peers}
        files = []
        for user in sorted({*before.values(), *after.values()}):
            try:
                path, account = keys_file(user), pwd.getpwnam(user)
            except JobError:
                continue  # gone, with its keys; or refused before
            found = look(path)
            if found and found.content is None:
                raise FileError(f"{path}: is not a regular file")
            lines = (found.content or b"").decode(errors="surrogateescape").splitlines() if found else []
            kept = [line for line in lines if not (line.split() or [""])[-1].startswith(COMMENT)]
            wanted = [*kept, *(entry.line for entry in self.peers if entry.user == user)]
            if wanted != lines:
                content = "".join(f"{line}\n" for line in wanted).encode(errors="surrogateescape")
                mode = found.mode if found else 0o600
                files.append(File(path, content, mode, account.pw_uid, account.pw_gid))
        if before or after:
            files.append(as_json(PEERS, after))
        return files

    def _markers(self) -> list[tuple[str, str, str]]:
        """Folders that need a marker: path, owner, and for whom."""
        wanted = [
            (job.destination.path, "root", f"job {job.name}")
            for job in self.jobs
            if job.options["marker"] and not job.destination.remote
        ]
        return wanted + [
            (entry.path, entry.user, f"peer {entry.name}") for entry in self.peers if entry.access == "write"
        ]

    # --- doing it -----------------------------------------------------------------------------------------------------

    def apply(self) -> Outcome:
        """Make it so, or in check mode say what would change. Raises one of ERRORS.

        The former files are back then; when only a timer, a marker or a key failed, the next run goes on with that.
        """
        self.examine()
        folder = f"{_recover.SERVICES}/rsync_time_backup"
        undone = "a change that was cut short was undone"
        if self.check:
            self.outcome.changed += [undone] if _recover.find(folder) else []
            self._plan(self.files())
            return self._finish()
        with lock(f"{folder}/lock"):
            self.outcome.changed += [undone] if _recover.mend(folder) else []
            todo = self._plan(self.files())
            self._folders(todo)
            if todo:
                self._swap(folder, todo)
            return self._finish()

    def _plan(self, files: Sequence[File]) -> list[File]:
        todo = []
        for file in files:
            found = look(file.path)
            if equal(file, found):
                continue
            todo.append(file)
            self.outcome.changed.append(file.path)
            shown = not (file.secret or file.path.startswith((PROGRAM, KEYS)))
            before = _text(found.content if found else None, shown)
            after = _text(file.content, shown)
            self.outcome.diff.append(
                {"before_header": file.path, "after_header": file.path, "before": before, "after": after}
            )
        return todo

    def _folders(self, todo: Sequence[File]) -> None:
        """Folders that others may not read into; those of users belong to them."""
        for path in (os.path.dirname(JOBS), JOBS, KEYS, STATE):
            if not os.path.isdir(path):
                make_folders(os.path.dirname(path))
                os.mkdir(path, 0o700)
        for file in todo:
            folder = os.path.dirname(file.path)
            if file.path.endswith("/.ssh/authorized_keys") and not os.path.isdir(folder):
                os.mkdir(folder, 0o700)
                os.chown(folder, int(file.owner), int(file.group))

    def _swap(self, folder: str, todo: Sequence[File]) -> None:
        units = [f"{UNIT}{job.name}.timer" for job in self.jobs if job.options["schedule"]]
        change = FileSet(folder, todo, {"service": "rsync_time_backup", "units": units, "former": True})
        change.prepare()
        touched = any(file.path.startswith(SYSTEMD) for file in todo)
        try:
            change.swap()
            if touched:
                run(["systemctl", "daemon-reload"])
                self._verify(todo)
        except BaseException:
            change.rollback()
            if touched:
                run(["systemctl", "daemon-reload"], check=False)
            change.close()
            raise
        change.commit()
        for file in todo:
            name = os.path.basename(file.path)
            if name.endswith(".timer") and file.content is None and os.path.dirname(file.path) == SYSTEMD:
                run(["systemctl", "stop", name], check=False)
                # A timer whose files went while it waited counts as failed, and so may the job's last run.
                run(["systemctl", "reset-failed", name, name.replace(".timer", ".service")], check=False)

    @staticmethod
    def _verify(todo: Sequence[File]) -> None:
        units = [file.path for file in todo if file.content is not None and os.path.dirname(file.path) == SYSTEMD]
        names = [os.path.basename(path) for path in units if not path.endswith("@.service")]
        if names:
            shown = run(["systemctl", "show", "--property=LoadState,LoadError", *names]).out
            if "LoadState=loaded" not in shown or re.search(r"LoadState=(?!loaded)", shown):
                raise CommandError(f"systemd does not take the units: {' '.join(shown.split())}")

    def _finish(self) -> Outcome:
        """What comes after the files; in check mode it only looks."""
        self._timers()
        self._make_markers()
        self._make_keys()
        return self.outcome

    def _timers(self) -> None:
        """Enable what is to run by itself, and start again what waits for another time than it should."""
        changed = {os.path.basename(path) for path in self.outcome.changed}
        for job in self.jobs:
            name = f"{UNIT}{job.name}.timer"
            if not job.options["schedule"]:
                continue
            if not os.path.islink(f"{WANTS}/{name}"):
                self._systemctl("enable", "--quiet", name)
                self.outcome.changed.append(f"{name}: enabled")
            if name in changed or run(["systemctl", "is-active", "--quiet", name], check=False).rc:
                self._systemctl("restart", name)
                self.outcome.changed += [] if name in changed else [f"{name}: started"]

    def _systemctl(self, *arguments: str) -> None:
        if not self.check:
            run(["systemctl", *arguments])

    def _make_markers(self) -> None:
        """Make each marker once. It is noted when it is on the disk, so a run that ended before is simply repeated."""
        new: dict[str, str] = {}
        for path, user, who in self._markers():
            if path not in self.made:
                new.setdefault(path, user)
            elif not os.path.lexists(marker(path)):
                self.outcome.warnings.append(
                    f"{who}: {marker(path)} was there and is gone: is the disk mounted? It is not made again."
                )
        if new:
            self._plan([note({*self.made, *new})])
        for path, user in new.items():
            if not os.path.lexists(marker(path)):
                self.outcome.changed.append(marker(path))
                if not self.check:
                    make_marker(path, user)
            if not self.check:
                self.made.add(path)
                write([note(self.made)])

    def _make_keys(self) -> None:
        """A pair of keys for each job over SSH. A private key that is there stays, also when its public one is lost."""
        for job in self.jobs:
            if job.remote is None:
                continue
            had = os.path.lexists(job.key_file)
            public = read_public(job.key_file) if had else ""
            if not public:
                self.outcome.changed.append(f"{job.key_file}.pub" if had else job.key_file)
                if not self.check:
                    write(key_files(job.key_file, f"{COMMENT}{job.name}"))
                    public = read_public(job.key_file)
            self.outcome.public_keys[job.name] = public


def marker(path: str) -> str:
    return os.path.join(path, commands.MARKER)


def note(made: Collection[str]) -> File:
    """What is remembered of the markers."""
    return as_json(MADE, sorted(made))


def make_marker(path: str, user: str) -> None:
    """A marker and its folder. The folder has its owner before it has its name."""
    account = pwd.getpwnam(user)
    if not os.path.isdir(path):
        make_folders(os.path.dirname(path))
        new = _recover.aside(path, "new")
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(new)
        os.mkdir(new, 0o700)
        os.chown(new, account.pw_uid, account.pw_gid, follow_symlinks=False)
        os.rename(new, path)
        _recover.fsync_folders([os.path.dirname(path)])
    write([File(marker(path), b"", owner=account.pw_uid, group=account.pw_gid)])


def read_public(key: str) -> str:
    """The public key of a private one; '' where its file is missing or holds none, as after a loss of power."""
    found = look(f"{key}.pub")
    text = (found.content or b"").decode(errors="replace").strip() if found else ""
    with contextlib.suppress(JobError):
        public_key(text)
        return text
    return ""


def key_files(path: str, comment: str) -> list[File]:
    """A new pair of keys, the private one last as that counts; or the public key of the private one that is there."""
    if os.path.lexists(path):
        return [public_file(path, path, comment)]
    folder = f"{os.path.dirname(path)}/.new"
    # A killed run may have left it.
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o700)
    try:
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", f"{folder}/key"])
        with open(f"{folder}/key", "rb") as handle:
            private = File(path, handle.read(), 0o600, secret=True)
        return [public_file(f"{folder}/key", path, comment), private]
    finally:
        # For root only; what could not be removed is an error of the next run that makes a key.
        shutil.rmtree(folder, ignore_errors=True)


def public_file(private: str, path: str, comment: str) -> File:
    text = run(["ssh-keygen", "-y", "-P", "", "-f", private]).out
    return File(f"{path}.pub", f"{public_key(text)} {comment}\n".encode())


def _text(content: bytes | None, shown: bool) -> str:
    if content is None:
        return ""
    return content.decode(errors="replace") if shown else "[content]\n"
