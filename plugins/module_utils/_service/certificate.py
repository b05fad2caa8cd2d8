# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Renewal of certificates: the program, the service that runs it, the one that tells root, and the timer."""

from __future__ import annotations

import os

from .. import _command, _files, _recover
from .._tls import acme, hook, manage, pem, renew
from . import _timer
from ._base import ServiceError
from ._timer import TimedProgram, program, unit_files
from ._transaction import Outcome

PROGRAM = "/usr/local/lib/postmeister/certificate"
UNITS = {
    "postmeister-certificate.service": f"""[Unit]
Description=Renew the mail certificate when it is due
Wants=network-online.target
After=network-online.target nss-lookup.target
OnFailure=postmeister-certificate-failed.service

[Service]
Type=oneshot
Environment=PYTHONPATH={os.path.dirname(PROGRAM)} PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 -m {os.path.basename(PROGRAM)}._tls.renew
TimeoutStartSec=30min
UMask=0077
""",
    "postmeister-certificate-failed.service": """[Unit]
Description=Tell root that the mail certificate could not be renewed
ConditionPathExists=/usr/sbin/sendmail

[Service]
Type=oneshot
ExecStart=/bin/sh -c '{ echo "To: root"; echo "Subject: %H: the mail certificate could not be renewed"; echo; \\
  journalctl --unit=postmeister-certificate.service --lines=40 --no-pager --output=cat; } | /usr/sbin/sendmail -i root'
""",
}
TIMER = """[Unit]
Description=Daily look at the mail certificate

[Timer]
OnCalendar={time}
# Certificate authorities ask for times that differ from host to host.
RandomizedDelaySec=4h
Persistent=true

[Install]
WantedBy=timers.target
"""


class Certificate(TimedProgram):
    """Nothing is issued here, module mail_certificate does that."""

    name = "certificate"
    units = ("postmeister-certificate.timer",)
    folders = (PROGRAM,)


def files(time: str) -> list[_files.File]:
    """All files of the renewal; time is systemd.time(7)'s."""
    texts = {**UNITS, "postmeister-certificate.timer": TIMER.format(time=time)}
    return [*program(PROGRAM, _command, _files, _recover, pem, hook, acme, manage, renew), *unit_files(texts)]


def install(time: str, folder: str, check_mode: bool) -> Outcome:
    """Install the timer, or say what would change; folder is where the certificates lie. Raises _transaction.ERRORS."""
    if folder != manage.FOLDER:
        raise ServiceError(f"renewal_time: the timer looks below {manage.FOLDER} only, and path is {folder}")
    return _timer.install(Certificate, files(time), check_mode)
