# SPDX-License-Identifier: GPL-3.0-or-later

"""A bare Debian of a test's own, outside the lab's network: for what needs no other provider."""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import connection, images, modules, playbook
from .hosts import ensure_lists, ensure_volume, keep_packages, volume
from .podman import podman
from .settings import LabError
from .shell import Shells

# Until all is started that starts at boot, whether or not a unit failed.
BOOTED = "until systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.05; done"


@dataclass(frozen=True)
class Run:
    """One ansible-playbook run."""

    rc: int
    output: str
    stats: dict[str, int]  # the recap: ok, changed, failed, …

    @property
    def results(self) -> list[dict[str, Any]]:
        """What the tasks returned, where the run had -v."""
        found = re.findall(r"^(ok|changed|fatal): \[\S+\](?:: FAILED!)? => (\{.*\})$", self.output, re.MULTILINE)
        return [{**json.loads(text), "failed": state == "fatal"} for state, text in found]

    def good(self) -> Run:
        """This run, where it succeeded."""
        if self.rc:
            raise AssertionError(self.output[-6000:])
        return self


class Machine:
    """A container with systemd and python3, Debian 12 or 13. Use as a context manager, or start() and remove()."""

    def __init__(self, release: int, purpose: str, *options: str, hostname: str = "") -> None:
        """Options are podman's own; purpose becomes part of the container's name."""
        self.release = release
        self.name = f"pm-{purpose}-{release}-{uuid.uuid4().hex[:6]}"
        self.options = (f"--hostname={hostname or f'{purpose}{release}.test'}", *options)
        self.address = self.address6 = ""
        self.pid = 0
        self._shells = Shells(self.name)
        self._has_modules = False

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Boot it."""
        image = images.bare_image(self.release)
        ensure_volume(self.release)
        lists = ensure_lists(self.release)
        options = ["--systemd=always", "--dns=none", f"--volume={volume(self.release)}:/var/cache/apt/archives:O"]
        # The lab's own hosts fetch them, as a new machine has to.
        options.append(f"--volume={lists}:/var/lib/apt/lists:O")
        podman("run", "--detach", f"--name={self.name}", *options, *images.host_entries(), *self.options, image)
        self._booted()

    def _booted(self) -> None:
        self.sh(BOOTED, seconds=300)
        found = json.loads(podman("inspect", self.name))[0]
        self.pid = found["State"]["Pid"]
        network = next(iter(found["NetworkSettings"]["Networks"].values()))
        self.address, self.address6 = network["IPAddress"], network["GlobalIPv6Address"]

    def remove(self) -> None:
        """End it; packages that it downloaded are kept for the next."""
        keep_packages(self.name, self.release)
        self._shells.close()
        podman("rm", "--force", "--time=0", "--volumes", self.name, check=False)

    def power_cut(self) -> None:
        """Kill everything at once, then boot; the address may be another one then."""
        # No time to end in peace means SIGKILL for PID 1, and with it for all.
        podman("restart", "--time=0", self.name)
        self._shells.close()
        self._booted()

    def sh(self, script: str, check: bool = True, stdin: bytes | str = b"", seconds: float = 900) -> str:
        """Run a shell script there; what it printed, on both streams."""
        status, out = self._shells.run(script, stdin.encode() if isinstance(stdin, str) else stdin, seconds)
        text = out.decode(errors="replace")
        if check and status:
            raise LabError(f"{self.name}: {script}: exit status {status}\n{text}")
        return text

    def put(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Write a file there."""
        data = content.encode() if isinstance(content, str) else content
        self.sh(f"umask 077; mkdir -p $(dirname {path}); cat > {path}; chmod {mode:o} {path}", stdin=data)

    def read(self, path: str) -> str:
        """A file there."""
        return self.sh(f"cat {path}")

    def module(self, name: str, given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        """Run one of the collection's modules without ansible-playbook, in a quarter of the time; see modules."""
        if not self._has_modules:
            self.sh("tar -x --no-same-owner -C /", stdin=modules.code())
            self._has_modules = True
        return modules.answer(self.sh(modules.command(name, prefix), check=False, stdin=modules.arguments(given)))

    def play(self, play: Path | list[dict[str, Any]], *options: str, **variables: Any) -> Run:
        """Run a playbook, or a list of tasks, against it; options are ansible-playbook's."""
        given = {**connection.variables(self.pid), **variables}
        environment = {
            **os.environ,
            **connection.ENVIRONMENT,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INJECT_FACT_VARS": "0",
        }
        with tempfile.TemporaryDirectory() as folder:
            path = play if isinstance(play, Path) else Path(folder) / "play.yml"
            if not isinstance(play, Path):
                path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": play}]))
            extra = Path(folder) / "extra.json"
            extra.write_text(json.dumps(given))
            argv = ["-i", f"{self.name},", "-e", f"@{extra}", *options, str(path)]
            status, out, words = playbook.run(argv, environment)
        recap = re.search(rf"^{re.escape(self.name)}\s+: (ok=.*)$", out, re.MULTILINE)
        stats = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", recap[1])} if recap else {}
        return Run(status, out + words, stats)
