# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole mail host: its first run, and a second one that changes nothing."""

from __future__ import annotations

import statistics
import time
from functools import cache

from answers import ask
from figures import Result, figure
from lab import DOMAIN, HOST, BenchError, fresh, inside, lab
from plays import MAILSERVER, Run, finished, ping, play

#: actions that run on the controller and never connect to the host
CONTROLLER = (
    *(f"ansible.builtin.{name}" for name in ("validate_argument_spec", "include_role", "debug", "assert")),
    "postmeister.host.mail_plan",
)
APT = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --no-install-recommends install"


@figure("ratio", "≤ 2.5")
def first_run_vs_apt() -> Result:
    """mailserver.yml on a bare Debian 13 ÷ apt-get of the same packages on another, packages in the cache."""
    fresh(HOST)
    rehearsal = play(MAILSERVER, "--limit", HOST, "--check", tasks=True)
    packages = " ".join(next(task["installed"] for task in rehearsal.tasks if task["installed"]))
    fresh("benchapt")
    inside("benchapt", f"apt-get --quiet update; {APT} --download-only {packages}")
    # Removing a host keeps what it downloaded for the next ones.
    fresh("benchapt")
    fresh(HOST)
    update = timed("benchapt", "apt-get --quiet update")
    install = timed("benchapt", f"{APT} {packages}")
    lab("rm", "benchapt")
    run = play(MAILSERVER, "--limit", HOST)
    ask(HOST, [f"alice@{DOMAIN[HOST]}", f"bob@{DOMAIN[HOST]}"])
    ratio = run.seconds / (update + install)
    return Result(round(ratio, 2), f"{run.seconds:.1f} s ÷ ({update:.1f} s apt-get update + {install:.1f} s install)")


def timed(host: str, script: str) -> float:
    """Seconds of a script in a container."""
    started = time.monotonic()
    inside(host, script)
    return time.monotonic() - started


@figure("tasks", "≤ 20")
def second_run_tasks() -> Result:
    """Tasks that run on the host in a second mailserver.yml."""
    finished(HOST)
    run = unchanged(play(MAILSERVER, "--limit", HOST, tasks=True))
    ran = [task for task in run.tasks if not task["skipped"] and task["action"] not in CONTROLLER]
    there = [task for task in ran if not task["delegated"]]
    others = len(run.tasks) - len(there)
    skipped = sum(task["skipped"] for task in run.tasks)
    detail = f"of {len(run.tasks)}; of the others {skipped} were skipped and {others - skipped} ran on the controller"
    return Result(len(there), detail)


@cache
def second_runs() -> tuple[float, float]:
    """Seconds of a second run and of a ping, medians of three, in turns."""
    finished(HOST)
    pings, seconds = [ping()], []
    for _turn in range(3):
        seconds.append(unchanged(play(MAILSERVER, "--limit", HOST)).seconds)
        pings.append(ping())
    return statistics.median(seconds), statistics.median(pings)


@figure("ratio", "≤ 10")
def second_run_vs_ping() -> Result:
    """Wall time of a second mailserver.yml ÷ a play with one ping."""
    second, one = second_runs()
    return Result(round(second / one, 1), f"{second:.1f} s ÷ {one:.2f} s")


def unchanged(run: Run) -> Run:
    """A second run that changed something is none."""
    if run.changed:
        raise BenchError(f"the second run changed {run.changed} things: {run.output[-1500:]}")
    return run
