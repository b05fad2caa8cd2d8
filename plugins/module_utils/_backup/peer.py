# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The forced command of a backup's key on the other host: rsync (by rrsync) for one folder, upstream's commands there.

read: the folder may be fetched (a source). write: snapshots may be kept in it, and fetched again for a restore.
Anything else that the client asks for is refused.
"""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from .._command import CommandError
from . import commands

RRSYNC, RSYNC = "/usr/bin/rrsync", "/usr/bin/rsync"


class PeerError(Exception):
    """The key does not allow what was asked for."""


def below(text: str, folder: str) -> str:
    """rsync's server command with the folder's own path taken off: rrsync counts from there."""
    words = []
    for word in re.findall(r"(?:[^\s\\]+|\\.[^\s\\]*)+", text):
        option, sep, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value.startswith("/"):
            if not f"{value}/".startswith(f"{folder.rstrip('/')}/"):
                raise PeerError(f"{value} is not in {folder}")
            value = f"/{value[len(folder.rstrip('/')) :].lstrip('/')}"
        words.append(f"{option}{sep}{value}")
    return " ".join(words)


def answer(access: str, folder: str, text: str) -> tuple[list[str], str] | commands.Command:
    """What to start (with its SSH_ORIGINAL_COMMAND), or the command to do. Raises PeerError."""
    if text == commands.VERSION:
        return [RSYNC, "--version"], ""
    if text.startswith("rsync --server "):
        reads = text.startswith("rsync --server --sender ")
        if access == "read" and not reads:
            raise PeerError(f"{folder} may only be read")
        # Who only reads takes no lock of rrsync's: a source may be fetched, a snapshot restored, twice at once.
        return [RRSYNC, *(["-ro"] if reads else []), folder], below(text, folder)
    command = commands.parse(text)
    if command is None or access != "write" or command.folder != folder:
        raise PeerError(f"not allowed: {text[:200]}")
    return command


def main(arguments: Sequence[str]) -> int:
    """Started by bin/peer: access and folder, the command in SSH_ORIGINAL_COMMAND."""
    access, folder = arguments
    try:
        what = answer(access, folder, os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        if isinstance(what, commands.Command):
            status, output = commands.perform(what)
            sys.stdout.write(output)
            return status
        argv, text = what
        os.execve(argv[0], argv, {**os.environ, "SSH_ORIGINAL_COMMAND": text})
    except (PeerError, CommandError, OSError) as exc:
        print(f"backup of {folder}: {exc}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
