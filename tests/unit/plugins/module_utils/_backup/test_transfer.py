# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._backup import job as jobs
from ansible_collections.postmeister.host.plugins.module_utils._backup import restore, transfer, verify
from ansible_collections.postmeister.host.plugins.module_utils._backup.commands import Contents
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup

ONE, TWO, THREE = "2030-01-31-021106", "2030-02-01-021106", "2030-02-02-021106"
#: as rsync prints it: a new file, a folder whose time differs, one whose content, owner and ACL differ, a link
LISTED = r"""
>f+++++++++ 2030/01/30-10:11:12 plain
.d..t...... 2030/01/30-10:11:12 deep/
>fc..o..a.. 2030/01/30-10:11:12 deep/\#303\#274bung
cL+++++++++ 2030/01/30-10:11:12 link -> plain
>f+++++++++ 2030/01/30-10:11:12 new\#012line
>f+++++++++ 2030/01/30-10:11:12 latin\#374
sent 12 bytes  received 34 bytes
"""


def job(**given: Any) -> jobs.Job:
    defaults = {name: spec.get("default") for name, spec in rsync_time_backup.JOB.items()}
    common = {"name": "srv", "source": "/srv", "destination": "/backup", "implementation": "script", "operator": ""}
    return jobs.parse({**defaults, **common, **given})


def contents(names: Sequence[str], latest: str) -> Contents:
    return Contents(True, False, latest, tuple(names), ())


# --- what rsync says ---


def test_names_and_differences() -> None:
    found = {item.name: item for item in transfer.items(LISTED.replace("link -> plain", "link"))}
    assert list(found) == ["plain", "deep", "deep/übung", "link", "new\nline", os.fsdecode(b"latin\xfc")]
    assert found["plain"].new and not found["deep"].new
    assert found["deep"].folder and found["deep"].differs == ("time",)
    assert found["deep/übung"].differs == ("content", "owner", "ACL")
    assert found["plain"].modified == "2030-01-30-101112"


@pytest.mark.parametrize("name", [b"plain", "übung".encode(), b"latin\xfc", b"new\nline", b"back\\slash", b"x\\#012"])
def test_a_name_goes_and_comes_back(name: bytes) -> None:
    printed = "".join(
        f"\\#{byte:03o}" if byte < 32 or byte > 126 or name[at : at + 2] == b"\\#" else chr(byte)
        for at, byte in enumerate(name)
    )
    assert os.fsencode(transfer.plain_name(printed)) == name


def test_a_name_that_is_no_text_is_shown_and_fits_json() -> None:
    told = transfer.shown(os.fsdecode(b"latin\xfc"))
    assert told == "latin\\xfc"
    json.dumps(told).encode()
    assert transfer.shown("übung") == "übung"


def test_what_follows_the_newest_whole_snapshot_is_half() -> None:
    there = contents((ONE, TWO, THREE), TWO)
    assert transfer.choose(job(), there, "latest") == TWO
    assert transfer.choose(job(), there, ONE) == ONE
    with pytest.raises(transfer.SnapshotError, match=f"no whole snapshot '{THREE}'; the newest are {ONE}, {TWO}$"):
        transfer.choose(job(), there, THREE)
    with pytest.raises(transfer.SnapshotError, match=r"has no whole snapshot$"):
        transfer.choose(job(), contents((), ""), "latest")
    with pytest.raises(transfer.SnapshotError, match="1 lie there, but without the link latest"):
        transfer.choose(job(), contents((ONE,), ""), "latest")


def test_rsync_gets_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(argv: Sequence[str], **given: Any) -> Result:
        listed = next(word.partition("=")[2] for word in argv if word.startswith("--files-from="))
        seen.update(names=Path(listed).read_bytes(), argv=argv, **given)
        return Result(tuple(argv), 23, "", "rsync: [sender] link_stat failed: No such file\n")

    monkeypatch.setattr(transfer, "run", run)
    names = ["new\nline", os.fsdecode(b"latin\xfc")]
    assert transfer.rsync(job(), [], "/a/", "/b/", names, good=(0, 23)).rc == 23
    assert seen["names"] == b"new\nline\0latin\xfc\0"
    assert seen["argv"][-3:] == ["--", "/a/", "/b/"] and "--from0" in seen["argv"]
    with pytest.raises(CommandError, match=r"exit status 23: rsync: .sender. link_stat failed"):
        transfer.rsync(job(), [], "/a/", "/b/", names)


# --- verify ---


def test_what_changed_later_is_no_fault() -> None:
    found = transfer.items(LISTED)
    sample = {item.name for item in found}
    since, faults = verify.judge(found, sample, ONE, lambda name: "2030-02-01-000000" if name == "plain" else "")
    assert since == ["plain"]
    assert {fault["name"]: fault["differs"] for fault in faults} == {
        "deep/übung": ["content", "owner", "ACL"],
        "link -> plain": ["missing"],
        "new\nline": ["missing"],
        "latin\\xfc": ["missing"],
    }


