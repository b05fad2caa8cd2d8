# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Wanted limits: checked, turned into files for the next boot and values for now, compared, applied.

What holds after a boot, whenever the md driver comes (sysctl.d(5), udev(7)): systemd-sysctl applies sysctl.d early; a
udev rule applies it again when the driver is loaded later than that; further rules give each array its own limits as
soon as it runs, recognised by its UUID. With while_resyncing the arrays' own speed limits are left to the program in
watch.py, which the first array starts.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _files
from .._command import run
from . import state, watch

#: they are signed 32-bit numbers in the kernel
HIGHEST = 2**31 - 1
STRIPE_CACHE = (17, 32768)
THREADS = (0, 8192)

MARK = "# Managed by Ansible (postmeister.host)\n"
# Sorts behind 99-sysctl.conf: the last file wins.
SYSCTL = "etc/sysctl.d/zz-postmeister-mdraid.conf"
# After 63-md-raid-arrays.rules, which asks mdadm for the UUID.
RULES = "etc/udev/rules.d/65-postmeister-mdraid.rules"
PROGRAM = "usr/local/lib/postmeister/mdraid-watch"
SERVICE = "postmeister-mdraid.service"
UNIT = f"etc/systemd/system/{SERVICE}"

UNIT_TEXT = f"""{MARK}[Unit]
Description=RAID arrays have the high speed limit while they rebuild
Documentation=man:md(4)
ConditionPathExists=/proc/mdstat

[Service]
ExecStart=/usr/bin/python3 /{PROGRAM}
Restart=on-failure
RestartSec=5
CapabilityBoundingSet=CAP_SYS_ADMIN
NoNewPrivileges=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
"""


class LimitError(Exception):
    """A value was refused; the message names it and the reason. Nothing was changed."""


@dataclass(frozen=True)
class Wanted:
    """What the task says, checked as far as that needs no look at the host."""

    high: dict[str, int]
    normal: dict[str, int]
    while_resyncing: bool
    working_hours: tuple[str, ...]
    arrays: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Value:
    """A value of the kernel to write."""

    label: str
    path: str
    before: str
    after: str


@dataclass
class Plan:
    """What is to be done, in this order."""

    files: list[_files.File] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    bitmaps: list[tuple[str, str, str]] = field(default_factory=list)  # array, before, after
    service: str = ""  # start, restart, stop
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.files or self.values or self.bitmaps or self.service)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _limit(place: str, value: Any) -> int:
    if not _is_number(value) or not 1 <= value <= HIGHEST:
        raise LimitError(f"{place}: {value} is no limit; it takes 1 to {HIGHEST} KiB/s (the kernel would not complain)")
    return int(value)


def _pair(place: str, names: tuple[str, str], values: tuple[Any, Any]) -> dict[str, int]:
    high, low = (_limit(f"{place}{name}", value) for name, value in zip(names, values))
    if low > high:
        raise LimitError(f"{place}{names[1]}: {low} is above {names[0]}, {high} (the kernel would not complain)")
    return {"max": high, "min": low}


def check(options: Mapping[str, Any]) -> Wanted:
    """Check a task's options; raises LimitError."""
    high = _pair("", ("speed_limit_max", "speed_limit_min"), (options["speed_limit_max"], options["speed_limit_min"]))
    names = ("normal_speed_limit_max", "normal_speed_limit_min")
    normal = _pair("", names, (options[names[0]], options[names[1]]))
    while_resyncing = options["mode"] == "while_resyncing"
    if while_resyncing:
        for kind in ("max", "min"):
            if normal[kind] > high[kind]:
                raise LimitError(
                    f"normal_speed_limit_{kind}: {normal[kind]} is above speed_limit_{kind}, {high[kind]}: "
                    "a rebuild would be slowed down"
                )
    hours = tuple(options["working_hours"])
    for index, text in enumerate(hours):
        try:
            watch.parse_hours(text)
        except ValueError as exc:
            raise LimitError(f"working_hours[{index}]: {text!r}: {exc}") from None
    if hours and not while_resyncing:
        raise LimitError("working_hours: they only count with mode while_resyncing")
    arrays = tuple(_entry(index, given, high) for index, given in enumerate(options["arrays"]))
    return Wanted(high, normal, while_resyncing, hours, arrays)


