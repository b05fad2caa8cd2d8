# SPDX-License-Identifier: GPL-3.0-or-later

"""The peer: DebOps' postfix and dovecot roles on Debian 12, run from an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from figures import Result, figure
from lab import BENCH, CACHE, HOST_12, WORK, BenchError, command, fresh, inside, lab, say
from plays import MAILSERVER, Run, finished, median, play, scratch
from runs import unchanged

PEER = "benchpeer"
REQUIREMENTS = BENCH / "requirements-debops.txt"


@cache
def python() -> Path:
    """Of the environment with DebOps and the ansible-core that it runs on; ours runs from it as well."""
    folder, wanted = WORK / "debops", REQUIREMENTS.read_text()
    stamp, found = folder / ".requirements", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        say("  Python packages of DebOps")
        base = CACHE / "venv219" / "bin" / "python"
        if not base.exists():
            raise BenchError("needs a Python of 3.11 to 3.13, and script/bootstrap found none")
        environment = {**os.environ, "UV_CACHE_DIR": str(CACHE / "uv")}
        uv = str(Path(sys.executable).parent / "uv")
        install = [uv, "pip", "install", "--quiet", "--python", str(found), "-r", str(REQUIREMENTS)]
        for argv in ([str(base), "-m", "venv", "--clear", str(folder)], install):
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
            if done.returncode != 0:
                raise BenchError(f"DebOps cannot be installed: {done.stderr[-600:].strip()}")
        stamp.write_text(wanted)
    return found


def debops(name: str) -> Run:
    """One of DebOps' playbooks."""
    site = next((python().parents[1] / "lib").glob("python3*/site-packages"))
    collections = site / "debops" / "_data" / "ansible" / "collections"
    top = collections / "ansible_collections" / "debops" / "debops"
    folder = scratch("peer")
    config = folder / "ansible.cfg"
    config.write_text("[defaults]\nallow_broken_conditionals = true\n")
    env = {
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_COLLECTIONS_PATH": f"{collections}:{site}",
        "ANSIBLE_ROLES_PATH": str(top / "roles"),
        "ANSIBLE_HOME": str(folder / "home"),
    }
    inventory = ["-i", str(BENCH / "debops.yml"), "--extra-vars", f"secret__root={folder}"]
    playbook = str(top / "playbooks" / "service" / f"{name}.yml")
    return play(playbook, "--skip-tags", "skip::ferm", python=python(), env=env, inventory=inventory)


@figure("ratio", "≥ 10")
def second_run_vs_debops() -> Result:
    """DebOps' service/dovecot, second run (it includes postfix) ÷ a second mailserver.yml; Debian 12, same core."""
    core = command([str(python().parent / "ansible"), "--version"]).split()[2].rstrip("]")
    finished(HOST_12)
    fresh(PEER)
    inside(PEER, "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; apt-get -qq install -y sudo procps")
    for name in ("postfix", "dovecot"):
        say(f"  DebOps, first run of service/{name}")
        debops(name)
    say("  DebOps, second run")
    peer = debops("dovecot")
    lab("rm", PEER)
    ours = median(3, lambda: unchanged(play(MAILSERVER, "--limit", HOST_12, python=python())).seconds)
    detail = f"{peer.seconds:.1f} s ({peer.listed} tasks listed) ÷ {ours:.1f} s, both on ansible-core {core}"
    return Result(round(peer.seconds / ours, 1), detail)
