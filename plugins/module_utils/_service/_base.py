# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What service_config asks of a daemon. One subclass of Service per daemon, beside this file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._command import CommandError, run


class ServiceError(Exception):
    """The daemon's checker or probe said no; the message holds the daemon's own words, file and line first."""


@dataclass(frozen=True)
class Stage:
    """A root-only copy of the configuration folders, with the wanted files in place of the live ones.

    /etc/postfix/main.cf lies at <root>/etc/postfix/main.cf. Checkers read only this tree.
    """

    root: str

    def path(self, dest: str) -> str:
        return os.path.join(self.root, dest.lstrip("/"))


@dataclass(frozen=True)
class Change:
    """One file before and after; None means: no such file."""

    dest: str
    before: bytes | None
    after: bytes | None


def os_release(path: str = "/etc/os-release") -> Mapping[str, str]:
    """Read os-release(5)."""
    values: dict[str, str] = {}
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            key, sep, value = line.strip().partition("=")
            if sep:
                values[key] = value.strip("\"'")
    return values


def journal(since: float, matches: Sequence[str]) -> str:
    """Read journalctl(1): warnings or worse since then, each line once, at most the last 20; '' when there are none."""
    try:
        result = run(
            [
                "journalctl",
                "--quiet",
                "--no-pager",
                "--output=cat",
                "--priority=warning",
                f"--since=@{int(since)}",
                *matches,
            ],
            check=False,
        )
    except CommandError:
        return ""
    lines = dict.fromkeys(line.strip() for line in result.out.splitlines() if line.strip())
    return "\n".join(list(lines)[-20:])


class Service:
    """Habits of one daemon.

    Methods raise ServiceError (or CommandError) when the daemon says no; they return nothing when all is well.
    """

    name = ""
    #: systemd units to enable and start, in this order
    units: tuple[str, ...] = ()
    #: folders copied whole into the stage, so that the checker sees unmanaged files as well
    folders: tuple[str, ...] = ()
    #: seconds by which new files are dated back, for a daemon that waits while a file looks as if it were being written
    date_back = 0

    def __init__(self, debian: int, options: Mapping[str, Any]) -> None:
        """debian: major release of the host (12, 13). options: the module's `probe` dictionary."""
        self.debian = debian
        self.options = options

    def swap_rank(self, dest: str) -> int:
        """Order of the swap: files of a lower rank are renamed into place first."""
        return 0

    def missing(self) -> list[str]:
        """What the daemon needs beside its files, such as a user, and that is not as it should be; reads only."""
        return []

    def provide(self) -> None:
        """Make what missing() names, before the check; a rollback leaves it there."""

    def check(self, stage: Stage) -> None:
        """Let the daemon's own tools check the staged tree; must not touch the live one."""

    def restart_reason(self, changes: list[Change]) -> str | None:
        """Name the setting (file) whose change a reload does not pick up; None when a reload is enough."""
        return None

    def reload(self) -> None:
        for unit in self.units:
            run(["systemctl", "reload", unit])

    def restart(self) -> None:
        run(["systemctl", "daemon-reload"])
        for unit in self.units:
            # Earlier failures must not count against this start (StartLimitBurst).
            run(["systemctl", "reset-failed", unit], check=False)
            run(["systemctl", "restart", unit])

    def stop(self) -> None:
        for unit in self.units:
            run(["systemctl", "stop", unit], check=False)

    def running(self) -> bool:
        return all(run(["systemctl", "is-active", "--quiet", unit], check=False).rc == 0 for unit in self.units)

    def probe(self) -> None:
        """Do a transaction as a client would (not a greeting); raise ServiceError with the daemon's answer."""
        raise NotImplementedError

    def afterwards(self) -> list[dict[str, str]]:
        """What is to follow once the daemon serves, as Ansible's diff; reads only."""
        return []

    def follow_up(self) -> None:
        """Do what afterwards() names. The new set holds by then, so a failure brings no former one back."""

    def words(self, since: float) -> str:
        """What the daemon logged as a warning or worse since then (seconds of the epoch); at most 20 lines.

        Asked after a reload, restart or probe that failed: the reason is often in the log only.
        """
        return journal(since, [f"--unit={unit}" for unit in self.units])


__all__ = ["Change", "CommandError", "Service", "ServiceError", "Stage", "journal", "os_release", "run"]
