# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json
import os
from typing import Any

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


def test_check_real_check_real(runner: Runner) -> None:
    runner.directory(WANTED)
    user = {"address": "Guest@a.test", "password_hash": HASH, "quota": "5M"}
    results = [runner.run("mail_user", check, **user) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert all(HASH[12:] not in json.dumps(each) for each in results)


def test_what_is_not_given_stays(runner: Runner) -> None:
    runner.directory(WANTED)
    runner.run("mail_user", address="guest@a.test", password_hash=HASH, quota="5M")
    assert not runner.run("mail_user", address="guest@a.test")["changed"]
    assert runner.run("mail_user", address="guest@a.test", enabled=False)["mailboxes"]["changed"] == 1
    assert not runner.run("mail_user", address="guest@a.test", quota="5M")["changed"]
    guest = {"address": "guest@a.test", "quota": 5 << 20, "enabled": False, "origin": "adhoc", "scheme": "BLF-CRYPT"}
    assert guest in runner.run("mail_directory_info")["mailboxes"]
    assert runner.run("mail_user", address="guest@a.test", quota="default")["changed"]


def test_survives_a_purge_and_goes_when_asked(runner: Runner) -> None:
    runner.directory(WANTED)
    runner.run("mail_user", address="guest@a.test", password_hash=HASH)
    assert not runner.directory(WANTED, purge=True)["changed"]
    results = [runner.run("mail_user", check, address="guest@a.test", state="absent") for check in (True, False, True)]
    assert [each["mailboxes"]["deleted"] for each in results] == [1, 1, 0]


def test_password_is_verified(runner: Runner) -> None:
    runner.directory(WANTED)
    fast = {"address": "guest@a.test", "scheme": "SHA512-CRYPT", "cost": 5000}
    results = [runner.run("mail_user", **fast, password=text) for text in ("CANARY 1", "CANARY 1", "CANARY 2")]
    assert [each["changed"] for each in results] == [True, False, True]
    assert "CANARY" not in json.dumps([{**each, "invocation": None} for each in results])
    assert not runner.run("mail_user", **fast, password="CANARY 3", update_password="on_create")["changed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "x@a.test", "enabled": False}, "address: 'x@a.test' stands in the inventory"),
        ({"address": "x@a.test", "state": "absent"}, "address: 'x@a.test' stands in the inventory"),
        ({"address": "new@a.test"}, "address: 'new@a.test' is new and has neither password"),
        ({"address": "new@a.test", "password": "p", "password_hash": HASH}, "mutually exclusive"),
        ({"address": "new@b.test", "password_hash": HASH}, "is in the domain b.test"),
        ({"address": "new@a.test", "password_hash": HASH, "remove_mail": True}, "needs state: absent"),
    ],
)
def test_refused(runner: Runner, arguments: dict[str, Any], words: str) -> None:
    runner.directory(WANTED)
    result = runner.run("mail_user", **arguments)
    assert result["failed"]
    assert words in result["msg"]
