# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The test of the DNS lists every ten minutes: its program, its service and its timer."""

from __future__ import annotations

import os

from .. import _command, _files, _recover
from .._policy import check, health, lists
from ._timer import TimedProgram, program, unit_files

PROGRAM = "/usr/local/lib/postmeister/dnsbl"
UNITS = {
    "postmeister-dnsbl.service": f"""[Unit]
Description=Test the DNS lists, and take out of service what fails
Requisite=unbound.service
After=unbound.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
Environment=PYTHONPATH={os.path.dirname(PROGRAM)} PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 -m {os.path.basename(PROGRAM)}._policy.check
TimeoutStartSec=5min
UMask=0022
""",
    "postmeister-dnsbl.timer": """[Unit]
Description=Test of the DNS lists every ten minutes

[Timer]
OnCalendar=*:0/10
# Not all hosts of the world at once
RandomizedDelaySec=5min
FixedRandomDelay=true

[Install]
WantedBy=timers.target
""",
}


class Dnsbl(TimedProgram):
    """No list is tested here, module dnsbl does that."""

    name = "dnsbl"
    units = ("postmeister-dnsbl.timer",)
    folders = (PROGRAM,)


def files() -> list[_files.File]:
    """All files of the timer."""
    return [*program(PROGRAM, _command, _files, _recover, lists, health, check), *unit_files(UNITS)]
