# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._greylist import database
from ansible_collections.postmeister.host.plugins.module_utils._greylist.database import Triplet

TIMES = (300, 172800, 3024000)
NOW = 10_000_000


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("198.51.100.0/a@b.test/c@d.test", ("198.51.100.0", "a@b.test", "c@d.test")),
        ("2001:db8:0:0:0:0:0:0/a@b.test/c@d.test", ("2001:db8::", "a@b.test", "c@d.test")),
        # the empty sender
        ("198.51.100.0//c@d.test", ("198.51.100.0", "", "c@d.test")),
        # slashes in local parts
        ("198.51.100.0/a/x@b.test/c/y@d.test", ("198.51.100.0", "a/x@b.test", "c/y@d.test")),
        ("198.51.100.0/mailer/c@d.test", ("198.51.100.0", "mailer", "c@d.test")),
    ],
)
def test_keys(key: str, expected: tuple[str, str, str]) -> None:
    content = database.parse(f"postgrey.db\t1,2\t{key}\n")
    assert content.triplets == (Triplet(*expected, 1, 2),)


def test_what_makes_no_sense_is_left_out() -> None:
    text = "postgrey.db\t1\tk\npostgrey.db\tx,y\ta/b@c/d@e\npostgrey.db\t1,2\tnonsense\n\npostgrey_clients.db\t\t::1\n"
    content = database.parse(text)
    assert (content.triplets, content.clients) == ((), {})


def test_clients_have_counts() -> None:
    content = database.parse("postgrey_clients.db\t6,1700000000\t198.51.100.7\n", 42)
    assert content.clients == {"198.51.100.7": (6, 1700000000)}
    assert content.size == 42


def triplet(first: int, last: int, recipient: str = "c@d.test") -> Triplet:
    return Triplet("198.51.100.0", "a@b.test", recipient, NOW - first, NOW - last)


def test_who_waits_and_who_does_not() -> None:
    content = database.Content(
        (
            triplet(10, 10),
            triplet(200, 5, "oldest@d.test"),
            triplet(1000, 700),  # came back after 300 s
            triplet(172801, 172801),  # never came back
            triplet(4_000_000, 3_024_001),  # was known, and was not seen again
        ),
        {"198.51.100.7": (5, NOW), "198.51.100.8": (4, NOW)},
        4096,
    )
    found = database.describe(content, TIMES, 5, NOW)
    assert found["sizes"] == {
        "triplets": 5,
        "accepted": 1,
        "waiting": 2,
        "expired": 2,
        "clients": 2,
        "trusted_clients": 1,
        "bytes": 4096,
    }
    assert [entry["recipient"] for entry in found["waiting"]] == ["oldest@d.test", "c@d.test"]
    assert found["waiting"][1] == {
        "client": "198.51.100.0",
        "sender": "a@b.test",
        "recipient": "c@d.test",
        "first_try": NOW - 10,
        "last_try": NOW - 10,
        "accepted_from": NOW + 290,
    }
    # auto-whitelisting is off
    assert database.describe(content, TIMES, 0, NOW)["sizes"]["trusted_clients"] == 0


def test_the_tables_are_copied_before_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("log.0000000002", "postgrey.db", "log.0000000001", "__db.001", "postgrey.lock"):
        (tmp_path / name).write_bytes(b"x")
    copied: list[str] = []
    monkeypatch.setattr(database.shutil, "copyfile", lambda source, _target: copied.append(os.path.basename(source)))
    asked: list[list[str]] = []

    def run(argv: list[str], timeout: float) -> Result:
        asked.append(argv)
        assert timeout > 60
        return Result(tuple(argv), 0, "postgrey.db\t1,2\t198.51.100.0/a@b.test/c@d.test\n", "")

    monkeypatch.setattr(database, "run", run)
    content = database.read(str(tmp_path))
    assert copied == ["postgrey.db", "log.0000000001", "log.0000000002"]
    assert content.size == 3
    assert len(content.triplets) == 1
    # the copy, never the folder of the running daemon
    assert asked[0][3] != str(tmp_path) and asked[0][4:] == ["postgrey.db"]


def test_no_database_is_an_empty_one(tmp_path: Path) -> None:
    assert database.read(str(tmp_path)) == database.Content((), {}, 0)


def test_a_log_that_goes_meanwhile_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgrey.db").write_bytes(b"x")
    gone = tmp_path / "log.0000000001"
    turns: list[int] = []

    def logs(_pattern: str) -> list[str]:
        turns.append(1)
        return [str(gone)] if len(turns) == 1 else []

    monkeypatch.setattr(database.glob, "glob", logs)
    monkeypatch.setattr(database, "run", lambda argv, timeout: Result(tuple(argv), 0, "", ""))
    assert database.read(str(tmp_path)).size == 1
    assert len(turns) == 2
