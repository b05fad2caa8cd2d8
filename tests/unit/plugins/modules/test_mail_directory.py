# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import pack
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mail.conftest import (
    HASH,
    WANTED,
    Runner,
    runner,
    store,
)

__all__ = ["runner", "store"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


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
