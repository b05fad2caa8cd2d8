# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore

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
