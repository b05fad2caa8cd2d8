# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible_collections.postmeister.host.plugins.action import mail_directory
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Parcel


class Action(mail_directory.ActionModule):
    """The action without a host: what it would run is noted down, needed says what the host answers first."""

    def __init__(self, arguments: dict[str, Any], folder: Path, needed: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.sent: list[bytes] = []
        self.needed = needed
        self.folder = folder
        self._task = SimpleNamespace(args=arguments, async_val=0)
        self._loader = DataLoader()
        shell = SimpleNamespace(tmpdir="/remote", join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell, transport="test")

    def _find_needle(self, dirname: str, needle: str) -> str:
        return str(self.folder / needle)

    def _execute_module(self, module_name: str, module_args: Any, task_vars: Any) -> dict[str, Any]:
        assert module_name == "postmeister.host.mail_directory"
        self.calls.append(module_args)
        needed = self.needed and len(self.calls) == 1
        return {"changed": not needed, "source_needed": True} if needed else {"changed": True}

    def _transfer_file(self, local_path: str, remote_path: str) -> None:
        path = Path(local_path)
        assert path.stat().st_mode & 0o077 == 0
        self.sent.append(path.read_bytes())
        assert remote_path == "/remote/directory.json"

    def _fixup_perms2(self, paths: Any, execute: bool) -> None:
        assert not execute

    def go(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(mail_directory.ActionBase, "run", lambda *_args, **_kwargs: {})
        return self.run()


BOX = {"address": "x@a.test", "password": "CANARY", "enabled": "no"}


def test_lists_travel_in_one_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    action = Action({"mailboxes": [BOX], "purge": True}, tmp_path)
    assert action.go(monkeypatch) == {"changed": True}
    (call,) = action.calls
    assert set(call) == {"payload", "purge"}
    assert "CANARY" not in str(call)
    lists = Parcel(call["payload"], None).lists()
    assert (lists.domains, lists.mailboxes, lists.aliases) == (None, [BOX], None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", json.dumps([BOX])),
        ("s.yml", '- {address: x@a.test, password: CANARY, enabled: "no"}\n'),
        ("s.csv", "address,password,enabled\nx@a.test,CANARY,no\n"),
        ("s.csv", "\ufeffaddress,password,enabled\r\nx@a.test,CANARY,no\r\n"),
    ],
)
def test_small_source_travels_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    action = Action({"src": name, "domains": [{"name": "a.test"}]}, tmp_path)
    action.go(monkeypatch)
    (call,) = action.calls
    lists = Parcel(call["payload"], None).lists()
    assert (lists.domains, lists.mailboxes) == ([{"name": "a.test"}], [BOX])
    assert lists.place("mailboxes", 0) == f"mailboxes[0] in {name}"


def test_large_source_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_directory, "SMALL", 10)
    (tmp_path / "s.json").write_text(json.dumps([BOX]))
    same = Action({"src": "s.json"}, tmp_path)
    same.go(monkeypatch)
    assert (len(same.calls), same.sent) == (1, [])
    assert "src" not in same.calls[0]
    other = Action({"src": "s.json"}, tmp_path, needed=True)
    assert other.go(monkeypatch) == {"changed": True}
    assert other.sent == [json.dumps([BOX]).encode()]
    assert other.calls[1]["src"] == "/remote/directory.json"
    assert other.calls[0]["payload"] == other.calls[1]["payload"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"payload": "x"}, "payload: is set by the action plugin"),
        ({"mailboxes": "CANARY"}, "mailboxes: is no list"),
        ({"src": "s.txt"}, "ends in neither"),
        ({"src": "bad.csv"}, "line 2 has not as many fields"),
        ({"src": "latin.csv"}, "not in UTF-8"),
    ],
)
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], words: str) -> None:
    (tmp_path / "bad.csv").write_text("address,password\nx@a.test,CANARY,CANARY\n")
    (tmp_path / "latin.csv").write_bytes("address\nCANARY@müller.test\n".encode("latin-1"))
    with pytest.raises(AnsibleActionFail) as caught:
        Action(arguments, tmp_path).go(monkeypatch)
    assert words in str(caught.value)
    assert "CANARY" not in str(caught.value)
