# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts in a container without a `podman exec` for each, which costs a fifth of a second."""

from __future__ import annotations

import base64
import json
import subprocess
import threading

# In the container: one script after the other. Their output goes to a file in memory, not to a pipe: a daemon that a
# script starts may keep it open.
LOOP = """
import base64, json, os, subprocess, sys
for line in sys.stdin:
    script, given, apart = json.loads(line)
    into, out, words = (os.memfd_create(name) for name in ("in", "out", "words"))
    os.write(into, base64.b64decode(given))
    os.lseek(into, 0, os.SEEK_SET)
    streams = {"stdin": into, "stdout": out, "stderr": words if apart else out}
    status = subprocess.call(["sh", "-c", script], start_new_session=True, **streams)
    texts = [base64.b64encode(os.pread(file, os.fstat(file).st_size, 0)).decode() for file in (out, words)]
    for file in (into, out, words):
        os.close(file)
    print(json.dumps([status, *texts]), flush=True)
"""


class Shells:
    """Processes in one container that wait for scripts: as many as there were scripts at the same time."""

    def __init__(self, container: str) -> None:
        self.container = container
        self._idle: list[subprocess.Popen[bytes]] = []

    def run(self, script: str, stdin: bytes = b"", seconds: float = 900) -> tuple[int, bytes]:
        """Exit status and both streams of a script; 137 where the container, or the process, is killed meanwhile."""
        status, out, _words = self._ask(script, stdin, seconds, False)
        return status, out

    def run_apart(self, script: str, stdin: bytes = b"", seconds: float = 900) -> tuple[int, bytes, bytes]:
        """The same with standard output and standard error apart."""
        return self._ask(script, stdin, seconds, True)

    def _ask(self, script: str, stdin: bytes, seconds: float, apart: bool) -> tuple[int, bytes, bytes]:
        shell = self._free()
        assert shell.stdin and shell.stdout
        limit = threading.Timer(seconds, shell.kill)
        limit.start()
        try:
            shell.stdin.write(json.dumps([script, base64.b64encode(stdin).decode(), apart]).encode() + b"\n")
            shell.stdin.flush()
            answer = shell.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            limit.cancel()
        if not answer:
            shell.kill()
            words = shell.communicate()[1]
            return 137, words, words
        self._idle.append(shell)
        status, *texts = json.loads(answer)
        out, words = map(base64.b64decode, texts)
        return int(status), out, words

    def _free(self) -> subprocess.Popen[bytes]:
        """One that waits, or a new one; those of a container that was stopped meanwhile have ended."""
        while True:
            try:
                shell = self._idle.pop()  # one step: threads do not get the same one
            except IndexError:
                return self._start()
            if shell.poll() is None:
                return shell
            shell.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        argv = ["podman", "exec", "-i", self.container, "python3", "-c", LOOP]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)

    def close(self) -> None:
        """End them all, before the container ends or is booted anew."""
        while self._idle:
            shell = self._idle.pop()
            try:
                shell.communicate(timeout=2)
            except subprocess.TimeoutExpired:
                shell.kill()
                shell.communicate()
