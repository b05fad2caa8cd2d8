# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What a host is and remembers, and where Ansible comes from."""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any

FOLDER = "/etc/ansible/facts.d"
PREFIX = "postmeister_"
RELEASE = "/etc/os-release"


class HostError(Exception):
    """Something that is there cannot be read, and without it a run would forget; the message names it."""


def facts(folder: str = FOLDER, release: str = RELEASE, proc: str = "/proc") -> dict[str, Any]:
    """The facts that module host_facts gives. Raises HostError."""
    return {
        "distribution_major_version": major_version(release),
        "postmeister": {"remembered": remembered(folder), "ssh_connection": ssh_connection(os.getpid(), proc)},
    }


def major_version(path: str) -> str:
    """VERSION_ID of os-release(5) up to its first dot; '' where there is none, as in Debian's next release."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = re.search(r'^VERSION_ID="?([^".\n]+)', handle.read(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def remembered(folder: str) -> dict[str, Any]:
    """What the local facts of this collection say, by name."""
    result = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), f"{PREFIX}*.fact"))):
        try:
            with open(path, encoding="utf-8") as handle:
                value = json.load(handle)
            if not isinstance(value, dict):
                raise ValueError(f"holds {value!r} and no dictionary")
        except (OSError, ValueError) as exc:
            way = "put it back from a backup, or remove it, and the host has forgotten that"
            raise HostError(f"{path}: {exc}; it holds what earlier runs did: {way}") from exc
        result[os.path.basename(path)[len(PREFIX) : -len(".fact")]] = value
    return result


def ssh_connection(process: int, proc: str) -> str:
    """SSH_CONNECTION in the environment of a process or of the nearest of its parents that has it; '' without any.

    sudo, su and doas drop it, but their own parent is the session's shell. Reading that takes root's rights.
    """
    while process > 0:
        try:
            with open(f"{proc}/{process}/environ", "rb") as handle:
                found = [word for word in handle.read().split(b"\0") if word.startswith(b"SSH_CONNECTION=")]
            with open(f"{proc}/{process}/stat", encoding="utf-8", errors="replace") as handle:
                # The name in parentheses may hold anything.
                process = int(handle.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
        if found:
            return found[0].partition(b"=")[2].decode(errors="replace")
    return ""
