# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hosts, Debian 12 and 13. Each backs up its own folders to the other, fetches the other's, and lets it in.

The port comes from PyPI by pip. The script is in no package and not ours to hand on: where POSTMEISTER_RSYNC_TMBACKUP
names a copy of rsync_tmbackup.sh (the role's pinned version), all tests run with it as well.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pmlab.machine import Machine, Run

SCRIPT = os.environ.get("POSTMEISTER_RSYNC_TMBACKUP", "")
WHEEL = "rsync-time-machine==1.4.2"
ROLE = "postmeister.host.rsync_time_backup"
#: the jobs that each host has; what differs from the role's defaults
JOBS: dict[str, dict[str, Any]] = {
    "push": {"source": "/srv/data", "destination": "root@{other}:/srv/vault/push", "excludes": ["*.tmp"]},
    "pull": {"source": "root@{other}:/srv/data", "destination": "/srv/fetched/pull"},
    "reader": {"source": "reader@{other}:/srv/data", "destination": "/srv/fetched/reader"},
    "full": {"source": "/srv/big", "destination": "root@{other}:/small/vault"},
    "slow": {"source": "/srv/slow", "destination": "root@{other}:/srv/vault/slow", "bandwidth_limit": "300k"},
    "thin": {"source": "/srv/slow", "destination": "root@{other}:/srv/vault/thin", "compression": "zstd"},
    "thinner": {"source": "root@{other}:/srv/slow", "destination": "/srv/fetched/thinner", "compression": "lz4"},
    "dump": {
        "source": "/srv/dump",
        "destination": "root@{other}:/srv/vault/dump",
        "rsync_options": ["--block-size=131072", "--no-whole-file"],
    },
    "local": {"source": "/srv/data", "destination": "/srv/local"},
    "own": {"source": "/srv/own", "destination": "root@{other}:/srv/vault/own", "excludes": ["*.tmp"]},
}
#: what each host lets the other do
PEERS: dict[str, dict[str, Any]] = {
    "push": {"path": "/srv/vault/push", "access": "write"},
    "pull": {"path": "/srv/data", "access": "read"},
    "reader": {"path": "/srv/data", "access": "read", "user": "reader"},
    "full": {"path": "/small/vault", "access": "write"},
    "slow": {"path": "/srv/vault/slow", "access": "write"},
    "dump": {"path": "/srv/vault/dump", "access": "write"},
    "thin": {"path": "/srv/vault/thin", "access": "write"},
    "thinner": {"path": "/srv/slow", "access": "read"},
    "own": {"path": "/srv/vault/own", "access": "write"},
}
PREPARE = """
DEBIAN_FRONTEND=noninteractive apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends openssh-server acl attr
systemctl start ssh
useradd --create-home reader
mkdir -p /srv/data/deep /srv/big /srv/slow /srv/dump /srv/own
for n in 1 2 3 4 5 6; do echo "file $n of $(hostname)" > /srv/data/deep/$n; done
echo secret > /srv/data/private; chmod 600 /srv/data/private
chown 1234:2345 /srv/data/deep/2; chmod 4751 /srv/data/deep/3; touch -d 2001-02-03 /srv/data/deep/4
ln -s deep/1 /srv/data/link; ln /srv/data/deep/5 /srv/data/twin
setfacl -m u:daemon:r /srv/data/deep/1; setfattr -n user.note -v kept /srv/data/deep/1
echo passing > /srv/data/x.tmp
head -c 1000000 /dev/urandom > /srv/big/first
for n in 1 2 3 4 5 6; do head -c 200000 /dev/urandom > /srv/slow/$n; done
printf '%s\\n' '#!/bin/sh' 'cat >> /root/mail' > /usr/sbin/sendmail; chmod 755 /usr/sbin/sendmail
"""


@dataclass
class Host:
    """A host, and what it knows of the other."""

    machine: Machine
    other: Host | None = field(default=None, repr=False)
    host_key: str = ""
    public_keys: dict[str, str] = field(default_factory=dict)
    implementation: str = "python"
    wheel: Path = Path()

    def __str__(self) -> str:
        return f"debian{self.machine.release}"

    @property
    def source(self) -> Path:
        """The upstream program on this machine."""
        return Path(SCRIPT) if self.implementation == "script" else self.wheel

    def sh(self, script: str, check: bool = True) -> str:
        return self.machine.sh(script, check)

    def jobs(self, **changed: dict[str, Any]) -> list[dict[str, Any]]:
        """The jobs, with options of some changed (or a new one added); none of them has a timer."""
        assert self.other is not None
        result = []
        for name, job in {**JOBS, **{name: {**JOBS.get(name, {}), **job} for name, job in changed.items()}}.items():
            ends = {key: job[key].format(other=self.other.machine.address) for key in ("source", "destination")}
            remote = "@" in f"{ends}"
            result.append(
                {
                    "schedule": "",
                    "nice": 0,
                    "ionice": "none",
                    **job,
                    **ends,
                    "name": name,
                    "host_keys": [self.other.host_key] if remote else [],
                }
            )
        return result

    def peers(self) -> list[dict[str, Any]]:
        assert self.other is not None
        keys = self.other.public_keys
        return [{"name": name, "public_key": keys[name], **peer} for name, peer in PEERS.items() if name in keys]

    def play(self, *options: str, **variables: Any) -> Run:
        """Run the role; variables without its prefix."""
        given = {
            "implementation": self.implementation,
            "source": str(self.source),
            "jobs": self.jobs(),
            "peers": self.peers(),
            **variables,
        }
        play = [
            {"import_role": {"name": ROLE}},
            {"debug": {"msg": "KEYS={{ rsync_time_backup_result.public_keys | to_json }}=KEYS"}},
        ]
        run = self.machine.play(play, *options, **{f"rsync_time_backup_{name}": value for name, value in given.items()})
        found = re.search(r'"KEYS=(.*)=KEYS"', run.output)
        if found and "--check" not in options:
            self.public_keys = json.loads(json.loads(f'"{found[1]}"'))
        return run

    def backup(self, job: str) -> bool:
        """Run a job as its timer would; whether systemd calls it a success. A second apart from the one before."""
        unit = f"postmeister-backup-{job}.service"
        return not self.sh(f"sleep 1; systemctl start {unit} >/dev/null 2>&1 || echo failed", check=False)

    def good(self, job: str) -> str:
        """Run a job that must succeed; where its snapshot lies."""
        if not self.backup(job):
            raise AssertionError(self.sh(f"journalctl -o cat -n 60 -u postmeister-backup-{job}.service"))
        return f"{self.folder(job)}/{self.status(job)['last_run']['snapshot']}"

    def failed(self, job: str) -> dict[str, Any]:
        """Run a job that must fail; what became of it."""
        assert not self.backup(job), self.sh(f"journalctl -o cat -n 30 -u postmeister-backup-{job}.service")
        return dict(self.status(job)["last_run"])

    def folder(self, job: str) -> str:
        """Where the job's snapshots lie, on this host or the other."""
        return str(JOBS[job]["destination"]).rpartition(":")[2]

    def end(self, job: str) -> Host:
        """The host that the job's snapshots lie on."""
        assert self.other is not None
        return self.other if "@" in JOBS[job]["destination"] else self

    def snapshots(self, job: str) -> list[str]:
        """Names in the destination, without those that upstream and the role keep beside the snapshots."""
        names = self.end(job).sh(f"ls -1 {self.folder(job)}").split()
        return [name for name in names if name not in ("backup.marker", "latest")]

    def digest(self, job: str) -> dict[str, str]:
        """For each snapshot, a hash over all that it holds: names, content, owners, modes, times."""
        script = (
            f"cd {self.folder(job)}; for s in 2*; do printf '%s ' $s; "
            "{ find $s -printf '%P %y %U %G %m %T@ %l\\n' | sort; find $s -type f | sort | xargs -r sha256sum; } "
            "| sha256sum; done"
        )
        lines = [line.split() for line in self.end(job).sh(script).splitlines()]
        return {name: value for name, value, _dash in lines}

    def info(self, job: str) -> dict[str, Any]:
        """What rsync_time_backup_info says."""
        run = self.machine.play(
            [
                {"postmeister.host.rsync_time_backup_info": {"names": [job]}, "register": "found"},
                {"debug": {"msg": "INFO={{ found.jobs[0] | to_json }}=INFO"}},
            ]
        ).good()
        found = re.search(r'"INFO=(.*)=INFO"', run.output)
        assert found
        return dict(json.loads(json.loads(f'"{found[1]}"')))

    def status(self, job: str) -> dict[str, Any]:
        """The record of a job."""
        return dict(json.loads(self.machine.read(f"/var/lib/postmeister/backup/{job}/status.json")))


def both(function: Callable[[Host], Any], *hosts: Host) -> list[Any]:
    """Do something on both hosts at once."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, hosts))


def on_both(check: Callable[..., None]) -> Callable[..., None]:
    """A test that looks at each host, at both at once; one with a parameter first takes the implementation as it is."""
    parameters = list(inspect.signature(check).parameters.values())[1:]
    source = "pair" if any(parameter.name == "first" for parameter in parameters) else "hosts"

    @functools.wraps(check)
    def test(**given: Any) -> None:
        both(lambda host: check(host, **given), *given.pop(source))

    hosts = inspect.Parameter(source, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([hosts, *parameters])  # type: ignore[attr-defined]
    return test


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Debian 13 and Debian 12, with sshd and data, before the role's first run."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}", WHEEL]
    subprocess.run([*argv, "--disable-pip-version-check"], check=True, stdin=subprocess.DEVNULL)
    wheel = sorted(Path(folder).glob("*.whl"))[0]
    hosts = [Host(Machine(release, "backup", "--tmpfs=/small:size=6m,mode=755"), wheel=wheel) for release in (13, 12)]
    hosts[0].other, hosts[1].other = hosts[1], hosts[0]

    def start(host: Host) -> None:
        host.machine.start()
        host.sh(PREPARE)
        host.host_key = host.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()

    try:
        both(start, *hosts)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            host.machine.remove()


@dataclass
class First:
    """The role's runs, each on both hosts: check mode on a bare host, the first, the one with the peers, the last."""

    check: list[Run]
    left: list[str]
    first: list[Run]
    peers: list[Run]
    again: list[Run]


@pytest.fixture(scope="session")
def first(pair: tuple[Host, Host]) -> First:
    """Bring both hosts up, with the port."""
    tree = "find /etc/postmeister /var/lib/postmeister /usr/local/lib /srv /etc/systemd/system | sort | sha256sum"
    before = both(lambda host: host.sh(tree, check=False), *pair)
    check = both(lambda host: host.play("--check", "--diff").good(), *pair)
    left = [now for now, was in zip(both(lambda host: host.sh(tree, check=False), *pair), before) if now != was]
    runs = [both(lambda host: host.play().good(), *pair) for _turn in range(3)]
    return First(check, left, *runs)


@pytest.fixture(scope="session", params=["python", "script"])
def hosts(request: pytest.FixtureRequest, pair: tuple[Host, Host], first: First) -> tuple[Host, Host]:
    """Both hosts, with one implementation and then the other, on the same snapshots."""
    if request.param == "script" and not SCRIPT:
        pytest.skip("POSTMEISTER_RSYNC_TMBACKUP names no copy of rsync_tmbackup.sh, and no package has one")
    for host in pair:
        host.implementation = request.param
    if request.param == "script":
        both(lambda host: host.play().good(), *pair)
    return pair
