# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups: an unchanged run against plain rsync, and what compression does on a thin line. Hosts of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from figures import Result, figure
from lab import WORK, BenchError
from pmlab.machine import Machine

FILES, TURNS = 100_000, 3
#: bytes a second of the thin line, and of what goes over it
LINE, SIZE = "4m", 60_000_000
ROLE = "postmeister.host.rsync_time_backup"
TREE = f"""
import os
for folder in range(100):
    os.makedirs(f"/srv/many/{{folder}}", exist_ok=True)
    for number in range({FILES // 100}):
        with open(f"/srv/many/{{folder}}/{{number}}", "w") as file:
            file.write(f"file {{number}} in folder {{folder}}\\n" * 8)
"""
# Text as logs have it: words in another order each time.
TEXT = f"""
import random
words = [("%x" % random.getrandbits(32)) for _ in range(3000)]
with open("/srv/text/log", "w") as file:
    while file.tell() < {SIZE}:
        file.write(" ".join(random.choices(words, k=2000)) + "\\n")
"""


@cache
def wheel() -> str:
    """The port, from PyPI: the script itself is in no package."""
    WORK.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*argv, f"--dest={WORK}", "rsync-time-machine==1.4.2"], check=False, stdin=subprocess.DEVNULL)
    found = sorted(Path(WORK).glob("rsync_time_machine-1.4.2-*.whl"))
    if done.returncode or not found:
        raise BenchError("rsync-time-machine cannot be had from PyPI")
    return str(found[0])


def role(machine: Machine, **variables: object) -> dict[str, str]:
    """Run the role; the jobs' public keys."""
    given = {"implementation": "python", "source": wheel(), **variables}
    play = [
        {"import_role": {"name": ROLE}},
        {"copy": {"dest": "/root/keys", "content": "{{ rsync_time_backup_result.public_keys | to_json }}"}},
    ]
    done = machine.play(play, **{f"rsync_time_backup_{name}": value for name, value in given.items()})
    if done.rc:
        raise BenchError(done.output[-600:])
    return dict(json.loads(machine.read("/root/keys")))


@contextmanager
def machines(*purposes: str) -> Iterator[list[Machine]]:
    """Containers that are gone afterwards."""
    made = [Machine(13, purpose) for purpose in purposes]
    try:
        for machine in made:
            machine.start()
        yield made
    finally:
        for machine in made:
            machine.remove()


def seconds(machine: Machine, script: str) -> float:
    """How long a script takes there, by this machine's clock."""
    started = time.monotonic()
    machine.sh(script)
    return time.monotonic() - started


@figure("ratio", "≤ 1.3")
def backup_unchanged_vs_rsync() -> Result:
    """An unchanged backup of 100,000 small files ÷ plain rsync -a --link-dest of the same."""
    with machines("benchbackup") as (machine,):
        machine.sh(f"mkdir -p /srv/many /srv/plain && python3 - <<'END'\n{TREE}\nEND")
        role(machine, jobs=[{"name": "many", "source": "/srv/many", "destination": "/srv/backup", "schedule": ""}])
        ours, plain = [], []
        machine.sh("/usr/local/lib/postmeister/backup/bin/run many; rsync -a /srv/many/ /srv/plain/0")
        for turn in range(TURNS):
            # Both find the source's entries in memory, and leave as much behind.
            machine.sh("sync")
            plain.append(seconds(machine, f"rsync -a --link-dest=/srv/plain/{turn} /srv/many/ /srv/plain/{turn + 1}"))
            machine.sh("sync")
            ours.append(seconds(machine, "/usr/local/lib/postmeister/backup/bin/run many"))
        if machine.sh("stat -c %h /srv/backup/latest/7/7").strip() != str(TURNS + 2 - 1):
            raise BenchError("the files of the snapshots are not shared")
    one, other = statistics.median(ours), statistics.median(plain)
    return Result(round(one / other, 2), f"{one:.2f} s ÷ {other:.2f} s, medians of {TURNS}, {FILES:,} files")


@cache
def thin() -> dict[str, float]:
    """Seconds of the first backup over SSH, by compression."""
    with machines("benchbackup", "benchvault") as (machine, vault):
        vault.sh("apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y openssh-server")
        vault.sh("systemctl start ssh")
        key = vault.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()
        machine.sh(f"mkdir -p /srv/text && python3 - <<'END'\n{TEXT}\nEND")
        common = {"source": "/srv/text", "host_keys": [key], "bandwidth_limit": LINE, "schedule": ""}
        jobs = [
            {"name": name, "destination": f"root@{vault.address}:/srv/{name}", "compression": name, **common}
            for name in ("none", "zstd", "lz4")
        ]
        keys = role(machine, jobs=jobs)
        peer = {"access": "write"}
        role(vault, peers=[{"name": name, "public_key": keys[name], "path": f"/srv/{name}", **peer} for name in keys])
        return {name: seconds(machine, f"/usr/local/lib/postmeister/backup/bin/run {name}") for name in keys}


def on_a_thin_line(name: str) -> Result:
    detail = f"{SIZE // 1_000_000} MB of text over SSH at {LINE} bytes a second, {os.cpu_count()} cores"
    return Result(round(thin()[name], 2), detail)


@figure("s", "report")
def backup_none_s() -> Result:
    """A first backup of text over a thin line, without compression."""
    return on_a_thin_line("none")


@figure("s", "report")
def backup_zstd_s() -> Result:
    """The same with compression: zstd."""
    return on_a_thin_line("zstd")


@figure("s", "report")
def backup_lz4_s() -> Result:
    """The same with compression: lz4."""
    return on_a_thin_line("lz4")
