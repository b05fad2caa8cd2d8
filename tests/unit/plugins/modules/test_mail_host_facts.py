# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which modules are asked, and when one has something to do; tests/lab sees the answers of a real host."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.postmeister.host.plugins.module_utils import _host, _packages
from ansible_collections.postmeister.host.plugins.module_utils._plan import compare
from ansible_collections.postmeister.host.plugins.module_utils._resolver import ask
from ansible_collections.postmeister.host.plugins.module_utils._resolver.reverse import Reverse
from ansible_collections.postmeister.host.plugins.module_utils._tls import apply as tls
from ansible_collections.postmeister.host.plugins.module_utils._tls import manage
from ansible_collections.postmeister.host.plugins.modules import mail_host_facts

Runner = Callable[..., dict[str, Any]]
PACKAGES = {"names": ["postfix"]}
REVERSE = {"address": "2001:db8::25", "consequence": "mail waits"}
CERTIFICATE = {"hostname": "mail.example.org", "method": "selfsigned"}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are installed."""
    names = {"postfix"}
    monkeypatch.setattr(_packages, "plan", lambda wanted: compare(dict.fromkeys(names, ""), dict.fromkeys(wanted, "")))
    monkeypatch.setattr(_packages, "leftover", lambda: False)
    return names


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: set[str]) -> Runner:
    def go(**modules: Any) -> dict[str, Any]:
        payload = base64.b64encode(zlib.compress(json.dumps(modules).encode())).decode()
        with patch_module_args({"payload": payload}), pytest.raises(SystemExit):
            mail_host_facts.main()
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    (tmp_path / "postmeister_mailserver.fact").write_text('{"complete": true}')
    monkeypatch.setattr(_host.facts, "__defaults__", (str(tmp_path), "/etc/os-release", "/proc"))
    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", True)
    monkeypatch.setattr(ask, "reverse", lambda address: Reverse((), "it has no PTR record"))
    return go


def test_a_host_that_is_as_it_was_left_is_settled_and_its_warnings_are_heard(run: Runner) -> None:
    told = run(packages=PACKAGES, reverse_dns_info=REVERSE)
    assert (told["unsettled"], told["reason"], told["changed"]) == ("", "", False)
    assert told["found"] == {"packages": {}, "reverse_dns_info": {"confirmed": False}}
    assert told["ansible_facts"]["postmeister"]["remembered"] == {"mailserver": {"complete": True}}
    assert "2001:db8::25: it has no PTR record: mail waits" in json.dumps(told["warnings"])


def test_the_first_that_has_something_to_do_ends_the_look(run: Runner, there: set[str]) -> None:
    there.clear()
    told = run(packages=PACKAGES, reverse_dns_info=REVERSE)
    assert (told["unsettled"], told["reason"], told["found"]) == ("packages", "would change something", {})
    assert "warnings" not in told


def test_only_the_settled_warn(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step is about to mend is said by the step's own task, if it still holds then."""
    monkeypatch.setattr(tls, "_work", lambda *_args: manage.Outcome(changed=True, warnings=["it ends"]))
    told = run(mail_certificate=CERTIFICATE)
    assert told["unsettled"] == "mail_certificate" and "it ends" not in json.dumps(told)


def test_what_cannot_look_has_something_to_do(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(wanted: Any) -> Any:
        raise _packages.CommandError("CANARY")

    monkeypatch.setattr(ask, "HAVE_DNSPYTHON", False)
    assert run(reverse_dns_info=REVERSE)["unsettled"] == "reverse_dns_info"
    monkeypatch.setattr(_packages, "plan", plan)
    told = run(packages=PACKAGES)
    assert (told["unsettled"], told["reason"]) == ("packages", "CommandError")
    assert "CANARY" not in str(told)


@pytest.mark.parametrize(("pending", "unsettled"), [(False, ""), (True, "mail_certificate")])
def test_a_certificate_that_waits_is_not_settled(
    run: Runner, monkeypatch: pytest.MonkeyPatch, pending: bool, unsettled: str
) -> None:
    monkeypatch.setattr(tls, "_work", lambda *_args: manage.Outcome(tlsa=["3 1 1 00"], pending=pending))
    told = run(mail_certificate=CERTIFICATE)
    assert told["unsettled"] == unsettled
    assert told["found"] == ({} if pending else {"mail_certificate": {"tlsa": ["3 1 1 00"]}})


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({"postfix": {}}, "modules: 'postfix' is none of packages, "),
        ({"packages": ["postfix"]}, "modules.packages: is no dictionary of options"),
        ({"packages": {"hold": []}}, "modules.packages: missing required arguments: names"),
        (
            {"packages": PACKAGES, "mail_certificate": {**CERTIFICATE, "validity": "long"}},
            "modules.mail_certificate: argument 'validity'",
        ),
        (
            {"mail_certificate": {**CERTIFICATE, "method": "acme"}},
            "method is acme but all of the following are missing",
        ),
    ],
)
def test_options_that_a_module_would_refuse_are_refused(run: Runner, modules: dict[str, Any], words: str) -> None:
    told = run(**modules)
    assert told["failed"] and words in told["msg"]


def test_without_the_action_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"modules": {}}), pytest.raises(SystemExit):
        mail_host_facts.main()
    assert "payload: missing" in json.loads(capsys.readouterr().out)["msg"]
