# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's way into a container of the lab without podman: nsenter takes a hundredth of a second, podman exec a fifth.

For the tests, which connect some thousand times. What runs there has the container's namespaces and the capabilities
of its first process, as under `podman exec`. People, and the benchmarks of the mail host, use containers.podman.

And a module is put together once for all plays of a test's process, not once for each play: Ansible keeps what it made
in a folder of the play's own, which here leads to one of that process (LAB_MODULES).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: lab
short_description: Enter a container on this machine by its first process
description:
  - Needs root, nsenter(1) and setpriv(1) on the controller.
author: Postmeister contributors (@postmeister)
options:
  pid:
    description: The container's first process, as C(podman inspect --format '{{.State.Pid}}') says it.
    type: int
    required: true
    vars:
      - name: ansible_lab_pid
"""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "container": "podman",
}


def share_modules(folder: str) -> None:
    """Keep modules in a folder of all plays that find collections in the same places."""
    places = hashlib.sha256(repr(constants.COLLECTIONS_PATHS).encode()).hexdigest()
    shared = Path(folder, places[:16])
    shared.mkdir(exist_ok=True)
    # Each worker tries; in a play whose first module ran elsewhere the folder is there already.
    with contextlib.suppress(FileExistsError):
        Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache").symlink_to(shared)


if os.environ.get("LAB_MODULES"):
    share_modules(os.environ["LAB_MODULES"])


class Connection(ConnectionBase):
    """Connection to one container."""

    transport = "lab"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def close(self) -> None:
        """Nothing is kept open."""
        self._connected = False

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(["/bin/sh", "-c", cmd], in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        source = Path(in_path)
        if not source.is_file():
            raise AnsibleFileNotFound(f"{in_path} is not there")
        self._shell_or_fail('umask 077; cat >"$0"', out_path, source.read_bytes())

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        Path(out_path).write_bytes(self._shell_or_fail('cat "$0"', in_path, b""))

    def _shell_or_fail(self, script: str, path: str, data: bytes) -> bytes:
        status, out, problem = self._run(["/bin/sh", "-c", script, path], data)
        if status:
            raise AnsibleError(f"{path}: {problem.decode(errors='replace').strip()}")
        return out

    def _run(self, command: list[str], data: bytes | None) -> tuple[int, bytes, bytes]:
        pid = self.get_option("pid")
        argv = ["nsenter", f"--target={pid}", "--all", "--wd=/", "--", "setpriv", f"--bounding-set={bounding_set(pid)}"]
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        done = subprocess.run([*argv, "--", *command], capture_output=True, env=ENVIRONMENT, check=False, **stdin)
        return done.returncode, done.stdout, done.stderr


def bounding_set(pid: int) -> str:
    """The capabilities of a container's first process, in setpriv's words."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        raise AnsibleConnectionFailure(f"the container's first process, {pid}, is gone") from None
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd")), 16)
    return ",".join(["-all", *(f"+cap_{number}" for number in range(64) if mask >> number & 1)])
