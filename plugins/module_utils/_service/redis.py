# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Redis: a throwaway instance reads the staged file, a key that is written and read is the probe."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time

from ._base import Change, Service, ServiceError, Stage, run

CONFIG = "/etc/redis/redis.conf"
SOCKET = "/run/redis/redis-server.sock"
#: seconds that loading the snapshot may take
PATIENCE = 30.0


class RedisError(Exception):
    """Redis answered with an error; the message holds its words."""


def command(path: str, *words: str, timeout: float = 5.0) -> str:
    """Run one command over the unix socket (RESP, one simple or bulk reply); '' for a key that is not there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        link.connect(path)
        encoded = [word.encode() for word in words]
        link.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
        answer = link.makefile("rb")
        line = answer.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RedisError(rest.decode(errors="replace"))
        if kind == b"$":
            return answer.read(int(rest)).decode(errors="replace") if int(rest) >= 0 else ""
        if kind in (b"+", b":"):
            return rest.decode(errors="replace")
    raise OSError(f"{path} answers {line!r}")


class Redis(Service):
    """Option of the probe: socket."""

    name = "redis"
    units = ("redis-server.service",)
    folders = ("/etc/redis",)

    def check(self, stage: Stage) -> None:
        config = stage.path(CONFIG)
        # A short path: a unix socket's may have 107 bytes
        folder = tempfile.mkdtemp(prefix="redis-check-", dir="/run" if os.access("/run", os.W_OK) else None)
        path, pidfile = os.path.join(folder, "sock"), os.path.join(folder, "pid")
        own = ["--dir", folder, "--unixsocket", path, "--pidfile", pidfile, "--logfile", os.path.join(folder, "log")]
        own += ["--daemonize", "yes", "--port", "0", "--save", "", "--appendonly", "no"]
        try:
            done = run(["redis-server", config, *own], check=False, timeout=20)
            if done.rc != 0:
                raise ServiceError(_config_error(done.words, config))
            try:
                self._wait(path, time.monotonic() + 10, os.path.join(folder, "log"))
            finally:
                _end(pidfile)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _wait(self, path: str, deadline: float, log: str) -> None:
        while True:
            try:
                command(path, "PING")
                return
            except (OSError, RedisError) as exc:
                problem = str(exc)
            complaints = _complaints(log)
            if time.monotonic() >= deadline or "aborting" in complaints:
                raise ServiceError(f"redis-server does not start with {CONFIG}:\n{complaints or problem}")
            time.sleep(0.05)

    def restart_reason(self, changes: list[Change]) -> str | None:
        # Redis reads its file only when it starts
        return next((change.dest for change in changes), None)

    def reload(self) -> None:
        # There is nothing to read anew
        return

    def probe(self) -> None:
        path = str(self.options.get("socket") or SOCKET)
        key, value = f"postmeister:probe:{secrets.token_hex(8)}", secrets.token_hex(8)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                command(path, "SET", key, value, "EX", "60")
                if command(path, "GET", key) != value:
                    raise ServiceError(f"{path} does not return what was written")
                command(path, "DEL", key)
                return
            except (OSError, RedisError) as exc:
                problem = str(exc)
            # LOADING passes; others do not, but a starting server may refuse the connection as well
            if time.monotonic() >= deadline or not self.running():
                raise ServiceError(f"Redis at {path}: {problem}")
            time.sleep(0.2)


def _config_error(words: str, config: str) -> str:
    """The checker's own words with the live file's name in front: `*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***`."""
    match = re.search(r"at line (\d+)", words)
    where = f"{CONFIG}:{match.group(1)}: " if match else f"{CONFIG}: "
    return where + " ".join(line.strip() for line in words.replace(config, CONFIG).splitlines() if line.strip())


def _complaints(log: str) -> str:
    """What a server logged as a warning (`4590:M 21 Nov 2026 21:09:40.125 # words`), advice on the machine left out."""
    try:
        with open(log, encoding="utf-8", errors="replace") as handle:
            lines = re.findall(r"(?m)^\d+:\S \S+ \S+ \S+ \S+ # (.*)$", handle.read())
    except OSError:
        return ""
    return "\n".join(line for line in lines if "overcommit" not in line)


def _end(pidfile: str) -> None:
    """End the throwaway server that this run started; its PID file is written by itself."""
    for _attempt in range(40):
        try:
            with open(pidfile, encoding="ascii") as handle:
                pid = int(handle.read())
            break
        except (OSError, ValueError):
            time.sleep(0.05)
    else:
        return
    try:
        os.kill(pid, signal.SIGTERM)
        for _attempt in range(100):
            os.kill(pid, 0)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


SERVICE = Redis
