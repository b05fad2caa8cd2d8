# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted limits against recorded hosts: what is refused, what is written, and that a second run writes nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import limits, state, watch
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mdraid.conftest import Grow

OPTIONS: dict[str, Any] = {
    "speed_limit_max": 1250000,
    "speed_limit_min": 1000,
    "mode": "always",
    "normal_speed_limit_max": 200000,
    "normal_speed_limit_min": 1000,
    "working_hours": [],
    "arrays": [],
}
RESYNCING = {"mode": "while_resyncing"}
NOON = time.strptime("2026-11-23 12:00", "%Y-%m-%d %H:%M")  # a Monday
EVENING = time.strptime("2026-11-23 20:00", "%Y-%m-%d %H:%M")


def plan(root: str, active: bool = False, now: time.struct_time = NOON, **options: Any) -> limits.Plan:
    wanted = limits.check({**OPTIONS, **options})
    return limits.plan(wanted, state.look(root), root, active, now)


def apply(todo: limits.Plan, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Carry a plan out; returns the programs that were started. A value reads back as the kernel shows it."""
    started: list[list[str]] = []
    monkeypatch.setattr(limits, "run", lambda argv, **_: started.append(list(argv)))
    limits.apply(todo)
    for value in todo.values:
        path = Path(value.path)
        if path.name.startswith("sync_speed_"):
            path.write_text("200000 (system)\n" if value.after == "system" else f"{value.after} (local)\n")
    return started


def read(root: str, path: str) -> str:
    return Path(root, path).read_text()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speed_limit_max": 0}, "speed_limit_max: 0 is no limit"),
        ({"speed_limit_max": -5}, "speed_limit_max: -5 is no limit"),
        ({"speed_limit_max": 2**31}, "speed_limit_max: 2147483648 is no limit"),
        ({"speed_limit_min": 0}, "speed_limit_min: 0 is no limit"),
        ({"speed_limit_min": 2, "speed_limit_max": 1}, "speed_limit_min: 2 is above speed_limit_max, 1 "),
        ({"normal_speed_limit_max": 0}, "normal_speed_limit_max: 0 is no limit"),
        ({"normal_speed_limit_min": 300000}, "normal_speed_limit_min: 300000 is above normal_speed_limit_max, 200000 "),
        ({**RESYNCING, "speed_limit_max": 100000}, "normal_speed_limit_max: 200000 is above speed_limit_max, 100000"),
        ({**RESYNCING, "working_hours": ["Mon-Fri"]}, "working_hours[0]: 'Mon-Fri': give days and times as"),
        ({**RESYNCING, "working_hours": ["Mon 08:00-18:00", "Foo 08:00-18:00"]}, "working_hours[1]: 'Foo 08:00-18:00'"),
        ({**RESYNCING, "working_hours": ["Mon 18:00-08:00"]}, "they end before they begin"),
        ({**RESYNCING, "working_hours": ["Mon 08:00-24:01"]}, "24:01 is no time"),
        ({"working_hours": ["Mon 08:00-18:00"]}, "working_hours: they only count with mode while_resyncing"),
        ({"arrays": [{"name": "md127", "speed_limit_max": 0}]}, "arrays[0] (md127): speed_limit_max: 0 is no limit"),
        ({"arrays": [{"name": "md127", "speed_limit_min": -1}]}, "arrays[0] (md127): speed_limit_min: -1 is no limit"),
        (
            {"arrays": [{"name": "md127", "speed_limit_max": 500}]},
            "arrays[0] (md127): speed_limit_min: 1000 (the host's) is above speed_limit_max, 500",
        ),
        ({"arrays": [{"name": "md7"}]}, "arrays[0] (md7): no such array on this host; its arrays: md126 (vm:wide),"),
        ({"arrays": [{"name": ""}]}, "arrays[0] (): no such array"),
        ({"arrays": [{"name": "md127"}, {"name": "data"}]}, "(data): this is md127, which md127 names already"),
        ({"arrays": [{"name": "data", "stripe_cache_size": 512}]}, "only RAID 4, 5 and 6 have it, this is raid1"),
        ({"arrays": [{"name": "data", "group_thread_cnt": 1}]}, "only RAID 4, 5 and 6 have it, this is raid1"),
        ({"arrays": [{"name": "wide", "stripe_cache_size": 16}]}, "stripe_cache_size: 16 is not from 17 to 32768"),
        ({"arrays": [{"name": "wide", "group_thread_cnt": -1}]}, "group_thread_cnt: -1 is not from 0 to 8192"),
    ],
)
def test_refused(grow: Grow, options: dict, words: str) -> None:
    root = grow("idle-13")
    with pytest.raises(limits.LimitError) as refused:
        plan(root, **options)
    assert words in str(refused.value)
    assert not Path(root, limits.SYSCTL).exists()


def test_no_limit_for_what_has_no_redundancy(grow: Grow) -> None:
    root = grow("idle-13", {"sys/block/md127/md/sync_action": None, "sys/block/md127/md/level": "raid0\n"})
    with pytest.raises(limits.LimitError, match="raid0 has no redundancy"):
        plan(root, arrays=[{"name": "data", "speed_limit_max": 5000}])
    assert all("md127" not in value.label for value in plan(root, **RESYNCING).values)


def test_two_arrays_of_one_name(grow: Grow) -> None:
    with open(os.path.join(grow("idle-13"), "run/udev/data/b9:126"), encoding="utf-8") as handle:
        twin = handle.read().replace("vm:wide", "other:data").replace("S:md/wide", "S:md/x")
    root = grow("idle-13", {"run/udev/data/b9:126": twin})
    with pytest.raises(limits.LimitError, match="md126 and md127 have this name: give the UUID"):
        # the link /dev/md/data would decide for one of them, so the name without its host
        Path(root, "run/udev/data/b9:127").write_text(twin.replace("other:", "vm:"))
        plan(root, arrays=[{"name": "data"}])


# --- mode always --------------------------------------------------------------------------------------------------

ARRAYS = [
    {"name": "data", "speed_limit_max": 777000, "bitmap": "internal"},
    {"name": "/dev/md126", "stripe_cache_size": 8192, "group_thread_cnt": 2, "bitmap": None},
]


@pytest.mark.parametrize("release", [12, 13])
def test_always(grow: Grow, monkeypatch: pytest.MonkeyPatch, release: int) -> None:
    root = grow(f"idle-{release}")
    todo = plan(root, arrays=ARRAYS)
    assert [(value.label, value.before, value.after) for value in todo.values] == [
        ("dev.raid.speed_limit_max", "200000", "1250000"),
        ("md126 stripe_cache_size", "256", "8192"),
        ("md126 group_thread_cnt", "0", "2"),
        ("md127 sync_speed_max", "200000 (system)", "777000"),
    ]
    assert (todo.bitmaps, todo.service) == ([("md127", "none", "internal")], "")
    started = apply(todo, monkeypatch)
    assert started == [["udevadm", "control", "--reload"], ["mdadm", "--grow", "--bitmap=internal", "/dev/md127"]]
    assert read(root, limits.SYSCTL).splitlines()[2:] == [
        "dev.raid.speed_limit_max = 1250000",
        "dev.raid.speed_limit_min = 1000",
    ]
    data = state.look(root).find("data")[0].uuid
    rule = f'ENV{{MD_UUID}}=="{data}", TEST=="md/sync_speed_max", ATTR{{md/sync_speed_max}}="777000"\n'
    assert rule in read(root, limits.RULES)
    Path(root, "sys/block/md127/md/bitmap/location").write_text("+8\n")
    assert not plan(root, arrays=ARRAYS).changed
    # an array that is no longer named has the host's limits again
    assert [value.after for value in plan(root).values] == ["system"]


def test_kernel_names_that_change_with_a_boot(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grow("idle-13")
    arrays = [
        {"name": "wide", "stripe_cache_size": 256, "speed_limit_max": 5000},
        {"name": "data", "speed_limit_max": 6000},
    ]
    apply(plan(root, arrays=arrays), monkeypatch)
    block = Path(root, "sys/block")
    (block / "md126").rename(block / "md")
    (block / "md127").rename(block / "md126")
    (block / "md").rename(block / "md127")
    assert not plan(root, arrays=arrays).changed


def test_the_diff_shows_files_and_values(grow: Grow) -> None:
    root = grow("idle-13")
    todo = plan(root, arrays=ARRAYS)
    shown = json.dumps(limits.diff(todo, root))
    for words in ("/etc/sysctl.d/zz-postmeister", "dev.raid.speed_limit_max: 200000", "md127 bitmap: internal"):
        assert words in shown
    assert "dev.raid.speed_limit_max: 200000 -> 1250000" in limits.lines(todo, root)


def test_before_the_driver_is_loaded(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grow("unloaded-13")
    todo = plan(root)
    assert (len(todo.files), todo.values) == (2, [])
    apply(todo, monkeypatch)
    assert not plan(root).changed
    rule = 'KERNEL=="md_mod", RUN+="/usr/lib/systemd/systemd-sysctl --prefix=/dev/raid"\n'
    assert f'ACTION=="add", SUBSYSTEM=="module", {rule}' in read(root, limits.RULES)


def test_the_bitmap_waits_for_the_rebuild_and_the_limits_do_not(grow: Grow) -> None:
    todo = plan(grow("recover-13"), arrays=[{"name": "data", "bitmap": "internal", "speed_limit_max": 5000}])
    assert todo.bitmaps == []
    assert any("md127 is at recover; run this again" in warning for warning in todo.warnings)
    assert ("md127 sync_speed_max", "5000") in [(value.label, value.after) for value in todo.values]


def test_a_file_that_wins_over_ours_is_told(grow: Grow) -> None:
    todo = plan(grow("idle-13", {"etc/sysctl.d/zzz.conf": "dev.raid.speed_limit_max = 5\n"}))
    (warning,) = todo.warnings
    assert warning.startswith("/etc/sysctl.d/zzz.conf sets dev.raid.speed_limit_*, too, and wins at boot")


def test_what_the_kernel_refuses(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grow("idle-13")
    todo = plan(root)
    Path(root, "proc/sys/dev/raid/speed_limit_max").unlink()
    Path(root, "proc/sys/dev/raid/speed_limit_max").mkdir()
    with pytest.raises(_files.FileError, match=r"dev.raid.speed_limit_max: the kernel refuses 1250000"):
        apply(todo, monkeypatch)


# --- mode while_resyncing -----------------------------------------------------------------------------------------


def test_while_resyncing(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grow("idle-13")
    todo = plan(root, **RESYNCING)
    # the host's limits are the kernel's own, and nothing rebuilds
    assert (todo.values, todo.service) == ([], "start")
    started = apply(todo, monkeypatch)
    assert started[-2:] == [["systemctl", "daemon-reload"], ["systemctl", "start", limits.SERVICE]]
    assert 'ENV{SYSTEMD_WANTS}+="postmeister-mdraid.service"' in read(root, limits.RULES)
    assert read(root, limits.PROGRAM) == Path(watch.__file__).read_text()
    assert os.stat(os.path.join(root, limits.PROGRAM)).st_mode & 0o777 == 0o755
    assert not plan(root, active=True, **RESYNCING).changed
    # a changed limit: the running program has to read it
    changed = plan(root, active=True, **RESYNCING, speed_limit_max=900000)
    assert (changed.service, changed.values) == ("restart", [])
    # and back
    back = plan(root, active=True)
    assert back.service == "stop"
    assert {os.path.relpath(file.path, root) for file in back.files if file.content is None} == {
        watch.CONFIG,
        limits.PROGRAM,
        limits.UNIT,
    }
    assert apply(back, monkeypatch)[0] == ["systemctl", "stop", limits.SERVICE]
    assert not plan(root).changed


@pytest.mark.parametrize(
    ("tree", "now", "hours", "after"),
    [
        ("recover-13", NOON, [], ["1250000", "4000"]),
        ("recover-13", NOON, ["Mon-Fri 08:00-18:00"], []),
        ("recover-13", EVENING, ["Mon-Fri 08:00-18:00"], ["1250000", "4000"]),
        ("check-13", NOON, [], []),
        ("idle-13", NOON, [], []),
    ],
)
def test_what_counts_as_a_rebuild(grow: Grow, tree: str, now: Any, hours: list, after: list) -> None:
    todo = plan(grow(tree), now=now, **RESYNCING, working_hours=hours, speed_limit_min=4000)
    assert [value.after for value in todo.values if value.label.startswith("md127 ")] == after


def test_arrays_of_their_own(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grow("idle-13")
    arrays = [{"name": "data", "speed_limit_max": 500, "speed_limit_min": 100}, {"name": "wide", "group_thread_cnt": 3}]
    todo = plan(root, **RESYNCING, arrays=arrays)
    apply(todo, monkeypatch)
    config = json.loads(read(root, watch.CONFIG))
    data, wide = (config["arrays"][state.look(root).find(name)[0].uuid] for name in ("data", "wide"))
    # slower than the normal limit: so it stays
    assert data == {"rebuild": {"max": 500, "min": 100}, "otherwise": {"max": 500, "min": 100}}
    assert wide == config["default"]
    assert wide == {"rebuild": {"max": 1250000, "min": 1000}, "otherwise": {"max": "system", "min": "system"}}
    assert "sync_speed_max" not in read(root, limits.RULES) and "group_thread_cnt" in read(root, limits.RULES)


def test_nothing_to_watch_without_arrays(grow: Grow) -> None:
    assert plan(grow("unloaded-13"), **RESYNCING).service == ""
