# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""ssh and rsync as rsync-time-backup finds them in its PATH while a job runs.

rsync: looks at the arguments before the real rsync starts (nothing may compress), links against what the run says, and
judges by rsync's own exit status, which upstream does not look at. Where the transfer failed, upstream goes no further.

ssh: takes the job's key and the other host's known keys, whatever options upstream gives, and lets through rsync and
the commands that upstream is known to send. Those for this host's end are done here.
"""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._command import CommandError
from .._files import File, FileError, write
from . import commands
from .job import BIN, Job, JobError, compresses, load

VARIABLE = "POSTMEISTER_BACKUP_JOB"
RSYNC, SSH = "/usr/bin/rsync", "/usr/bin/ssh"
PLAN, RESULT, LOG = "plan.json", "result.json", "rsync.log"
#: exit statuses of rsync(1)
PARTIAL_ERROR, VANISHED = 23, 24
#: messages about a single file of the source that could not be read; the rest was transferred
UNREAD = re.compile(
    r"rsync: (?:\[\w+\] )?(?:send_files failed to open|opendir|readdir|read errors mapping|readlink_stat|link_stat|"
    r"rsync_xal_get|get_xattr_data|get_xattr_names|sys_acl_get_file|get_acl)\b.*"
    r"(?:Permission denied \(13\)|Input/output error \(5\)|Operation not permitted \(1\)|Stale file handle \(116\))"
)


class ShimError(Exception):
    """Upstream asked for something that cannot be allowed."""


@dataclass
class Result:
    """What became of the transfer. result is ok, partial (files of the source could not be read) or failed."""

    result: str
    rsync_status: int | None
    reason: str = ""
    errors: list[str] = field(default_factory=list)
    size: int | None = None
    arguments: list[str] = field(default_factory=list)


def rewrite(arguments: Sequence[str], plan: dict[str, Any], log: str) -> tuple[list[str], str]:
    """rsync's real arguments out of upstream's, and the log file that upstream will read.

    Raises ShimError where compression is in them, or they do not look as upstream's.
    """
    result: list[str] = []
    upstream_log = ""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            break
        if argument == "-e":
            next(rest, "")
            # Not upstream's, which switches the check of host keys off.
            result += ["-e", f"{BIN}/ssh"]
        elif argument == "--log-file":
            upstream_log = next(rest, "")
        elif argument == "--exclude-from":
            result += [argument, next(rest, "")]
        elif compresses(argument):
            raise ShimError(f"upstream starts rsync with {argument}: this must have been taken out; run the role again")
        elif not argument.startswith("--link-dest="):
            result.append(argument)
    ends = list(rest)
    if len(ends) != 2 or not upstream_log:
        raise ShimError(f"upstream starts rsync in an unknown way: rsync {' '.join(arguments)}")
    if plan.get("compression"):
        result.append(f"--compress-choice={plan['compression']}")
    result += [f"--link-dest={path}" for path in plan["link_dest"]]
    return [*result, f"--log-file={log}", "--", *ends], upstream_log


def judge(status: int, log: str, words: str, source: str) -> Result:
    """Judge a transfer by rsync's exit status, the statistics in its log, and what it wrote to standard error.

    The log alone will not do: what the other end could not read is only on standard error.
    """
    # rrsync hands rsync a folder as an open file.
    lines = [re.sub(r"/proc/self/fd/[0-9]+", source, line.strip()) for line in words.splitlines() if line.strip()]
    files = [line for line in lines if not line.startswith(("rsync error: ", "rsync warning: ", "IO error"))]
    size, entries = _number("Total file size", log), _number("Number of files", log)
    if status in (0, VANISHED):
        # A file that vanished between list and transfer was deleted meanwhile: nothing is amiss.
        return Result("ok", status, "", files[:20], size)
    if status == PARTIAL_ERROR and (entries or 0) > 1:
        told = [line for line in files if line.startswith("rsync: ")]
        others = [line for line in told if not UNREAD.match(line)]
        if told and not others:
            reason = f"{len(told)} file{'s' * (len(told) > 1)} of the source could not be read"
            return Result("partial", status, reason, told[:20], size)
        files = others or files
    last = next((line for line in reversed(lines) if line.startswith("rsync error: ")), "")
    reason = next((line for line in files if line.startswith(("rsync: ", "ERROR: "))), "")
    return Result("failed", status, reason or last or f"rsync ended with status {status}", files[:20], size)


def _number(name: str, log: str) -> int | None:
    found = re.search(rf"{name}: ([0-9,.]+)", log)
    return int(re.sub("[,.]", "", found[1])) if found else None


def _start(argv: Sequence[str]) -> tuple[int, str]:
    """Run rsync, its messages shown as they come; returns its status as a shell has it, and the messages."""
    # What judge() reads must not depend on the host's language.
    environment = {**os.environ, "LC_ALL": "C"}
    kept: list[str] = []
    with subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        for line in process.stderr or ():
            text = line.decode(errors="backslashreplace")
            sys.stderr.write(text)
            # Enough for the record; a source of which nothing can be read would fill the memory.
            kept.append(text if len(kept) < 10000 else "")
        status = process.wait()
    return status if status >= 0 else 128 - status, "".join(kept)


def rsync_main(arguments: Sequence[str]) -> int:
    """bin/rsync."""
    job = load(os.environ[VARIABLE])
    log = f"{job.state}/{LOG}"
    with open(f"{job.state}/{PLAN}", encoding="utf-8") as handle:
        plan = json.load(handle)
    try:
        real, upstream_log = rewrite(arguments, plan, log)
    except ShimError as exc:
        return _give_up(job, Result("failed", None, str(exc)))
    status, words = _start([RSYNC, *real])
    try:
        with open(log, encoding="utf-8", errors="backslashreplace") as handle:
            text = handle.read()
    except OSError:
        text = ""
    result = judge(status, text, words, job.source.path)
    result.arguments = [RSYNC, *real]
    if result.result == "failed":
        return _give_up(job, result)
    _save(job, result)
    # An empty log is upstream's sign of success, so that it completes the snapshot.
    with open(upstream_log, "wb"):
        pass
    return 0


def _save(job: Job, result: Result) -> None:
    write([File(f"{job.state}/{RESULT}", json.dumps(asdict(result)).encode(), 0o600, os.getuid(), os.getgid())])


def _give_up(job: Job, result: Result) -> int:
    """Upstream would go on, and one of its implementations would call the snapshot a good one: it ends here."""
    _save(job, result)
    os.killpg(os.getpgrp(), signal.SIGKILL)
    return 1


def remote_command(arguments: Sequence[str]) -> str:
    """What ssh is to run: its arguments after the options and the host's name."""
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-p", "-i", "-o", "-l", "-F") and rest:
            rest.pop(0)
    return " ".join(rest[1:])


