# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import pack
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore

MODULES = "ansible_collections.postmeister.host.plugins.modules"
HASH = "{BLF-CRYPT}$2y$10$" + "a" * 53

# One domain, one mailbox, and everything else in the domain goes there.
WANTED: dict[str, Any] = {
    "domains": [{"name": "a.test"}],
    "mailboxes": [{"address": "x@a.test", "password_hash": HASH, "quota": "1G"}],
    "aliases": [{"address": "@a.test", "destinations": ["x@a.test"]}],
}

# postmap(1) as far as it is used here: the "database" is the sorted text.
POSTMAP = """#!/bin/sh
case "$*" in
  *" -s "*) for last; do :; done; exec cat "${last#lmdb:}.lmdb" ;;
esac
for last; do :; done
[ -e "$FAIL" ] && { echo "postmap: fatal: $(cat "$FAIL")" >&2; exit 1; }
LC_ALL=C sort "${last#lmdb:}" > "${last#lmdb:}.lmdb"
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "postmap").write_text(POSTMAP)
    (tools / "postmap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    return FileStore(str(tmp_path / "directory"))


class Runner:
    """Runs modules on one folder."""

    def __init__(self, path: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path, capsys

    def run(self, module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        options = {"path": self.path, "_ansible_check_mode": check, **arguments}
        with patch_module_args(options), pytest.raises(SystemExit) as caught:
            importlib.import_module(f"{MODULES}.{module}").main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert bool(caught.value.code) == bool(result.get("failed"))
        return result

    def directory(self, lists: dict[str, Any], check: bool = False, **arguments: Any) -> dict[str, Any]:
        return self.run("mail_directory", check, payload=pack(lists), **arguments)


@pytest.fixture
def runner(store: FileStore, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(store.path, capsys)
