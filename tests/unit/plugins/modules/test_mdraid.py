# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mdraid_speed, mdraid_check and mdraid_info on recorded hosts, as Ansible runs them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils import _command
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import check, limits
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mdraid.conftest import Grow, grow

__all__ = ["grow"]

MODULES = "ansible_collections.postmeister.host.plugins.modules"
Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Run a module on a recorded host. No unit is active, and starting one does nothing."""

    def answer(argv: Any, check: bool = True, **_: Any) -> _command.Result:
        words = {"is-active": "inactive", "is-enabled": "disabled"}.get(argv[1], "")
        return _command.Result(tuple(argv), 0, f"{words}\n", "")

    def go(name: str, root: str, checking: bool = False, **arguments: Any) -> dict[str, Any]:
        module = importlib.import_module(f"{MODULES}.{name}")
        monkeypatch.setattr(module, "ROOT", root)
        for place in (module, limits, check):
            monkeypatch.setattr(place, "run", answer, raising=False)
        with patch_module_args({"_ansible_check_mode": checking, **arguments}), pytest.raises(SystemExit) as caught:
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(caught.value.code) == bool(result.get("failed"))
        return result

    return go


def test_check_real_check_real(grow: Grow, run: Runner) -> None:
    root = grow("idle-12")
    results = [run("mdraid_speed", root, checking) for checking in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]


def test_limits_of_a_host_with_arrays(grow: Grow, run: Runner) -> None:
    root = grow("idle-13")
    checked = run("mdraid_speed", root, True, arrays=[{"name": "data", "speed_limit_max": 5000}])
    assert not Path(root, limits.SYSCTL).exists()
    real = run("mdraid_speed", root, arrays=[{"name": "data", "speed_limit_max": 5000}])
    assert checked["changes"] == real["changes"]
    assert "md127 sync_speed_max: 200000 (system) -> 5000" in real["changes"]
    assert Path(root, "proc/sys/dev/raid/speed_limit_max").read_text() == "1250000"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speed_limit_max": 0}, "speed_limit_max: 0 is no limit"),
        ({"speed_limit_min": -1}, "speed_limit_min: -1 is no limit"),
        ({"speed_limit_min": 9, "speed_limit_max": 8}, "speed_limit_min: 9 is above speed_limit_max, 8"),
        ({"arrays": [{"name": "md9", "speed_limit_max": 5000}]}, "arrays[0] (md9): no such array on this host"),
    ],
)
@pytest.mark.parametrize("checking", [True, False])
def test_refused_before_anything_changes(grow: Grow, run: Runner, options: dict, words: str, checking: bool) -> None:
    root = grow("idle-13")
    before = {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
    result = run("mdraid_speed", root, checking, **options)
    assert result["failed"] and words in result["msg"]
    assert {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["mdraid_speed", "mdraid_check", "mdraid_info"])
def test_a_container_is_no_failure(grow: Grow, run: Runner, name: str) -> None:
    root = grow("idle-13", {"run/systemd/container": "lxc\n"})
    result = run(name, root)
    assert (result["changed"], result["supported"]) == (False, False)
    assert result["reason"].startswith("this is a container")


def test_bad_values_are_refused_in_a_container_too(grow: Grow, run: Runner) -> None:
    root = grow("idle-13", {"run/systemd/container": "lxc\n"})
    assert run("mdraid_speed", root, speed_limit_max=0)["failed"]


def test_the_check_needs_mdadm(grow: Grow, run: Runner) -> None:
    root = grow("idle-13")
    assert "install mdadm first" in run("mdraid_check", root)["msg"]
    assert not run("mdraid_check", root, True)["changed"]
    assert run("mdraid_check", root, True, schedule="Sat 01:00")["changed"]


def test_the_check_is_scheduled(grow: Grow, run: Runner) -> None:
    root = grow("idle-13", {check.PROGRAM: ""})
    result = run("mdraid_check", root, schedule="Sat 01:00")
    assert result["changed"] and "OnCalendar=Sat 01:00" in json.dumps(result["diff"])
    assert Path(root, check.DROP_IN.format("mdcheck_start.timer")).exists()


def test_info(grow: Grow, run: Runner) -> None:
    result = run("mdraid_info", grow("recover-12"))
    (array,) = (array for array in result["arrays"] if array["rebuilding"])
    assert array["percent"] > 0 and array["speed_limit_max"] == {"value": 2000, "source": "host"}
    assert result["limits"]["now"]["speed_limit_max"] == {"value": 2000, "source": "runtime"}
