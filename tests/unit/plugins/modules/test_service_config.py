# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several daemons in one task: in order, each by itself, and what is said of those before one that fails.

What a transaction does is tested on real daemons (tests/kill).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils._service import _group, _transaction
from ansible_collections.postmeister.host.plugins.modules import service_config

REDIS = {"service": "redis", "files": [{"dest": "/etc/redis.conf", "content": "a"}], "probe": {"socket": "/run/r"}}
POSTFIX = {"service": "postfix", "files": [{"dest": "/etc/main.cf", "content": "canary-xyz", "secret": True}]}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which transactions were run, and how; Postfix refuses files that hold "broken"."""
    seen: list[tuple[str, str]] = []

    def run(how: str) -> Any:
        def do(self: _transaction.Transaction) -> _transaction.Outcome:
            seen.append((how, self.service.name))
            if any(b"broken" in (file.content or b"") for file in self.files):
                raise _transaction.TransactionError("fatal: canary-xyz broken")
            changed = [_transaction.Difference(file, None) for file in self.files]
            return _transaction.Outcome(changed, action="reloaded")

        return do

    monkeypatch.setattr(_transaction.Transaction, "apply", run("apply"))
    monkeypatch.setattr(_transaction.Transaction, "check_mode", run("check"))
    monkeypatch.setattr(_group, "debian_release", lambda: 13)
    return seen


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    services = arguments.get("services", [arguments])
    packed = zlib.compress(json.dumps([service["files"] for service in services]).encode())
    payload = base64.b64encode(packed).decode()
    bare = json.loads(json.dumps(arguments))
    for service in bare.get("services", [bare]):
        for file in service["files"]:
            file.pop("content", None)
    with patch_module_args({**bare, "payload": payload}), pytest.raises(SystemExit):
        service_config.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_in_the_order_of_the_list(told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, services=[REDIS, POSTFIX], _ansible_diff=True)
    assert told == [("apply", "redis"), ("apply", "postfix")]
    assert result["changed"]
    assert [(each["service"], each["files"], each["action"]) for each in result["services"]] == [
        ("redis", ["/etc/redis.conf"], "reloaded"),
        ("postfix", ["/etc/main.cf"], "reloaded"),
    ]
    assert [entry["after_header"] for entry in result["diff"]] == ["/etc/redis.conf", "/etc/main.cf"]


def test_check_mode(told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, services=[POSTFIX, REDIS], _ansible_check_mode=True)["changed"]
    assert told == [("check", "postfix"), ("check", "redis")]


def test_one_that_fails_ends_it_and_what_was_done_is_told(
    told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {
        "service": "postfix",
        "files": [{"dest": "/etc/main.cf", "content": "broken\nx=canary-xyz", "secret": True}],
    }
    last = {"service": "fail2ban", "files": []}
    result = run(capsys, services=[REDIS, broken, last], _ansible_diff=True)
    assert told == [("apply", "redis"), ("apply", "postfix")]
    assert result["failed"] and result["changed"]
    assert result["msg"].startswith("postfix: fatal: ")
    assert "canary" not in json.dumps(result)
    assert [each["service"] for each in result["services"]] == ["redis"]
    assert [entry["after_header"] for entry in result["diff"]] == ["/etc/redis.conf"]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        (
            [REDIS, {"service": "postfix", "files": [{"dest": "main.cf", "content": ""}]}],
            "postfix: files[0].dest: 'main.cf'",
        ),
        ([REDIS, POSTFIX, REDIS], "redis: is named twice"),
    ],
)
def test_bad_values_of_any_stop_it_before_the_first(
    told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], services: list[dict[str, Any]], words: str
) -> None:
    result = run(capsys, services=services)
    assert told == []
    assert words in result["msg"]
    assert result["failed"] and not result["changed"]


def test_one_daemon_is_answered_plainly(told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, **POSTFIX)
    assert (result["files"], result["action"]) == (["/etc/main.cf"], "reloaded")
    assert "services" not in result


@pytest.mark.parametrize(
    ("given", "words"),
    [({**REDIS, "services": [POSTFIX]}, "mutually exclusive"), ({"services": [], "files": []}, "mutually exclusive")],
)
def test_one_or_several(capsys: pytest.CaptureFixture[str], given: dict[str, Any], words: str) -> None:
    assert words in run(capsys, **given)["msg"]


def test_none_is_no_change(told: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, services=[])
    assert (result["changed"], result["services"], told) == (False, [], [])


def test_options_of_a_file_are_what_ansible_made_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text "false", as -e gives it, is no true."""
    found = []
    monkeypatch.setattr(
        _transaction.Transaction, "check_mode", lambda self: found.extend(self.files) or _transaction.Outcome([])
    )
    monkeypatch.setattr(_group, "debian_release", lambda: 13)
    file = {"dest": "/etc/redis.conf", "content": "a", "secret": "false"}
    run(capsys, **{**REDIS, "files": [file]}, _ansible_check_mode=True)
    assert [(each.mode, each.secret, each.content) for each in found] == [(0o644, False, b"a")]


def test_a_folder_in_place_of_a_secret_file_is_told(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_group, "debian_release", lambda: 13)
    file = {"dest": str(tmp_path), "content": "a", "secret": True}
    result = run(capsys, **{**REDIS, "files": [file]}, _ansible_check_mode=True)
    assert str(tmp_path) in result["msg"] and "director" in result["msg"]
