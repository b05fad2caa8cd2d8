# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.postmeister.host.plugins.action import mail_host_facts
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Parcel
from ansible_collections.postmeister.host.plugins.module_utils._service._group import unpacked


class Action(mail_host_facts.ActionModule):
    """The action without a host."""

    def __init__(self, arguments: dict[str, Any], defaults: list[dict[str, Any]] | None = None) -> None:
        self._task = SimpleNamespace(args=arguments, async_val=0, module_defaults=defaults)
        self._connection = self._play_context = self._loader = self._templar = self._shared_loader_obj = None
        self.sent: dict[str, Any] = {}

    def _execute_module(self, module_name: str, module_args: Any, task_vars: Any) -> dict[str, Any]:
        assert module_name == "postmeister.host.mail_host_facts"
        self.sent = module_args
        return {"changed": False, "unsettled": "", "reason": ""}

    def go(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(mail_host_facts.ActionBase, "run", lambda *_args, **_kwargs: {})
        return self.run()

    @property
    def asked(self) -> dict[str, Any]:
        assert list(self.sent) == ["payload"]
        asked: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(self.sent["payload"])))
        return asked


BOX = {"address": "x@a.test", "password": "CANARY"}
RESOLVER = {"service": "unbound", "files": [{"dest": "/etc/unbound/a", "content": "CANARY"}]}


def test_all_options_travel_in_one_secret_option_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "packages": {"names": ["a"]},
        "service_config": {"services": [RESOLVER]},
        "mail_directory": {"mailboxes": [BOX], "purge": True},
    }
    action = Action({"modules": modules})
    assert action.go(monkeypatch)["unsettled"] == ""
    assert "CANARY" not in str(action.sent)
    assert list(action.asked) == list(modules)
    assert action.asked["mail_directory"]["purge"] is True
    assert Parcel(action.asked["mail_directory"]["payload"], None).lists().mailboxes == [BOX]
    assert unpacked(action.asked["service_config"]["payload"]) == [[{"content": "CANARY", "dest": "/etc/unbound/a"}]]


@pytest.mark.parametrize(
    ("name", "unsettled"),
    [
        ("postmeister.host.packages", "packages"),
        ("group/postmeister.host.mail", "group/postmeister.host.mail"),
        ("postmeister.host.mail_user", ""),
        ("ansible.builtin.copy", ""),
    ],
)
def test_options_by_module_defaults_are_known_to_the_module_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, unsettled: str
) -> None:
    action = Action({"modules": {"packages": {"names": ["a"]}}}, [{name: {"lock_timeout": 1}}])
    assert action.go(monkeypatch)["unsettled"] == unsettled
    assert bool(action.asked) is not bool(unsettled)


@pytest.mark.parametrize("arguments", [{}, {"modules": "packages"}, {"modules": {}, "payload": "x"}])
def test_refused(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="modules: a dictionary of options"):
        Action(arguments).go(monkeypatch)
