# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""When arrays are read through and compared (a check, or scrub), by the means of Debian's mdadm.

Debian 12 runs checkarray from /etc/cron.d/mdadm as long as AUTOCHECK in /etc/default/mdadm is true, and ships the
timers of mdcheck switched off. Debian 13 has the timers only. With a schedule of one's own both use the timers: mdcheck
ends after some hours and goes on the next day.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import _files
from .._command import CommandError, run

MARK = "# Managed by Ansible (postmeister.host)\n"
PROGRAM = "usr/share/mdadm/mdcheck"
CRON = "etc/cron.d/mdadm"
DEFAULTS = "etc/default/mdadm"
AUTOCHECK = re.compile(r"^AUTOCHECK=.*$", re.MULTILINE)
START, CONTINUE = "mdcheck_start", "mdcheck_continue"
TIMERS = (f"{START}.timer", f"{CONTINUE}.timer")
DROP_IN = "etc/systemd/system/{}.d/postmeister.conf"
DURATION = re.compile(r"[1-9]\d{0,3} (minutes?|hours?|days?)")


class CheckError(Exception):
    """A value was refused, or mdadm is not there; nothing was changed."""


@dataclass
class Plan:
    """What is to be done."""

    files: list[_files.File] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    start: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.files or self.enable or self.disable or self.start)


def verify(schedule: str, duration: str) -> None:
    """Refuse what systemd or mdcheck would not understand. Raises CheckError."""
    if schedule:
        answer = run(["systemd-analyze", "calendar", "--", schedule], check=False)
        if answer.rc or "\n" in schedule:
            reason = answer.words.splitlines()[0] if answer.words else "not understood"
            raise CheckError(f"schedule: {schedule!r} is no calendar expression of systemd.time(7): {reason}")
    if duration and not DURATION.fullmatch(duration):
        raise CheckError(f"duration: {duration!r} is no time like '6 hours' or '90 minutes'")


def texts(schedule: str, duration: str) -> dict[str, str | None]:
    """Texts of the drop-ins by path; None for one that should not be."""
    timer = f"{MARK}[Timer]\nOnCalendar=\nOnCalendar={schedule}\nRandomizedDelaySec=0\nPersistent=true\n"
    service = f'{MARK}[Service]\nEnvironment="MDADM_CHECK_DURATION={duration}"\n'
    return {
        DROP_IN.format(f"{START}.timer"): timer if schedule else None,
        DROP_IN.format(f"{START}.service"): service if duration else None,
        DROP_IN.format(f"{CONTINUE}.service"): service if duration else None,
    }


def plan(
    root: str, enabled: bool, schedule: str, duration: str, arrays: bool, units: Mapping[str, tuple[str, str]]
) -> Plan:
    """Compare. arrays: whether there is something to check; units: is-enabled and is-active of each of TIMERS."""
    result = Plan()
    own = enabled and bool(schedule or duration)
    for path, text in texts(schedule if own else "", duration if own else "").items():
        file = _files.File(os.path.join(root, path), None if text is None else text.encode())
        if not _files.equal(file, _files.look(file.path)):
            result.files.append(file)
    if not os.path.exists(os.path.join(root, PROGRAM)) and not own:
        return result  # mdadm brings Debian's own schedule with it
    cron = os.path.exists(os.path.join(root, CRON))
    if cron:
        result.files += _autocheck(root, enabled and not own)
    timers = enabled and (own or not cron)
    for name in TIMERS:
        is_enabled, is_active = (word in ("enabled", "active") for word in units[name])
        if timers and not is_enabled:
            result.enable.append(name)
        elif not timers and (is_enabled or is_active):
            result.disable.append(name)
    # Without arrays they wait for mdmonitor.service, which the first one starts.
    stale = any(file.path.endswith(f"{START}.timer.d/postmeister.conf") for file in result.files)
    result.start = timers and arrays and (stale or units[TIMERS[0]][1] != "active")
    return result


def _autocheck(root: str, wanted: bool) -> list[_files.File]:
    path = os.path.join(root, DEFAULTS)
    found = _files.look(path)
    if found is None or found.content is None:
        return []
    before = found.content.decode(errors="surrogateescape")
    line = f"AUTOCHECK={'true' if wanted else 'false'}"
    after = AUTOCHECK.sub(line, before) if AUTOCHECK.search(before) else f"{before}{line}\n"
    if after == before:
        return []
    return [_files.File(path, after.encode(errors="surrogateescape"), found.mode, found.uid, found.gid)]


def look() -> dict[str, tuple[str, str]]:
    """Ask systemd for is-enabled and is-active of the timers; both are '' where there is no systemd."""
    result = {}
    for name in TIMERS:
        try:
            first, second = (
                run(["systemctl", verb, name], check=False).out.strip() for verb in ("is-enabled", "is-active")
            )
        except CommandError:
            first = second = ""
        result[name] = (first, second)
    return result


def apply(todo: Plan) -> None:
    """Carry the plan out. Raises FileError or CommandError."""
    for file in todo.files:
        if file.content is not None:
            _files.make_folders(os.path.dirname(file.path))
    if _files.write(todo.files):
        run(["systemctl", "daemon-reload"])
    if todo.disable:
        run(["systemctl", "disable", "--now", *todo.disable])
    if todo.enable:
        run(["systemctl", "enable", *todo.enable])
    if todo.start:
        run(["systemctl", "restart", *TIMERS])
