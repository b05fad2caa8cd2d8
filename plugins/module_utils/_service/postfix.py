# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Postfix 3.7 (Debian 12) and 3.10 (Debian 13)."""

from __future__ import annotations

import os
import re
import socket
import time

from ._base import Change, Service, ServiceError, Stage, journal, run
from ._smtp import Listener, NoAnswer, Wanted, transaction

FOLDER = "/etc/postfix"
#: settings that only a new master process reads: postconf(5) says "stop and start" of the first two, and master(8)
#: opens the others when it starts
RESTART_SETTINGS = (
    "inet_interfaces",
    "inet_protocols",
    "queue_directory",
    "data_directory",
    "daemon_directory",
    "mail_owner",
)
#: master.cf's names of the ports for mail
PORTS = {"smtp": 25, "25": 25, "submission": 587, "587": 587, "submissions": 465, "smtps": 465, "465": 465}
#: seconds: how long a daemon that does not answer, or answers wrongly, may take to do so
PATIENCE_SILENT = 15.0
PATIENCE_WRONG = 4.0
PATIENCE_GONE = 2.0
#: seconds between two tries; each wrong answer may cost the postmaster a notice (notify_classes)
PAUSE_SILENT = 0.25
PAUSE_WRONG = 1.5


class Postfix(Service):
    """Postfix.

    Options of the probe, all of them optional:
    hostname: name for EHLO (default: the machine's own).
    address: address to connect to (default: the listener's own in master.cf, else the first of inet_interfaces).
    recipient: own address that must be accepted on port 25 (default: postmaster at hostname).
    ordinary: another own address, to reach rules that spare the postmaster; only a fault of the configuration fails.
    foreign: address that must be refused; give it only with an address that mynetworks does not hold.
    ports: list of ports (default: those of 25, 465 and 587 that master.cf has).
    auth: whether AUTH must be offered on 465 and 587 (default: true).
    """

    name = "postfix"
    units = ("postfix.service",)
    folders = (FOLDER,)
    # Every program of Postfix sleeps while main.cf is younger than about two seconds, lest it reads a half. Files that
    # come by rename are never halves, so smtpd need not keep clients waiting.
    date_back = 4

    def swap_rank(self, dest: str) -> int:
        """Maps, master.cf, main.cf: a new smtpd reads main.cf at once, while master.cf waits for the reload."""
        return {f"{FOLDER}/master.cf": 1, f"{FOLDER}/main.cf": 2}.get(dest, 0)

    def check(self, stage: Stage) -> None:
        """postconf(1) reads the staged files; a line on standard error fails, as it exits with 0 for most faults.

        Not `postfix check`: that makes folders and runs postsuper, and sees less.
        """
        folder = stage.path(FOLDER)
        problems: dict[str, None] = {}
        for option in ("-n", "-M", "-P"):
            result = run(["postconf", "-c", folder, option], check=False)
            if result.err.strip() or result.rc != 0:
                problems.update(dict.fromkeys((result.err.strip() or result.words).splitlines()))
        if problems:
            raise ServiceError("\n".join(_located(line, folder) for line in problems))

    def restart_reason(self, changes: list[Change]) -> str | None:
        for change in changes:
            if change.dest == f"{FOLDER}/main.cf":
                before, after = settings(change.before or b""), settings(change.after or b"")
                for name in RESTART_SETTINGS:
                    if before.get(name) != after.get(name):
                        return f"{name} in {change.dest}"
        return None

    def reload(self) -> None:
        # Not by systemctl: on Debian 12 postfix.service is a oneshot of /bin/true whose reload does nothing.
        pickup = self._pickup()
        run(["postfix", "reload"])
        # The command only signals. Until master has acted, an idle smtpd with the former settings may still answer.
        deadline = time.monotonic() + 5
        while pickup and pickup == self._pickup() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)

    def running(self) -> bool:
        # postfix status cannot tell while main.cf is damaged; the process can.
        return run(["postfix", "status"], check=False).rc == 0 or _program(self._master()) == "master"

    def probe(self) -> None:
        listeners = self._listeners()
        hostname = str(self.options.get("hostname") or socket.getfqdn())
        wanted = Wanted(
            helo=hostname,
            # The bare postmaster would be accepted before any rule is looked at.
            recipient=str(self.options.get("recipient") or f"postmaster@{hostname}"),
            foreign=str(self.options.get("foreign") or ""),
            auth=bool(self.options.get("auth", True)),
            ordinary=str(self.options.get("ordinary") or ""),
        )
        start = time.monotonic()
        for listener in listeners:
            while True:
                try:
                    transaction(listener, wanted)
                    break
                except ServiceError as exc:
                    silent = isinstance(exc, NoAnswer)
                    waited = time.monotonic() - start
                    if waited > (PATIENCE_SILENT if silent else PATIENCE_WRONG):
                        raise
                    if waited > PATIENCE_GONE and not self.running():
                        raise ServiceError(f"{exc}\npostfix status: the master process is gone") from exc
                time.sleep(PAUSE_SILENT if silent else PAUSE_WRONG)
        if not self.running():
            raise ServiceError("postfix status: the master process is gone")

    def words(self, since: float) -> str:
        lines = journal(since, ["SYSLOG_FACILITY=2"]).splitlines()
        # The probe's own wrong answers make such notices; they are not the reason.
        return "\n".join(_placed(line) for line in lines if "postmaster notification discarded" not in line)

    def _listeners(self) -> list[Listener]:
        ports = [int(port) for port in self.options.get("ports") or []]
        address = str(self.options.get("address") or "")
        found: dict[int, Listener] = {}
        for line in run(["postconf", "-M"]).out.splitlines():
            fields = line.split()
            host, _sep, name = fields[0].rpartition(":")
            if len(fields) > 1 and fields[1] == "inet" and name in PORTS:
                port = PORTS[name]
                found.setdefault(port, _listener(address or host.strip("[]"), port))
        if ports:
            found = {port: found.get(port) or _listener(address, port) for port in ports}
        if not found:
            raise ServiceError(f"{FOLDER}/master.cf: there is no listener for mail")
        default = self._own_address() if any(not listener.address for listener in found.values()) else ""
        return [
            listener if listener.address else Listener(default, port, listener.tls, listener.login)
            for port, listener in sorted(found.items())
        ]

    def _own_address(self) -> str:
        for word in re.split(r"[\s,]+", run(["postconf", "-hx", "inet_interfaces"]).out.strip()):
            if re.fullmatch(r"\[?[0-9a-fA-F:.]+\]?", word) and any(mark in word for mark in ".:"):
                return word.strip("[]")
        return "127.0.0.1"

    def _master(self) -> int:
        """Process id in master's lock file; 0 when there is none."""
        queue = run(["postconf", "-h", "queue_directory"], check=False).out.strip() or "/var/spool/postfix"
        try:
            with open(os.path.join(queue, "pid", "master.pid"), encoding="ascii") as handle:
                return int(handle.read())
        except (OSError, ValueError):
            return 0

    def _pickup(self) -> int:
        """Process id of pickup, which every reload replaces; 0 when it is not known."""
        master = self._master()
        return next((pid for pid in _children(master) if _program(pid) == "pickup"), 0) if master else 0


