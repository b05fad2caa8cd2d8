# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs that timers start: whole, and the code that the modules ran."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._service import _timer, certificate, dnsbl


@pytest.mark.parametrize(
    ("service", "files", "starts"),
    [
        (dnsbl.Dnsbl, dnsbl.files(), "dnsbl._policy.check"),
        (certificate.Certificate, certificate.files("*-*-* 01:00:00"), "certificate._tls.renew"),
    ],
    ids=["dnsbl", "certificate"],
)
def test_the_program_is_whole(
    tmp_path: Path, service: type[_timer.TimedProgram], files: list[_files.File], starts: str
) -> None:
    """A Python without Ansible can import what the unit starts, and all that it needs."""
    top = Path(service.folders[0]).parent
    for file in files:
        assert file.content is not None
        if file.path.startswith(f"{top}/"):
            place = tmp_path / Path(file.path).relative_to(top)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.content)
    code = "import importlib, sys; sys.modules['ansible'] = None; importlib.import_module(sys.argv[1])"
    argv = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}", starts]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    units = {file.path.rpartition("/")[2]: (file.content or b"").decode() for file in files if "systemd" in file.path}
    assert [name for name, text in units.items() if f" -m {starts}\n" in text] == [
        service.units[0].replace(".timer", ".service")
    ]
    assert service.units[0] in units


def test_the_files_are_those_of_the_collection() -> None:
    found = {file.path: file.content for file in _timer.program("/x/program", _files)}
    assert found["/x/program/_files.py"] == Path(str(_files.__file__)).read_bytes()
    assert found["/x/program/__init__.py"] == _timer.MARK.encode()
