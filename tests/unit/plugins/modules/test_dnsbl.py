# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What follows from a verdict; tests/lab has lists that fail, die and come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils._policy import health
from ansible_collections.postmeister.host.plugins.modules import dnsbl

Runner = Callable[..., dict[str, Any]]
LISTS = [{"zone": "good.test", "replies": "127.0.0.2"}, {"zone": "bad.test", "replies": "127.0.0.2"}]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    def answers(names: list[str]) -> dict[str, tuple[str, ...] | None]:
        """good.test lists what it must and nothing else, bad.test gives no answer."""
        return {
            name: None if "bad" in name else ("127.0.0.2",) if name.startswith("2.0.0.127") else () for name in names
        }

    def go(**arguments: Any) -> dict[str, Any]:
        with patch_module_args({"lists": LISTS, **arguments}), pytest.raises(SystemExit):
            dnsbl.main()
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    places = health.Places(*(str(tmp_path / name) for name in ("lists", "status", "include", "due")))
    (tmp_path / "control").touch()
    monkeypatch.setattr(health, "HAVE_DNSPYTHON", True)
    monkeypatch.setattr(health, "CONTROL", str(tmp_path / "control"))
    monkeypatch.setattr(health, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(health, "POSTFIX", str(tmp_path / "postfix"))
    monkeypatch.setattr(health, "Places", lambda: places)
    monkeypatch.setattr(health, "ask", answers)
    monkeypatch.setattr(health, "run", lambda argv, **_more: None)
    return go


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"control", "lock"}


def test_a_list_that_fails_is_left_out_with_a_warning(run: Runner, tmp_path: Path) -> None:
    foreseen = run(_ansible_check_mode=True)
    assert foreseen["changed"] and names(tmp_path) == set()
    told = run()
    assert told["changed"] and told["out_of_service"] == ["bad.test"]
    assert told["lists"]["good.test"]["state"] == "healthy"
    assert "list out of service: bad.test" in json.dumps(told["warnings"])
    assert '"bad.test." always_nxdomain' in (tmp_path / "include").read_text()


def test_or_fails_the_run_before_anything_is_written(run: Runner, tmp_path: Path) -> None:
    told = run(failing="fail")
    assert told["failed"] and "bad.test: " in told["msg"] and "nothing was changed" in told["msg"]
    assert names(tmp_path) == set()


def test_without_the_library(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health, "HAVE_DNSPYTHON", False)
    assert "dnspython" in run()["msg"]
    assert run(_ansible_check_mode=True)["changed"]
    assert names(tmp_path) == set()
