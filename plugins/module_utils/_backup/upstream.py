# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The upstream program as it is installed: the pinned version, with the one place changed that compresses."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

from .job import PROGRAMS

#: SHA-256 of what is downloaded by default
CHECKSUMS = {
    # rsync_tmbackup.sh of commit c0b2ccd7c1bf1740cb96f5e4066913d59ce44971
    "script": "a89edb2caa88347a1f124ddfbecf49b4b02a2e4f0c239b2903f525ae4a55fd78",
    # the wheel of rsync-time-machine 1.4.2
    "python": "15c5d83f2635d620e9a23d53eb0e17fcf394333db4878e67bd7173904693a952",
}
#: the statement that compresses, and what stands in its place
PLACES = {
    "script": (rb'^([ \t]*)RSYNC_FLAGS="\$RSYNC_FLAGS --compress"[ \t]*$', rb"\1: # postmeister.host: no --compress"),
    "python": (rb'^([ \t]*)rsync_flags\.append\("--compress"\)[ \t]*$', rb"\1pass  # postmeister.host: no --compress"),
}


class UpstreamError(Exception):
    """What was given is not the program that is known; the message says what to do."""


def program(implementation: str, content: bytes, checksum: str = "", where: str = "source") -> bytes:
    """The program to install, out of the script or the wheel. Raises UpstreamError."""
    wanted = (checksum or CHECKSUMS[implementation]).lower()
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise UpstreamError(f"{where}: its SHA-256 is {found}, not {wanted}; nothing was installed")
    if implementation == "python":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as wheel:
                content = wheel.read(PROGRAMS["python"])
        except (zipfile.BadZipFile, KeyError) as exc:
            raise UpstreamError(f"{where}: is no wheel of rsync-time-machine that holds {PROGRAMS['python']}") from exc
    return without_compression(implementation, content)


def without_compression(implementation: str, content: bytes) -> bytes:
    """Change exactly one place; raises UpstreamError when there is another number of them."""
    expression, replacement = PLACES[implementation]
    result, places = re.subn(expression, replacement, content, flags=re.MULTILINE)
    if places != 1:
        raise UpstreamError(
            f"upstream changed: {PROGRAMS[implementation]} adds --compress in {places} places instead of one; "
            "nothing was installed. Take the pinned version, or report this."
        )
    return result