def _entry(index: int, given: Mapping[str, Any], high: Mapping[str, int]) -> dict[str, Any]:
    entry = {name: value for name, value in given.items() if value is not None}
    place = f"arrays[{index}] ({entry['name']}): "
    for kind in ("max", "min"):
        if f"speed_limit_{kind}" in entry:
            _limit(f"{place}speed_limit_{kind}", entry[f"speed_limit_{kind}"])
    # What is not given comes from the host: the two together must fit as well.
    own = {kind: entry.get(f"speed_limit_{kind}", high[kind]) for kind in ("max", "min")}
    if own["min"] > own["max"]:
        said = {kind: "" if f"speed_limit_{kind}" in entry else " (the host's)" for kind in own}
        raise LimitError(
            f"{place}speed_limit_min: {own['min']}{said['min']} is above speed_limit_max, {own['max']}{said['max']}"
        )
    for name, (least, most) in (("stripe_cache_size", STRIPE_CACHE), ("group_thread_cnt", THREADS)):
        if name in entry and not least <= entry[name] <= most:
            raise LimitError(f"{place}{name}: {entry[name]} is not from {least} to {most}")
    return entry


def resolve(wanted: Wanted, host: state.Host) -> dict[str, dict[str, Any]]:
    """Find the array of each entry: kernel name → entry. Raises LimitError for what is not there or cannot be."""
    found: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(wanted.arrays):
        place = f"arrays[{index}] ({entry['name']}): "
        matches = host.find(entry["name"]) if entry["name"] else []
        if not matches:
            there = ", ".join(f"{array.name} ({array.label or array.level})" for array in host.arrays)
            raise LimitError(f"{place}no such array on this host; its arrays: {there or 'none'}")
        if len(matches) > 1:
            raise LimitError(f"{place}{' and '.join(array.name for array in matches)} have this name: give the UUID")
        array = matches[0]
        if array.name in found:
            raise LimitError(f"{place}this is {array.name}, which {found[array.name]['name']} names already")
        for name in ("stripe_cache_size", "group_thread_cnt"):
            if name in entry and array.level not in state.PARITY:
                raise LimitError(f"{place}{name}: only RAID 4, 5 and 6 have it, this is {array.level}")
        if not array.redundant and len(entry) > 1:
            raise LimitError(f"{place}{array.level} has no redundancy: there is nothing to rebuild, and no limit")
        found[array.name] = entry
    return found