def test_files_that_went_meanwhile_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def rsync(_job: jobs.Job, options: Sequence[str], *_given: Any, **_more: Any) -> Result:
        calls.append(list(options))
        listed = ">f+++++++++ 2030/01/30-10:11:12 new/1\n>f+++++++++ 2030/01/30-10:11:12 cur/2\n"
        return Result((), 0, listed if len(calls) == 1 else "", "")

    monkeypatch.setattr(verify, "rsync", rsync)
    monkeypatch.setattr(verify, "snapshots", lambda _job: contents((ONE,), ONE))
    verdict = verify.verify(job(), "latest", 200, None, str(tmp_path))
    assert (verdict.files, verdict.compared, verdict.faults) == (2, 2, [])
    # Their names are given, and a name that is not there is an error to rsync.
    assert "--ignore-missing-args" in calls[2] and "--ignore-missing-args" not in calls[1]
    assert os.listdir(tmp_path) == []


def test_a_job_that_cannot_be_verified_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(job: str, *_given: Any) -> verify.Verdict:
        if job == "first":
            raise verify.SnapshotError("job first: /backup has no whole snapshot")
        if job == "second":
            raise CommandError("rsync: exit status 255: no route to host")
        return verify.Verdict(job, ONE, 3, 3, [], [{"name": "a", "differs": ["content"]}] if job == "third" else [])

    monkeypatch.setattr(verify, "load", lambda name: name)
    monkeypatch.setattr(verify, "verify", one)
    told, wrong = verify.verify_all(["first", "second", "third", "fourth"], "latest", 200, None)
    assert [verdict["job"] for verdict in told] == ["third", "fourth"]
    assert wrong == [
        "job first: /backup has no whole snapshot",
        "job second: rsync: exit status 255: no route to host",
        "job third: 1 would not come back as they are: a: content",
    ]


# --- restore ---


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("relative", "is not a plain absolute path"),
        ("/srv/../etc", "is not a plain absolute path"),
        ("/etc/passwd", "is no folder"),
        ("/backup/x", "lies among the snapshots"),
    ],
)
def test_where_nothing_is_restored_to(to: str, reason: str) -> None:
    with pytest.raises(transfer.SnapshotError, match=reason):
        restore.target(job(), to)


def test_where_it_goes() -> None:
    assert restore.target(job(), "") == "/srv"
    assert restore.target(job(), "/nowhere/x/") == "/nowhere/x"
    assert restore.target(job(), "/") == "/"


@pytest.mark.parametrize("path", ["../etc", "a/../b", "a//b", "./a", "a\0b"])
def test_what_is_no_path_inside(path: str) -> None:
    with pytest.raises(transfer.SnapshotError, match="is not a plain path inside the source"):
        restore.inner(path)


def test_what_would_be_lost_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    (tmp_path / "link").symlink_to("other")
    names = ["folder", "folder/file", "missing", "link", "link/file", "."]
    assert [name for name in names if restore.is_former(str(tmp_path), name)] == ["folder/file", "link"]


class Rsync:
    """In place of rsync: a plan in a dry run, then a copy of what is kept, then the transfer."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.calls: list[tuple[str, str, list[str] | None]] = []

    def __call__(
        self,
        _job: jobs.Job,
        options: Sequence[str],
        source: str,
        target: str,
        names: Sequence[str] | None = None,
        good: Sequence[int] = (0,),
    ) -> Result:
        if "--dry-run" in options:
            return Result((), 0, ">fcst...... 2030/01/30-10:11:12 a\n>f+++++++++ 2030/01/30-10:11:12 b\n", "")
        self.calls.append((source, target, None if names is None else list(names)))
        if self.status not in good and len(self.calls) > 1:
            raise CommandError("rsync from /backup to /srv: exit status 11: No space left on device")
        return Result((), 0, "", "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file that differs; the job's records beside it."""
    monkeypatch.setattr(jobs, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(restore, "snapshots", lambda _job: contents((ONE,), ONE))
    (tmp_path / "state/srv").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    (tmp_path / "to/a").write_text("mine")
    return tmp_path / "to"


def test_the_former_files_are_kept_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync = Rsync(0)
    monkeypatch.setattr(restore, "rsync", rsync)
    done = restore.restore(job(), restore.Wanted("latest", "", str(place), f"srv {ONE}"), False)
    assert (done.new, done.replaced) == (["b"], ["a"])
    assert [(source, names) for source, _target, names in rsync.calls] == [
        (f"{place}/", ["a"]),
        (f"/backup/{ONE}/", None),
    ]
    assert os.stat(done.kept).st_mode & 0o777 == 0o700


def test_a_restore_that_fails_halfway_says_where_the_former_files_are(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "rsync", Rsync(11))
    with pytest.raises(transfer.SnapshotError) as told:
        restore.restore(job(), restore.Wanted("latest", "", str(place), f"srv {ONE}"), False)
    text = str(told.value)
    assert f"{place} may be restored in part; the former files are in {place.parent}/state/srv/replaced/" in text
    assert "run again to complete it" in text and "No space left on device" in text


def test_without_confirmation_nothing_is_touched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync = Rsync(0)
    monkeypatch.setattr(restore, "rsync", rsync)
    for confirm in ("", "srv", f"other {ONE}", f"srv {TWO}"):
        with pytest.raises(transfer.SnapshotError, match=f"confirm: 'srv {ONE}'"):
            restore.restore(job(), restore.Wanted("latest", "", str(place), confirm), False)
    assert not rsync.calls
