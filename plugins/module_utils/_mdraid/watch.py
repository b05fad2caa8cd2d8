# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Hold the high speed limit on each array while it rebuilds, and only then (mdraid_mode: while_resyncing).

This file serves twice: mdraid_speed imports it, and writes its source to the host, where a systemd unit runs it. So it
uses nothing but Python's standard library.

The host's limits (dev.raid.speed_limit_*) stay at their normal values. While an array resyncs, recovers or reshapes,
its own limits (md/sync_speed_max, md/sync_speed_min; Documentation/admin-guide/md.rst) are raised; afterwards, and
when this program ends, they go back. A check or repair of the data keeps the normal limits. The kernel says through
/proc/mdstat when something begins or ends (poll with POLLPRI), so nothing is missed and nothing is done in between.
"""

# A program of its own, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

CONFIG = "etc/postmeister/mdraid.json"
#: what md/sync_action says while redundancy is being made; check and repair only read and compare
REBUILDS = ("resync", "recover", "reshape")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = re.compile(r"(?P<first>[A-Z][a-z]{2})(?:-(?P<last>[A-Z][a-z]{2}))? (?P<since>\d\d:\d\d)-(?P<until>\d\d:\d\d)")
#: seconds between two looks at the clock while something runs
INTERVAL = 30


def read(*parts: str) -> str:
    """Text of a file of the kernel; '' where there is none (an array may end between two looks)."""
    try:
        with open(os.path.join(*parts), encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def names(root: str) -> list[str]:
    """Kernel names of the arrays, as md0 and md127."""
    try:
        found = os.listdir(os.path.join(root, "sys/block"))
    except OSError:
        return []
    arrays = [name for name in found if os.path.exists(os.path.join(root, "sys/block", name, "md/array_state"))]
    return sorted(arrays, key=lambda name: (len(name), name))


def udev(root: str, name: str) -> dict[str, Any]:
    """What udev knows of an array: UUID and name in its metadata ('' when nothing), and its other names below /dev."""
    number = read(root, "sys/block", name, "dev")
    lines = read(root, "run/udev/data", f"b{number}").splitlines()
    values = dict(line[2:].split("=", 1) for line in lines if line.startswith("E:") and "=" in line)
    # Without mdadm udev knows none; the kernel's is the same, in other groups (not so in metadata 0.90).
    own = read(root, "sys/block", name, "md/uuid").replace("-", "")
    if len(own) != 32 or not read(root, "sys/block", name, "md/metadata_version").startswith("1."):
        own = ""
    return {
        "uuid": values.get("MD_UUID", "") or ":".join(own[at : at + 8] for at in range(0, len(own), 8)),
        "label": values.get("MD_NAME", ""),
        "links": sorted(f"/dev/{line[2:]}" for line in lines if line.startswith("S:")),
    }


def parse_hours(text: str) -> tuple[set[int], int, int]:
    """Days (0 is Monday) and minutes of the day of 'Mon-Fri 08:00-18:00'. Raises ValueError with the reason."""
    match = HOURS.fullmatch(text)
    if not match:
        raise ValueError("give days and times as 'Mon-Fri 08:00-18:00' or 'Sat 09:00-12:30'")
    first, last = match["first"], match["last"] or match["first"]
    for day in (first, last):
        if day not in DAYS:
            raise ValueError(f"{day} is no day; the days are {', '.join(DAYS)}")
    minutes = []
    for clock in (match["since"], match["until"]):
        hour, minute = map(int, clock.split(":"))
        if minute > 59 or hour > 24 or (hour == 24 and minute):
            raise ValueError(f"{clock} is no time")
        minutes.append(hour * 60 + minute)
    if minutes[0] >= minutes[1]:
        raise ValueError("they end before they begin; hours over midnight are two entries")
    begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
    return {(begin + offset) % 7 for offset in range(length + 1)}, minutes[0], minutes[1]


def working(hours: Sequence[str], now: time.struct_time) -> bool:
    """Whether it is one of the working hours, by the host's own clock."""
    minute = now.tm_hour * 60 + now.tm_min
    for text in hours:
        days, since, until = parse_hours(text)
        if now.tm_wday in days and since <= minute < until:
            return True
    return False


def wanted(config: Mapping[str, Any], key: str, action: str, now: time.struct_time) -> dict[str, Any]:
    """An array's own limits for what it does now: max and min, each in KiB/s or 'system' for the host's.

    key: the array's UUID, or its kernel name where it has none.
    """
    entry = config["arrays"].get(key) or config["default"]
    rebuilds = action in REBUILDS and not working(config["working_hours"], now)
    limits: dict[str, Any] = entry["rebuild" if rebuilds else "otherwise"]
    return limits


def satisfied(shown: str, value: Any) -> bool:
    """Whether md/sync_speed_* ('1000 (system)') already shows the value."""
    number, _space, source = shown.partition(" ")
    return source == "(system)" if value == "system" else (number, source) == (str(value), "(local)")


def bring(root: str, config: Mapping[str, Any], now: time.struct_time, ending: bool = False) -> bool:
    """Bring all arrays to their limits; returns whether one of them is at work. ending: as if all were idle."""
    busy = False
    for name in names(root):
        folder = os.path.join(root, "sys/block", name, "md")
        action = read(folder, "sync_action")
        if not action:
            continue  # no redundancy, nothing to limit
        busy = busy or action != "idle"
        key = udev(root, name)["uuid"] or name
        limits = wanted(config, key, "idle" if ending else action, now)
        for attribute in ("max", "min"):
            shown = read(folder, f"sync_speed_{attribute}")
            if not shown or satisfied(shown, limits[attribute]):
                continue
            try:
                with open(os.path.join(folder, f"sync_speed_{attribute}"), "w", encoding="ascii") as handle:
                    handle.write(f"{limits[attribute]}")
            except OSError as exc:
                print(f"{name}: sync_speed_{attribute} {limits[attribute]}: {exc.strerror}", file=sys.stderr)
                continue
            print(f"{name}: {action}: sync_speed_{attribute} {shown} -> {limits[attribute]}", flush=True)
    return busy


class Ended(Exception):
    """systemd wants the program to end."""


def end(_number: int, _frame: Any) -> NoReturn:
    """Signal handler."""
    raise Ended


def main(root: str = "/") -> int:
    """Run until systemd says stop."""
    with open(os.path.join(root, CONFIG), encoding="utf-8") as handle:
        config = json.load(handle)
    try:
        signal.signal(signal.SIGTERM, end)
        mdstat = os.open(os.path.join(root, "proc/mdstat"), os.O_RDONLY | os.O_CLOEXEC)
        events = select.poll()
        events.register(mdstat, select.POLLPRI | select.POLLERR)
        while True:
            # What happens after this read wakes the next poll.
            os.lseek(mdstat, 0, os.SEEK_SET)
            while os.read(mdstat, 1 << 16):
                pass
            busy = bring(root, config, time.localtime())
            events.poll(INTERVAL * 1000 if busy else None)
    except Ended:
        bring(root, config, time.localtime(), ending=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
