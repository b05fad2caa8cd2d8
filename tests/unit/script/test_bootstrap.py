# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""script/bootstrap stops early, with one clear sentence, where something is missing that it cannot install."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "script"
TOOLS = (
    "bash",
    "env",
    "dirname",
    "readlink",
    "mkdir",
    "cat",
    "sort",
    "head",
    "tail",
    "flock",
    "uname",
    "sha256sum",
    "ln",
)
OLD = '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 || echo 309 /usr/bin/python3\n'
NEW = "#!/bin/sh\necho 313 /usr/bin/python3\n"


class Machine:
    """A machine that has only what a test gives it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.bin = top / "bin"
        self.bin.mkdir()
        shutil.copytree(SCRIPTS, top / "script")
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))

    def has(self, **programs: str) -> None:
        for name, text in programs.items():
            path = self.bin / name.replace("_", "-")
            path.write_text(text)
            path.chmod(0o755)

    def bootstrap(self, *arguments: str, **options: Any) -> tuple[int, list[str]]:
        """The exit status, and the lines on standard error."""
        environment = {"PATH": str(self.bin), "HOME": str(self.top), "PYENV_ROOT": "/nowhere"}
        argv = ["bash", str(self.top / "script/bootstrap"), *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, **options)
        return done.returncode, done.stderr.splitlines()


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not pytest's own folder: another user has to enter it.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 (that is what it is for)
        yield Machine(Path(folder))


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_without_root_and_sudo(machine: Machine) -> None:
    user = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    status, said = machine.bootstrap(**user)
    assert status == 1
    assert said == ["bootstrap: needs root or sudo: containers with fixed addresses cannot be started without."]


@as_root
def test_with_an_old_python_only(machine: Machine) -> None:
    machine.has(python3=OLD, dpkg_query="#!/bin/sh\nprintf installed\n")
    assert machine.bootstrap() == (1, ["bootstrap: needs Python 3.11 or newer, and found none: Python 3.9.2."])


@as_root
def test_where_nothing_can_be_installed(machine: Machine) -> None:
    machine.has(python3=NEW, dpkg_query="#!/bin/sh\nexit 1\n")
    status, said = machine.bootstrap("--demo")
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith("bootstrap: needs git ") and "podman" in said[0]
    assert said[0].endswith("install them, this is not a Debian with apt-get.")


@as_root
def test_where_apt_has_no_such_packages(machine: Machine) -> None:
    machine.has(
        python3=NEW, dpkg_query="#!/bin/sh\nexit 1\n", apt_get="#!/bin/sh\necho E: Unable to locate package; exit 100\n"
    )
    status, said = machine.bootstrap("--demo")
    assert status == 1
    assert len(said) == 1
    assert said[0].startswith("bootstrap: these Debian packages cannot be installed: git ")
    log = said[0].partition("apt's own words: ")[2].rstrip(").")
    assert "Unable to locate package" in Path(log).read_text()


@as_root
def test_where_no_container_can_run(machine: Machine) -> None:
    machine.has(
        python3='#!/bin/sh\necho 313 "$0"\n',
        dpkg_query="#!/bin/sh\nprintf installed\n",
        runc="#!/bin/sh\n",
        podman="#!/bin/sh\necho Error: no user namespaces >&2; exit 125\n",
    )
    assert machine.bootstrap("--demo") == (1, ["bootstrap: podman cannot run here: Error: no user namespaces"])
    # Nothing else was begun.
    assert not list(machine.top.rglob("venv*"))
    (machine.bin / "runc").unlink()
    assert machine.bootstrap("--demo") == (1, ["bootstrap: no container runtime: neither runc nor crun is there."])


def test_with_a_word_that_it_does_not_know(machine: Machine) -> None:
    if os.geteuid() == 0:
        assert machine.bootstrap("--wrong") == (
            1,
            ["bootstrap: usage: script/bootstrap [--demo | --without-containers]"],
        )
