# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that runs a site's tasks, with shell scripts in the place of PHP and WP-CLI."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron_run as program


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site whose events() come from a list that the test fills, and whose php is the script that it writes."""
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(program, "SITES", str(tmp_path / "etc"))
    (tmp_path / "state" / "blog").mkdir(parents=True)
    (tmp_path / "blog").mkdir()
    return {
        "name": "blog",
        "path": str(tmp_path / "blog"),
        "url": "",
        "command": "php",
        "timeout": 20,
        "offset": 0,
        # PHP that is not asked for by path is not put before wp.
        "php": "php",
        "wp": "",
        "upkeep": {"transients": "", "spam": False, "checksums": False, "updates": False},
    }


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def answer(*due, network=False):
    sites = [
        {"id": number, "url": url, "events": 1, "due": [{"hook": "h", "time": when, "count": 1}] if when else []}
        for number, (url, when) in enumerate(due)
    ]
    return {"network": network, "time": 100, "sites": sites}


def told(monkeypatch, *answers):
    """Make events() give these, the last one for ever."""
    left = list(answers)
    monkeypatch.setattr(program, "events", lambda site: left.pop(0) if len(left) > 1 else left[0])


def test_longest_waiting_first_and_new_sites_too():
    found = answer(("http://a", 90), ("http://b", 0), ("http://c", 50))
    assert program.due_urls(found) == ["http://c", "http://a"]
    found["sites"][1]["events"] = 0
    assert program.due_urls(found) == ["http://c", "http://a", "http://b"]


def test_nothing_due_starts_nothing(site, monkeypatch):
    told(monkeypatch, answer(("http://a", 0)))
    site["php"] = "/nonexistent"
    assert program.run_due(site, print) == []


def test_output_and_failure_of_a_network_say_which_site(site, monkeypatch, tmp_path):
    told(monkeypatch, answer(("http://a/", 1), ("http://b/", 2), network=True))
    site["php"] = script(
        tmp_path, "php", 'echo "<html><title>x</title><p>Oh &amp; no</p>"; case $POSTMEISTER_URL in *b/) exit 3; esac'
    )
    said = []
    assert program.run_due(site, said.append) == ["http://b/: the scheduled tasks failed: exit status 3"]
    assert sorted(said) == ["http://a/: Oh & no", "http://b/: Oh & no"]


def test_a_hanging_task_is_ended_with_all_it_started(site, monkeypatch, tmp_path):
    told(monkeypatch, answer(("http://a/", 1)))
    pid = tmp_path / "pid"
    site["php"] = script(tmp_path, "php", f"sleep 300 & echo $! > {pid}; wait")
    site["timeout"] = 2  # on a busy machine the script needs its time to begin
    assert program.run_due(site, print) == ["the scheduled tasks failed: ended after 2 s"]
    with pytest.raises(ProcessLookupError):
        for _turn in range(1000):
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.02)


def test_a_task_that_does_not_listen_is_killed(site, monkeypatch, tmp_path):
    told(monkeypatch, answer(("http://a/", 1)))
    site["php"] = script(tmp_path, "php", "trap '' TERM; while :; do sleep 0.05; done")
    site["timeout"] = 2
    began = time.monotonic()
    assert program.run_due(site, print) == ["the scheduled tasks failed: ended after 2 s"]
    assert time.monotonic() - began >= 7


def test_a_network_goes_on_while_one_of_its_sites_hangs(site, monkeypatch, tmp_path):
    told(
        monkeypatch,
        answer(("http://hangs/", 1), network=True),
        answer(("http://hangs/", 1), ("http://later/", 1), network=True),
        answer(("http://hangs/", 1), network=True),
    )
    site["php"] = script(tmp_path, "php", "case $POSTMEISTER_URL in *hangs/) sleep 300;; *) echo done; esac")
    site["timeout"] = 4
    monkeypatch.setattr(program, "ROUND", 0.2)
    said = []
    failed = program.run_due(site, said.append)
    assert said == ["http://later/: done"]
    assert failed == ["http://hangs/: the scheduled tasks failed: ended after 4 s"]


def test_two_runs_never_overlap(site, monkeypatch):
    told(monkeypatch, answer(("http://a/", 1)))
    monkeypatch.setattr(program, "run_due", lambda site, say: pytest.fail("ran beside another"))
    said = []
    with program.lock(os.path.join(program.STATE, "blog")) as held:
        assert held
        assert program.cron(site, said.append) == []
    assert said == ["another run is still at work"]


def test_a_run_leaves_when_it_was_and_how_it_went(site, monkeypatch):
    def broken(site):
        raise program.Failure("no database")

    monkeypatch.setattr(program, "events", broken)
    assert program.cron(site, print) == ["no database"]
    left = program.former(os.path.join(program.STATE, "blog"))
    assert left["failed"] == ["no database"] and abs(left["began"] - time.time()) < 60


def test_crontab_tells_of_an_outage_once_and_of_its_end(site, monkeypatch):
    results = iter([["down"], ["down"], [], []])
    lines = []
    monkeypatch.setattr(program, "run_due", lambda site, say: next(results))
    monkeypatch.setattr(program.syslog, "syslog", lambda priority, line: lines.append(line))
    assert [program.crontab(site, print) for _run in range(4)] == [["down"], [], ["the scheduled tasks work again"], []]
    assert lines == ["down", "down"]


def test_words_of_events_php(site, monkeypatch, tmp_path):
    site["php"] = script(
        tmp_path, "php", 'echo "<!DOCTYPE html><html><body><h1>Error establishing a database connection</h1>"'
    )
    with pytest.raises(program.Failure, match="blog: Error establishing a database connection"):
        program.events(site)
    site["php"] = script(
        tmp_path, "php", 'echo "a plugin says {}"; echo "$POSTMEISTER_MARK{\\"sites\\": []}"; echo "and again"'
    )
    assert program.events(site) == {"sites": []}
    site["php"] = script(tmp_path, "php", 'echo "$POSTMEISTER_MARK{\\"error\\": \\"no such table\\"}"')
    with pytest.raises(program.Failure, match="the database says: no such table"):
        program.events(site)


@pytest.mark.parametrize("count", [0, 1, 500, 1201])
def test_spam_in_batches(site, tmp_path, count):
    log = tmp_path / "log"
    site["wp"] = (
        script(
            tmp_path,
            "wp",
            f'case "$*" in *"comment list"*) echo notice; seq -s " " {count};; *) echo "$#" >> {log}; esac',
        )
        if count
        else script(tmp_path, "wp", f'case "$*" in *"comment list"*) ;; *) echo "$#" >> {log}; esac')
    )
    said = []
    program.delete_spam(site, ["http://a/"], said.append)
    # Besides the numbers: --no-color --path --url comment delete --force --quiet
    calls = [int(line) - 7 for line in log.read_text().split()] if log.exists() else []
    assert sum(calls) == count and all(call <= program.BATCH for call in calls)
    assert said == [f"http://a/: {count} spam comments deleted"]


def test_all_transients_wait_for_a_run_to_end(site):
    site["upkeep"]["transients"] = "all"
    site["timeout"] = 0
    with program.lock(os.path.join(program.STATE, "blog")), pytest.raises(program.Failure, match="the transients stay"):
        program.delete_transients(site, ["http://a/"], print)


def test_one_chore_that_fails_does_not_keep_the_others(site, monkeypatch, tmp_path):
    told(monkeypatch, answer(("http://a/", 0)))
    site["upkeep"].update(spam=True, checksums=True)
    site["wp"] = script(
        tmp_path, "wp", 'case "$*" in *comment*) echo "Error: no" >&2; exit 1;; *) echo "Success: fine"; esac'
    )
    said = []
    failed = program.upkeep(site, said.append)
    assert len(failed) == 1 and "wp comment list" in failed[0] and "Error: no" in failed[0]
    assert said == [f"{site['path']}: Success: fine"]


def test_updates_are_left_for_the_mail(site, tmp_path):
    site["wp"] = script(tmp_path, "wp", 'echo; echo "$POSTMEISTER_MARK[\\"plugin a 1 -> 2\\"]"')
    program.find_updates(site, ["http://a/"], print)
    with open(os.path.join(program.STATE, "blog", "updates"), encoding="utf-8") as handle:
        assert handle.read() == "plugin a 1 -> 2\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be refused")
def test_root_is_refused(capsys):
    assert program.main(["cron", "blog"]) == 2
    assert "refused" in capsys.readouterr().err


def test_a_site_by_its_name_only(site, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(program.os, "geteuid", lambda: 33)
    assert program.main(["cron", "../blog"]) == 1
    assert program.main(["cron", "blog"]) == 1
    assert "there is no site blog" in capsys.readouterr().err
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "blog.json").write_text(json.dumps(site))
    told(monkeypatch, answer(("http://a", 0)))
    assert program.main(["cron", "blog"]) == 0
    assert program.main(["nonsense", "blog"]) == 2
