# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""A mail to the operator about a run that failed; started by systemd, so that a run that was killed is told as well."""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import json
import os
import socket
import sys
import time
from email.message import EmailMessage
from typing import Any

from .._command import CommandError, run
from . import status
from .job import UNIT, Job, JobError, load

SENDMAIL = "/usr/sbin/sendmail"


def message(job: Job, known: dict[str, Any], host: str, journal: str) -> EmailMessage:
    """The mail."""
    last = known["last_run"] or {}
    killed = known["started"] is not None or not last
    result = "was killed" if killed else "is incomplete" if last["result"] == "partial" else "failed"
    mail = EmailMessage()
    mail["To"] = job.options["operator"]
    mail["Subject"] = f"{host}: backup {job.name} {result}"
    mail["Auto-Submitted"] = "auto-generated"
    good = known["last_success"]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(good)) if good else "never"
    lines = [f"From:         {job.source}", f"To:           {job.destination}", f"Last success: {when}", ""]
    if not killed:
        lines += [last["reason"], *(f"  {error}" for error in last["errors"]), ""]
    mail.set_content("\n".join([*lines, journal]), cte="8bit")
    return mail


def main(name: str) -> int:
    """Write the mail, if somebody is to get it."""
    try:
        job = load(name)
        if not job.options["operator"] or not os.path.exists(SENDMAIL):
            return 0
        journal = run(
            ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=40", f"--unit={UNIT}{name}.service"],
            check=False,
        ).out
        text = message(job, status.read(job.state), socket.getfqdn(), journal).as_bytes().decode(errors="replace")
        run([SENDMAIL, "-i", "-t"], stdin=text)
    except (JobError, CommandError, OSError, json.JSONDecodeError) as exc:
        print(f"backup {name}: nobody could be told: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
