# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook as a user runs it, with its wall time, its memory and, where asked for, its tasks."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab import BENCH, CACHE, HOST, ROOT, BenchError, fresh, is_finished, up

INVENTORY = ["-i", str(BENCH / "inventory.yml"), "-i", str(ROOT / "molecule/lab/inventory")]
MAILSERVER = "postmeister.host.mailserver"
#: without bytecode every start of Ansible would compile these anew, which an installation by pip does once
COMPILED = (
    *("ansible", "jinja2", "markupsafe", "yaml", "dns", "cryptography", "packaging"),
    "ansible_collections/containers/podman",
)


@dataclass(frozen=True)
class Run:
    """One run that succeeded."""

    seconds: float
    peak_mb: float  # of the largest process on the controller
    output: str
    tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> int:
        return sum(int(number) for number in re.findall(r"\bchanged=(\d+)", self.output))

    @property
    def listed(self) -> int:
        """Headings of tasks in the output, also of those that were skipped."""
        return self.output.count("\nTASK [")


def environment(python: Path) -> dict[str, str]:
    """Bytecode in place, no colours; all else as script/lib.sh has it."""
    compile_once(python)
    return {
        **os.environ,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_CALLBACK_PLUGINS": str(BENCH / "callback_plugins"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }


@cache
def compile_once(python: Path) -> None:
    """What pip does when it installs, and uv does not: bytecode for the packages that each run loads."""
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip())
    folders = [str(site / name) for name in COMPILED if (site / name).is_dir()]
    subprocess.run([python, "-m", "compileall", "-q", "-j0", *folders], check=False, capture_output=True)


def play(
    playbook: str,
    *arguments: str,
    tasks: bool = False,
    python: Path = Path(sys.executable),
    env: Mapping[str, str] | None = None,
    inventory: Sequence[str] = tuple(INVENTORY),
) -> Run:
    """Run a playbook; a name without a dot is one of plays/. Raises BenchError with the reasons when it fails.

    tasks: also collect them, by a callback, so not for a run whose time counts.
    """
    if "." not in playbook:
        playbook = str(BENCH / "plays" / f"{playbook}.yml")
    argv = [str(python.parent / "ansible-playbook"), *inventory, playbook, *arguments]
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "tasks.json"
        wanted = {**environment(python), **(env or {})}
        if tasks:
            wanted |= {"ANSIBLE_CALLBACKS_ENABLED": "bench_tasks", "BENCH_TASKS": str(found)}
        with open(Path(scratch) / "output", "w+") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=wanted, cwd="/"
            )
            # Not process.wait(): what the process used is wanted, too.
            _pid, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode != 0:
            reasons = [line for line in text.splitlines() if line.startswith(("fatal:", "failed:", "[ERROR]", "ERROR"))]
            raise BenchError(f"{playbook} failed: {' '.join(reasons)[:1500] or text[-1500:].strip()}")
        listed = json.loads(found.read_text()) if tasks else []
    return Run(seconds, usage.ru_maxrss / 1024, text, listed)


def ping(host: str = HOST, python: Path = Path(sys.executable)) -> float:
    """Seconds of a play with one ping over the same connection."""
    return play("ping", "--limit", host, python=python).seconds


def median(times: int, measure: Callable[[], float]) -> float:
    """Of several measurements."""
    return statistics.median(measure() for _turn in range(times))


@cache
def finished(host: str) -> None:
    """A mail host as this checkout makes it; made anew only where there is none."""
    if not is_finished(host):
        fresh(host)
        play(MAILSERVER, "--limit", host)
    # Once more: whatever changed in the checkout since, the next run changes nothing.
    play(MAILSERVER, "--limit", host)


@cache
def scratch(name: str) -> Path:
    """An empty folder for what a figure writes."""
    up()
    folder = CACHE / "bench" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
