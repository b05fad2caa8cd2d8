# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""postgrey 1.37 (both releases), and the timer that looks after it."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import time

from . import _postgrey_watch as watch
from ._base import Change, Service, ServiceError, Stage, run

FOLDER = "/etc/postgrey"
PROGRAM = "/usr/local/lib/postmeister/greylist_watch.py"
UNIT = "/etc/systemd/system/postmeister-greylist.service"
TIMER = "/etc/systemd/system/postmeister-greylist.timer"
MARK = "# Managed by Ansible (postmeister.host)\n"
UNIT_TEXT = f"""{MARK}[Unit]
Description=See whether postgrey answers, and tell root when it does not
Documentation=man:postgrey(8)

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {PROGRAM}
StateDirectory=postmeister/greylist
TimeoutStartSec=90
"""
TIMER_TEXT = f"""{MARK}[Unit]
Description=See every minute whether postgrey answers

[Timer]
OnActiveSec=1min
OnUnitInactiveSec=1min
AccuracySec=5s

[Install]
WantedBy=timers.target
"""
#: seconds that a start, or reading long lists, may take
PATIENCE = 20.0
KINDS = ("clients", "recipients")
#: what postgrey ends with in a folder that is not there, after it has read options and lists
END = "ERROR: can't open lock file"


def companions() -> dict[str, str]:
    """The files of the timer, by path."""
    return {PROGRAM: inspect.getsource(watch), UNIT: UNIT_TEXT, TIMER: TIMER_TEXT}


def switched_on() -> list[str]:
    """Units that run, or would after the next boot."""
    found = []
    for unit in Postgrey.units:
        words = [run(["systemctl", verb, unit], check=False).out.strip() for verb in ("is-enabled", "is-active")]
        if words[0] == "enabled" or words[1] in ("active", "activating", "reloading"):
            found.append(unit)
    return found


def switch_off(units: list[str]) -> None:
    """Stop them, for good; files and database stay."""
    # The timer first: it would tell of a daemon that is gone.
    for unit in reversed(units):
        run(["systemctl", "disable", "--quiet", "--now", unit])


class Postgrey(Service):
    """Options of the probe, all of them optional: address (127.0.0.1), port (10023), token.

    token: a client's name that the new list of clients exempts and no former one did.
    """

    name = "postgrey"
    units = ("postgrey.service", os.path.basename(TIMER))
    folders = (FOLDER,)

    def check(self, stage: Stage) -> None:
        """postgrey itself reads options and lists, and ends where it would open its database.

        It must not get as far as that: a list with a faulty expression would end the running daemon at its next reload.
        """
        with open(stage.path(watch.DEFAULTS), encoding="utf-8", errors="replace") as handle:
            match = re.search(r'^POSTGREY_OPTS="(.*)"$', handle.read(), re.MULTILINE)
        words = [word for word in shlex.split(match[1] if match else "") if not word.startswith(("--inet", "--dbdir"))]
        folder = stage.path(FOLDER)
        own = [f"--unix={stage.root}/socket", f"--dbdir={stage.root}/none"]
        own += [f"--whitelist-{kind}={folder}/whitelist_{kind}{end}" for kind in KINDS for end in ("", ".local")]
        done = run(["postgrey", "--quiet", *words, *own], check=False)
        # Of a line that it skips it only warns.
        told = [line for line in done.err.splitlines() if folder in line or END not in done.err]
        if told or not done.err:
            raise ServiceError("\n".join(told or ["postgrey says nothing"]).replace(stage.root, ""))

    def restart_reason(self, changes: list[Change]) -> str | None:
        # The lists are read anew at SIGHUP, options only at a start.
        return next((change.dest for change in changes if change.dest == watch.DEFAULTS), None)

    def reload(self) -> None:
        run(["systemctl", "kill", "--signal=HUP", "--kill-whom=main", self.units[0]])

    def probe(self) -> None:
        where = (str(self.options.get("address") or "127.0.0.1"), int(self.options.get("port") or 10023))
        names = [watch.NAME, *([str(self.options["token"])] if self.options.get("token") else [])]
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answers = {name: watch.ask(*where, client_name=name) for name in names}
                wrong = [f"{answer!r} to {name}" for name, answer in answers.items() if answer != "DUNNO"]
                if not wrong:
                    return
                found = f"answers {', '.join(wrong)}: it goes on with the former lists"
            except OSError as exc:
                found = f"does not answer: {exc.strerror or exc}"
            if time.monotonic() >= deadline or not self.running():
                raise ServiceError(f"postgrey {found}")
            time.sleep(0.1)


SERVICE = Postgrey
