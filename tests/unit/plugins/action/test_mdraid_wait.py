# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.postmeister.host.plugins.action import mdraid_wait

IDLE = {"name": "md0", "rebuilding": False, "degraded": 0, "devices": 2}
CHECKED = {**IDLE, "name": "md1", "action": "check", "percent": 3.0}


def at(percent: float, speed: int, left: int) -> dict[str, Any]:
    return {**IDLE, "rebuilding": True, "action": "recover", "percent": percent, "speed": speed, "seconds_left": left}


class Action(mdraid_wait.ActionModule):
    """The action without a host, which answers as told, the last answer again and again."""

    def __init__(self, arguments: dict[str, Any], answers: list[Any]) -> None:
        self._task = SimpleNamespace(args=arguments)
        self.answers = answers

    def _execute_module(self, module_name: str, module_args: Any, task_vars: Any) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, dict) else {"arrays": answer}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(mdraid_wait.ActionBase, "run", lambda *_args, **_kwargs: {})
    monkeypatch.setattr(mdraid_wait, "_sleep", lambda seconds: None)
    monkeypatch.setattr(mdraid_wait.Display, "display", lambda _self, text, **_: lines.append(text))
    return lines


def test_until_its_end(shown: list[str]) -> None:
    action = Action({}, [[at(12.5, 9000, 70)], [at(80.0, 9000, 9), CHECKED], [IDLE, CHECKED]])
    result = action.run(task_vars={"inventory_hostname": "nas"})
    assert shown == [
        "nas: md0: recover 12.5 %, 9000 KiB/s, 1 min 10 s left",
        "nas: md0: recover 80.0 %, 9000 KiB/s, 9 s left",
        "nas: md0: done",
    ]
    assert (result["changed"], result["rebuilt"]) == (False, ["md0"])


def test_a_check_is_not_waited_for(shown: list[str]) -> None:
    result = Action({}, [[IDLE, CHECKED]]).run(task_vars={})
    assert (shown, result["rebuilt"]) == ([], [])


def test_it_ends_without_all_devices(shown: list[str]) -> None:
    Action({}, [[at(1.0, 0, 0)], [{**IDLE, "degraded": 1}]]).run(task_vars={})
    assert shown[-1].endswith("md0: ended, but 1 of 2 devices are still missing")


def test_it_takes_too_long(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 7))
    monkeypatch.setattr(mdraid_wait.time, "monotonic", lambda: next(clock))
    with pytest.raises(AnsibleActionFail, match=r"after 20 s there is still work: md0: recover 1.0 %"):
        Action({"timeout": 20}, [[at(1.0, 0, 0)]]).run(task_vars={})


@pytest.mark.parametrize("arguments", [{"interval": 0}, {"timeout": -1}])
def test_bad_values(shown: list[str], arguments: dict[str, int]) -> None:
    with pytest.raises(AnsibleActionFail, match="interval takes 1 second or more"):
        Action(arguments, [[IDLE]]).run(task_vars={})


def test_the_host_cannot_be_asked(shown: list[str]) -> None:
    assert Action({}, [{"failed": True, "msg": "no Python"}]).run(task_vars={})["msg"] == "no Python"
