# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's containers as the measurements need them, and commands in them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
CACHE = Path(os.environ["CACHE"])
BENCH = ROOT / "tests" / "bench"
WORK = CACHE / "bench"

#: the finished mail hosts, one per release: Debian 13 for everything but the comparison with DebOps
HOST, HOST_12 = "bench13", "bench12"
DOMAIN = {HOST: "bench13.test", HOST_12: "bench12.test"}
IPV4 = {HOST: "198.51.100.92", HOST_12: "198.51.100.93"}
#: beside them, made when needed: release and last part of the addresses
OTHERS = {"benchapt": (13, 98), "benchpeer": (12, 99)}
FINISHED = "/etc/ansible/facts.d/postmeister_mailserver.fact"


class BenchError(Exception):
    """A figure cannot be measured, or what was measured is wrong; the message says why."""


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def command(argv: list[str], stdin: str | None = None) -> str:
    """Run a program; its standard output. Raises BenchError with the end of what it said."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stdout + done.stderr)[-600:].strip()
        raise BenchError(f"{' '.join(argv[:4])} …: exit status {done.returncode}: {words}")
    return done.stdout


def lab(*arguments: str) -> str:
    """A verb of script/lab."""
    return command([sys.executable, "-m", "pmlab", *arguments])


def inside(host: str, script: str, stdin: str | None = None) -> str:
    """A shell script in a container."""
    return command(["podman", "exec", *(["-i"] if stdin is not None else []), f"pm-{host}", "sh", "-ec", script], stdin)


@cache
def up() -> None:
    """The mini-internet runs, and the folder for what the measurements write is there."""
    lab("up", HOST)
    WORK.mkdir(parents=True, exist_ok=True)


def fresh(host: str) -> None:
    """A bare host, and none of its records from before."""
    up()
    if host in DOMAIN:
        lab("zone", DOMAIN[host], "--reset")
        lab("fresh", host)
        return
    release, number = OTHERS[host]
    lab("fresh", host, "--release", str(release), "--number", str(number), "--fqdn", f"{host}.bench{release}.test")


def is_finished(host: str) -> bool:
    """Whether a run of the playbook came to its end on this host."""
    up()
    argv = ["podman", "exec", f"pm-{host}", "test", "-e", FINISHED]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
