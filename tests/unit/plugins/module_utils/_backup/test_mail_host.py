# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._backup import job as jobs
from ansible_collections.postmeister.host.plugins.module_utils._backup import mail_host, owners, restore, transfer
from ansible_collections.postmeister.host.plugins.module_utils._backup import run as runner
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup


def options(**given: Any) -> dict[str, Any]:
    defaults = {name: spec.get("default") for name, spec in rsync_time_backup.JOB.items()}
    common = {"name": "mail", "destination": "/srv/vault/mail", "implementation": "script", "operator": "root"}
    return {**defaults, **common, **given}


def job(**given: Any) -> jobs.Job:
    return jobs.parse(options(preset="mail_host", **given))


# --- the job ---


def test_what_is_in_the_ready_made_job() -> None:
    found = job()
    assert str(found.source) == "/" and not found.options["one_file_system"] and found.is_mail_host
    rules = jobs.patterns(found.options)
    for path, wanted in {
        "var/vmail/example.org/alice/Maildir/cur": True,
        "etc/postmeister/dkim": True,
        "etc/postmeister/backup": False,
        "etc/ssl/postmeister": True,
        "etc/ssl/private": False,
        "var/backups/postmeister/postgrey": True,
        "var/lib/postgrey": False,
        "var/lib/redis/dump.rdb": True,
        "var/lib/redis/temp-12.rdb": False,
        "etc/passwd": False,
        "home": False,
    }.items():
        assert jobs.left_out(path, rules) is not wanted, path
    assert rules[-1] == "- *"


def test_more_paths_and_excludes_may_be_given_and_stay_the_same_when_it_is_read_again() -> None:
    found = job(paths=["/home/me"], excludes=["*.tmp"])
    rules = jobs.patterns(found.options)
    assert not jobs.left_out("home/me/letters", rules) and jobs.left_out("home/you", rules)
    assert jobs.left_out("var/vmail/x.tmp", rules) and not jobs.left_out("var/vmail/x", rules)
    again = jobs.parse(json.loads(found.text()))
    assert again == found


def test_a_job_without_paths_has_its_excludes_only() -> None:
    plain = jobs.parse(options(source="/srv/data", excludes=["*.tmp"]))
    assert jobs.patterns(plain.options) == ["*.tmp"] and not plain.is_mail_host


def test_paths_of_any_job() -> None:
    some = jobs.parse(options(source="/srv", destination="/backup", paths=["/srv/a/b"], excludes=["*.tmp"]))
    assert jobs.patterns(some.options) == ["*.tmp", "+ /a/", "+ /a/b", "+ /a/b/***", "- *"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"preset": "mail_host", "source": "/srv"}, "does not go with preset mail_host"),
        ({"source": ""}, "source: missing"),
        ({"source": "/srv", "destination": "/backup", "paths": ["/etc"]}, "paths: /etc is not a plain absolute path"),
        ({"source": "/srv", "destination": "/backup", "paths": ["/srv"]}, "paths: /srv is not a plain absolute path"),
        ({"source": "/srv", "destination": "/backup", "paths": ["a"]}, "paths: 'a' is neither"),
        ({"source": "/srv", "destination": "/backup", "paths": ["/srv/*"]}, r"paths: '/srv/\*' is neither"),
        ({"preset": "mail_host", "destination": "/var/vmail/backup"}, "lies inside the source /"),
    ],
)
def test_refusals(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(jobs.JobError, match=f"^job mail: .*{reason}"):
        jobs.parse(options(**given))


# --- what a run prepares ---


def test_a_link_that_leads_out_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    link, real = str(tmp_path / "link"), str(tmp_path / "real")
    assert mail_host.astray([real, f"{real}/deep", str(tmp_path / "missing")]) == ""
    assert f"{link} leads to {real}" in mail_host.astray([link])
    assert f"{link}/deep leads to {real}/deep" in mail_host.astray([f"{link}/deep"])
    assert mail_host.astray([link, real]) == ""


def test_an_empty_host_is_refused(tmp_path: Path) -> None:
    complete, mail, stage = (str(tmp_path / name) for name in ("complete", "vmail", "stage"))
    with pytest.raises(mail_host.StageError, match="is no mail host yet"):
        mail_host.stage(mail_host.PATHS, complete, mail, stage)
    Path(complete).touch()
    with pytest.raises(mail_host.StageError, match="dovecot_mail_root"):
        mail_host.stage(mail_host.PATHS, complete, mail, stage)
    assert not os.path.exists(stage)
    # Mail that lies elsewhere was named.
    assert mail_host.stage([*mail_host.PATHS, str(tmp_path)], complete, mail, stage) == []
    assert os.stat(stage).st_mode & 0o777 == 0o700
    assert os.listdir(stage) == ["accounts.json"]


def test_a_greylist_that_cannot_be_copied_does_not_cost_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_source: str, _target: str) -> None:
        raise CommandError("perl: not installed")

    monkeypatch.setattr(mail_host, "copy_postgrey", fail)
    (tmp_path / "complete").touch()
    (tmp_path / "vmail").mkdir()
    given = [str(tmp_path / name) for name in ("complete", "vmail", "stage")]
    assert mail_host.stage(mail_host.PATHS, *given) == [
        "postgrey's database could not be copied, so the snapshot has no new copy of it: perl: not installed"
    ]


