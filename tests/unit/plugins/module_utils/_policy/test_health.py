# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.module_utils._policy import check, health
from ansible_collections.postmeister.host.plugins.module_utils._policy.lists import DEAD, HEALTHY, BlockList, Verdict

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files belong to root, as on a host")

GOOD = BlockList.parse({"zone": "good.test", "replies": "127.0.0.2", "checks": ["client"]})
GONE = BlockList.parse({"zone": "gone.test", "replies": "127.0.1.[2..99]", "checks": ["sender"]})
# A running Postfix forgets, too.
SWITCHED = [["unbound-checkconf"], ["unbound-control", "reload"], ["/bin/sh", "status"], ["/bin/sh", "reload"]]
WELL, ILL = Verdict(HEALTHY, ipv6=True), Verdict(DEAD, "it is gone")


@pytest.fixture
def places(tmp_path: Path) -> health.Places:
    return health.Places(*(str(tmp_path / name) for name in ("lists.json", "status.json", "dnsbl.conf", "due")))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(argv: list[str], **_options: Any) -> Result:
        calls.append(argv)
        return Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(health, "run", run)
    monkeypatch.setattr(health, "POSTFIX", "/bin/sh")
    return calls


def done(places: health.Places, verdicts: dict[str, Verdict], now: float = 0) -> health.Outcome:
    outcome = health.plan([GOOD, GONE], verdicts, places, now)
    health.apply(outcome, places)
    return outcome


def test_what_failed_does_not_exist_except_for_its_test(places: health.Places, called: list[list[str]]) -> None:
    outcome = done(places, {"good.test": WELL, "gone.test": ILL})
    text = Path(places.include).read_text()
    assert [line.strip() for line in text.splitlines()[1:]] == [
        "server:",
        'local-zone: "gone.test." always_nxdomain',
        'local-zone: "test.gone.test." always_transparent',
        'local-zone: "invalid.gone.test." always_transparent',
    ]
    assert (outcome.out, outcome.back, outcome.changed) == (["gone.test"], [], True)
    assert called == SWITCHED
    assert os.stat(places.include).st_mode & 0o7777 == 0o640


def test_nothing_changes_until_a_verdict_does(places: health.Places, called: list[list[str]]) -> None:
    done(places, {"good.test": WELL, "gone.test": ILL})
    called.clear()
    again = done(places, {"good.test": WELL, "gone.test": ILL}, now=600)
    assert (again.changed, again.diff, again.out, called) == (False, [], [], [])
    # Since when, not when last
    assert json.loads(Path(places.status).read_text())["gone.test"]["since"] == "1970-01-01T00:00:00Z"
    back = done(places, {"good.test": WELL, "gone.test": WELL}, now=1200)
    assert (back.changed, back.back, called) == (True, ["gone.test"], SWITCHED)
    assert "local-zone" not in Path(places.include).read_text()
    status = json.loads(Path(places.status).read_text())
    assert (status["gone.test"]["state"], status["gone.test"]["since"]) == ("healthy", "1970-01-01T00:20:00Z")


def test_a_broken_resolver_configuration_is_not_reloaded(
    places: health.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(argv: list[str], **_options: Any) -> None:
        raise health.CommandError(f"{argv[0]}: syntax error")

    monkeypatch.setattr(health, "run", refuse)
    with pytest.raises(health.HealthError, match="could not be switched in the resolver: unbound-checkconf: syntax"):
        done(places, {"good.test": WELL, "gone.test": ILL})
    assert not os.path.exists(places.include)


def test_a_resolver_that_was_not_told_is_told_by_the_next_run(
    places: health.Places, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(argv: list[str], **_options: Any) -> Result:
        if argv[0] == "unbound-control":
            raise CommandError("unbound-control: connection refused")
        return Result(tuple(argv), 0, "", "")

    verdicts = {"good.test": WELL, "gone.test": ILL}
    with monkeypatch.context() as broken:
        broken.setattr(health, "run", fails)
        with pytest.raises(health.HealthError, match="could not be switched"):
            done(places, verdicts)
    assert done(places, verdicts).changed
    assert called == SWITCHED
    assert not done(places, verdicts).changed


def test_a_list_that_the_inventory_dropped_is_forgotten(places: health.Places, called: list[list[str]]) -> None:
    done(places, {"good.test": WELL, "gone.test": ILL})
    outcome = health.plan([GOOD], {"good.test": WELL}, places, 0)
    assert (outcome.changed, outcome.switches, outcome.back) == (True, True, [])
    health.apply(outcome, places)
    assert [item.zone for item in health.read(places)] == ["good.test"]


def test_the_diff_shows_both_files(places: health.Places) -> None:
    outcome = health.plan([GONE], {"gone.test": ILL}, places, 0)
    assert [entry["after_header"] for entry in outcome.diff] == [places.lists, places.include]
    assert "always_nxdomain" in outcome.diff[1]["after"]


def test_lists_that_cannot_be_read_are_named(places: health.Places) -> None:
    with pytest.raises(health.HealthError, match=r"lists\.json: No such file|lists\.json: \[Errno 2\]"):
        health.read(places)
    Path(places.lists).write_text('[{"zone": "x.test", "replies": "127.0.0.x", "checks": ["client"]}]')
    with pytest.raises(health.HealthError, match=r"lists\.json: is no filter"):
        health.read(places)


def test_root_is_told_of_changes_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[tuple[list[str], str]] = []
    monkeypatch.setattr(check, "SENDMAIL", str(tmp_path))
    monkeypatch.setattr(check, "run", lambda argv, stdin, check: sent.append((argv, stdin)))
    outcome = health.Outcome({"gone.test": ILL, "good.test": WELL}, [], out=["gone.test"], back=["good.test"])
    check.tell_root(check.report(outcome))
    check.tell_root([])
    ((argv, text),) = sent
    assert argv == [str(tmp_path), "-i", "root"]
    assert text.startswith("To: root\nSubject: ")
    assert "gone.test is out of service: it is gone\ngood.test passed its test and is in service again\n" in text
