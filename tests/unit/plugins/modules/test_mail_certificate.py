# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which mail_certificate refuses, installs its timer and works; tests/tls sees what each does."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils._service import _timer
from ansible_collections.postmeister.host.plugins.module_utils._service._base import ServiceError
from ansible_collections.postmeister.host.plugins.module_utils._service._transaction import Outcome
from ansible_collections.postmeister.host.plugins.module_utils._tls import apply, manage
from ansible_collections.postmeister.host.plugins.modules import mail_certificate

Runner = Callable[..., dict[str, Any]]
GIVEN = {"hostname": "mail.example.org", "method": "selfsigned"}
WORKED = manage.Outcome(tlsa=["3 1 1 00"])


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], events: list[str]) -> Runner:
    def install(service: Any, files: Any, check_mode: bool) -> Outcome:
        text = next(file.content for file in files if file.path.endswith(".timer"))
        if b"never" in text:
            raise ServiceError("postmeister-certificate.timer: never is no time")
        events.append("timer")
        return Outcome(reasons=["it was off"])

    def work(settings: manage.Settings, folder: str, check_mode: bool) -> manage.Outcome:
        events.append("certificate")
        return WORKED

    def go(**arguments: Any) -> dict[str, Any]:
        with patch_module_args({**GIVEN, **arguments}), pytest.raises(SystemExit):
            mail_certificate.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    monkeypatch.setattr(_timer, "install", install)
    monkeypatch.setattr(apply, "_work", work)
    monkeypatch.setattr(apply, "missing_library", lambda: "")
    return go


def test_without_a_time_there_is_no_timer(run: Runner, events: list[str]) -> None:
    told = run()
    assert (events, told["changed"]) == (["certificate"], False)
    assert "files" not in told and "diff" not in told
    assert run(hostname="Mail.Example.org")["path"] == "/etc/ssl/postmeister/mail.example.org/mail.pem"


def test_a_timer_that_was_off_is_a_change(run: Runner, events: list[str]) -> None:
    told = run(renewal_time="daily", _ansible_diff=True)
    assert (events, told["changed"], told["files"]) == (["timer", "certificate"], True, [])
    assert told["diff"][-1] == {"prepared": "it was off\n"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hostname": "mail"}, "hostname: 'mail' is not a fully qualified host name"),
        ({"renewal_time": "never"}, "never is no time"),
        ({"path": "/srv/keys"}, "renewal_time: the timer looks below /etc/ssl/postmeister only, and path is /srv/keys"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_happens(
    run: Runner, events: list[str], arguments: dict[str, Any], words: str
) -> None:
    told = run(**{"renewal_time": "daily", **arguments})
    assert told["failed"] and words in told["msg"]
    assert events == []
