# SPDX-License-Identifier: GPL-3.0-or-later

"""The story that all tests here look at: the artifact, installed as a user does, makes mail hosts of bare hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import Box
from pmlab import connection

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "molecule" / "lab" / "inventory"
CACHE = Path(os.environ["CONTAINERS_CONF"]).parent
HOSTS = {"mx": 13, "mx12": 12}
ZONES = ("example.test", "second.test", "example12.test", "second12.test")
# While writing tests: look at the hosts of the last run instead of making new ones.
KEEP = bool(os.environ.get("POSTMEISTER_KEEP"))
CANARY = re.compile(r"canary-[a-z0-9]+-[A-Za-z0-9]{8}")


@dataclass(frozen=True)
class Run:
    """One ansible-playbook run: what a user sees, and what it did."""

    rc: int
    output: str
    stats: dict[str, dict[str, int]]

    def failed_because(self) -> str:
        return self.output[-6000:]


@dataclass(frozen=True)
class Site:
    """The collection as a user has it, and the inventory of the lab."""

    collections: Path

    def play(
        self, *arguments: str, playbook: str = "postmeister.host.mailserver", extra: dict[str, Any] | None = None
    ) -> Run:
        environment = {
            **os.environ,
            **connection.ENVIRONMENT,
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            # Ansible looks for collections in Python's path, too, where these tests have the checkout.
            "PYTHONPATH": "",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INJECT_FACT_VARS": "0",
        }
        argv = ["ansible-playbook", "-i", str(ROOT / "docs/example/inventory.yml"), "-i", str(INVENTORY)]
        argv += [playbook, *arguments, "-e", json.dumps(connection.lab_variables() | (extra or {}))]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, cwd="/")
        stats = {
            match[1]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match[2])}
            for match in re.finditer(r"^(\S+)\s+: (ok=.*)$", done.stdout, re.MULTILINE)
        }
        return Run(done.returncode, done.stdout + done.stderr, stats)


def lab(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pmlab", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def boxes() -> dict[str, Box]:
    """All containers of the lab, running; mx and mx12 as bare as a new machine."""
    lab("up")
    if not KEEP:
        # With the list that a test sells: one that was killed meanwhile left it so.
        for zone in (*ZONES, "mortal.test"):
            lab("zone", zone, "--reset")
        lab("fresh", *HOSTS)
    tree = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    found: dict[str, Box] = {}

    def walk(node: dict[str, Any]) -> None:
        for name, values in (node.get("hosts") or {}).items():
            number = values["lab_number"]
            found[name] = Box(name, values["lab_fqdn"], f"198.51.100.{number}", f"2001:db8:51::{number}")
        for child in (node.get("children") or {}).values():
            walk(child)

    walk(tree["all"])
    return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """`ansible-galaxy collection build` and `install` into a clean folder."""
    folder = tmp_path_factory.mktemp("galaxy")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    build = ["ansible-galaxy", "collection", "build", "--output-path", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    artifact = next(folder.glob("postmeister-host-*.tar.gz"))
    target = folder / "collections"
    # A clean environment: what is installed elsewhere would count as installed already.
    clean = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(target), "PYTHONPATH": ""}
    install = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(target), str(artifact)]
    subprocess.run(install, check=True, capture_output=True, env=clean)
    # The connection to containers is no part of what a user installs; it comes with the package `ansible`.
    return Site(target)


@dataclass(frozen=True)
class Story:
    """The runs that made the hosts, in order, and what the first of them left as it was."""

    check: Run
    first: Run
    second: Run
    before_check: dict[str, str]
    after_check: dict[str, str]
    zones_before_check: str
    zones_after_check: str


@pytest.fixture(scope="session")
def story(site: Site, boxes: dict[str, Box]) -> Story:
    if KEEP:
        run = site.play("--diff", "-vvv")
        assert run.rc == 0, run.failed_because()
        return Story(run, run, run, {}, {}, "", "")
    before, zones = everything(boxes), published()
    check = site.play("--check", "--diff", "-vvv")
    after, zones_after = everything(boxes), published()
    first = site.play("--diff", "-vvv")
    assert first.rc == 0, first.failed_because()
    return Story(check, first, site.play("--diff", "-vvv"), before, after, zones, zones_after)


def everything(boxes: dict[str, Box]) -> dict[str, str]:
    """All files of each mail host, but those that the system itself writes to, and all its packages."""
    script = (
        "dpkg-query -W; find /etc /usr /opt /root /home /var/lib /var/spool -xdev -path /var/lib/systemd -prune"
        " -o -printf '%p %s %m %u %T@\\n' | sort"
    )
    return {name: boxes[name].sh(script) for name in HOSTS}


def published() -> str:
    return "".join(lab("zone", zone) for zone in ZONES)


@pytest.fixture(scope="session")
def remote(boxes: dict[str, Box]) -> Box:
    return boxes["remote"]


@pytest.fixture(scope="session", params=list(HOSTS), ids=[f"debian{release}" for release in HOSTS.values()])
def mx(request: pytest.FixtureRequest, story: Story, boxes: dict[str, Box]) -> Box:
    """A finished mail host, on each release."""
    return boxes[request.param]


@pytest.fixture(scope="session")
def accounts() -> dict[str, tuple[str, str]]:
    """Login and password of the first mailbox of each host."""
    return {
        "mx": ("alice@example.test", secret("mx", "vault_alice")),
        "mx12": ("alice@example12.test", secret("mx12", "vault_alice")),
    }


@pytest.fixture(scope="session")
def others() -> dict[str, tuple[str, str]]:
    """Login and password of a second mailbox of each host; on mx12 it owns the catch-all of its domain."""
    return {
        "mx": ("bob@example.test", secret("mx", "vault_bob")),
        "mx12": ("alice@second12.test", secret("mx12", "vault_alice") + "-second"),
    }


def secret(host: str, name: str) -> str:
    values = yaml.safe_load((INVENTORY / "host_vars" / f"{host}.yml").read_text())
    return str(values[name])


@pytest.fixture(scope="session")
def tsig() -> str:
    """The secret of the key that may change the zones of mx."""
    return (CACHE / "lab" / "tsig" / "example.test.secret").read_text().strip()
