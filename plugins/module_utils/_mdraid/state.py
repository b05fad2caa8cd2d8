# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What the kernel, udev and the files below /etc say of a host's arrays. Reads only; root is / or a recorded tree.

Sources: md(4), Documentation/admin-guide/md.rst, sysctl.d(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import watch

#: dev.raid.speed_limit_* as the kernel sets them, KiB/s for each device
KERNEL = {"max": 200000, "min": 1000}
#: levels with a stripe cache and threads of their own
PARITY = ("raid4", "raid5", "raid6")
SYSCTL_FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
CONTAINER = ("run/systemd/container", "run/.containerenv", ".dockerenv")


@dataclass(frozen=True)
class Limit:
    """A limit in force, KiB/s for each device, and where it comes from."""

    value: int
    source: str


@dataclass
class Array:
    """One array. Numbers are None where the kernel tells none."""

    name: str
    uuid: str
    label: str  # its name in the metadata, as host:data
    links: list[str]
    level: str
    disks: int
    degraded: int
    state: str
    action: str
    size: int  # KiB
    bitmap: str
    members: list[dict[str, Any]] = field(default_factory=list)
    done: int | None = None  # KiB of each device
    total: int | None = None
    speed: int | None = None  # KiB/s for each device
    limits: dict[str, Limit] = field(default_factory=dict)
    stripe_cache_size: int | None = None
    group_thread_cnt: int | None = None
    mismatches: int | None = None
    pending: bool = False

    @property
    def key(self) -> str:
        """What it is known by after a boot: the UUID, or the kernel's name where there is none."""
        return self.uuid or self.name

    @property
    def redundant(self) -> bool:
        """Whether there is something to rebuild."""
        return bool(self.action)

    @property
    def rebuilding(self) -> bool:
        return self.action in watch.REBUILDS

    @property
    def percent(self) -> float | None:
        return round(100.0 * self.done / self.total, 1) if self.done is not None and self.total else None

    @property
    def seconds_left(self) -> int | None:
        """Until the end at the present speed."""
        if self.done is None or not self.total or not self.speed:
            return None
        return (self.total - self.done) // self.speed

    def describe(self) -> dict[str, Any]:
        """For a module's return value."""
        return {
            "name": self.name,
            "uuid": self.uuid,
            "label": self.label,
            "links": self.links,
            "level": self.level,
            "devices": self.disks,
            "degraded": self.degraded,
            "state": self.state,
            "size": self.size,
            "members": self.members,
            "bitmap": self.bitmap,
            "action": self.action or "none",
            "rebuilding": self.rebuilding,
            "pending": self.pending,
            "percent": self.percent,
            "speed": self.speed,
            "seconds_left": self.seconds_left,
            "mismatches": self.mismatches,
            "stripe_cache_size": self.stripe_cache_size,
            "group_thread_cnt": self.group_thread_cnt,
            **{
                f"speed_limit_{kind}": {"value": limit.value, "source": limit.source}
                for kind, limit in sorted(self.limits.items())
            },
        }


@dataclass
class Host:
    """A host, as far as RAID is concerned."""

    #: why there can be no arrays here; '' where there can
    unsupported: str
    #: whether the driver is in the kernel now
    loaded: bool
    arrays: list[Array]
    #: in force now
    limits: dict[str, Limit]
    #: after the next boot
    at_boot: dict[str, Limit]
    warnings: list[str]

    def describe(self) -> dict[str, Any]:
        """For a module's return value."""

        def named(limits: dict[str, Limit]) -> dict[str, Any]:
            return {
                f"speed_limit_{kind}": {"value": limit.value, "source": limit.source} for kind, limit in limits.items()
            }

        return {
            "supported": not self.unsupported,
            "reason": self.unsupported,
            "loaded": self.loaded,
            "arrays": [array.describe() for array in self.arrays],
            "limits": {"now": named(self.limits), "at_boot": named(self.at_boot)},
        }

    def find(self, name: str) -> list[Array]:
        """Find arrays by kernel name, path below /dev, UUID, or name in the metadata, with or without its host.

        Which links there are in /dev/md differs between boots: 'data', made here, is vm:data where the initramfs, which
        knows no host name, assembled it. More than one array is found only when two have the same name.
        """
        exact = [array for array in self.arrays if name in (array.name, f"/dev/{array.name}", array.uuid, *array.links)]
        label = name[len("/dev/md/") :] if name.startswith("/dev/md/") else name
        return exact or [array for array in self.arrays if label in (array.label, array.label.partition(":")[2])]


def look(root: str = "/", release: str = "") -> Host:
    """Look at a host. release: the kernel's, by default the running one's."""
    loaded = os.path.exists(os.path.join(root, "proc/sys/dev/raid"))
    unsupported = ""
    if any(os.path.exists(os.path.join(root, path)) for path in CONTAINER):
        unsupported = "this is a container: arrays and their limits belong to the kernel of the machine it runs on"
    elif not loaded and not _loadable(root, release or os.uname().release):
        unsupported = f"the kernel {release or os.uname().release} has no md driver, so there can be no arrays"
    at_boot: dict[str, Limit] = {}
    limits: dict[str, Limit] = {}
    warnings: list[str] = []
    for kind, default in KERNEL.items():
        at_boot[kind] = configured(root, f"dev.raid.speed_limit_{kind}") or Limit(default, "kernel")
        now = _number(watch.read(root, "proc/sys/dev/raid", f"speed_limit_{kind}"))
        if now is not None:
            source = "runtime" if now != default else "kernel"
            limits[kind] = Limit(now, at_boot[kind].source if now == at_boot[kind].value else source)
        if unread(root, f"dev.raid.speed_limit_{kind}"):
            warnings.append(f"/etc/sysctl.conf sets dev.raid.speed_limit_{kind}, but this host's boots do not read it")
    arrays = [] if unsupported else [array(root, name) for name in watch.names(root)]
    return Host(unsupported, loaded, arrays, limits, at_boot, warnings)


def array(root: str, name: str) -> Array:
    """Read one array."""
    folder = os.path.join(root, "sys/block", name, "md")
    known = watch.udev(root, name)
    state, action = watch.read(folder, "array_state"), watch.read(folder, "sync_action")
    done, total = _progress(watch.read(root, "proc/mdstat"), name)
    result = Array(
        name=name,
        uuid=known["uuid"],
        label=known["label"],
        links=known["links"],
        level=watch.read(folder, "level"),
        disks=_number(watch.read(folder, "raid_disks")) or 0,
        degraded=_number(watch.read(folder, "degraded")) or 0,
        state=state,
        action=action,
        size=(_number(watch.read(root, "sys/block", name, "size")) or 0) // 2,
        bitmap=_bitmap(watch.read(folder, "bitmap/location")),
        members=list(_members(folder)),
        done=done,
        total=total,
        speed=_number(watch.read(folder, "sync_speed")),
        stripe_cache_size=_number(watch.read(folder, "stripe_cache_size")),
        group_thread_cnt=_number(watch.read(folder, "group_thread_cnt")),
        mismatches=_number(watch.read(folder, "mismatch_cnt")),
        # Assembled, not in step, and waiting for a first write (md_mod start_ro=1, Debian's default).
        pending=state in ("read-auto", "readonly") and watch.read(folder, "resync_start") not in ("", "none"),
    )
    for kind in KERNEL:
        number, _space, source = watch.read(folder, f"sync_speed_{kind}").partition(" ")
        value = _number(number)
        if value is not None:
            result.limits[kind] = Limit(value, "array" if source == "(local)" else "host")
    return result


def configured(root: str, key: str) -> Limit | None:
    """What systemd-sysctl sets at boot, and the file that says so: the last assignment in the files' order wins."""
    files: dict[str, str] = {}
    for folder in SYSCTL_FOLDERS:
        path = os.path.join(root, folder)
        for name in os.listdir(path) if os.path.isdir(path) else ():
            if name.endswith(".conf"):
                files.setdefault(name, os.path.join(path, name))
    result = None
    for _name, path in sorted(files.items()):
        for value in _assigned(watch.read(path), key):
            result = Limit(value, "/" + os.path.relpath(path, root))
    return result


def unread(root: str, key: str) -> bool:
    """Whether /etc/sysctl.conf sets it and nothing leads there: Debian 13 dropped the link 99-sysctl.conf."""
    path = os.path.join(root, "etc/sysctl.conf")
    folder = os.path.join(root, "etc/sysctl.d")
    if not list(_assigned(watch.read(path), key)):
        return False
    links = os.listdir(folder) if os.path.isdir(folder) else []
    return not any(os.path.realpath(os.path.join(folder, name)) == os.path.realpath(path) for name in links)


def _assigned(text: str, key: str) -> Iterator[int]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        # A leading dash means: do not complain (sysctl.d(5)).
        if equals and not name.startswith(("#", ";")) and name.strip().lstrip("-").replace("/", ".") == key:
            number = _number(value.strip())
            if number is not None:
                yield number


def _loadable(root: str, release: str) -> bool:
    """Whether the kernel's modules include md, or it is built in. A kernel whose modules are not here has none."""
    for folder in ("usr/lib/modules", "lib/modules"):
        for index in ("modules.dep", "modules.builtin"):
            if re.search(r"^\S*/md-mod\.ko", watch.read(root, folder, release, index), re.MULTILINE):
                return True
    return False


def _members(folder: str) -> Iterator[dict[str, Any]]:
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.startswith("dev-"):
            path = os.path.join(folder, name)
            slot = _number(watch.read(path, "slot"))
            state = [word for word in watch.read(path, "state").split(",") if word]
            yield {
                "device": f"/dev/{name[4:].replace('!', '/')}",
                "slot": slot,
                "state": state,
                "errors": _number(watch.read(path, "errors")) or 0,
            }


def _progress(mdstat: str, name: str) -> tuple[int | None, int | None]:
    """KiB done and KiB in all; an array that waits has no numbers. md/sync_completed only moves by sixteenths."""
    block = re.search(rf"^{re.escape(name)} : .*\n(?:[ \t].*\n)*", f"{mdstat}\n", re.MULTILINE)
    match = re.search(r" = +[\d.]+% \((\d+)/(\d+)\)", block[0]) if block else None
    return (int(match[1]), int(match[2])) if match else (None, None)


def _bitmap(location: str) -> str:
    """Turn md/bitmap/location into what mdadm --bitmap takes; a bitmap in a file is named file."""
    return "internal" if re.match(r"[+-]?\d", location) else location or "none"


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else None
