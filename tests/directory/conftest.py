# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bare machines of both Debian releases, with Postfix and Dovecot of that release as the only additions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import KINDS, pack
from pmlab.machine import Machine, Run

FILES = Path(__file__).resolve().parent / "files"
PACKAGES = {
    "names": ["postfix", "postfix-lmdb", "dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "strace"],
    "preseed": {"postfix": {"postfix/main_mailer_type": "No configuration"}},
}


class Host(Machine):
    """A machine with a mail directory."""

    def __init__(self, release: int, work: Path) -> None:
        options = ("--tmpfs=/small:size=1m", "--cap-add=SYS_PTRACE")
        super().__init__(release, "directory", *options, hostname="mail.example.test")
        self.work = work

    def install(self) -> None:
        """Postfix and Dovecot; they start once there is a directory."""
        assert self.module("packages", PACKAGES)["changed"]
        version = self.sh("dovecot --version")[:3]
        self.put("/etc/dovecot/dovecot.conf", (FILES / f"dovecot-{version}.conf").read_bytes())
        for name in ("main.cf", "mail.py", "kill.py"):
            self.put(f"/root/{name}", (FILES / name).read_bytes())
        self.sh("groupadd -r vmail; useradd -r -g vmail -d /var/vmail -m vmail; test ! -e /etc/postfix/main.cf")

    def start_daemons(self) -> None:
        self.sh("cp /root/main.cf /etc/postfix/main.cf; postconf -F '*/*/chroot=n'; dovecot; postfix start")

    def tasks(self, *tasks: dict[str, Any], options: tuple[str, ...] = ("-v",)) -> Run:
        """Run tasks as a playbook in the folder work; one that fails does not end it."""
        play = self.work / "play.json"
        for task in tasks:
            task.setdefault("ignore_errors", True)
        play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        return self.play(play, *options)

    def directory(self, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run mail_directory with what its action plugin would send."""
        lists = {kind: arguments.pop(kind, None) for kind in KINDS}
        mode = {"_ansible_check_mode": check_mode, "_ansible_diff": True}
        result = self.module("mail_directory", {**arguments, **mode, "payload": pack(lists)})
        assert result
        return result


@pytest.fixture(scope="module", params=[12, 13])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A machine as it comes: systemd and Python."""
    with Host(request.param, tmp_path_factory.mktemp(f"directory-{request.param}")) as host:
        yield host