def ssh_main(arguments: Sequence[str]) -> int:
    """bin/ssh."""
    job = load(os.environ[VARIABLE])
    text = remote_command(arguments)
    if text.startswith("rsync --server ") or text == commands.VERSION:
        os.execv(SSH, [*job.ssh(), text])
    command = commands.parse(text)
    if command is None:
        print(f"upstream sends an unknown command: {text}", file=sys.stderr)
        return 2
    ours, answer = here(job, command)
    if not ours:
        os.execv(SSH, [*job.ssh(), text])
    sys.stdout.write(answer[1])
    return answer[0]


def here(job: Job, command: commands.Command) -> tuple[bool, tuple[int, str]]:
    """Whether a command is for this end, and then its exit status and output.

    One implementation sends some commands to the wrong host, so the folder decides. A source on the other host is not
    asked whether it is there: rsync will tell.
    """
    if command.form in ("there", "filesystem") and command.folder == job.source.path:
        found = job.source.remote or os.path.exists(job.source.path)
        return True, (0 if command.form == "filesystem" or found else 1, "")
    if command.folder != job.destination.path:
        return True, (2, "")
    if job.destination.remote:
        return False, (0, "")
    return True, commands.perform(command)


def main(arguments: Sequence[str]) -> int:
    """Started by bin/ssh and bin/rsync, whose name is the first argument."""
    try:
        return (ssh_main if arguments[0] == "ssh" else rsync_main)(arguments[1:])
    except (JobError, FileError, CommandError, OSError, KeyError, ValueError) as exc:
        print(f"{arguments[0]}: {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
