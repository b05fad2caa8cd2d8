# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run of a job: what must be so before, rsync-time-backup, and what became of it.

A snapshot that was not completed is taken out of the history at once, as backup.partial.STAMP: the next run links what
it holds, so nothing is transferred twice, and removes it at its end. Upstream's own way, to rename the newest snapshot
and write into it, is never entered: it changes files that older snapshots share, and a failure that comes again and
again leaves it one snapshot in all.
"""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any

from .._command import CommandError, run
from .._files import File, FileError, lock, make_folders, write
from . import commands, mail_host, status
from .job import BIN, Job, JobError, load
from .shim import LOG, PLAN, RESULT, VARIABLE

#: half snapshots that the next run links against; more are of no use (rsync takes 20 folders)
KEPT_PARTIAL = 5


class RunError(Exception):
    """The backup did not take place; the message says why."""


class Destination:
    """The folder of the snapshots, here or on the other host."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def do(self, text: str, check: bool = True) -> str:
        """One of commands.FORMS. Raises RunError with the other host's words."""
        if self.job.destination.remote:
            result = run([*self.job.ssh(), text], check=False, timeout=86400)
            answer, output, words = result.rc, result.out, result.words
        else:
            command = commands.parse(text)
            if command is None:
                raise ValueError(text)
            answer, output = commands.perform(command)
            words = ""
        if answer == 255 and self.job.destination.remote:
            raise RunError(f"ssh to {self.job.destination.host}: {words}")
        if answer and check:
            raise RunError(f"{text}: {words or f'exit status {answer}'}")
        return output

    def contents(self) -> commands.Contents:
        path = self.job.destination.path
        names = self.do(f"ls -1A -- {path}/").splitlines()
        return commands.contents(names, self.do(f"readlink -- {path}/latest", check=False) if "latest" in names else "")

    def settle(self, known: Collection[str], killed: bool) -> commands.Contents:
        """Take what was not completed out of the history; returns what lies there then. Raises RunError."""
        path = self.job.destination.path
        found = self.contents()
        if not found.marker:
            raise RunError(
                f"{self.job.destination} has no file {commands.MARKER}: its disk is not mounted, or nobody made it a "
                "folder for backups"
            )
        unfinished = found.unfinished(known, killed)
        for name in unfinished:
            self.do(f"mv -- {path}/{name} {path}/backup.partial.{name}")
        if found.running:
            self.do(f"rm -f -- {path}/{commands.RUNNING}")
        found = self.contents() if unfinished else found
        for name in found.partial[:-KEPT_PARTIAL]:
            self.do(f"rm -rf -- {path}/{name}")
        return found


