# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""A program of this collection that a systemd timer starts: its Python files, its service and its timer."""

from __future__ import annotations

import glob
import os
import sys
from types import ModuleType

from .._files import File
from .._source import source_of
from ._base import Change, Service, ServiceError, Stage, os_release, run
from ._transaction import SYSTEMD, Outcome, Transaction

MARK = "# Managed by Ansible (postmeister.host); changes are overwritten.\n"
PACKAGE = __name__.rpartition("._service.")[0]


def program(folder: str, *modules: ModuleType) -> list[File]:
    """The files of a program that is made of these modules of module_utils, laid out below folder as they are there.

    So a timer runs the very code that the module ran: PYTHONPATH is the folder's parent, the package its last part.
    """
    texts = {os.path.join(folder, "__init__.py"): MARK.encode()}
    for module in modules:
        parts = module.__name__.removeprefix(f"{PACKAGE}.").split(".")
        if len(parts) > 1:
            parent = sys.modules[f"{PACKAGE}.{parts[0]}"]
            texts[os.path.join(folder, parts[0], "__init__.py")] = source_of(parent)
        texts[f"{os.path.join(folder, *parts)}.py"] = source_of(module)
    return [File(path, text) for path, text in texts.items()]


def unit_files(texts: dict[str, str]) -> list[File]:
    """Units of systemd by name."""
    return [File(f"{SYSTEMD}/{name}", f"{MARK}{text}".encode()) for name, text in texts.items()]


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


def install(service: type[TimedProgram], files: list[File], check_mode: bool) -> Outcome:
    """One transaction over the files of a timer; raises _transaction.ERRORS."""
    change = Transaction(service(int(os_release().get("VERSION_ID", "0")), {}), files)
    return change.check_mode() if check_mode else change.apply()
