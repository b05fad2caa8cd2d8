# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""A program of this collection that a systemd timer starts: its Python files, its service and its timer."""

from __future__ import annotations

import glob
import os

from ._base import Change, Service, ServiceError, Stage, run


class TimedProgram(Service):
    """The unit is the timer. Subclasses give name, units (the timer), and folders (where the program lies)."""

    @property
    def timer(self) -> str:
        return self.units[0]

    def swap_rank(self, dest: str) -> int:
        # program, service, timer: what is started by another is there before it
        return {".service": 1, ".timer": 2}.get(os.path.splitext(dest)[1], 0)

    def check(self, stage: Stage) -> None:
        sources = sorted(glob.glob(stage.path(self.folders[0]) + "/**/*.py", recursive=True))
        code = "import sys\nfor path in sys.argv[1:]: compile(open(path, encoding='utf-8').read(), path, 'exec')"
        done = run(["python3", "-I", "-c", code, *sources], check=False)
        if done.rc != 0:
            raise ServiceError(done.words.replace(stage.root, ""))
        folder, prefix = stage.path("/etc/systemd/system"), os.path.splitext(self.timer)[0]
        units = sorted(glob.glob(os.path.join(folder, f"{prefix}*")))
        if units:
            # The folder is named first on the unit path, so units that refer to each other find the staged ones.
            done = run(
                ["systemd-analyze", "verify", "--man=no", *units], env={"SYSTEMD_UNIT_PATH": f"{folder}:"}, check=False
            )
            told = [line for line in done.words.splitlines() if prefix in line]
            if told:
                raise ServiceError("\n".join(told).replace(stage.root, ""))

    def restart_reason(self, changes: list[Change]) -> str | None:
        return next((change.dest for change in changes if change.dest.startswith("/etc/systemd/")), None)

    def reload(self) -> None:
        """The program is read anew at each start."""

    def probe(self) -> None:
        done = run(["systemctl", "show", "--property=NextElapseUSecRealtime,NextElapseUSecMonotonic", self.timer])
        if not any(line.partition("=")[2].strip() for line in done.out.splitlines()):
            raise ServiceError(f"{self.timer} is not waiting for any time: systemctl status {self.timer}")
