# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files, _recover
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.module_utils._files import File, FileError
from ansible_collections.postmeister.host.plugins.module_utils._service import _transaction
from ansible_collections.postmeister.host.plugins.module_utils._service._base import (
    Change,
    Service,
    ServiceError,
    Stage,
)
from ansible_collections.postmeister.host.plugins.module_utils._service._transaction import (
    Refused,
    Transaction,
    TransactionError,
    files_from,
)

UID, GID = os.getuid(), os.getgid()


class Daemon:
    """A daemon that reads its files at a reload, on a machine with systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc" / "demo"
        self.etc.mkdir(parents=True)
        self.running = False
        self.unit = "masked"
        self.loaded: dict[str, str] = {}
        self.events: list[str] = []
        self.survives = True
        self.needs: list[str] = []
        self.later: list[str] = []

    def load(self, event: str) -> None:
        self.events.append(event)
        self.loaded = {path.name: path.read_text() for path in self.etc.iterdir() if path.name[0] != "."}
        self.running = "deadly" not in self.loaded.get("main", "")

    def run(self, argv: Sequence[str], check: bool = True, **_more: Any) -> Result:
        words = [word for word in argv if not word.startswith("-")]
        if words[:2] == ["systemctl", "show"]:
            load = "masked" if self.unit == "masked" else "loaded"
            return Result(tuple(argv), 0, f"Id=demo.service\nLoadState={load}\nUnitFileState={self.unit}\n", "")
        self.events.append(" ".join(words[1:]))
        if words[1] == "unmask":
            self.unit = "disabled"
        elif words[1] in ("mask", "enable"):
            self.unit = {"mask": "masked", "enable": "enabled"}[words[1]]
        return Result(tuple(argv), 0, "", "")


class Demo(Service):
    name = "demo"
    units = ("demo.service",)
    daemon: Daemon

    def swap_rank(self, dest: str) -> int:
        return int(dest.endswith("/main"))

    def missing(self) -> list[str]:
        return list(self.daemon.needs)

    def provide(self) -> None:
        self.daemon.needs.clear()

    def afterwards(self) -> list[dict[str, str]]:
        return [{"before_header": name, "after_header": name, "before": "", "after": "x"} for name in self.daemon.later]

    def follow_up(self) -> None:
        if "impossible" in self.daemon.later:
            raise CommandError("it cannot follow")
        self.daemon.events += [f"then {name}" for name in self.daemon.later]
        self.daemon.later.clear()

    def check(self, stage: Stage) -> None:
        assert not self.daemon.needs
        text = Path(stage.path(f"{self.daemon.etc}/main")).read_text()
        if "rejected" in text:
            raise ServiceError(f"{stage.path(str(self.daemon.etc))}/main, line 1: rejected")

    def restart_reason(self, changes: list[Change]) -> str | None:
        return "port" if any(b"port" in (change.after or b"") for change in changes) else None

    def reload(self) -> None:
        self.daemon.load("reload")

    def restart(self) -> None:
        self.daemon.load("restart")

    def stop(self) -> None:
        self.daemon.events.append("stop")
        self.daemon.running = False

    def running(self) -> bool:
        return self.daemon.running

    def probe(self) -> None:
        self.daemon.events.append(f"probe {self.options.get('who', '')}".strip())
        if not self.daemon.running:
            raise ServiceError("nobody answers")
        if "sick" in self.daemon.loaded.get("main", ""):
            raise ServiceError("answers 451")
        if "bug" in self.daemon.loaded.get("main", ""):
            raise RuntimeError("a bug")

    def words(self, since: float) -> str:
        return "the log's words"


class Bench:
    """A daemon and what service_config would be told to do with it."""

    def __init__(self, root: Path) -> None:
        self.daemon = Daemon(root)
        self.state = root / "services"
        self.inputs: list[str] = []
        Demo.daemon = self.daemon
        Demo.folders = (str(self.daemon.etc),)

    def file(self, name: str, content: str | None, mode: int = 0o644, secret: bool = False) -> File:
        return File(str(self.daemon.etc / name), None if content is None else content.encode(), mode, UID, GID, secret)

    def transaction(self, *files: File, **options: Any) -> Transaction:
        return Transaction(Demo(13, options), files, self.inputs, 0.2, str(self.state))

    def apply(self, main: str, **options: Any) -> _transaction.Outcome:
        self.daemon.events.clear()
        return self.transaction(self.file("main", main), self.file("map", "m\n"), **options).apply()

    def look(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.daemon.etc.iterdir()}

    def clean(self) -> bool:
        return sorted(os.listdir(self.state / "demo")) in (["lock"], ["lock", "state.json"])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    monkeypatch.setattr(_transaction, "run", bench.daemon.run)
    monkeypatch.setattr(_recover, "systemctl", lambda *argv: bench.daemon.run(["systemctl", *argv]).rc)
    for name in ("SCRIPT", "UNIT", "ENABLED"):
        monkeypatch.setattr(_transaction, name, f"{tmp_path}/boot/{name}")
    monkeypatch.setattr(_recover, "SERVICES", str(bench.state))
    # Not everybody who runs the tests is root.
    monkeypatch.setattr(_files, "uid_of", lambda owner: UID if owner == "root" else uid_of(owner))
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: GID if group == "root" else gid_of(group))
    return bench


uid_of, gid_of = _files.uid_of, _files.gid_of


@pytest.fixture
def serving(bench: Bench) -> Bench:
    bench.apply("former\n", who="former")
    bench.daemon.events.clear()
    return bench


def test_first_success_unmasks_starts_probes_and_enables(bench: Bench) -> None:
    outcome = bench.apply("one\n")

    assert outcome.action == "started"
    assert bench.daemon.events == ["unmask demo.service", "daemon-reload", "restart", "probe", "enable demo.service"]
    assert bench.look() == {"main": "one\n", "map": "m\n"}
    assert bench.clean()
    assert stat.S_IMODE((bench.state / "demo").stat().st_mode) == 0o700
    assert stat.S_IMODE((bench.state / "demo" / "state.json").stat().st_mode) == 0o600
    assert os.readlink(_transaction.ENABLED) == _transaction.UNIT
    assert Path(_transaction.SCRIPT).read_text() == Path(str(_recover.__file__)).read_text()


def test_second_run_does_nothing(serving: Bench) -> None:
    outcome = serving.apply("former\n", who="former")

    assert not outcome.changed
    assert outcome.action == ""
    assert serving.daemon.events == []


def test_change_reloads(serving: Bench) -> None:
    outcome = serving.apply("new\n")

    assert (outcome.action, outcome.restart_reason) == ("reloaded", "")
    assert serving.daemon.events == ["reload", "probe"]
    assert [difference.file.path for difference in outcome.differences] == [str(serving.daemon.etc / "main")]


def test_what_follows_comes_after_the_probe_and_is_a_change_of_its_own(serving: Bench) -> None:
    serving.daemon.later = ["/etc/late"]
    checked = serving.transaction(serving.file("main", "former\n"), serving.file("map", "m\n")).check_mode()
    assert checked.result()["files"] == ["/etc/late"]
    assert checked.diff()[-1]["after_header"] == "/etc/late"
    assert serving.daemon.later == ["/etc/late"]

    outcome = serving.apply("former\n")

    assert outcome.changed
    # The daemon is left alone.
    assert serving.daemon.events == ["probe", "then /etc/late"]
    assert not serving.apply("former\n").changed


def test_what_follows_a_change_comes_last(serving: Bench) -> None:
    serving.daemon.later = ["/etc/late"]
    assert serving.apply("new\n").action == "reloaded"
    assert serving.daemon.events == ["reload", "probe", "then /etc/late"]


def test_when_what_follows_fails_the_new_set_holds(serving: Bench) -> None:
    serving.daemon.later = ["impossible"]
    with pytest.raises(CommandError, match="it cannot follow"):
        serving.apply("new\n")
    assert serving.look()["main"] == "new\n"
    assert serving.clean()


def test_what_follows_does_not_come_where_the_probe_fails(serving: Bench) -> None:
    serving.daemon.later = ["/etc/late"]
    with pytest.raises(TransactionError, match="answers 451"):
        serving.apply("sick\n")
    assert serving.daemon.later == ["/etc/late"]


def test_change_that_needs_a_restart_says_which(serving: Bench) -> None:
    outcome = serving.apply("port 2\n")

    assert (outcome.action, outcome.restart_reason) == ("restarted", "port")
    assert serving.daemon.events == ["restart", "probe"]


def test_order_of_the_swap(bench: Bench) -> None:
    files = [bench.file("main", "x"), bench.file("old", None), bench.file("map", "y")]
    assert [os.path.basename(file.path) for file in bench.transaction(*files).files] == ["map", "main", "old"]


def test_check_fails_before_anything_is_touched(serving: Bench) -> None:
    with pytest.raises(TransactionError) as caught:
        serving.apply("rejected\n")

    assert str(caught.value) == (
        f"{serving.daemon.etc}/main, line 1: rejected\nNothing was changed: the check of the new files failed."
    )
    assert serving.look() == {"main": "former\n", "map": "m\n"}
    assert serving.daemon.events == []
    assert serving.clean()


@pytest.mark.parametrize(
    ("main", "message", "events"),
    [
        ("sick\n", "answers 451", ["reload", "probe", "reload", "probe former"]),
        ("deadly\n", "nobody answers", ["reload", "probe", "restart", "probe former"]),
        ("deadly port\n", "nobody answers", ["restart", "probe", "restart", "probe former"]),
    ],
)
def test_former_set_comes_back_and_is_probed_as_before(
    serving: Bench, main: str, message: str, events: list[str]
) -> None:
    with pytest.raises(TransactionError) as caught:
        serving.apply(main)

    assert str(caught.value) == (
        f"{message}\nthe log's words\nThe former files are back, and the service serves with them."
    )
    assert serving.daemon.events == events
    assert serving.daemon.loaded == serving.look() == {"main": "former\n", "map": "m\n"}
    assert serving.clean()
    assert not serving.apply("former\n").changed


def test_log_that_cannot_be_read_does_not_stop_the_rollback(serving: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Demo, _since: float) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Demo, "words", broken)
    with pytest.raises(TransactionError, match="answers 451"):
        serving.apply("sick\n")
    assert serving.look()["main"] == "former\n"


def test_other_units_only_need_systemd_to_read_them(
    serving: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transaction, "SYSTEMD", str(tmp_path / "systemd"))
    timer = File(str(tmp_path / "systemd" / "demon.timer"), b"x", 0o644, UID, GID)

    serving.transaction(timer, serving.file("main", "former\n")).apply()

    assert serving.daemon.events == ["daemon-reload", "reload", "probe"]


def test_bug_in_a_probe_rolls_back_too(serving: Bench) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        serving.apply("bug\n")

    assert serving.look() == {"main": "former\n", "map": "m\n"}
    assert serving.clean()


def test_former_set_that_does_not_serve_either_is_said(serving: Bench) -> None:
    (serving.daemon.etc / "main").write_text("sick\n")

    with pytest.raises(
        TransactionError, match="The former files are back, but the service does not serve: answers 451"
    ):
        serving.apply("sick too\n")

    assert serving.look()["main"] == "sick\n"


def test_no_former_set_stops_and_masks(bench: Bench) -> None:
    (bench.daemon.etc / "main").write_text("package's default\n")

    with pytest.raises(
        TransactionError, match="There is no former configuration, so the service is stopped and masked"
    ):
        bench.apply("sick\n")

    assert bench.look() == {"main": "package's default\n"}
    assert bench.daemon.events[-2:] == ["stop", "mask demo.service"]
    assert bench.daemon.unit == "masked"
    assert bench.clean()
    assert bench.apply("good\n").action == "started"


def test_daemon_that_ran_before_us_is_a_former_set(bench: Bench) -> None:
    (bench.daemon.etc / "main").write_text("by hand\n")
    bench.daemon.running, bench.daemon.unit = True, "enabled"

    with pytest.raises(TransactionError, match="the service serves with them"):
        bench.apply("sick\n")

    assert bench.daemon.loaded == {"main": "by hand\n"}
    assert bench.daemon.running


@pytest.mark.parametrize("phase", ["prepare", "swap", "done"])
def test_open_journal_is_dealt_with_first(serving: Bench, phase: str) -> None:
    files = _files.FileSet(
        str(serving.state / "demo"), [serving.file("main", "cut short\n")], {"units": ["demo.service"], "former": True}
    )
    files.prepare()
    if phase == "prepare":
        _recover.advance(str(serving.state / "demo"), "swap", "prepare")
    else:
        files.swap()
    if phase == "done":
        _recover.advance(str(serving.state / "demo"), "swap", "done")

    would = serving.transaction(serving.file("main", "former\n")).check_mode()
    assert would.changed
    assert would.recovered
    outcome = serving.apply("former\n")

    assert outcome.changed
    assert outcome.recovered == ("the former files are back" if phase == "swap" else "what it left was removed")
    assert serving.look() == {"main": "former\n", "map": "m\n"}
    assert serving.clean()


def test_stage_of_a_killed_run_goes_even_when_nothing_changes(serving: Bench) -> None:
    (serving.state / "demo" / "stage").mkdir()
    (serving.state / "demo" / "stage" / "copy-of-a-secret").write_text("x")
    (serving.state / "demo" / ".journal-prepare.json.postmeister-new").write_text("{")

    assert not serving.apply("former\n", who="former").changed
    assert serving.clean()


def test_input_is_remembered_after_success_only(serving: Bench, tmp_path: Path) -> None:
    certificate = tmp_path / "mail.pem"
    certificate.write_text("1")
    serving.inputs = [str(certificate)]
    assert serving.apply("former\n").inputs == [str(certificate)]
    assert not serving.apply("former\n").changed
    certificate.write_text("2")
    with pytest.raises(TransactionError):
        serving.apply("sick\n")

    outcome = serving.apply("former\n")

    assert (outcome.inputs, outcome.action) == ([str(certificate)], "reloaded")
    assert serving.daemon.events == ["reload", "probe"]


@pytest.mark.parametrize(("running", "unit"), [(False, "enabled"), (True, "disabled"), (False, "masked")])
def test_service_that_does_not_run_or_would_not_after_a_boot(serving: Bench, running: bool, unit: str) -> None:
    serving.daemon.running, serving.daemon.unit = running, unit

    outcome = serving.apply("former\n")

    assert outcome.changed
    assert serving.daemon.running
    assert serving.daemon.unit == "enabled"
    assert not serving.apply("former\n").changed


def test_what_the_daemon_needs_is_made_before_the_check(serving: Bench) -> None:
    serving.daemon.needs = ["user demo: is not there"]

    foreseen = serving.transaction(serving.file("main", "former\n"), serving.file("map", "m\n")).check_mode()

    assert foreseen.reasons == ["user demo: is not there"]
    assert serving.daemon.needs
    assert serving.apply("former\n").reasons == ["user demo: is not there"]
    assert serving.daemon.events == ["reload", "probe"]
    assert not serving.apply("former\n").changed


@pytest.mark.parametrize("unit", ["demo.service.d/limits.conf", "demo.service", "demo@-.service.d/limits.conf"])
def test_drop_in_of_a_unit_needs_a_restart(
    serving: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr(_transaction, "SYSTEMD", str(tmp_path / "systemd"))
    drop_in = File(str(tmp_path / "systemd" / unit), b"x", 0o644, UID, GID)
    serving.daemon.events.clear()

    outcome = serving.transaction(drop_in, serving.file("main", "former\n")).apply()

    assert outcome.restart_reason == drop_in.path
    assert serving.daemon.events == ["daemon-reload", "restart", "probe"]


def test_two_runs(serving: Bench) -> None:
    with _files.lock(str(serving.state / "demo" / "lock")), pytest.raises(FileError, match="another run is at work"):
        serving.apply("new\n")
    assert serving.look()["main"] == "former\n"


def test_unknown_owner_is_refused_before_anything_is_touched(serving: Bench) -> None:
    bad = File(str(serving.daemon.etc / "z"), b"", 0o644, "no-such-user", GID)
    with pytest.raises(FileError, match="/z: there is no user no-such-user"):
        serving.transaction(serving.file("main", "new\n"), bad).apply()
    assert serving.look()["main"] == "former\n"
    assert serving.transaction(bad).check_mode().changed


def test_check_mode_of_a_bare_host_touches_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(_self: Demo) -> bool:
        raise CommandError("demo: not installed")

    monkeypatch.setattr(Demo, "running", not_installed)
    before = sorted(str(path) for path in bench.daemon.root.rglob("*"))

    outcome = bench.transaction(bench.file("main", "one\n")).check_mode()

    assert outcome.changed
    assert outcome.action == ""
    assert sorted(str(path) for path in bench.daemon.root.rglob("*")) == before


def test_diff_one_per_file(serving: Bench) -> None:
    serving.apply("former\n")
    (serving.daemon.etc / "map").chmod(0o600)
    key = serving.file("key", "CANARY\n", 0o600, secret=True)

    outcome = serving.transaction(serving.file("main", "new\n"), serving.file("map", "m\n"), key).check_mode()

    diffs = {os.path.basename(diff["before_header"]): (diff["before"], diff["after"]) for diff in outcome.diff()}
    assert diffs["main"] == ("former\n", "new\n")
    assert [text.split(",")[0] for text in diffs["map"]] == ["[mode 0600", "[mode 0644"]
    assert diffs["key"] == ("", "[secret content]\n")
    assert "CANARY" not in str(outcome.diff())


def test_diff_of_a_secret_says_only_that_it_changed(serving: Bench) -> None:
    key = serving.file("key", "CANARY-1\n", 0o600, secret=True)
    serving.transaction(key, serving.file("main", "former\n")).apply()
    key = serving.file("key", "CANARY-2\n", 0o600, secret=True)

    diff = serving.transaction(key).check_mode().diff()[0]

    assert (diff["before"], diff["after"]) == ("[secret content]\n", "[secret content, changed]\n")
    assert {"CANARY-1", "CANARY-2"} <= _transaction.secrets_of([key])


def test_what_is_masked_of_a_secret_file(bench: Bench) -> None:
    text = "password = 'correct horse'\nuser postfix localhost\n# yes\nkey: Ab3dEf9h\n"
    masked = _transaction.secrets_of([bench.file("key", text, 0o600, secret=True), bench.file("main", "open secret\n")])

    assert {"password = 'correct horse'", "correct horse", "Ab3dEf9h"} <= masked
    assert not {"postfix", "localhost", "password", "yes", "open secret"} & masked


def test_stage_is_private_and_apart_from_the_live_tree(tmp_path: Path) -> None:
    live = tmp_path / "etc"
    (live / "real").mkdir(parents=True)
    (live / "real" / "inside").write_text("live\n")
    (live / "unmanaged").write_text("u\n")
    (live / "linked").symlink_to("real")
    (live / "link").symlink_to("unmanaged")
    os.mkfifo(live / "pipe")
    stage = Stage(str(tmp_path / "stage"))
    files = [
        File(str(live / "linked" / "new"), b"n", 0o600, UID, GID),
        File(str(live / "link"), b"l", 0o600, UID, GID),
        File(str(live / "real" / "inside"), None),
        File(str(tmp_path / "other" / "deep" / "file"), b"o", 0o600, UID, GID),
    ]

    _transaction.build_stage(stage, [str(live), str(tmp_path / "missing")], files)

    assert stat.S_IMODE(os.stat(stage.root).st_mode) == 0o700
    assert Path(stage.path(str(live / "unmanaged"))).read_text() == "u\n"
    assert Path(stage.path(str(live / "linked" / "new"))).read_text() == "n"
    assert Path(stage.path(str(live / "linked" / "inside"))).exists()
    assert not Path(stage.path(str(live / "real" / "inside"))).exists()
    assert Path(stage.path(str(tmp_path / "other" / "deep" / "file"))).read_text() == "o"
    assert not os.path.lexists(stage.path(str(live / "pipe")))
    # The live tree is as it was.
    assert sorted(os.listdir(live / "real")) == ["inside"]
    assert (live / "unmanaged").read_text() == "u\n"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dest": "etc/x", "content": ""}, "files[0].dest: 'etc/x' is not a plain absolute path"),
        ({"dest": "/etc/../x", "content": ""}, "files[0].dest: '/etc/../x' is not a plain absolute path"),
        ({"dest": "/etc/x/", "content": ""}, "files[0].dest: '/etc/x/' is not a plain absolute path"),
        ({"content": ""}, "files[0].dest: '' is not a plain absolute path"),
        (
            {"dest": "/var/lib/postmeister/x", "content": ""},
            "files[0].dest: /var/lib/postmeister/x belongs to service_config itself",
        ),
        ({"dest": "/x"}, "files[0]: /x has neither content nor template"),
        (
            {"dest": "/x", "content": "", "mode": 420},
            "files[0].mode: 420 of /x is not a string of four octal digits like '0644'",
        ),
        (
            {"dest": "/x", "content": "", "mode": "644"},
            "files[0].mode: '644' of /x is not a string of four octal digits like '0644'",
        ),
        (
            {"dest": "/x", "content": "", "mode": "4755"},
            "files[0].mode: '4755' of /x is not a string of four octal digits like '0644'",
        ),
        (
            {"dest": "/x", "content": "", "mode": "0644", "secret": True},
            "files[0].mode: 0644 of /x is looser than 0640, and the file is secret",
        ),
    ],
)
def test_bad_input(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        files_from([entry])
    assert str(caught.value) == reason


def test_bad_input_of_several() -> None:
    with pytest.raises(Refused, match=r"^files\[0\] and files\[1\]: /x is given twice$"):
        files_from([{"dest": "/x", "content": ""}, {"dest": "/x", "content": "", "mode": "0600"}])
    with pytest.raises(Refused, match="/x cannot be a file and the folder of /x/y at once"):
        files_from([{"dest": "/x", "content": ""}, {"dest": "/x/y", "content": ""}])


def test_defaults() -> None:
    plain, secret, absent = files_from(
        [
            {"dest": "/a", "content": "ä\n"},
            {"dest": "/b", "content": "", "secret": True},
            {"dest": "/c", "state": "absent", "content": "ignored"},
        ]
    )
    assert plain == File("/a", "ä\n".encode(), 0o644, "root", "root", False)
    assert (secret.mode, secret.secret) == (0o600, True)
    assert absent.content is None


def test_unit_states(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n".join(
        f"Id={name}\nLoadState={load}\nUnitFileState={state}"
        for name, load, state in [
            ("a", "loaded", "enabled"),
            ("b", "loaded", "disabled"),
            ("c", "masked", "masked"),
            ("d", "not-found", ""),
            ("e", "loaded", "static"),
        ]
    )
    monkeypatch.setattr(_transaction, "run", lambda argv, **_more: Result(tuple(argv), 0, text + "\n", ""))
    assert _transaction.unit_states(["a", "b", "c", "d", "e"]) == {
        "a": "enabled",
        "b": "disabled",
        "c": "masked",
        "d": "not installed",
        "e": "enabled",
    }
