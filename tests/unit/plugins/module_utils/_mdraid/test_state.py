# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of recorded hosts: Debian 12 (6.1) and 13 (6.12), a RAID 1 named data and a RAID 5 named wide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import progress, state
from ansible_collections.postmeister.host.tests.unit.plugins.module_utils._mdraid.conftest import Grow

MAX = "dev.raid.speed_limit_max"
OURS = "etc/sysctl.d/zz-postmeister-mdraid.conf"


def by_level(root: str) -> dict[str, state.Array]:
    return {array.level: array for array in state.look(root).arrays}


@pytest.mark.parametrize("release", [12, 13])
def test_idle(grow: Grow, release: int) -> None:
    host = state.look(grow(f"idle-{release}"))
    assert (host.unsupported, host.loaded, host.warnings) == ("", True, [])
    assert host.limits == {"max": state.Limit(200000, "kernel"), "min": state.Limit(1000, "kernel")}
    data, wide = sorted(host.arrays, key=lambda array: array.level)
    assert (data.level, data.label, data.disks, data.degraded, data.state) == ("raid1", "vm:data", 2, 0, "clean")
    assert (data.action, data.percent, data.speed, data.seconds_left) == ("idle", None, None, None)
    assert (data.bitmap, wide.bitmap, data.size) == ("none", "internal", 97280)
    assert (data.stripe_cache_size, wide.stripe_cache_size, wide.group_thread_cnt) == (None, 256, 0)
    assert data.limits["max"] == state.Limit(200000, "host")
    assert "/dev/md/data" in data.links and data.uuid.count(":") == 3
    assert data.members == [
        {"device": "/dev/vdc", "slot": 0, "state": ["in_sync"], "errors": 0},
        {"device": "/dev/vdd", "slot": 1, "state": ["in_sync"], "errors": 0},
    ]


@pytest.mark.parametrize("release", [12, 13])
def test_recovering(grow: Grow, release: int) -> None:
    array = by_level(grow(f"recover-{release}"))["raid1"]
    assert array.rebuilding and array.degraded == 1
    assert array.total == 97280 and array.done and array.speed
    assert array.percent == round(100 * array.done / array.total, 1)
    assert array.seconds_left == (array.total - array.done) // array.speed
    assert [member["state"] for member in array.members] == [["in_sync"], ["spare"]]
    assert progress.line(array.describe()).startswith(f"{array.name}: recover {array.percent:.1f} %, ")


def test_a_check_is_no_rebuild(grow: Grow) -> None:
    array = by_level(grow("check-13"))["raid1"]
    assert (array.action, array.rebuilding) == ("check", False)
    assert array.percent


def test_the_uuid_is_the_same_without_mdadm(grow: Grow) -> None:
    known = by_level(grow("idle-13"))["raid1"]
    root = grow("idle-13", {"run/udev/data/b9:127": "G:systemd\n", "run/udev/data/b9:126": "G:systemd\n"})
    unknown = by_level(root)["raid1"]
    assert (unknown.uuid, unknown.label, unknown.links) == (known.uuid, "", [])


def test_an_old_array_has_no_uuid_without_mdadm(grow: Grow) -> None:
    changes = {"run/udev/data/b9:127": "", "sys/block/md127/md/metadata_version": "0.90\n"}
    assert by_level(grow("idle-13", changes))["raid1"].key == "md127"


def test_waits_for_its_first_write(grow: Grow) -> None:
    changes = {"sys/block/md127/md/array_state": "read-auto\n", "sys/block/md127/md/resync_start": "0\n"}
    assert by_level(grow("idle-12", changes))["raid1"].pending
    assert not by_level(grow("idle-13"))["raid1"].pending


