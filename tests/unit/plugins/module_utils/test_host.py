# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _host

WHERE = "192.0.2.7 50022 198.51.100.25 22"


def process(proc: Path, number: int, parent: int, *environment: str) -> None:
    folder = proc / str(number)
    folder.mkdir(parents=True)
    (folder / "environ").write_bytes(b"".join(f"{word}\0".encode() for word in environment))
    (folder / "stat").write_text(f"{number} (python) 3) S {parent} 1 1 0")


def test_below_sudo_the_session_is_found(tmp_path: Path) -> None:
    process(tmp_path, 9, 8, "PATH=/bin", "SUDO_USER=x")
    process(tmp_path, 8, 7, "PATH=/bin", "MY_SSH_CONNECTION=no")
    process(tmp_path, 7, 6, "HOME=/home/x", f"SSH_CONNECTION={WHERE}")
    process(tmp_path, 6, 1, "SSH_CONNECTION=of another session")
    assert _host.ssh_connection(9, str(tmp_path)) == WHERE


def test_without_a_session_there_is_none(tmp_path: Path) -> None:
    process(tmp_path, 9, 8, "PATH=/bin")
    process(tmp_path, 8, 0)
    assert _host.ssh_connection(9, str(tmp_path)) == ""
    # a parent that ended meanwhile, or that may not be read
    process(tmp_path, 5, 4)
    assert _host.ssh_connection(5, str(tmp_path)) == ""


def test_a_real_process_below_a_real_shell() -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; from {_host.__name__} import ssh_connection; import os; "
    code += "print(ssh_connection(os.getpid(), '/proc'))"
    script = 'env -u SSH_CONNECTION "$0" -c "$1"; true'
    environment = {**os.environ, "SSH_CONNECTION": WHERE}
    argv = ["sh", "-c", script, sys.executable, code]
    assert subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.strip() == WHERE


def test_own_facts_are_read_and_no_others(tmp_path: Path) -> None:
    assert _host.remembered(str(tmp_path / "none")) == {}
    (tmp_path / "postmeister_dns.fact").write_text('{"owned": []}')
    (tmp_path / "other.fact").write_text("#!/bin/sh\nexit 1\n")
    assert _host.remembered(str(tmp_path)) == {"dns": {"owned": []}}


@pytest.mark.parametrize("text", ['{"owned": [', "", "null", "[]"])
def test_a_damaged_fact_stops_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmeister_dns.fact").write_text(text)
    with pytest.raises(_host.HostError, match=r"postmeister_dns\.fact: .*backup"):
        _host.remembered(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"), [('ID=debian\nVERSION_ID="12"\n', "12"), ("VERSION_ID=13.1\n", "13"), ("ID=debian\n", "")]
)
def test_release(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert _host.major_version(str(tmp_path / "os-release")) == expected
    assert _host.major_version(str(tmp_path / "none")) == ""
