# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The journal of a mail host."""

from __future__ import annotations

from collections.abc import Iterator

from .._command import stream
from .count import iso
from .lines import ENTRY

#: The units are the journal's own word: a program of another service that calls itself postfix/smtpd is not read.
UNITS = ("postfix@-.service", "postfix.service", "postgrey.service", "rspamd.service")
PROGRAMS = (
    "postfix/smtpd",
    "postfix/cleanup",
    "postfix/submission/smtpd",
    "postfix/submissions/smtpd",
    "postgrey",
    "rspamd",
)
COMMAND = ["journalctl", "--quiet", "--no-pager", "--output=short-unix"]


def entries(start: int, end: int) -> Iterator[str]:
    """Lines of the mail system's programs in a period (seconds of the epoch), the oldest first."""
    matches = [f"_SYSTEMD_UNIT={unit}" for unit in UNITS] + [f"SYSLOG_IDENTIFIER={name}" for name in PROGRAMS]
    return stream([*COMMAND, f"--since=@{start}", f"--until=@{end}", *matches])


def begins() -> str:
    """Time of the oldest entry that the journal still holds; '' for an empty journal."""
    for line in stream(COMMAND):
        match = ENTRY.match(line)
        if match:
            return iso(float(match[1]))
    return ""
