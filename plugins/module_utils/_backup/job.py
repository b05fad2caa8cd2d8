# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What a backup job is: its options checked, and what follows from them (rsync's options, systemd's units)."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import mail_host

PROGRAM = "/usr/local/lib/postmeister/backup"
BIN = f"{PROGRAM}/bin"
UPSTREAM = f"{PROGRAM}/upstream"
#: file name of the program, by implementation
PROGRAMS = {"script": "rsync_tmbackup.sh", "python": "rsync_time_machine.py"}
ETC = "/etc/postmeister/backup"
JOBS = f"{ETC}/jobs"
KEYS = f"{ETC}/keys"
STATE = "/var/lib/postmeister/backup"
UNIT = "postmeister-backup-"

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
# rsync-time-backup hands paths to a shell, so nothing that a shell would read in its own way may be in them.
PATH = r"/[A-Za-z0-9._/,+@=-]*"
LOCATION = re.compile(rf"(?:(?P<user>[a-z_][a-z0-9_-]*)@(?P<host>[A-Za-z0-9.-]+):)?(?P<path>{PATH})")
STRATEGY = re.compile(r"[0-9]{1,5}:[0-9]{1,5}(?: [0-9]{1,5}:[0-9]{1,5})*")
SNAPSHOT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6}"
OPTION = re.compile(r"-[A-Za-z0-9._/,+@=:%-]+")
#: what would bring compression by zlib back, or belongs to the role
COMPRESSING = re.compile(r"--(?:(?:old-|new-)?compress(?:-choice|-level|-threads)?|zc|zl|zt)(?:=.*)?")
OWN = (
    "--server",
    "--sender",
    "--daemon",
    "--log-file",
    "--link-dest",
    "--rsh",
    "--rsync-path",
    "--delete",
    "--dry-run",
)
#: what a preset says of a job, before what the job says itself
PRESETS: dict[str, dict[str, Any]] = {
    "": {},
    "mail_host": {"source": "/", "paths": mail_host.PATHS, "excludes": mail_host.EXCLUDES, "one_file_system": False},
}
KEY_TYPES = re.compile(r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9@.-]+)")


class JobError(Exception):
    """A job cannot be right; the message names it, the value and the reason."""


@dataclass(frozen=True)
class Location:
    """A folder here, or on another host."""

    user: str
    host: str
    path: str

    @property
    def remote(self) -> bool:
        return bool(self.host)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.path}" if self.host else self.path


def parse_location(text: str) -> Location:
    """Read /path or user@host:/path; raises JobError."""
    found = LOCATION.fullmatch(text)
    if not found:
        raise JobError(
            f"{text!r} is neither an absolute path nor user@host:/path "
            "(letters, digits and ._/,+@=- only, as rsync-time-backup hands it to a shell)"
        )
    path = found["path"].rstrip("/") or "/"
    if os.path.normpath(path) != path or path.startswith("//"):
        raise JobError(f"{text!r} is not a plain path: {os.path.normpath(path)} is")
    return Location(found["user"] or "", found["host"] or "", path)


def public_key(text: str) -> str:
    """Type and base64 of a public key, without its comment; raises JobError."""
    parts = text.split()
    if len(parts) < 2 or not KEY_TYPES.fullmatch(parts[0]):
        raise JobError(f"{text[:60]!r} is not a public key like 'ssh-ed25519 AAAA…'")
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except ValueError as exc:
        raise JobError(f"{text[:60]!r}: its second word is not base64") from exc
    if blob[4 : 4 + len(parts[0])] != parts[0].encode():
        raise JobError(f"{text[:60]!r} holds another type of key than it says")
    return f"{parts[0]} {parts[1]}"


def inside(path: str, folder: str) -> bool:
    """Whether path is the folder or below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def compresses(option: str) -> bool:
    """Whether an argument of rsync turns compression on (or chooses it), in its long, short and bundled forms."""
    if option.startswith("--"):
        return bool(COMPRESSING.fullmatch(option))
    return option.startswith("-") and "z" in re.split(r"[eBTfM@]", option[1:])[0]


def left_out(path: str, patterns: Sequence[str]) -> bool:
    """Whether rsync's exclude patterns keep path, relative to the source, from being read (first match wins).

    Tries the path and each folder above it, as rsync does on its way down.
    """
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        candidate = "/" + "/".join(parts[:depth])
        for pattern in patterns:
            keep = pattern.startswith("+ ")
            text = pattern[2:] if pattern.startswith(("+ ", "- ")) else pattern
            if re.search(_expression(text), candidate):
                if not keep:
                    return True
                break
    return False


def _expression(pattern: str) -> str:
    """A regular expression for an rsync pattern, for folders."""
    text = pattern[:-3] + "\0" if pattern.endswith("/***") else pattern.rstrip("/")
    result = "^" if pattern.startswith("/") else "(?:^|/)"
    for part in re.split(r"(\*\*|\*|\?|/?\0)", text):
        result += {"**": ".*", "*": "[^/]*", "?": "[^/]", "/\0": "(?:/.*)?", "\0": ".*"}.get(part, re.escape(part))
    return f"{result}$"


def patterns(options: Mapping[str, Any]) -> list[str]:
    """rsync's patterns of what a job leaves out: its excludes, then all that is not in its paths, if it has any."""
    rules = dict.fromkeys(options["excludes"])
    for path in options["paths"]:
        parts = os.path.relpath(path, parse_location(str(options["source"])).path).split("/")
        rules.update(dict.fromkeys(f"+ /{'/'.join(parts[:depth])}/" for depth in range(1, len(parts))))
        rules.update(dict.fromkeys((f"+ /{'/'.join(parts)}", f"+ /{'/'.join(parts)}/***")))
    return [*rules, *(["- *"] if options["paths"] else [])]


def preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of the preset; once more makes no difference. Raises JobError."""
    given = {"preset": "", "paths": [], **options}
    wanted = PRESETS[given["preset"]]
    if not wanted:
        if not given["source"]:
            raise JobError("source: missing")
        return given
    if given["source"] not in ("", wanted["source"]):
        raise JobError(f"source: {given['source']} does not go with preset {given['preset']}, whose source is /")
    for name in ("paths", "excludes"):
        given[name] = list(dict.fromkeys([*wanted[name], *given[name]]))
    return {**given, "source": wanted["source"], "one_file_system": wanted["one_file_system"]}


@dataclass(frozen=True)
class Job:
    """A job whose options were checked. options holds all of them, as the role's variable has them."""

    name: str
    source: Location
    destination: Location
    options: Mapping[str, Any]

    @property
    def remote(self) -> Location | None:
        """The end that is on another host."""
        return self.source if self.source.remote else self.destination if self.destination.remote else None

    @property
    def paths(self) -> list[str]:
        """What of the source is backed up; empty for all."""
        return list(self.options["paths"])

    @property
    def is_mail_host(self) -> bool:
        return bool(self.options["preset"] == "mail_host")

    @property
    def file(self) -> str:
        return f"{JOBS}/{self.name}.json"

    @property
    def exclude_file(self) -> str:
        return f"{JOBS}/{self.name}.exclude"

    @property
    def known_hosts_file(self) -> str:
        return f"{JOBS}/{self.name}.known_hosts"

    @property
    def key_file(self) -> str:
        return f"{KEYS}/{self.name}"

    @property
    def state(self) -> str:
        return f"{STATE}/{self.name}"

    @property
    def login(self) -> str:
        """Socket of the connection that a run's ssh processes share."""
        return f"{self.state}/ssh"

    def rsync_flags(self) -> list[str]:
        """Options of rsync. Those of rsync-time-backup, without a line of output for each file, and the job's own."""
        given = self.options
        flags = ["-D", "--numeric-ids", "--links", "--hard-links", "--times", "--recursive", "--perms", "--owner"]
        flags += ["--group", "--stats"]
        flags += [flag for flag, wanted in FLAGS.items() if given[wanted]]
        if given["bandwidth_limit"]:
            flags.append(f"--bwlimit={given['bandwidth_limit']}")
        if given["timeout"]:
            flags.append(f"--timeout={given['timeout']}")
        return [*flags, *given["rsync_options"]]

    def ssh(self, master: bool = False) -> list[str]:
        """ssh to the other host, with the job's own key, to a host that has the job's own keys.

        master: the connection that the others share.
        """
        if self.remote is None:
            raise JobError(f"{self.name}: both ends are on this host")
        settings = {
            "BatchMode": "yes",
            "Compression": "no",
            # One login for all that upstream asks there, made by the run; without it each has its own.
            "ControlMaster": "yes" if master else "no",
            "ControlPath": self.login,
            "ConnectTimeout": "30",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": self.name,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": self.key_file,
            "ServerAliveCountMax": "4",
            "ServerAliveInterval": "30",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": self.known_hosts_file,
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        options += ["-p", str(self.options["port"]), "-l", self.remote.user, *(["-N"] if master else [])]
        return ["ssh", "-F", "none", *options, self.remote.host]

    def program(self) -> list[str]:
        """rsync-time-backup for this job."""
        strategy = self.options["strategy"]
        if self.options["implementation"] == "python":
            # The port sorts these as text, so they need the same width; a shell would read leading zeros as octal.
            pairs = [pair.split(":") for pair in strategy.split()]
            strategy = " ".join(f"{int(after):06}:{int(every)}" for after, every in pairs)
        return [
            f"{UPSTREAM}/{PROGRAMS[self.options['implementation']]}",
            "--no-auto-expire",
            *("--strategy", strategy),
            *("--log-dir", f"{self.state}/log"),
            *("--rsync-set-flags", " ".join(self.rsync_flags())),
            str(self.source),
            str(self.destination),
            self.exclude_file,
        ]

    def text(self) -> str:
        """The job's file."""
        return json.dumps(self.options, indent=1, sort_keys=True) + "\n"


FLAGS = {"--one-file-system": "one_file_system", "--acls": "acls", "--xattrs": "xattrs"}


def parse(options: Mapping[str, Any]) -> Job:
    """Check one job; raises JobError. options has every key of the role's job, implementation and operator as well."""
    name = str(options["name"])
    try:
        if not NAME.fullmatch(name):
            raise JobError("name: lower case letters, digits and hyphens only, at most 48")
        options = preset(options)
        source, destination = _ends(options)
        _check(options, source, destination)
        keys = [_at("host_keys", public_key, key) for key in options["host_keys"]]
    except JobError as exc:
        raise JobError(f"job {name}: {exc}") from exc
    return Job(name, source, destination, {**options, "host_keys": keys})


def _at(where: str, reader: Any, text: str) -> Any:
    try:
        return reader(text)
    except JobError as exc:
        raise JobError(f"{where}: {exc}") from exc


def _ends(options: Mapping[str, Any]) -> tuple[Location, Location]:
    source = _at("source", parse_location, str(options["source"]))
    destination = _at("destination", parse_location, str(options["destination"]))
    for path in options["paths"]:
        place = _at("paths", parse_location, path)
        if place.remote or place.path != path or path == source.path or not inside(path, source.path):
            raise JobError(f"paths: {path} is not a plain absolute path inside the source {source}")
    if source.remote and destination.remote:
        raise JobError(f"source {source} and destination {destination} are both on another host; one must be here")
    if destination.path == "/":
        raise JobError("destination: / cannot hold snapshots")
    if source.remote or destination.remote:
        if not options["host_keys"]:
            raise JobError("host_keys: missing; without the other host's public key nobody knows who gets the data")
    elif inside(source.path, destination.path):
        raise JobError(f"source {source} lies inside the destination {destination}")
    elif inside(destination.path, source.path):
        relative = os.path.relpath(destination.path, source.path)
        other_disk = options["one_file_system"] and options["mount"] and options["mount"] != source.path
        if not other_disk and not left_out(relative, patterns(options)):
            raise JobError(
                f"destination {destination} lies inside the source {source}, so each would hold the former ones; "
                f"exclude /{relative}, or name its mount point (mount)"
            )
    return source, destination


def _check(options: Mapping[str, Any], source: Location, destination: Location) -> None:
    strategy = options["strategy"]
    if not STRATEGY.fullmatch(strategy):
        raise JobError(f"strategy: {strategy!r} is not a list of pairs of days like '1:1 30:7 365:30'")
    starts = [int(pair.split(":")[0]) for pair in strategy.split()]
    if len(set(starts)) != len(starts):
        raise JobError(f"strategy: {strategy!r} names one number of days twice")
    if not 1 <= options["port"] <= 65535:
        raise JobError(f"port: {options['port']} is none")
    if not 0 <= options["nice"] <= 19:
        raise JobError(f"nice: {options['nice']} is not between 0 and 19")
    if options["timeout"] < 0:
        raise JobError(f"timeout: {options['timeout']} is negative")
    if options["bandwidth_limit"] and not re.fullmatch(
        r"[0-9]+(?:\.[0-9]+)?[kKmMgG]?(?:i?[bB])?", options["bandwidth_limit"]
    ):
        raise JobError(f"bandwidth_limit: {options['bandwidth_limit']!r} is not a rate like 5m")
    for option in options["rsync_options"]:
        if not OPTION.fullmatch(option):
            raise JobError(f"rsync_options: {option!r} is not one option without spaces or signs of the shell")
        if compresses(option):
            raise JobError(f"rsync_options: {option} compresses; that is what compression is for")
        if option.split("=")[0] in OWN or option.startswith(("-e", "--delete")):
            raise JobError(f"rsync_options: {option} belongs to the role")
    if any("\n" in line for line in options["excludes"]):
        raise JobError("excludes: one pattern an entry")
    mount = options["mount"]
    if mount:
        if destination.remote:
            raise JobError(f"mount: {mount} is for a local destination")
        if not inside(destination.path, mount):
            raise JobError(f"mount: the destination {destination} does not lie below {mount}")
    if options["compression"] != "none" and not (source.remote or destination.remote):
        raise JobError(f"compression: {options['compression']} has no use between two folders of this host")


def parse_all(jobs: Sequence[Mapping[str, Any]]) -> list[Job]:
    """Check all jobs of a host, also against each other; raises JobError."""
    result = [parse(job) for job in jobs]
    for index, job in enumerate(result):
        for other in result[:index]:
            if job.name == other.name:
                raise JobError(f"job {job.name}: is there twice")
            first, second = job.destination, other.destination
            if (first.user, first.host) == (second.user, second.host) and (
                inside(first.path, second.path) or inside(second.path, first.path)
            ):
                raise JobError(
                    f"job {job.name}: its destination {first} and that of job {other.name}, {second}, overlap"
                )
    return result


def load(name: str, folder: str = JOBS) -> Job:
    """A job of this host, as the role wrote it; raises JobError."""
    if not NAME.fullmatch(name):
        raise JobError(f"{name!r} is no name of a job")
    try:
        with open(f"{folder}/{name}.json", encoding="utf-8") as handle:
            return parse(json.load(handle))
    except FileNotFoundError as exc:
        raise JobError(f"there is no job {name} on this host") from exc
