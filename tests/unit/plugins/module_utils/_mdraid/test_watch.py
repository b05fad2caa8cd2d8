# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that holds the high limit while an array rebuilds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import watch
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mdraid.conftest import Grow

CONFIG: dict[str, Any] = {
    "working_hours": ["Mon-Fri 08:00-18:00", "Sat 09:00-12:30"],
    "default": {"rebuild": {"max": 9000, "min": 50}, "otherwise": {"max": "system", "min": "system"}},
    "arrays": {},
}


def at(text: str) -> time.struct_time:
    """2026-11-23 is a Monday."""
    return time.strptime(text, "%Y-%m-%d %H:%M")


NIGHT = at("2026-11-23 03:00")


def limit(root: str, name: str = "md127") -> str:
    return Path(root, "sys/block", name, "md/sync_speed_max").read_text().strip()


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23 07:59", False),
        ("2026-11-23 08:00", True),
        ("2026-11-27 17:59", True),
        ("2026-11-27 18:00", False),
        ("2026-11-28 12:00", True),
        ("2026-11-28 12:30", False),
        ("2026-11-29 10:00", False),
    ],
)
def test_working_hours(now: str, expected: bool) -> None:
    assert watch.working(CONFIG["working_hours"], at(now)) is expected


def test_days_over_the_weekend() -> None:
    days, since, until = watch.parse_hours("Sat-Mon 00:00-24:00")
    assert (days, since, until) == ({5, 6, 0}, 0, 1440)


@pytest.mark.parametrize("release", [12, 13])
def test_a_rebuild_is_raised(grow: Grow, release: int) -> None:
    root = grow(f"recover-{release}")
    assert watch.bring(root, CONFIG, NIGHT)
    assert limit(root) == "9000"
    assert limit(root, "md126") == "2000 (system)"
    # what the kernel then shows is enough
    assert watch.satisfied("9000 (local)", 9000) and not watch.satisfied("9000 (system)", 9000)


@pytest.mark.parametrize("action", ["resync", "recover", "reshape"])
def test_each_kind_of_rebuild(grow: Grow, action: str) -> None:
    root = grow("recover-13", {"sys/block/md127/md/sync_action": f"{action}\n"})
    watch.bring(root, CONFIG, NIGHT)
    assert limit(root) == "9000"


@pytest.mark.parametrize("action", ["check", "repair", "idle", "frozen"])
def test_all_else_goes_back(grow: Grow, action: str) -> None:
    root = grow(
        "recover-13",
        {"sys/block/md127/md/sync_action": f"{action}\n", "sys/block/md127/md/sync_speed_max": "9000 (local)\n"},
    )
    assert watch.bring(root, CONFIG, NIGHT) is (action != "idle")
    assert limit(root) == "system"


def test_in_working_hours_a_rebuild_waits(grow: Grow) -> None:
    root = grow("recover-13")
    assert watch.bring(root, CONFIG, at("2026-11-23 10:00"))
    assert limit(root) == "2000 (system)"


def test_at_its_end_the_limits_go_back(grow: Grow) -> None:
    root = grow("recover-13", {"sys/block/md127/md/sync_speed_max": "9000 (local)\n"})
    watch.bring(root, CONFIG, NIGHT, ending=True)
    assert limit(root) == "system"


def test_an_array_of_its_own(grow: Grow) -> None:
    root = grow("recover-13")
    own = {"rebuild": {"max": 500, "min": 10}, "otherwise": {"max": 300, "min": 10}}
    config = {**CONFIG, "arrays": {watch.udev(root, "md127")["uuid"]: own}}
    watch.bring(root, config, NIGHT)
    assert limit(root) == "500"
    watch.bring(root, config, NIGHT, ending=True)
    assert limit(root) == "300"


def test_an_array_without_redundancy_is_left_alone(grow: Grow) -> None:
    root = grow("recover-13", {"sys/block/md127/md/sync_action": None, "sys/block/md126/md/sync_action": None})
    assert not watch.bring(root, CONFIG, NIGHT)
    assert limit(root) == "2000 (system)"


def test_it_needs_only_the_standard_library() -> None:
    # As the unit starts it: without Ansible and without this collection in its path.
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import runpy; runpy.run_path({watch.__file__!r}, run_name='program')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
