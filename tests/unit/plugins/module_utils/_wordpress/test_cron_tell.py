# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron_tell as program

A, B = "wp-cron@a.service", "wp-cron@b.service"


@pytest.fixture
def mails(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(program, "MARKS", str(tmp_path / "marks"))
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(program, "TOLD", str(tmp_path / "state" / ".updates-told"))
    monkeypatch.setattr(program, "words", lambda unit: f"words of {unit}")
    monkeypatch.setattr(program, "mail", lambda to, subject, text: sent.append((subject, text)))
    (tmp_path / "state").mkdir()
    return sent


def run(*events):
    for event in events:
        verb, unit = event
        if program.remember(verb, unit):
            program.collect("root", 0)


def test_once_per_outage(mails):
    run(("failed", A), ("failed", A), ("failed", A))
    assert [subject for subject, _text in mails] == [f"{A} fails"]
    run(("works", A), ("works", A))
    assert [subject for subject, _text in mails][1:] == [f"{A} works again"]
    run(("failed", A))
    assert len(mails) == 3


def test_what_works_is_not_told_without_an_outage(mails):
    run(("works", A))
    assert mails == [] and program.listed("back") == []


def test_all_of_one_moment_in_one_mail(mails):
    program.remember("failed", A)
    run(("failed", B))
    assert [subject for subject, _text in mails] == ["2 WordPress units fail"]
    assert f"words of {A}" in mails[0][1] and f"words of {B}" in mails[0][1]


def test_a_failure_that_passes_while_it_is_collected_is_told(mails):
    program.remember("failed", A)
    assert not program.remember("works", A)
    program.collect("root", 0)
    assert f"{A} failed, and works again" in mails[0][1]
    assert not any(program.listed(kind) for kind in ("new", "told", "back"))


def test_one_collects_for_all(mails, monkeypatch):
    program.remember("failed", A)

    def another_fails_meanwhile(_seconds):
        if program.remember("failed", B):
            program.collect("root", 0)  # finds the lock taken

    monkeypatch.setattr(program.time, "sleep", another_fails_meanwhile)
    program.collect("root", 0)
    assert [subject for subject, _text in mails] == ["2 WordPress units fail"]


def updates(tmp_path, name, text):
    os.makedirs(tmp_path / "state" / name, exist_ok=True)
    (tmp_path / "state" / name / "updates").write_text(text)


def test_updates_are_told_when_they_change(mails, tmp_path):
    updates(tmp_path, "a", "")
    program.updates("root")
    assert mails == []
    updates(tmp_path, "a", "plugin x 1 -> 2\n")
    updates(tmp_path, "b", "WordPress 7.0 -> 7.1\n")
    program.updates("root")
    program.updates("root")
    assert mails == [("updates for 2 WordPress sites", "a\n  plugin x 1 -> 2\n\nb\n  WordPress 7.0 -> 7.1\n")]
    updates(tmp_path, "a", "")
    updates(tmp_path, "b", "")
    program.updates("root")
    assert len(mails) == 1
    updates(tmp_path, "a", "plugin x 1 -> 2\n")
    program.updates("root")
    assert len(mails) == 2


def test_nothing_of_a_site_is_trusted(mails, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    os.makedirs(tmp_path / "state" / "a")
    os.symlink(secret, tmp_path / "state" / "a" / "updates")
    os.makedirs(tmp_path / "state" / "b")
    os.mkfifo(tmp_path / "state" / "b" / "updates")
    updates(tmp_path, "c", "plugin \x1b[31mx\x00\n")
    program.updates("root")
    assert mails == [("updates for 1 WordPress site", "c\n  plugin [31mx\n")]
