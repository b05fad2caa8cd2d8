# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils import _packages
from ansible_collections.postmeister.host.plugins.modules import packages


@pytest.mark.parametrize("checking", [True, False])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ["redis", "postfix-"]}, "names[1]: 'postfix-' ends in a minus"),
        ({"names": ["foo=1.0"]}, "names[0]: 'foo=1.0' is not the name of a Debian package"),
        ({"names": ["redis"], "preseed": {"Redis": {}}}, "preseed: 'Redis' is not the name of a Debian package"),
    ],
)
def test_nothing_runs_before_the_names_are_checked(
    arguments: dict[str, Any],
    words: str,
    checking: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[Sequence[str]] = []
    monkeypatch.setattr(_packages, "run", lambda argv, **_more: calls.append(argv))
    with patch_module_args({"_ansible_check_mode": checking, **arguments}), pytest.raises(SystemExit):
        packages.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] and words in told["msg"]
    assert calls == []
