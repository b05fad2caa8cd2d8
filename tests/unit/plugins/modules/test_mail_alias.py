# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
from typing import Any

import pytest
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mail.conftest import (
    WANTED,
    Runner,
    runner,
    store,
)

__all__ = ["runner", "store"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


ALIAS = {"address": "Sales@a.test", "destinations": ["x@a.test"]}


def test_check_real_check_real(runner: Runner) -> None:
    runner.directory(WANTED)
    results = [runner.run("mail_alias", check, **ALIAS) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[1]["aliases"] == {"created": 1, "changed": 0, "deleted": 0}


def test_survives_a_purge_and_goes_when_asked(runner: Runner) -> None:
    runner.directory(WANTED)
    runner.run("mail_alias", **ALIAS)
    assert not runner.directory(WANTED, purge=True)["changed"]
    results = [runner.run("mail_alias", check, address="sales@a.test", state="absent") for check in (True, False, True)]
    assert [each["aliases"]["deleted"] for each in results] == [1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "new@a.test"}, "destinations"),
        ({"address": "new@a.test", "destinations": ["me@outside.example"]}, "SRS"),
        ({"address": "new@a.test", "destinations": ["new@a.test"]}, "is a loop"),
        ({"address": "x@a.test", "destinations": ["y@a.test"]}, "is a mailbox as well"),
        ({"address": "@a.test", "state": "absent"}, "stands in the inventory"),
    ],
)
def test_refused(runner: Runner, arguments: dict[str, Any], words: str) -> None:
    runner.directory(WANTED)
    result = runner.run("mail_alias", **arguments)
    assert result["failed"]
    assert words in result["msg"]
