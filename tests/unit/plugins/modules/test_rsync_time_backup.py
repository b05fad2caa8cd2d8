# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of commands is shown nowhere: not in the result, not in what ansible-core adds to it, not in syslog."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup

CANARY = "canary-in-a-secret"
#: the second one looks another way in a line of syslog than it is
COMMANDS = [f"dump --password={CANARY}", f"set -e\ndump --password='{CANARY}' --title=\"all\""]
#: what every module gets from ansible-core; the result then tells the module's arguments, as it does with -vvv
CORE = {"_ansible_inject_invocation": True} if "inject_invocation" in PASS_VARS else {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_commands_are_not_shown(when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Any] = []
    monkeypatch.setattr(basic, "has_journal", False)
    monkeypatch.setattr(basic.syslog, "syslog", lambda *words: told.append(words))
    job = {"name": "etc", "source": "/etc", "destination": "/srv/backup", "strategy": "1:1 30", when: COMMANDS}
    given = {"_ansible_check_mode": True, "_ansible_no_log": False, **CORE, "jobs": [job]}
    with patch_module_args(given), pytest.raises(SystemExit) as ended:
        rsync_time_backup.main()
    output = capsys.readouterr().out
    assert ended.value.code and "job etc: strategy: '1:1 30'" in output
    assert '"invocation"' in output
    assert CANARY not in output
    assert CANARY not in f"{told}"
