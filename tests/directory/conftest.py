# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bare containers of both Debian releases, with Postfix and Dovecot of that release as the only additions.

Needs podman and the lab's images. Names of the images come from POSTMEISTER_IMAGE_12 and _13.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).resolve().parent / "files"
IMAGES = {
    "12": os.environ.get("POSTMEISTER_IMAGE_12", "localhost/postmeister-lab/bookworm"),
    "13": os.environ.get("POSTMEISTER_IMAGE_13", "localhost/postmeister-lab/trixie"),
}
PACKAGES = "postfix postfix-lmdb dovecot-core dovecot-imapd dovecot-lmtpd strace"


class Host:
    """One container."""

    checkout = CHECKOUT
    files = FILES

    def __init__(self, release: str, work: Path) -> None:
        self.release = release
        self.work = work
        self.name = f"postmeister-directory-{release}-{uuid.uuid4().hex[:6]}"
        mirror = socket.gethostbyname("deb.debian.org")
        self._podman(
            *("run", "-d", "--name", self.name, "--systemd=always", "--dns=none", "--hostname", "mail.example.test"),
            *("--add-host", f"deb.debian.org:{mirror}", "-v", f"pm-apt-{release}:/var/cache/apt/archives:O"),
            *("--tmpfs", "/small:size=1m"),
            IMAGES[release],
        )

    def _podman(self, *argv: str) -> None:
        done = subprocess.run(["podman", *argv], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr

    def remove(self) -> None:
        self._podman("rm", "-f", "-t", "1", self.name)

    def sh(self, script: str, check: bool = True) -> str:
        """Run a shell script in the container; returns what it wrote, standard error included."""
        done = subprocess.run(
            ["podman", "exec", "-i", self.name, "sh", "-c", "exec 2>&1; set -u; . /dev/stdin"],
            input=script,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def put(self, source: Path, target: str) -> None:
        self._podman("cp", str(source), f"{self.name}:{target}")

    def install(self) -> None:
        """The packages, without starting anything; several containers share one cache, so apt may have to wait."""
        self.sh(
            "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d\n"
            "export DEBIAN_FRONTEND=noninteractive\n"
            "echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections\n"
            "for try in $(seq 100); do\n"
            f"  apt-get update -qq && apt-get install -y -qq --no-install-recommends {PACKAGES} && exit 0\n"
            "  sleep 3\n"
            "done; exit 1"
        )

    def play(self, *tasks: dict[str, Any], options: tuple[str, ...] = ()) -> Played:
        """Run tasks as a playbook against the container."""
        playbook = self.work / "play.json"
        for task in tasks:
            task.setdefault("ignore_errors", True)
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "ansible-playbook"), "-i", f"{self.name},", str(playbook)),
                *(
                    "-e",
                    "ansible_connection=containers.podman.podman",
                    "-e",
                    "ansible_python_interpreter=/usr/bin/python3",
                ),
                *(options or ("-v",)),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd=self.work,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(self.work / "collections"),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_LOCALHOST_WARNING": "0",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOME": str(self.work / "home"),
            },
        )
        return Played(done.stdout + done.stderr)

    def directory(self, *options: str, **arguments: Any) -> dict[str, Any]:
        """One task with mail_directory; returns its result."""
        played = self.play({"postmeister.host.mail_directory": arguments}, options=("-v", *options))
        assert len(played.results) == 1, played.text
        return played.results[0]


class Played:
    """What ansible-playbook printed, and the results of its tasks."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.results: list[dict[str, Any]] = [
            {**json.loads(match.group(2)), "failed": match.group(1) == "fatal"}
            for match in re.finditer(r"^(ok|changed|fatal): \[\S+\](?:: FAILED!)? => (\{.*\})$", text, re.MULTILINE)
        ]


@pytest.fixture(scope="module", params=["12", "13"])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A container as it comes: systemd and Python."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    work = tmp_path_factory.mktemp(f"directory-{request.param}")
    namespace = work / "collections" / "ansible_collections" / "postmeister"
    namespace.mkdir(parents=True)
    (namespace / "host").symlink_to(CHECKOUT)
    host = Host(request.param, work)
    try:
        yield host
    finally:
        host.remove()
