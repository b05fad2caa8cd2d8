# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.postmeister.host.plugins.action import dns_records
from ansible_collections.postmeister.host.plugins.module_utils._dns import rfc2136

RECORD = {"name": "a.test", "type": "TXT", "values": ["hello"]}
TASK = {"provider": "none", "records": [RECORD]}
MODULE = {"changed": False, "by": "the module"}


class Action(dns_records.ActionModule):
    """The action without Ansible around it."""

    _load_name = "dns_records"

    def __init__(self, args: dict[str, Any], transport: str = "local", become: bool = False, waits: int = 0) -> None:
        self._task = SimpleNamespace(args=args, check_mode=True, async_val=waits)
        self._connection = SimpleNamespace(transport=transport)
        self._play_context = SimpleNamespace(become=become)

    def _execute_module(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return dict(MODULE)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_records.ActionBase, "run", lambda *_args, **_kwargs: {})


def test_on_the_controller_no_process_is_started() -> None:
    found = Action(TASK).run()
    assert found["zone_text"].splitlines()[-1].split() == ["a.test.", "3600", "IN", "TXT", '"hello"']
    assert found["changed"] is False
    assert found["owned"] == []


@pytest.mark.parametrize("elsewhere", [{"transport": "ssh"}, {"become": True}, {"waits": 60}])
def test_elsewhere_the_module_does_it(elsewhere: dict[str, Any]) -> None:
    assert Action(TASK, **elsewhere).run() == MODULE


def test_without_dnspython_the_module_looks_for_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc2136, "DNSPYTHON_IMPORT_ERROR", "no such module")
    assert Action(TASK).run() == MODULE


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"provider": "none"}, "missing required arguments: records"),
        ({**TASK, "provider": "carrier pigeon"}, "provider must be one of"),
        ({**TASK, "record": []}, "Unsupported parameters"),
        ({**TASK, "key_secret": "CANARY", "port": "x"}, "port"),
    ],
)
def test_bad_options_are_refused_without_their_secrets(args: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleActionFail, match=words) as refused:
        Action(args).run()
    assert "CANARY" not in str(refused.value)


def test_what_the_provider_needs_is_named() -> None:
    found = Action({**TASK, "provider": "rfc2136", "key_secret": "CANARY"}).run()
    assert found == {"failed": True, "msg": "provider rfc2136 needs server, key_name"}
