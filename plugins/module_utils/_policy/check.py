# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What the systemd timer runs every ten minutes: the test of the module dnsbl, on the lists that the playbook left."""

# A systemd timer starts this program, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import os
import socket
import sys
import time

from .._command import CommandError, run
from .._files import FileError
from . import health

SENDMAIL = "/usr/sbin/sendmail"


def report(outcome: health.Outcome) -> list[str]:
    """What changed, a sentence a list."""
    lines = [f"{zone} is out of service: {outcome.verdicts[zone].reason}" for zone in outcome.out]
    return lines + [f"{zone} passed its test and is in service again" for zone in outcome.back]


def tell_root(lines: list[str]) -> None:
    """Mail, where the host can; the journal has it anyway."""
    if not lines or not os.path.exists(SENDMAIL):
        return
    subject = f"{socket.getfqdn()}: {lines[0].split()[0]} and mail's other DNS lists"
    text = "\n".join(["To: root", f"Subject: {subject}", "", *lines, "", "More: journalctl -u postmeister-dnsbl", ""])
    try:
        run([SENDMAIL, "-i", "root"], stdin=text, check=False)
    except CommandError as exc:
        print(f"<4>root could not be told: {exc}")


def main() -> int:
    """Test, switch, report; 1 when that could not be done."""
    places = health.Places()
    try:
        with health.locked():
            lists = health.read(places)
            outcome = health.plan(lists, health.look(lists, fresh=True), places, time.time())
            health.apply(outcome, places)
    except (health.HealthError, FileError) as exc:
        print(exc, file=sys.stderr)
        return 1
    lines = report(outcome)
    for line in lines:
        # Level of the journal's entry (sd-daemon(3)): a warning
        print(f"<4>{line}")
    print(f"{len(outcome.verdicts)} lists, out of service: {', '.join(outcome.failing) or 'none'}")
    tell_root(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
