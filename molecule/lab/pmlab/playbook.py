# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook without its start: a process loads Ansible once, and makes a copy of itself for each run.

For tests whose subject is what a play does on a host; those of what a user types start the program itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, NoReturn

from .settings import LAB

Environment = frozenset[tuple[str, str]]
_first = threading.Lock()  # a second process of the same environment would end at once, with what its copies need


def run(argv: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ansible-playbook with these arguments."""
    # What pytest says of the test that runs is nobody else's.
    known = frozenset((name, value) for name, value in environment.items() if not name.startswith("PYTEST_"))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as words:
        ours, its = socket.socketpair()
        with ours:
            with its:
                files = [its.fileno(), out.fileno(), words.fileno()]
                with _first:
                    server = _server(known)
                socket.send_fds(server, [json.dumps(argv).encode()], files)
            answer = ours.makefile().read()
        if not answer:
            raise RuntimeError(f"ansible-playbook {' '.join(argv)}: its process was killed")
        out.seek(0)
        words.seek(0)
        return int(answer), out.read().decode(), words.read().decode()


@functools.cache
def _server(environment: Environment) -> socket.socket:
    """A process that has read its configuration from these variables, as Ansible does when it is loaded."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        argv = [sys.executable, "-c", "from pmlab.playbook import serve; serve()"]
        known = dict(environment)
        places = os.pathsep.join([str(LAB), known.get("PYTHONPATH", "")])
        subprocess.Popen(argv, env={**known, "PYTHONPATH": places}, stdin=its.fileno())
    return ours


def serve() -> None:
    """Wait for runs until nobody can ask any more."""
    from ansible.cli.playbook import PlaybookCLI  # this reads the configuration

    asked = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, files, _flags, _address = socket.recv_fds(asked, 1 << 20, 3)
        if not data:
            return
        if os.fork() == 0:
            asked.close()
            _work(PlaybookCLI, json.loads(data), *files)
        for file in files:
            os.close(file)


def _work(cli: Any, argv: list[str], answer: int, out: int, words: int) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(words, 2)
    status = 250
    try:
        cli.cli_executor(["ansible-playbook", *argv])
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os.write(answer, str(status).encode())
        # Not what is to be done at the end of the process that was copied.
        os._exit(0)
