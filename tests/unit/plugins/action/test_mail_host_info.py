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
from ansible_collections.postmeister.host.plugins.action import mail_host_info
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Parcel


class Action(mail_host_info.ActionModule):
    """The action without a host."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._task = SimpleNamespace(args=arguments, async_val=0)
        self.sent: dict[str, Any] = {}

    def _execute_module(self, module_name: str, module_args: Any, task_vars: Any) -> dict[str, Any]:
        assert module_name == "postmeister.host.mail_host_info"
        self.sent = module_args
        return {"changed": False}

    def go(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(mail_host_info.MailDirectory.__bases__[0], "run", lambda *_args, **_kwargs: {})
        return self.run()


def test_all_options_travel_in_one_secret_option_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    box = {"address": "x@a.test", "password": "CANARY"}
    action = Action({"modules": {"packages": {"names": ["a"]}, "mail_directory": {"mailboxes": [box], "purge": True}}})
    assert action.go(monkeypatch) == {"changed": False}
    assert list(action.sent) == ["payload"] and "CANARY" not in str(action.sent)
    asked = json.loads(zlib.decompress(base64.b64decode(action.sent["payload"])))
    assert list(asked) == ["packages", "mail_directory"] and asked["mail_directory"]["purge"] is True
    assert Parcel(asked["mail_directory"]["payload"], None).lists().mailboxes == [box]


@pytest.mark.parametrize("arguments", [{}, {"modules": "packages"}, {"modules": {}, "payload": "x"}])
def test_refused(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="modules: a dictionary of options"):
        Action(arguments).go(monkeypatch)
