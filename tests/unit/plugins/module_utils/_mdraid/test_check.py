# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check's schedule on Debian 12, whose mdadm has a job of cron, and 13, whose has timers only."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _command
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import check
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mdraid.conftest import Grow

DEFAULTS = "AUTOCHECK=true\nAUTOSCAN=true\n"
MDADM = {check.PROGRAM: "", check.DEFAULTS: DEFAULTS}
DEBIAN_12 = {**MDADM, check.CRON: "57 0 * * 0 root checkarray\n"}
ON, OFF = ("enabled", "active"), ("disabled", "inactive")
DROP_IN = check.DROP_IN.format("mdcheck_start.timer")


def units(state: tuple[str, str]) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(check.TIMERS, state)


def write(todo: check.Plan) -> None:
    for file in todo.files:
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.content is None:
            path.unlink()
        else:
            path.write_bytes(file.content)
            path.chmod(file.mode)


@pytest.mark.parametrize(("files", "state"), [(DEBIAN_12, OFF), (MDADM, ON), ({}, OFF)], ids=["12", "13", "bare"])
def test_debians_own_schedule_is_left_alone(grow: Grow, files: dict, state: tuple) -> None:
    assert not check.plan(grow("idle-13", files), True, "", "", True, units(state)).changed


@pytest.mark.parametrize(("files", "state"), [(DEBIAN_12, OFF), (MDADM, ON)], ids=["12", "13"])
def test_a_schedule_and_back(grow: Grow, files: dict, state: tuple) -> None:
    root = grow("idle-13", files)
    wanted = (True, "Sat 01:00", "4 hours", True)
    todo = check.plan(root, *wanted, units(state))
    assert todo.enable == (list(check.TIMERS) if state == OFF else [])
    assert todo.start and not todo.disable
    write(todo)
    assert "OnCalendar=\nOnCalendar=Sat 01:00\n" in Path(root, DROP_IN).read_text()
    # cron leaves it to the timers
    expected = DEFAULTS.replace("CHECK=true", "CHECK=false") if state == OFF else DEFAULTS
    assert Path(root, check.DEFAULTS).read_text() == expected
    assert not check.plan(root, *wanted, units(ON)).changed
    back = check.plan(root, True, "", "", True, units(ON))
    assert back.disable == (list(check.TIMERS) if state == OFF else [])
    write(back)
    assert not Path(root, DROP_IN).exists()
    assert Path(root, check.DEFAULTS).read_text() == DEFAULTS
    assert not check.plan(root, True, "", "", True, units(state)).changed


@pytest.mark.parametrize("files", [DEBIAN_12, MDADM], ids=["12", "13"])
def test_no_check_at_all(grow: Grow, files: dict) -> None:
    root = grow("idle-13", files)
    todo = check.plan(root, False, "Sat 01:00", "", True, units(ON))
    assert todo.disable == list(check.TIMERS)
    write(todo)
    assert not check.plan(root, False, "Sat 01:00", "", True, units(OFF)).changed


def test_without_arrays_the_timers_wait(grow: Grow) -> None:
    root = grow("unloaded-13", MDADM)
    todo = check.plan(root, True, "Sat 01:00", "", False, units(OFF))
    assert todo.enable and not todo.start
    write(todo)
    assert not check.plan(root, True, "Sat 01:00", "", False, units(("enabled", "inactive"))).changed


@pytest.mark.parametrize("duration", ["0 hours", "6", "six hours", "6 hours\nX", '6 hours"', "-1 hours"])
def test_durations_are_refused(duration: str) -> None:
    with pytest.raises(check.CheckError, match="is no time like"):
        check.verify("", duration)


def test_schedules_are_asked_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(argv, check=True):
        bad = argv[-1] != "Sat 01:00"
        return _command.Result(tuple(argv), int(bad), "", "Failed to parse calendar specification" if bad else "")

    monkeypatch.setattr(check, "run", answer)
    check.verify("Sat 01:00", "90 minutes")
    with pytest.raises(check.CheckError, match=r"schedule: 'soon' is no calendar expression .*: Failed to parse"):
        check.verify("soon", "")
