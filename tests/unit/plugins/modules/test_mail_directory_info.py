# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mail.conftest import (
    HASH,
    WANTED,
    Runner,
    runner,
    store,
)

__all__ = ["runner", "store"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


def test_what_is_told(runner: Runner) -> None:
    runner.directory(WANTED)
    told = runner.run("mail_directory_info")
    assert not told["changed"]
    assert HASH[12:] not in json.dumps(told)
    assert told["sizes"] == {"domains": 1, "mailboxes": 1, "disabled": 0, "aliases": 1}
    assert told["domains"] == [{"name": "a.test", "mailboxes": 1, "aliases": 1}]


def test_warns_of_a_damaged_truth(runner: Runner) -> None:
    runner.directory(WANTED)
    Path(runner.path, "directory.json").write_text("{")
    told = runner.run("mail_directory_info", entries=False)
    assert told["sizes"]["mailboxes"] == 1
    assert "mailboxes" not in told
    assert "its copy was taken" in json.dumps(told["warnings"])
    Path(runner.path, "directory.json.copy").unlink()
    assert "from a backup" in runner.run("mail_directory_info")["msg"]


def test_of_nothing(runner: Runner) -> None:
    assert runner.run("mail_directory_info")["mailboxes"] == []
