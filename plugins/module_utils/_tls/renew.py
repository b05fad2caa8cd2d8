# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Renewals without a playbook: what the systemd timer runs, from the settings that the playbook left."""

# A systemd timer starts this program, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import os
import sys

from .. import _files
from .._command import CommandError
from .manage import FOLDER, Settings, locked, manage
from .pem import TlsError


def renew(path: str, folder: str) -> bool:
    """Renew one certificate by its settings.json when that is due; returns whether all is well."""
    hostname = os.path.basename(os.path.dirname(path))
    try:
        with open(path, encoding="utf-8") as handle:
            settings = Settings.from_text(handle.read())
        outcome = manage(settings, check=False, folder=folder, timer=True)
    except (TlsError, CommandError, _files.FileError, OSError, ValueError, TypeError) as exc:
        print(f"{hostname}: {exc}", file=sys.stderr)
        return False
    for line in outcome.notes:
        print(f"{hostname}: {line}")
    for warning in outcome.warnings:
        print(f"{hostname}: {warning}", file=sys.stderr)
    print(f"{hostname}: valid until {outcome.not_after}")
    return not outcome.warnings


def main(argv: list[str]) -> int:
    """Renew what is due below the folder given, /etc/ssl/postmeister without one; 1 when something is wrong."""
    folder = argv[0] if argv else FOLDER
    paths = sorted(
        os.path.join(folder, name, "settings.json")
        for name in os.listdir(folder)
        if os.path.exists(os.path.join(folder, name, "settings.json"))
    )
    with locked():
        results = [renew(path, folder) for path in paths]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