def settings(wanted: Wanted, arrays: Sequence[state.Array], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the configuration of watch.py: for each array its own limits while it rebuilds, and otherwise."""

    def limits(entry: Mapping[str, Any]) -> dict[str, Any]:
        own = {kind: entry.get(f"speed_limit_{kind}") for kind in ("max", "min")}
        if not wanted.while_resyncing:
            always = {kind: own[kind] or "system" for kind in own}
            return {"rebuild": always, "otherwise": always}
        rebuild = {kind: own[kind] or wanted.high[kind] for kind in own}
        # An array that is slower than the host's normal limit stays so.
        otherwise = {kind: min(rebuild[kind], wanted.normal[kind]) for kind in own}
        return {
            "rebuild": rebuild,
            "otherwise": {
                kind: "system" if value == wanted.normal[kind] else value for kind, value in otherwise.items()
            },
        }

    return {
        "working_hours": list(wanted.working_hours),
        "default": limits({}),
        "arrays": {array.key: limits(entries[array.name]) for array in arrays if array.name in entries},
    }


def texts(wanted: Wanted, host: state.Host, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Texts of the files, by path; None for a file that should not be."""
    base = wanted.normal if wanted.while_resyncing else wanted.high
    sysctl = f"{MARK}# KiB/s for each device; md(4)\n"
    sysctl += "".join(f"dev.raid.speed_limit_{kind} = {base[kind]}\n" for kind in ("max", "min"))
    rules = f"{MARK}# The driver may be loaded after systemd-sysctl has run, with the first array.\n"
    rules += 'ACTION=="add", SUBSYSTEM=="module", KERNEL=="md_mod", '
    rules += 'RUN+="/usr/lib/systemd/systemd-sysctl --prefix=/dev/raid"\n'
    array_rule = 'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="md*", ENV{DEVTYPE}=="disk", '
    if wanted.while_resyncing:
        rules += "# The first array with redundancy starts the program that watches for rebuilds.\n"
        rules += f'{array_rule}TEST=="md/sync_action", TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="{SERVICE}"\n'
    # In the inventory's order, and without the kernel's names: both may differ after a boot.
    arrays = {array.name: array for array in host.arrays}
    for name, entry in entries.items():
        array = arrays[name]
        values = {name: entry[name] for name in ("stripe_cache_size", "group_thread_cnt") if name in entry}
        if not wanted.while_resyncing:
            for kind in ("max", "min"):
                if f"speed_limit_{kind}" in entry:
                    values[f"sync_speed_{kind}"] = entry[f"speed_limit_{kind}"]
        if not values:
            continue
        rules += f"# {entry['name']}\n"
        match = f'ENV{{MD_UUID}}=="{array.uuid}"' if array.uuid else f'KERNEL=="{array.name}"'
        for name, value in sorted(values.items()):
            rules += f'{array_rule}{match}, TEST=="md/{name}", ATTR{{md/{name}}}="{value}"\n'
    config = settings(wanted, host.arrays, entries)
    result: dict[str, str | None] = {SYSCTL: sysctl, RULES: rules, watch.CONFIG: None, PROGRAM: None, UNIT: None}
    if wanted.while_resyncing:
        result[watch.CONFIG] = json.dumps(config, indent=1, sort_keys=True) + "\n"
        result[PROGRAM] = inspect.getsource(watch)
        result[UNIT] = UNIT_TEXT
    return result


def plan(wanted: Wanted, host: state.Host, root: str, active: bool, now: time.struct_time) -> Plan:
    """Compare what is wanted with what is. active: whether the program of while_resyncing runs. Raises LimitError."""
    entries = resolve(wanted, host)
    result = Plan(warnings=list(host.warnings))
    for path, text in texts(wanted, host, entries).items():
        content = None if text is None else text.encode()
        file = _files.File(os.path.join(root, path), content, 0o755 if path == PROGRAM else 0o644)
        if not _files.equal(file, _files.look(file.path)):
            result.files.append(file)
    result.values = _host_values(wanted, host, root)
    config = settings(wanted, host.arrays, entries)
    for array in host.arrays:
        entry = entries.get(array.name, {})
        limits = watch.wanted(config, array.key, array.action, now) if array.redundant else {}
        values = {f"sync_speed_{kind}": value for kind, value in limits.items()}
        values.update((name, entry[name]) for name in ("stripe_cache_size", "group_thread_cnt") if name in entry)
        for name, value in values.items():
            result.values += _value(root, array, name, value)
        _bitmap(result, array, entry.get("bitmap", array.bitmap))
    result.service = _service(wanted, host, active, {os.path.relpath(file.path, root) for file in result.files})
    for source in sorted({limit.source for limit in host.at_boot.values()}):
        if os.path.basename(source) > os.path.basename(SYSCTL):
            result.warnings.append(f"{source} sets dev.raid.speed_limit_*, too, and wins at boot: its name sorts later")
    return result


def _host_values(wanted: Wanted, host: state.Host, root: str) -> list[Value]:
    base = wanted.normal if wanted.while_resyncing else wanted.high
    folder = os.path.join(root, "proc/sys/dev/raid")
    return [
        Value(
            f"dev.raid.speed_limit_{kind}",
            os.path.join(folder, f"speed_limit_{kind}"),
            str(limit.value),
            str(base[kind]),
        )
        for kind, limit in host.limits.items()
        if limit.value != base[kind]
    ]


def _bitmap(result: Plan, array: state.Array, bitmap: str) -> None:
    if bitmap == array.bitmap:
        return
    if array.action == "idle":
        result.bitmaps.append((array.name, array.bitmap, bitmap))
        return
    result.warnings.append(
        f"{array.name}: bitmap {bitmap}: the kernel changes it only while nothing else runs, and {array.name} "
        f"is at {array.action}; run this again afterwards"
    )


def _service(wanted: Wanted, host: state.Host, active: bool, touched: set[str]) -> str:
    watched = wanted.while_resyncing and any(array.redundant for array in host.arrays)
    if watched and not active:
        return "start"
    if watched and touched & {watch.CONFIG, PROGRAM, UNIT}:
        return "restart"
    return "stop" if active and not watched else ""


def _value(root: str, array: state.Array, name: str, value: Any) -> list[Value]:
    path = os.path.join(root, "sys/block", array.name, "md", name)
    shown = watch.read(path)
    if not shown or (watch.satisfied(shown, value) if name.startswith("sync_speed_") else shown == str(value)):
        return []
    return [Value(f"{array.name} {name}", path, shown, str(value))]


def lines(todo: Plan, root: str) -> list[str]:
    """Say what changes, one line each."""
    result = [f"/{os.path.relpath(file.path, root)}" for file in todo.files]
    result += [f"{value.label}: {value.before} -> {value.after}" for value in todo.values]
    result += [f"{name} bitmap: {before} -> {after}" for name, before, after in todo.bitmaps]
    return result + ([f"{SERVICE}: {todo.service}"] if todo.service else [])


def diff(todo: Plan, root: str) -> list[dict[str, str]]:
    """Make Ansible's diff."""
    result = []
    for file in todo.files:
        header = "/" + os.path.relpath(file.path, root)
        if os.path.relpath(file.path, root) == PROGRAM:
            result.append({"prepared": f"{header}: {'removed' if file.content is None else 'written'}\n"})
            continue
        found = _files.look(file.path)
        before = (found.content or b"").decode(errors="replace") if found else ""
        after = (file.content or b"").decode()
        result.append({"before_header": header, "after_header": header, "before": before, "after": after})
    values = [(value.label, value.before, value.after) for value in todo.values]
    values += [(f"{name} bitmap", before, after) for name, before, after in todo.bitmaps]
    if values:
        before, after = ("".join(f"{value[0]}: {value[side]}\n" for value in values) for side in (1, 2))
        result.append({"before_header": "now", "after_header": "now", "before": before, "after": after})
    if todo.service:
        result.append({"prepared": f"{SERVICE}: {todo.service}\n"})
    return result


def apply(todo: Plan) -> None:
    """Carry the plan out. Raises FileError, CommandError, or OSError naming the kernel's file."""
    if todo.service == "stop":
        # While its unit is still there. It gives the arrays back their limits.
        run(["systemctl", "stop", SERVICE])
    for file in todo.files:
        if file.content is not None:
            _files.make_folders(os.path.dirname(file.path))
    _files.write(todo.files)
    paths = {os.path.basename(file.path) for file in todo.files}
    if os.path.basename(RULES) in paths:
        run(["udevadm", "control", "--reload"], check=False)
    for value in todo.values:
        try:
            with open(value.path, "w", encoding="ascii") as handle:
                handle.write(value.after)
        except OSError as exc:
            raise _files.FileError(f"{value.label}: the kernel refuses {value.after}: {exc.strerror}") from exc
    for name, _before, after in todo.bitmaps:
        run(["mdadm", "--grow", f"--bitmap={after}", f"/dev/{name}"])
    if SERVICE in paths:
        run(["systemctl", "daemon-reload"])
    if todo.service in ("start", "restart"):
        run(["systemctl", todo.service, SERVICE])
