# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mail_directory, mail_user, mail_alias and mail_directory_info as programs: options in, one JSON value out."""

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
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mail.conftest import store

__all__ = ["store"]

HASH = "{BLF-CRYPT}$2y$10$" + "a" * 53
MODULES = "ansible_collections.postmeister.host.plugins.modules"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


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


WANTED: dict[str, Any] = {
    "domains": [{"name": "a.test"}],
    "mailboxes": [{"address": "x@a.test", "password_hash": HASH, "quota": "1G"}],
    "aliases": [{"address": "@a.test", "destinations": ["x@a.test"]}],
}


def test_check_real_check_real(runner: Runner) -> None:
    results = [runner.directory(WANTED, check) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert all(HASH[12:] not in json.dumps(each) for each in results)
    assert results[1]["mailboxes"] == {"created": 1, "changed": 0, "deleted": 0}


def test_problems_are_the_message(runner: Runner) -> None:
    bad = {"mailboxes": [{"address": "x@a.test", "password": "CANARY"}, {"address": "y"}]}
    result = runner.directory(bad)
    assert result["msg"] == "Nothing was changed:\nmailboxes[1]: 'y' is no mail address: it has no @"
    assert "CANARY" not in json.dumps(result)


def test_source_that_is_not_there_yet(runner: Runner, tmp_path: Path) -> None:
    payload = pack({"domains": [{"name": "a.test"}]}, None, "boxes.json", "digest")
    asked = runner.run("mail_directory", payload=payload)
    assert (asked["changed"], asked["source_needed"]) == (False, True)
    source = tmp_path / "sent.json"
    source.write_text(json.dumps(WANTED["mailboxes"]))
    assert runner.run("mail_directory", payload=payload, src=str(source))["changed"]
    assert not source.exists()
    again = runner.run("mail_directory", payload=payload)
    assert not again["changed"]
    assert "source_needed" not in again


def test_broken_source(runner: Runner, tmp_path: Path) -> None:
    source = tmp_path / "sent.json"
    source.write_text('[{"address": "CANARY')
    payload = pack({}, None, "boxes.json", "digest")
    result = runner.run("mail_directory", payload=payload, src=str(source))
    assert "boxes.json: is no JSON, or was cut off" in result["msg"]
    assert "CANARY" not in json.dumps(result)


def test_payload_by_hand(runner: Runner) -> None:
    assert "payload is made by the action plugin" in runner.run("mail_directory", payload="x")["msg"]
    assert "mail_directory runs through its action plugin" in runner.run("mail_directory")["msg"]


def test_one_user_and_one_alias(runner: Runner) -> None:
    runner.directory(WANTED)
    user = {"address": "Guest@a.test", "password_hash": HASH, "quota": "5M"}
    assert [runner.run("mail_user", check, **user)["changed"] for check in (True, False, True, False)] == [
        *(True, True),
        *(False, False),
    ]
    assert not runner.run("mail_user", address="guest@a.test")["changed"]
    assert runner.run("mail_user", address="guest@a.test", enabled=False)["mailboxes"]["changed"] == 1
    alias = {"address": "g@a.test", "destinations": ["guest@a.test"]}
    assert [runner.run("mail_alias", **alias)["changed"] for _time in (1, 2)] == [True, False]
    told = runner.run("mail_directory_info")
    guest = {"address": "guest@a.test", "quota": 5 << 20, "enabled": False, "origin": "adhoc", "scheme": "BLF-CRYPT"}
    assert guest in told["mailboxes"]
    assert HASH[12:] not in json.dumps(told)
    assert told["sizes"] == {"domains": 1, "mailboxes": 2, "disabled": 1, "aliases": 2}
    assert not runner.directory(WANTED, purge=True)["changed"]
    assert runner.run("mail_alias", address="g@a.test", state="absent")["aliases"]["deleted"] == 1
    assert runner.run("mail_user", address="guest@a.test", state="absent")["mailboxes"]["deleted"] == 1


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("mail_user", {"address": "x@a.test", "enabled": False}, "address: 'x@a.test' stands in the inventory"),
        ("mail_user", {"address": "new@a.test"}, "address: 'new@a.test' is new and has neither password"),
        ("mail_user", {"address": "new@a.test", "password": "p", "password_hash": HASH}, "mutually exclusive"),
        ("mail_user", {"address": "new@b.test", "password_hash": HASH}, "is in the domain b.test"),
        ("mail_alias", {"address": "new@a.test"}, "destinations"),
        ("mail_alias", {"address": "new@a.test", "destinations": ["me@outside.example"]}, "SRS"),
        ("mail_alias", {"address": "@a.test", "state": "absent"}, "stands in the inventory"),
    ],
)
def test_one_refused(runner: Runner, module: str, arguments: dict[str, Any], words: str) -> None:
    runner.directory(WANTED)
    result = runner.run(module, **arguments)
    assert result["failed"]
    assert words in result["msg"]


def test_info_warns_of_a_damaged_truth(runner: Runner) -> None:
    runner.directory(WANTED)
    Path(runner.path, "directory.json").write_text("{")
    told = runner.run("mail_directory_info", entries=False)
    assert told["sizes"]["mailboxes"] == 1
    assert "mailboxes" not in told
    assert "its copy was taken" in json.dumps(told["warnings"])
    Path(runner.path, "directory.json.copy").unlink()
    assert "from a backup" in runner.run("mail_directory_info")["msg"]


def test_info_of_nothing(runner: Runner) -> None:
    assert runner.run("mail_directory_info")["mailboxes"] == []
