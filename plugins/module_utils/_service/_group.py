# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Several daemons, each in a transaction of its own, in the order in which they are given."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from .._files import File
from ._base import os_release
from ._known import NAMES, service_class
from ._transaction import Outcome, Refused, Transaction, files_from, secrets_of

FILE: dict[str, Any] = {
    "dest": {"type": "str", "required": True},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "mode": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "secret": {"type": "bool", "default": False, "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
SERVICE: dict[str, Any] = {
    "service": {"type": "str", "choices": list(NAMES)},
    "files": {"type": "list", "elements": "dict", "options": FILE},
    "inputs": {"type": "list", "elements": "str", "default": []},
    "probe": {"type": "dict", "default": {}},
}
ONE_OF_SEVERAL: dict[str, Any] = {
    **SERVICE,
    "service": {**SERVICE["service"], "required": True},
    "files": {**SERVICE["files"], "required": True},
    "role": {"type": "str"},
}
#: options of service_config
SPEC: dict[str, Any] = {
    **SERVICE,
    "services": {"type": "list", "elements": "dict", "options": ONE_OF_SEVERAL},
    "lock_timeout": {"type": "int", "default": 60},
    "payload": {"type": "str", "no_log": True},
}


def unpacked(payload: str) -> list[list[dict[str, Any]]]:
    """What the action plugin rendered: for each service its files with their content."""
    rendered: list[list[dict[str, Any]]] = json.loads(zlib.decompress(base64.b64decode(payload)))
    return rendered


def debian_release() -> int:
    """The host's major release; raises Refused where it is none that the collection knows."""
    release = os_release()
    if release.get("ID") != "debian" or not release.get("VERSION_ID", "").isdigit():
        raise Refused(f"this is {release.get('PRETTY_NAME')}; Debian 12 and 13 are supported")
    return int(release["VERSION_ID"])


class Group:
    """Transactions by the names of their daemons."""

    def __init__(self, wait: float) -> None:
        """wait: seconds to wait for another run on the same daemon."""
        self.wait = wait
        #: the daemon that is being worked at
        self.at = ""
        self._changes: dict[str, Transaction] = {}
        self._done: dict[str, Outcome] = {}
        self._files: list[File] = []

    def add(self, services: Sequence[Mapping[str, Any]], rendered: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Make the transactions of what the options say, and of the files of each; raises Refused."""
        release = debian_release()
        for options, entries in zip(services, rendered):
            self.at = options["service"]
            # The rest of the options is what Ansible made of it: "false" is no true.
            files = files_from(
                [{**file, "content": each.get("content")} for file, each in zip(options["files"], entries)]
            )
            self._files += files
            if self.at in self._changes:
                raise Refused("is named twice")
            service = service_class(self.at)(release, options["probe"])
            self._changes[self.at] = Transaction(service, files, options["inputs"], self.wait)

    def run(self, check_mode: bool) -> None:
        """One after the other; raises _transaction.ERRORS at the first that fails, and leaves those before it."""
        for name, change in self._changes.items():
            self.at = name
            self._done[name] = change.check_mode() if check_mode else change.apply()

    def secrets(self) -> set[str]:
        """What must not show up in what is said of the daemon that is being worked at."""
        change = self._changes.get(self.at)
        return secrets_of(change.files if change else self._files)

    def result(self, with_diff: bool) -> dict[str, Any]:
        """What was done so far, as the module's return values."""
        done = self._done
        result: dict[str, Any] = {
            "changed": any(outcome.changed for outcome in done.values()),
            "services": [{"service": name, **outcome.result()} for name, outcome in done.items()],
        }
        if with_diff:
            result["diff"] = [entry for outcome in done.values() for entry in outcome.diff()]
        return result
