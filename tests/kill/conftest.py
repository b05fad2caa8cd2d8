# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian with one daemon, strace, and the collection's modules, which are run as programs, without ansible-playbook."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import DAEMONS, SMALL, Files, postfix_files
from pmlab.machine import Machine

HERE = Path(__file__).resolve().parent


class Host(Machine):
    """A machine with a daemon, on which modules are run, and killed."""

    def __init__(self, release: int, service: str) -> None:
        options = ("--cap-add=SYS_PTRACE", f"--tmpfs={SMALL}:size=64k,mode=0755")
        super().__init__(release, f"kill-{service}", *options, hostname="mail.example.test")
        self.daemon = DAEMONS[service]

    def start(self) -> None:
        super().start()
        self.put("/root/tree.py", (HERE / "files/tree.py").read_bytes())
        packages = self.daemon.packages
        self.run("packages", {**packages, "names": [*packages["names"], "strace"]})
        self.sh(self.daemon.prepare)

    def run(self, name: str, given: dict[str, Any], strace: str = "", check: bool = True) -> dict[str, Any]:
        """Run a module; strace holds options for strace. A killed run returns {}."""
        # Under strace nothing is compiled for later: such writes would be counted.
        result = self.module(name, given, f"PYTHONDONTWRITEBYTECODE=1 strace -qq {strace}" if strace else "")
        assert not check or (result and not result["failed"]), f"{name}: {result.get('msg', 'no answer')}"
        return result

    def change(self, files: Files, strace: str = "", check: bool = True, **options: Any) -> dict[str, Any]:
        """Run service_config with what its action plugin would send."""
        shown = [{key: value for key, value in file.items() if key != "content"} for file in files]
        payload = base64.b64encode(zlib.compress(json.dumps([files]).encode())).decode()
        given = {"service": self.daemon.name, "files": shown, "payload": payload, "probe": self.daemon.probe}
        return self.run("service_config", {**given, "_ansible_diff": True, **options}, strace, check)

    def configure(
        self, strace: str = "", check: bool = True, arguments: dict[str, Any] | None = None, **files: Any
    ) -> dict[str, Any]:
        """Postfix with files of its own: main, master, aliases, more."""
        return self.change(postfix_files(**files), strace, check, **(arguments or {}))

    def unconfigure(self) -> None:
        """As after the installation of the package, whatever the test before did."""
        self.sh(
            "systemctl mask --now postfix.service; rm -f /etc/postfix/main.cf /var/lib/postmeister/services/postfix/*\n"
            "cp /etc/postfix/master.cf.proto /etc/postfix/master.cf"
        )

    def answers(self) -> str:
        """What the daemon's client prints, or why it cannot."""
        return (self.sh("python3 -", stdin=self.daemon.client, check=False).strip() or "nothing").splitlines()[-1]

    def serves(self) -> bool:
        """Whether the daemon does its work; it gets the time that it needs to come up on a busy machine."""
        deadline = time.monotonic() + 180
        while self.answers() != self.daemon.served:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def tree(self, *options: str) -> str:
        return self.sh(f"python3 /root/tree.py {' '.join(options)}").strip()

    def leftovers(self, *folders: str) -> str:
        """Files that a change leaves beside the live ones, and what its own folder should not hold."""
        names = r"-name '*.postmeister-*' -o -name 'journal-*' -o -name stage"
        return self.sh(f"find {' '.join(folders or ['/etc', '/usr/local', '/var/lib/postmeister'])} {names}")


@pytest.fixture(scope="session")
def hosts() -> Iterator[Callable[[int, str], Host]]:
    """Makes the host of a release and a daemon, once."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def get(release: int, service: str) -> Host:
            host = Host(release, service)
            stack.callback(host.remove)
            host.start()
            return host

        yield get


@pytest.fixture(params=[13])
def trixie(request: pytest.FixtureRequest, hosts: Callable[[int, str], Host]) -> Host:
    """With Postfix."""
    return hosts(request.param, "postfix")


@pytest.fixture(params=[13, 12])
def both(request: pytest.FixtureRequest, hosts: Callable[[int, str], Host]) -> Host:
    """The host of each release, with Postfix, for what may differ between them."""
    return hosts(request.param, "postfix")
