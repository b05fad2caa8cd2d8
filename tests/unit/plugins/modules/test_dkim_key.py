# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module on a folder of its own; tests/rspamd and tests/lab sign with its keys."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args

pytest.importorskip("cryptography")
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._dkim import apply, key
from ansible_collections.postmeister.host.plugins.modules import dkim_key

Runner = Callable[..., dict[str, Any]]
ED = {"domain": "example.test", "selector": "e1", "type": "ed25519"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    def go(**arguments: Any) -> dict[str, Any]:
        given = {"path": str(tmp_path / "dkim"), "keys": [ED], "_ansible_diff": True, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit):
            dkim_key.main()
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    # Tests may run as any user; the mode still counts.
    monkeypatch.setattr(apply, "uid_of", lambda owner: os.geteuid())
    monkeypatch.setattr(apply, "gid_of", lambda group, missing=None: os.getegid())
    for name in ("uid_of", "gid_of"):
        monkeypatch.setattr(_files, name, lambda owner, missing=None: owner)
    return go


def test_check_then_made_then_left_alone(run: Runner, tmp_path: Path) -> None:
    foreseen = run(_ansible_check_mode=True)
    assert foreseen["changed"] and foreseen["dkim_keys"][0]["record"] == ""
    assert list(tmp_path.iterdir()) == []
    made = run()
    path = tmp_path / "dkim/example.test/e1.key"
    secret = path.read_bytes()
    assert made["changed"] and made["dkim_keys"][0]["path"] == str(path)
    assert made["dkim_keys"][0]["record"].startswith("v=DKIM1; k=ed25519; p=")
    assert secret.decode().strip() not in json.dumps(made)
    again = run()
    assert (again["changed"], again["dkim_keys"]) == (False, made["dkim_keys"])
    assert path.read_bytes() == secret


def test_a_loosened_key_is_closed_and_stays_the_same(run: Runner, tmp_path: Path) -> None:
    run()
    path = tmp_path / "dkim/example.test/e1.key"
    secret = path.read_bytes()
    path.chmod(0o644)
    assert run(_ansible_check_mode=True)["changed"] and path.stat().st_mode & 0o777 == 0o644
    told = run()
    assert told["changed"] and f"{path}: owner and mode as wanted" in told["diff"]["after"]
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o640, secret)


def test_a_file_that_is_no_key_is_named_and_never_overwritten(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "dkim/example.test/e1.key"
    path.parent.mkdir(parents=True)
    path.write_text("CANARY")
    told = run(keys=[ED, {**ED, "selector": "e2"}])
    assert told["failed"] and str(path) in told["msg"] and "no key is ever overwritten" in told["msg"]
    assert "CANARY" not in json.dumps(told)
    assert (path.read_text(), sorted(path.parent.iterdir())) == ("CANARY", [path])


def test_without_the_library(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(key, "CRYPTOGRAPHY_IMPORT_ERROR", "ImportError")
    assert "cryptography" in run()["msg"]
    assert run(_ansible_check_mode=True)["changed"]
    assert list(tmp_path.iterdir()) == []
