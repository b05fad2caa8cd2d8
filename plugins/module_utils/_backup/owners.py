# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Owners by name on another host: accounts that are missing are made, with their former number where it is free.

Packages and roles that come later find their account and keep it (adduser(8): an existing system user is no error).
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._command import run


@dataclass
class Plan:
    """Commands that make what is missing, and numbers of the snapshot that are others here."""

    commands: list[list[str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of users and groups that are made
    users: dict[int, str] = field(default_factory=dict)  # number in the snapshot → name here
    groups: dict[int, str] = field(default_factory=dict)

    def options(self, made: bool) -> list[str]:
        """Of rsync(1); made: whether the commands have been run, as rsync takes no names that are not there."""
        maps = {"--usermap": self.users, "--groupmap": self.groups}
        known = {
            option: [f"{number}:{name}" for number, name in numbers.items() if made or name not in self.names]
            for option, numbers in maps.items()
        }
        return [f"{option}={','.join(pairs)}" for option, pairs in known.items() if pairs]

    def make(self) -> None:
        """Raises CommandError."""
        for argv in self.commands:
            run(argv)


def _find(find: Callable[[Any], Any], key: str | int) -> Any:
    """An entry of the user or group database; None where there is none."""
    try:
        return find(key)
    except KeyError:
        return None


def plan(record: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plan:
    """What the accounts of a snapshot (mail_host.accounts) mean on this host."""
    result = Plan()
    for entry in record["groups"]:
        name, number = str(entry["name"]), int(entry["gid"])
        account = _find(grp.getgrnam, name)
        here = account.gr_gid if account else None
        if here is None:
            free = _find(grp.getgrgid, number) is None
            result.commands.append(["groupadd", "--system", *(["--gid", str(number)] if free else []), name])
            result.names.append(name)
            here = number if free else None
        if here != number:
            result.groups[number] = name
    names = {int(entry["gid"]): str(entry["name"]) for entry in record["groups"]}
    for entry in record["users"]:
        name, number = str(entry["name"]), int(entry["uid"])
        account = _find(pwd.getpwnam, name)
        here = account.pw_uid if account else None
        if here is None:
            free = _find(pwd.getpwuid, number) is None
            group = names.get(int(entry["gid"]))
            result.commands.append(
                [
                    *("useradd", "--system", *(["--uid", str(number)] if free else [])),
                    *(["--gid", group] if group else ["--user-group"]),
                    *("--no-create-home", "--home-dir", str(entry["home"]), "--shell", str(entry["shell"]), name),
                ]
            )
            result.names.append(name)
            here = number if free else None
        if here != number:
            result.users[number] = name
    return result
