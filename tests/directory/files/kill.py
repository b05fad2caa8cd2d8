# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside the container: from before.json to after.json, killed at the n-th system call of a kind, for each n.

It is what mail_directory does there, without Ansible's part, in a fork of this process for each time. Each time the
daemons must know everybody who stays, and the next run must get there. Points that leave the same files are one case:
daemons and runs know of a killed run what lies in the folder, and nothing else. Prints how often it was killed, by
call, and how many cases that made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass

from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import Request, run_request
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Lists
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore
from mail import rcpt

FOLDER = "/etc/postmeister/directory"
TRACE = "/root/trace"
UNCHANGED, CHANGED = 10, 11


def change(name: str, call: str = "", when: int = 0) -> int:
    """Bring the directory to a file's lists; returns the status as wait(2) gives it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if call:
                os.kill(os.getpid(), signal.SIGSTOP)  # until strace is there
            with open(name, encoding="utf-8") as handle:
                lists = Lists(**json.load(handle))
            changed = run_request(FileStore(), Request(lambda: lists, name), False)["changed"]
            code = CHANGED if changed else UNCHANGED
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    if call:
        os.waitpid(child, os.WUNTRACED)
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
        argv = ["strace", "-f", "-qq", "-o", TRACE, *inject, "-p", str(child)]
        with subprocess.Popen(argv) as tracer:
            while not traced(child):
                assert tracer.poll() is None, "strace does not start"
                time.sleep(0.001)
            os.kill(child, signal.SIGCONT)
    return os.waitpid(child, 0)[1]


def traced(process: int) -> bool:
    with open(f"/proc/{process}/status", encoding="ascii") as handle:
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in handle)


def killed(status: int) -> bool:
    """Whether the process was killed, or a program that it had started."""
    with open(TRACE, encoding="utf-8", errors="replace") as handle:
        return os.WIFSIGNALED(status) or "killed by SIGKILL" in handle.read()


def serve(where: str, steady: list[str], users: list[str]) -> None:
    """Postfix and Dovecot know everybody who stays."""
    codes = rcpt(steady)
    assert codes == [250] * len(steady), f"{where}: {codes}"
    for user in users:
        done = subprocess.run(["doveadm", "user", user], capture_output=True, check=False)
        assert done.returncode == 0, f"{where}: {user} is unknown to Dovecot"


@dataclass(frozen=True)
class Entry:
    """A file of the folder."""

    content: bytes
    mode: int
    owner: tuple[int, int]


def files() -> dict[str, Entry]:
    """All of them, by name; of the folder where new ones are made, which nobody reads, only that it is there."""
    found = {}
    for name in os.listdir(FOLDER):
        path = os.path.join(FOLDER, name)
        info = os.lstat(path)
        content = b""
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as handle:
                content = handle.read()
        found[name] = Entry(content, info.st_mode, (info.st_uid, info.st_gid))
    return found


def restore(wanted: dict[str, Entry]) -> None:
    """As it was; each file that differs is another one, a second younger, as daemons see it after a run."""
    found = files()
    for name in found.keys() - wanted.keys():
        path = os.path.join(FOLDER, name)
        if stat.S_ISDIR(found[name].mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    for name, entry in wanted.items():
        if found.get(name) != entry:
            path = os.path.join(FOLDER, name)
            new = f"{path}.restored"
            with open(new, "wb") as handle:
                handle.write(entry.content)
            os.chown(new, *entry.owner)
            os.chmod(new, stat.S_IMODE(entry.mode))
            second = int(max(time.time(), os.lstat(path).st_mtime if name in found else 0)) + 1
            os.utime(new, (second, second))
            os.rename(new, path)
    assert files() == wanted


def recovers(point: str, steady: list[str], users: list[str]) -> None:
    """What a killed run left serves, and the next run gets there."""
    serve(f"killed at {point}", steady, users)
    assert os.waitstatus_to_exitcode(change("after.json")) in (CHANGED, UNCHANGED), f"after {point}"
    serve(f"after {point}", steady, users)
    assert os.waitstatus_to_exitcode(change("after.json")) == UNCHANGED, f"{point}: more to do"
    left = [name for name in os.listdir(FOLDER) if "build" in name or "new" in name]
    assert not left, f"after {point}: {left}"


def main(steady: list[str], users: list[str]) -> dict[str, int]:
    assert os.waitstatus_to_exitcode(change("before.json")) in (CHANGED, UNCHANGED)
    before = files()
    points = dict.fromkeys(("rename", "fsync", "write"), 0)
    known: set[frozenset[tuple[str, Entry]]] = set()
    for call in points:
        while True:
            restore(before)
            when = points[call] + 1
            status = change("after.json", call, when)
            if not killed(status):
                break
            points[call] = when
            case = frozenset(files().items())
            if case not in known:
                recovers(f"{call} {when}", steady, users)
                known.add(case)
    return {**points, "cases": len(known)}


if __name__ == "__main__":
    os.chdir("/root")
    print(json.dumps(main(*json.load(sys.stdin))))
