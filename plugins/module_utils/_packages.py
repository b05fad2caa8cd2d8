# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Debian packages, installed without letting any of their daemons start on a package's defaults."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ._command import CommandError, run
from ._files import File, FileError, lock, write
from ._plan import Plan, compare
from ._recover import aside, fsync_folders, remove

POLICY = "/usr/sbin/policy-rc.d"
LOCK = "/var/lib/postmeister/packages.lock"
LISTS = ("/var/lib/apt/lists", "/var/lib/apt/lists/partial", "/var/lib/apt/periodic/update-success-stamp")
MARKER = b"postmeister.host.packages"
SCRIPT = b"""#!/bin/sh
# Made by postmeister.host.packages while it installs packages, and removed by it afterwards.
# 101: no daemon may start before its configuration is in place.
exit 101
"""
#: seconds: package lists older than this are refreshed before an installation
LISTS_AGE = 86400
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
}


#: options of the module packages
SPEC: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "hold": {"type": "list", "elements": "str", "default": []},
    "preseed": {"type": "dict", "default": {}},
    "lock_timeout": {"type": "int", "default": 300},
}


class PackageError(Exception):
    """No such package can be installed; the message names it."""


def check(names: Sequence[str], preseed: Iterable[str]) -> None:
    """Raises PackageError where a name, or a key of preseed, is no package's (Debian Policy 5.6.1)."""
    given = [*((f"names[{index}]", name) for index, name in enumerate(names)), *(("preseed", name) for name in preseed)]
    for where, name in given:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise PackageError(
                f"{where}: {name!r} is not the name of a Debian package, without version, release and architecture"
            )
        # Also after "--".
        if name.endswith("-"):
            raise PackageError(f"{where}: {name!r} ends in a minus, by which apt removes a package")


def installed(names: Sequence[str]) -> dict[str, str]:
    """Which of these packages are installed, with their versions; one call of dpkg-query whatever their number."""
    if not names:
        return {}
    result = run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status} ${Version}\\n", "--", *names],
        check=False,
    )
    found = {}
    for line in result.out.splitlines():
        name, _sep, rest = line.partition(" ")
        status, _sep, version = rest.partition(" ")
        if status == "installed":
            found[name] = version
    return found


def plan(names: Sequence[str]) -> Plan[str, str]:
    """What has to be installed."""
    found = installed(names)
    return compare(dict.fromkeys(found, "installed"), dict.fromkeys(names, "installed"))


def leftover(path: str = POLICY) -> bool:
    """Whether a killed run left its policy-rc.d behind."""
    try:
        with open(path, "rb") as handle:
            return MARKER in handle.read(4096)
    except OSError:
        return False


def remove_policy(path: str = POLICY) -> None:
    """Take our policy-rc.d away; one that somebody else had there comes back."""
    former = aside(path, "old")
    if leftover(path):
        if os.path.lexists(former):
            os.rename(former, path)
        else:
            os.unlink(path)
    remove(former)
    fsync_folders([os.path.dirname(path)])


@contextlib.contextmanager
def no_starts(path: str = POLICY) -> Iterator[None]:
    """While this holds, invoke-rc.d and deb-systemd-invoke start nothing."""
    if leftover(path):
        remove_policy(path)
    remove(aside(path, "old"))
    try:
        if os.path.lexists(path):
            os.link(path, aside(path, "old"), follow_symlinks=False)
        write([File(path, SCRIPT, 0o755)])
        yield
    finally:
        remove_policy(path)


def lists_are_old(now: float, paths: Sequence[str] = LISTS) -> bool:
    """Whether apt's lists are missing or older than a day."""
    if not any(name.endswith(("Packages", "Packages.lz4", "Packages.xz", "Packages.gz")) for name in _names(paths[0])):
        return True
    times = [os.stat(path).st_mtime for path in paths if os.path.exists(path)]
    return now - max(times) > LISTS_AGE


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def selections(preseed: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> str:
    """Lines for debconf-set-selections(1), for the packages that are about to be installed."""
    lines = []
    for package, answers in sorted(preseed.items()):
        for question, value in sorted(answers.items()) if package in missing else ():
            kind, text = ("boolean", str(value).lower()) if isinstance(value, bool) else ("string", str(value))
            if "\n" in text:
                raise CommandError(f"preseed.{package}.{question}: an answer is one line")
            lines.append(f"{package} {question} {kind} {text}\n")
    return "".join(lines)


def hold_back(units: Sequence[str]) -> list[str]:
    """Mask the units that are not installed yet, so that not even a reboot starts them; returns those."""
    states = {unit: run(["systemctl", "show", "--property=LoadState", "--value", unit]).out.strip() for unit in units}
    masked = [unit for unit, state in states.items() if state == "not-found"]
    if masked:
        run(["systemctl", "mask", *masked])
    return masked


def install(
    names: Sequence[str],
    hold: Sequence[str],
    preseed: Mapping[str, Mapping[str, Any]],
    wait: int,
) -> list[str]:
    """Install what is missing; returns the units that were masked.

    Raises CommandError, FileError, or PackageError with the names that are missing still.

    wait: seconds to wait for somebody else's apt or dpkg.
    """
    with lock(LOCK, wait):
        answers = selections(preseed, names)
        masked = hold_back(hold)
        with no_starts():
            # A run that was killed may have left packages half configured; apt-get refuses to work then.
            _locked(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], wait)
            if answers:
                run(["debconf-set-selections"], stdin=answers, env=ENVIRONMENT)
            fresh = lists_are_old(time.time())
            if fresh:
                _apt(["update"], wait)
            try:
                _apt(["install", "--no-install-recommends", "--", *names], wait)
            except CommandError:
                if fresh:
                    raise
                _apt(["update"], wait)
                _apt(["install", "--no-install-recommends", "--", *names], wait)
    missing = sorted(set(names) - set(installed(names)))
    if missing:
        raise PackageError(
            f"apt-get install brought no package of the name {', '.join(missing)}: give the name of a real package, "
            "not that of a virtual one"
        )
    return masked


def _apt(argv: Sequence[str], wait: int) -> None:
    run(
        [
            "apt-get",
            "--yes",
            "--quiet",
            f"--option=DPkg::Lock::Timeout={wait}",
            f"--option=Acquire::Lock::Timeout={wait}",
            "--option=Dpkg::Options::=--force-confdef",
            "--option=Dpkg::Options::=--force-confold",
            *argv,
        ],
        timeout=3600,
        env=ENVIRONMENT,
    )


_sleep = time.sleep


def _locked(argv: Sequence[str], wait: int) -> None:
    """dpkg has no lock timeout of its own: try again while somebody else holds its lock."""
    deadline = time.monotonic() + wait
    while True:
        result = run(argv, timeout=3600, env=ENVIRONMENT, check=False)
        if result.rc == 0:
            return
        if "lock" not in result.err or time.monotonic() > deadline:
            raise CommandError(f"{' '.join(argv)}: exit status {result.rc}\n{result.words}")
        _sleep(1.0)


__all__ = [
    "CommandError",
    "FileError",
    "PackageError",
    "check",
    "install",
    "installed",
    "leftover",
    "plan",
    "remove_policy",
]