def settings(text: bytes) -> dict[str, str]:
    """Parse main.cf: lines that begin with white space continue the line before; a later setting wins."""
    result: dict[str, str] = {}
    name = ""
    for line in text.decode(errors="surrogateescape").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            if name:
                result[name] = f"{result[name]} {line.strip()}".strip()
            continue
        name, sep, value = line.partition("=")
        name = name.strip()
        if sep:
            result[name] = " ".join(value.split())
        else:
            name = ""
    return result


def _listener(address: str, port: int) -> Listener:
    return Listener(address, port, {465: "implicit", 587: "starttls"}.get(port, ""), port in (465, 587))


def _located(line: str, folder: str) -> str:
    """Name the live file, and the line where postconf does not ('.../main.cf: unused parameter: name=value')."""
    line = re.sub(r"^postconf: (?:warning: )?", "", line)
    match = re.search(re.escape(folder) + r"/(\w+\.cf): (unused|undefined) parameter: ([\w.-]+)", line)
    if match:
        name = re.escape(match[3])
        where = rf"(?:\s*-o\s*\{{?\s*)?{name}\s*=" if match[2] == "unused" else rf".*\$[{{(]?{name}\b"
        try:
            with open(os.path.join(folder, match[1]), encoding="utf-8", errors="replace") as handle:
                number = next((n for n, text in enumerate(handle, 1) if re.match(where, text)), 0)
        except OSError:
            number = 0
        if number:
            line = line.replace(f"/{match[1]}:", f"/{match[1]}, line {number}:", 1)
    return line.replace(folder, FOLDER)


def _placed(line: str) -> str:
    """Say where the live configuration has a restriction that smtpd does not know; its log names the word alone."""
    match = re.search(r'unknown smtpd restriction: "([^"]+)"', line)
    if match is None:
        return line
    word = re.compile(rf"(?<![\w.-]){re.escape(match[1])}(?![\w.-])")
    for name in ("main.cf", "master.cf"):
        path, setting = os.path.join(FOLDER, name), ""
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                for number, text in enumerate(handle, 1):
                    if text.lstrip().startswith("#"):
                        continue
                    start = re.match(r"\s*(?:-o\s*\{?\s*)?(\w+)\s*=", text)
                    setting = start[1] if start else setting
                    if word.search(text):
                        return f"{line} ({path}, line {number}: {setting})"
        except OSError:
            continue
    return line


def _children(parent: int) -> list[int]:
    result = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as handle:
                    # The name in parentheses may hold blanks; the parent is the second field after it.
                    if int(handle.read().rpartition(")")[2].split()[1]) == parent:
                        result.append(int(name))
            except (OSError, IndexError, ValueError):
                continue
    return result


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return ""


SERVICE = Postfix
