# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils._resolver import ask
from ansible_collections.postmeister.host.plugins.module_utils._resolver.reverse import LookupFailed
from ansible_collections.postmeister.host.plugins.modules import reverse_dns_info

ADDRESS = "198.51.100.25"
POINTER = "25.100.51.198.in-addr.arpa."


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        reverse_dns_info.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_host_without_dnspython_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", False)
    told = run(capsys, address=ADDRESS)
    assert (told["confirmed"], told["changed"], told.get("warnings")) == (None, False, None)


def test_what_was_remembered_is_forgotten_and_asked_for_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone: dict[tuple[str, str], list[str]] = {}
    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", True)
    monkeypatch.setattr(ask, "records", lambda name, rrtype: zone.get((name, rrtype), []))

    def forget(names: tuple[str, ...]) -> None:
        zone[POINTER, "PTR"], zone["mx.test.", "A"] = ["mx.test."], [ADDRESS]

    monkeypatch.setattr(ask, "forget", forget)
    told = run(capsys, address=ADDRESS)
    assert (told["confirmed"], told["names"], told["reason"]) == (True, ["mx.test"], "")


def test_a_resolver_that_gives_no_answer_is_not_asked_all_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def records(name: str, rrtype: str) -> list[str]:
        asked.append(name)
        raise LookupFailed("SERVFAIL")

    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", True)
    monkeypatch.setattr(ask, "records", records)
    assert run(capsys, address=ADDRESS)["confirmed"] is False
    assert asked == [POINTER]


def test_what_is_not_confirmed_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", True)
    monkeypatch.setattr(ask, "records", lambda name, rrtype: [])
    monkeypatch.setattr(ask, "forget", lambda names: None)
    told = run(capsys, address=ADDRESS, consequence="mail waits")
    assert told["confirmed"] is False
    assert f"{ADDRESS}: it has no PTR record: mail waits" in json.dumps(told["warnings"])


def test_no_address(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", True)
    assert "'mx.test' does not appear to be" in run(capsys, address="mx.test")["msg"]