def test_waits_for_another_array(grow: Grow) -> None:
    root = grow("recover-13")
    mdstat = Path(root, "proc/mdstat")
    text, count = re.subn(r"\[=.*\n", "      resync=DELAYED\n", mdstat.read_text())
    mdstat.write_text(text)
    assert count == 1
    array = by_level(root)["raid1"]
    assert (array.rebuilding, array.percent, array.seconds_left) == (True, None, None)
    assert progress.line(array.describe()) == "md127: recover, has to wait for another array"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"usr/lib/modules/6.12.117+deb13-cloud-amd64/modules.dep": "kernel/fs/ext4.ko:\n"}, "has no md driver"),
        ({"run/systemd/container": "podman\n"}, "this is a container"),
    ],
    ids=["not loaded", "no driver", "container"],
)
def test_without_arrays(grow: Grow, changes: dict, reason: str) -> None:
    host = state.look(grow("unloaded-13", changes), "6.12.117+deb13-cloud-amd64")
    assert (reason in host.unsupported, bool(host.unsupported)) == (True, bool(reason))
    assert (host.loaded, host.arrays, host.limits) == (False, [], {})
    assert host.describe()["limits"]["now"] == {}


def test_the_container_of_a_machine_with_arrays(grow: Grow) -> None:
    host = state.look(grow("idle-13", {"run/.containerenv": ""}))
    assert host.unsupported and not host.arrays


@pytest.mark.parametrize(
    ("files", "value", "source"),
    [
        ({}, 200000, "kernel"),
        ({OURS: "dev.raid.speed_limit_max = 9\n"}, 9, f"/{OURS}"),
        ({OURS: f"{MAX}=9\n", "etc/sysctl.d/99-x.conf": f"{MAX}=8\n"}, 9, f"/{OURS}"),
        ({"etc/sysctl.d/a.conf": f"-dev/raid/speed_limit_max = 7\n# {MAX} = 6\n"}, 7, "/etc/sysctl.d/a.conf"),
        # the same name in /etc hides the one in /usr
        ({"usr/lib/sysctl.d/b.conf": "dev.raid.speed_limit_max = 5\n", "etc/sysctl.d/b.conf": ""}, 200000, "kernel"),
        ({"usr/lib/sysctl.d/b.conf": "dev.raid.speed_limit_max = 5\n"}, 5, "/usr/lib/sysctl.d/b.conf"),
        ({"etc/sysctl.d/c": "dev.raid.speed_limit_max = 5\n"}, 200000, "kernel"),
    ],
)
def test_what_the_next_boot_sets(grow: Grow, files: dict, value: int, source: str) -> None:
    assert state.look(grow("idle-13", files)).at_boot["max"] == state.Limit(value, source)


def test_where_the_limit_in_force_comes_from(grow: Grow) -> None:
    now = "proc/sys/dev/raid/speed_limit_max"
    same, other = (
        grow(f"idle-{release}", {now: f"{value}\n", OURS: f"{MAX}=9\n"}) for release, value in ((12, 9), (13, 8))
    )
    assert state.look(same).limits["max"].source == f"/{OURS}"
    assert state.look(other).limits["max"].source == "runtime"


def test_a_file_that_no_boot_reads(grow: Grow) -> None:
    root = grow("idle-13", {"etc/sysctl.conf": "dev.raid.speed_limit_max = 9\n"})
    (warning,) = state.look(root).warnings
    assert warning.startswith("/etc/sysctl.conf sets dev.raid.speed_limit_max")


@pytest.mark.parametrize("release", [12, 13])
def test_names(grow: Grow, release: int) -> None:
    host = state.look(grow(f"idle-{release}"))
    data = next(array for array in host.arrays if array.level == "raid1")
    for name in ("md127", "/dev/md127", "data", "/dev/md/data", "vm:data", "/dev/md/vm:data", data.uuid, data.links[0]):
        assert host.find(name) == [data], name
    for name in ("md7", "dat", "vm", "/dev/data"):
        assert host.find(name) == [], name


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90000, "25 h 0 min")]
)
def test_durations(seconds: int, text: str) -> None:
    assert progress.duration(seconds) == text


def test_the_end_says_what_is_still_missing() -> None:
    array = {"name": "md0", "rebuilding": False, "degraded": 1, "devices": 3}
    assert progress.line(array) == "md0: ended, but 1 of 3 devices are still missing"
    assert progress.line({**array, "degraded": 0}) == "md0: done"
