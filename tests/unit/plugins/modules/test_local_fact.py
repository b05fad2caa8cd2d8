# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.modules import local_fact


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_fact, "FOLDER", str(tmp_path / "ansible" / "facts.d"))
    # Not everybody who runs the tests is root.
    monkeypatch.setattr(_files, "uid_of", lambda owner: tmp_path.stat().st_uid)
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: tmp_path.stat().st_gid)
    return tmp_path / "ansible" / "facts.d"


def run(capsys: pytest.CaptureFixture[str], checking: bool = False, **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"_ansible_check_mode": checking, **arguments}), pytest.raises(SystemExit):
        local_fact.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_check_real_check_real(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"name": "demo", "value": {"owned": [{"name": "a", "values": ["1"]}]}}
    assert run(capsys, True, **wanted)["changed"]
    assert not folder.parent.exists()
    assert run(capsys, **wanted)["changed"]
    assert json.loads((folder / "demo.fact").read_text()) == wanted["value"]
    assert (folder / "demo.fact").stat().st_mode & 0o777 == 0o644
    assert not run(capsys, True, **wanted)["changed"]
    assert not run(capsys, **wanted)["changed"]


def test_a_new_value_takes_the_place_of_the_former(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, name="demo", value={"a": 1})
    told = run(capsys, name="demo", value={"b": 2})
    assert told["changed"]
    assert '"a": 1' in told["diff"]["before"] and '"b": 2' in told["diff"]["after"]
    assert json.loads((folder / "demo.fact").read_text()) == {"b": 2}


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a.b", "1a"])
def test_a_name_that_is_none_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    told = run(capsys, name=name, value={})
    assert told["failed"] and repr(name) in told["msg"]
    assert not folder.parent.exists()