def test_the_copys_owner_is_written_down_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first run on: a new host has no other way to know whose it is."""

    def copy(_source: str, target: str) -> None:
        os.mkdir(target)

    def accounts(_paths: Any) -> dict[str, Any]:
        return {"copied": (tmp_path / "stage/postgrey").is_dir()}

    monkeypatch.setattr(mail_host, "copy_postgrey", copy)
    monkeypatch.setattr(mail_host, "accounts", accounts)
    (tmp_path / "complete").touch()
    (tmp_path / "vmail").mkdir()
    mail_host.stage(mail_host.PATHS, *(str(tmp_path / name) for name in ("complete", "vmail", "stage")))
    assert json.loads((tmp_path / "stage/accounts.json").read_text()) == {"copied": True}


def test_owners_are_written_down_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail/domain/user").mkdir(parents=True)
    me, group = os.getuid(), os.getgid()
    user = pwd.struct_passwd(("vmail", "x", me, group, "", "/var/vmail", "/usr/sbin/nologin"))
    monkeypatch.setattr(mail_host.pwd, "getpwuid", lambda _uid: user)
    monkeypatch.setattr(mail_host.grp, "getgrgid", lambda gid: grp.struct_group(("mailers", "x", gid, [])))
    found = mail_host.accounts([str(tmp_path / "mail"), str(tmp_path / "none")])
    # Root's files need no name.
    assert [entry["name"] for entry in found["users"]] == (["vmail"] if me else [])
    assert [entry["name"] for entry in found["groups"]] == (["mailers"] if group else [])


def test_the_tables_are_copied_before_their_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "postgrey", tmp_path / "copy"
    source.mkdir(mode=0o750)
    for name in ("postgrey.db", "postgrey_clients.db", "log.0000000001", "log.0000000002", "__db.001", "postgrey.lock"):
        (source / name).write_text(name)
    copied = []
    inner = mail_host.shutil.copyfile

    def copyfile(one: str, other: str) -> None:
        copied.append(os.path.basename(one))
        inner(one, other)

    def recover(argv: list[str], **_given: Any) -> Result:
        (Path(argv[-1]) / "__db.001").touch()
        return Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(mail_host.shutil, "copyfile", copyfile)
    monkeypatch.setattr(mail_host, "run", recover)
    for _turn in (1, 2):
        mail_host.copy_postgrey(str(source), str(target))
        assert sorted(os.listdir(target)) == ["log.0000000001", "log.0000000002", "postgrey.db", "postgrey_clients.db"]
    assert copied[:4] == ["postgrey.db", "postgrey_clients.db", "log.0000000001", "log.0000000002"]
    assert target.stat().st_mode & 0o777 == 0o750
    assert (target / "postgrey.db").stat().st_mode & 0o777 == 0o600
    # A log that went meanwhile, and a greylist that is no more.
    lost = iter([True, False])

    def vanishing(one: str, other: str) -> None:
        if next(lost, False):
            raise FileNotFoundError(one)
        inner(one, other)

    monkeypatch.setattr(mail_host.shutil, "copyfile", vanishing)
    mail_host.copy_postgrey(str(source), str(target))
    (source / "postgrey.db").unlink()
    (source / "postgrey_clients.db").unlink()
    mail_host.copy_postgrey(str(source), str(target))
    assert not target.exists()


@pytest.mark.parametrize(
    ("amiss", "result"), [([], "ok"), (["postgrey's database could not be copied"], "partial"), (None, "failed")]
)
def test_what_could_not_be_prepared_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amiss: list[str] | None, result: str
) -> None:
    monkeypatch.setattr(jobs, "STATE", str(tmp_path))
    asked = []

    def prepare() -> list[str]:
        if amiss is None:
            raise mail_host.StageError("this host is no mail host yet")
        return amiss

    def backup(killed: bool) -> dict[str, Any]:
        asked.append(killed)
        return {"result": "ok", "snapshot": "2030-01-31-021106"}

    one = runner.Run(job())
    monkeypatch.setattr(one, "_prepare", prepare)
    monkeypatch.setattr(one, "_backup", backup)
    last = one()
    assert (last["result"], last["reason"]) == (
        result,
        "this host is no mail host yet" if amiss is None else "".join(amiss),
    )
    assert (one.status["last_success"] is not None) is (result == "ok")
    assert asked == ([] if amiss is None else [False])


# --- owners on the new host ---

RECORD = {
    "users": [
        {"name": "vmail", "uid": 996, "gid": 996, "home": "/var/vmail", "shell": "/usr/sbin/nologin"},
        {"name": "redis", "uid": 105, "gid": 110, "home": "/var/lib/redis", "shell": "/usr/sbin/nologin"},
    ],
    "groups": [{"name": "vmail", "gid": 996}, {"name": "redis", "gid": 110}],
}


def here(monkeypatch: pytest.MonkeyPatch, users: dict[str, int], groups: dict[str, int]) -> None:
    """What this host has."""

    def by(table: dict[Any, Any], make: Any) -> Any:
        def find(key: Any) -> Any:
            return make(key, table[key])

        return find

    def user(name: Any, uid: Any) -> Any:
        return pwd.struct_passwd((name, "x", uid, 0, "", "/", "/"))

    def group(name: Any, gid: Any) -> Any:
        return grp.struct_group((name, "x", gid, []))

    monkeypatch.setattr(owners.pwd, "getpwnam", by(users, user))
    monkeypatch.setattr(owners.pwd, "getpwuid", by({uid: name for name, uid in users.items()}, user))
    monkeypatch.setattr(owners.grp, "getgrnam", by(groups, group))
    monkeypatch.setattr(owners.grp, "getgrgid", by({gid: name for name, gid in groups.items()}, group))


def test_a_bare_host_gets_accounts_with_the_former_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, {"root": 0}, {"root": 0})
    plan = owners.plan(RECORD)
    assert plan.commands[0] == ["groupadd", "--system", "--gid", "996", "vmail"]
    assert plan.commands[2][:6] == ["useradd", "--system", "--uid", "996", "--gid", "vmail"]
    assert plan.commands[2][-5:] == ["--home-dir", "/var/vmail", "--shell", "/usr/sbin/nologin", "vmail"]
    assert plan.options(made=True) == plan.options(made=False) == []


def test_numbers_that_others_have_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, {"root": 0, "postfix": 105}, {"root": 0, "postfix": 110})
    plan = owners.plan(RECORD)
    made = [argv for argv in plan.commands if argv[-1] == "redis"]
    assert all("--uid" not in argv and not any(word.isdigit() for word in argv) for argv in made)
    assert plan.options(made=True) == ["--usermap=105:redis", "--groupmap=110:redis"]
    # In check mode there is no such name yet.
    assert plan.options(made=False) == []


def test_accounts_that_are_there_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, {"vmail": 994, "redis": 105}, {"vmail": 996, "redis": 111})
    plan = owners.plan(RECORD)
    assert plan.commands == [] and plan.names == []
    assert plan.options(made=False) == ["--usermap=996:vmail", "--groupmap=110:redis"]


# --- the restore ---


@pytest.mark.parametrize(
    ("names", "running", "refused"),
    [
        (["var/vmail/example.org/alice"], ["redis-server.service", "postgrey.service"], ""),
        (["var/lib/redis", "var/vmail"], ["postgrey.service"], ""),
        (["var/lib/redis", "var/vmail"], ["redis-server.service"], "redis-server.service would write over"),
        (["var/lib"], ["redis-server.service"], "redis-server.service would"),
        (["var/backups/postmeister"], ["postgrey.service"], "systemctl stop postfix dovecot postgrey.service"),
    ],
)
def test_services_that_would_write_over_it(
    monkeypatch: pytest.MonkeyPatch, names: list[str], running: list[str], refused: str
) -> None:
    def run(argv: list[str], **_given: Any) -> Result:
        return Result(tuple(argv), 0 if argv[-1] in running else 3, "", "")

    monkeypatch.setattr(restore, "run", run)
    if not refused:
        restore.refuse_running(names)
        return
    with pytest.raises(transfer.SnapshotError, match=refused):
        restore.refuse_running(names)


def test_postgreys_database_goes_to_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STATE", str(tmp_path / "state"))
    (tmp_path / "state/mail").mkdir(parents=True)
    staged, home = tmp_path / "stage/postgrey", tmp_path / "home"
    staged.mkdir(parents=True)
    (staged / "postgrey.db").write_text("former")
    stage = str(tmp_path / "stage").lstrip("/")
    given = {"staged": str(staged), "home": str(home)}
    assert restore.place_postgrey(job(), [stage], "", **given) == ""
    assert (home / "postgrey.db").read_text() == "former"
    # Once more: nothing to do. With another database there, that one is kept.
    assert restore.place_postgrey(job(), [stage], "", **given) == ""
    (home / "postgrey.db").write_text("of the new host")
    (home / "__db.001").touch()
    assert restore.place_postgrey(job(), ["var/vmail"], "", **given) == ""
    kept = restore.place_postgrey(job(), [stage], "", **given)
    assert (Path(f"{kept}{home}") / "postgrey.db").read_text() == "of the new host"
    assert sorted(os.listdir(home)) == ["postgrey.db"]