class Run:
    """One run of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.destination = Destination(job)
        self.started = time.time()
        self.status = status.read(job.state)

    def __call__(self) -> dict[str, Any]:
        """Do it; returns the new last_run, which was remembered as well."""
        killed = self.status["started"] is not None
        self.status["started"] = self.started
        status.save(self.job.state, self.status)
        outcome: dict[str, Any] = {
            "result": "failed",
            "rsync_status": None,
            "reason": "",
            "snapshot": None,
            "errors": [],
        }
        try:
            self._commands("before", {})
            amiss = self._prepare()
            with self._login():
                outcome.update(self._backup(killed))
            if amiss and outcome["result"] == "ok":
                outcome.update(result="partial", reason=amiss[0], errors=amiss)
        except (RunError, mail_host.StageError, CommandError, FileError, OSError) as exc:
            outcome["reason"] = str(exc)
        if outcome["result"] == "ok":
            self.status["last_success"] = self.started
        try:
            self._commands("after", {"BACKUP_RESULT": outcome["result"]})
        except RunError as exc:
            outcome.update(result="failed", reason=" ".join(filter(None, [outcome["reason"], str(exc)])))
        return self._remember(outcome)

    def _prepare(self) -> list[str]:
        """See that what is to be backed up is there; returns what will be amiss with the snapshot all the same."""
        job = self.job
        if job.source.remote:
            return []
        astray = mail_host.astray(job.paths)
        if astray:
            raise RunError(f"paths: {astray}")
        return mail_host.stage(job.paths) if job.is_mail_host else []

    @contextlib.contextmanager
    def _login(self) -> Iterator[None]:
        """Hold one connection to the other host. Where there can be none, the first command says why."""
        if self.job.remote is None:
            yield
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.job.login)
        argv = self.job.ssh(master=True)
        nothing = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True) as process:
            try:
                deadline = time.monotonic() + 60
                while not os.path.exists(self.job.login) and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                yield
            finally:
                process.kill()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.job.login)

    def _commands(self, when: str, environment: dict[str, str]) -> None:
        for text in self.job.options[when]:
            sys.stdout.flush()
            done = subprocess.run(
                ["/bin/sh", "-c", text],
                stdin=subprocess.DEVNULL,
                check=False,
                env={**os.environ, "BACKUP_JOB": self.job.name, **environment},
            )
            if done.returncode:
                # Not the command's text: it may hold a password.
                number = self.job.options[when].index(text) + 1
                raise RunError(f"command {number} of {when} ended with status {done.returncode}")

    def _backup(self, killed: bool) -> dict[str, Any]:
        job, path = self.job, self.job.destination.path
        mount = job.options["mount"]
        if mount and not os.path.ismount(mount):
            raise RunError(f"nothing is mounted on {mount}")
        found = self.destination.settle(self.status["snapshots"], killed)
        basis = [*found.snapshots[-1:], *reversed(found.partial)]
        plan = {"link_dest": [f"{path}/{name}" for name in basis], "compression": self._compression()}
        write([File(f"{job.state}/{PLAN}", json.dumps(plan).encode(), 0o600, os.getuid(), os.getgid())])
        for name in (RESULT, LOG):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{job.state}/{name}")
        words = self._upstream()
        after = self.destination.settle(found.snapshots, killed=True)
        outcome = self._result(words)
        if outcome["result"] == "failed":
            return outcome
        if after.latest not in after.snapshots or after.latest in found.snapshots:
            raise RunError(f"rsync-time-backup completed no snapshot: {words}")
        outcome["snapshot"] = after.latest
        for name in after.partial:
            self.destination.do(f"rm -rf -- {path}/{name}")
        entry = {"result": outcome["result"], "size": outcome.pop("size", None)}
        known = {**self.status["snapshots"], after.latest: entry}
        self.status["snapshots"] = {name: known.get(name, {"result": "ok", "size": None}) for name in after.snapshots}
        return outcome

    def _compression(self) -> str:
        """The method that both ends' rsync knows, or ''."""
        wanted, remote = str(self.job.options["compression"]), self.job.remote
        if wanted == "none" or remote is None:
            return ""
        ends = {"this host": commands.VERSION.split(), remote.host: [*self.job.ssh(), commands.VERSION]}
        for who, argv in ends.items():
            told = run(argv, check=False)
            methods = re.search(r"Compress list:\s+(.*)", told.out)
            if not methods or wanted not in methods[1].split():
                print(f"rsync of {who} does not know {wanted}, so nothing is compressed. {told.err}", file=sys.stderr)
                return ""
        return wanted

    def _upstream(self) -> str:
        """Start rsync-time-backup; returns the last line that it printed."""
        job = self.job
        make_folders(f"{job.state}/log")
        for name in os.listdir(f"{job.state}/log"):
            os.unlink(f"{job.state}/log/{name}")
        environment = {
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.environ.get("HOME", "/root"),
            "LC_ALL": "C.UTF-8",
            # For the names of snapshots: local time has an hour twice in autumn; the second would write into the first.
            "TZ": "UTC",
            VARIABLE: job.name,
        }
        # A session of its own: where the transfer fails, bin/rsync ends the whole group.
        with subprocess.Popen(
            job.program(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as process:
            last = ""
            for line in process.stdout or ():
                text = re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="backslashreplace")).rstrip()
                print(text, flush=True)
                last = text.strip() or last
        return last

    def _result(self, words: str) -> dict[str, Any]:
        try:
            with open(f"{self.job.state}/{RESULT}", encoding="utf-8") as handle:
                found = json.load(handle)
        except FileNotFoundError as exc:
            raise RunError(f"rsync-time-backup did not start rsync: {words}") from exc
        return {name: found[name] for name in ("result", "rsync_status", "reason", "errors", "size")}

    def _remember(self, outcome: dict[str, Any]) -> dict[str, Any]:
        last = {"started": self.started, "ended": time.time(), **outcome}
        last.pop("size", None)
        self.status.update(started=None, last_run=last)
        if outcome["result"] == "ok":
            self.status["last_success"] = self.started
        status.save(self.job.state, self.status)
        return last


def main(name: str) -> int:
    """Exit status 0 only for a backup that is whole."""
    try:
        job = load(name)
        with lock(f"{job.state}/lock", 0):
            last = Run(job)()
    except (JobError, FileError) as exc:
        print(f"backup {name}: {exc}", file=sys.stderr)
        return 1
    if last["result"] == "ok":
        print(f"backup {name}: {last['snapshot']}")
        return 0
    for error in last["errors"]:
        print(f"backup {name}: {error}", file=sys.stderr)
    print(f"backup {name}: {last['result']}: {last['reason']}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
