# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils import _host
from ansible_collections.postmeister.host.plugins.modules import host_facts


@pytest.mark.parametrize(("text", "failed"), [('{"complete": true}', False), ("{", True)])
def test_facts_or_the_file_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, failed: bool
) -> None:
    (tmp_path / "postmeister_mailserver.fact").write_text(text)
    monkeypatch.setattr(_host.facts, "__defaults__", (str(tmp_path), "/etc/os-release", "/proc"))
    with patch_module_args({"_ansible_check_mode": True}), pytest.raises(SystemExit):
        host_facts.main()
    told = json.loads(capsys.readouterr().out)
    assert told.get("failed", False) is failed
    if failed:
        assert str(tmp_path / "postmeister_mailserver.fact") in told["msg"]
    else:
        assert not told["changed"]
        assert told["ansible_facts"]["postmeister"]["remembered"] == {"mailserver": {"complete": True}}
