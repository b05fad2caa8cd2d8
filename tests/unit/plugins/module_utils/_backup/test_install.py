# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host below a temporary folder: runs that fail or are killed, check mode, and what must not be made again."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _command, _files, _recover
from ansible_collections.postmeister.host.plugins.module_utils._backup import inspect, install, job
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIZ13ibZC8pKLAXtawT59i3lILWtG1/slx97FEnNK1Q6"
#: every call by which markers and keys come to the disk
CALLS = ("open", "write", "fchown", "fchmod", "rename", "unlink", "mkdir", "rmdir", "chown")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not here")


class Killed(BaseException):
    """kill -9."""


class Machine:
    """A host without jobs, and its systemd. Everything but ssh-keygen is played."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.active: set[str] = set()
        #: inodes that got their owner
        self.owned: set[int] = set()
        self.source, self.destination = root / "srv/data", root / "srv/backup/data"
        for module in (job, inspect, install):
            for name, value in list(vars(module).items()):
                if isinstance(value, str) and value.startswith(("/etc/", "/var/lib/", "/usr/local/")):
                    monkeypatch.setattr(module, name, f"{root}{value}")
        monkeypatch.setattr(_recover, "SERVICES", f"{root}{_recover.SERVICES}")
        monkeypatch.setattr(_recover, "systemctl", lambda *_argv: 0)
        monkeypatch.setattr(install, "program_files", list)
        monkeypatch.setattr(install, "program", lambda *_given: b"upstream")
        monkeypatch.setattr(install, "run", self.run)
        # Not everybody who runs the tests is root.
        owner = root.stat()
        monkeypatch.setattr(_files, "uid_of", lambda _owner: owner.st_uid)
        monkeypatch.setattr(_files, "gid_of", lambda _group, missing=None: owner.st_gid)
        monkeypatch.setattr(pwd, "getpwnam", self.account)
        monkeypatch.setattr(os, "chown", lambda path, *_ids, **_more: self.owned.add(os.lstat(path).st_ino))
        self.source.mkdir(parents=True)
        (root / "upstream").touch()
        (root / "etc/systemd/system/timers.target.wants").mkdir(parents=True)
        (root / "home").mkdir()

    def account(self, name: str) -> pwd.struct_passwd:
        owner = self.root.stat()
        return pwd.struct_passwd((name, "x", owner.st_uid, owner.st_gid, "", str(self.root / "home"), "/bin/sh"))

    def run(self, argv: Sequence[str], check: bool = True, **more: Any) -> _command.Result:
        words = [word for word in argv if not word.startswith("-")]
        if words[0] == "ssh-keygen":
            return _command.run(argv, check=check, **more)
        status = 0
        if words[1] == "enable":
            os.symlink("/dev/null", self.link(words[2]))
        elif words[1] == "restart":
            self.active.add(words[2])
        elif words[1] == "is-active":
            status = int(words[2] not in self.active)
        return _command.Result(tuple(argv), status, "LoadState=loaded\n", "")

    def link(self, timer: str) -> str:
        return f"{install.WANTS}/{timer}"

    def job(self, **given: Any) -> dict[str, Any]:
        defaults = {name: spec.get("default") for name, spec in rsync_time_backup.JOB.items()}
        ends = {"source": str(self.source), "destination": str(self.destination)}
        return {**defaults, "name": "data", **ends, "implementation": "script", "operator": "root", **given}

    def pushed(self, **given: Any) -> dict[str, Any]:
        return self.job(**{"destination": "root@vault.example:/srv/backup", "host_keys": [KEY], **given})

    def peer(self) -> dict[str, Any]:
        return {
            "name": "web",
            "public_key": KEY,
            "path": str(self.destination),
            "access": "write",
            "user": "u",
            "from": [],
        }

    def apply(
        self, *jobs: dict[str, Any], peers: Sequence[dict[str, Any]] = (), check: bool = False
    ) -> install.Outcome:
        return install.Host(jobs, peers, "script", str(self.root / "upstream"), "", check).apply()

    def killed(self, when: int, step: str, *jobs: dict[str, Any], peers: Sequence[dict[str, Any]] = ()) -> bool:
        """A run that is killed at a call by which one of its steps reaches the disk; False when it needs fewer."""
        left, act = [when], getattr(install.Host, step)

        def begin(host: install.Host) -> None:
            for name in CALLS:
                patch.setattr(os, name, counted(getattr(os, name)))
            act(host)

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                # Once dead, not even its cleaning up reaches the disk.
                if left[0] <= 0:
                    raise Killed
                return call(*args, **kwargs)

            return wrapped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(install.Host, step, begin)
            try:
                self.apply(*jobs, peers=peers)
            except Killed:
                return True
        return False


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def machines(folder: Path) -> Iterator[tuple[int, Machine]]:
    """One after the other, with its number."""
    for number in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            (folder / str(number)).mkdir()
            yield number, Machine(folder / str(number), patch)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- markers ---


@pytest.mark.parametrize("who", ["job", "peer"])
def test_a_marker_that_could_not_be_made_is_made_by_the_next_run(machine: Machine, who: str) -> None:
    jobs, peers = ([machine.job()], []) if who == "job" else ([], [machine.peer()])
    obstacle = machine.destination.parent
    obstacle.write_text("where the folder should be")
    for _turn in (1, 2):
        with pytest.raises(install.ERRORS):
            machine.apply(*jobs, peers=peers)
    obstacle.unlink()
    told = machine.apply(*jobs, peers=peers)
    assert (machine.destination / "backup.marker").exists()
    assert not told.warnings
    assert machine.apply(*jobs, peers=peers).changed == []


def test_a_marker_that_is_gone_is_never_made_again(machine: Machine) -> None:
    given = [machine.job()]
    machine.apply(*given)
    (machine.destination / "backup.marker").unlink()
    for check in (True, False):
        told = machine.apply(*given, check=check)
        assert told.changed == [] and "is the disk mounted" in told.warnings[0]
    assert os.listdir(machine.destination) == []


def test_a_marker_that_was_there_before_is_not_made_again(machine: Machine) -> None:
    machine.destination.mkdir(parents=True)
    (machine.destination / "backup.marker").touch()
    machine.apply(machine.job())
    (machine.destination / "backup.marker").unlink()
    assert "is the disk mounted" in machine.apply(machine.job()).warnings[0]


def test_one_marker_fails_and_the_other_is_remembered(machine: Machine) -> None:
    (machine.root / "file").touch()
    jobs = [machine.job(), machine.job(name="other", destination=f"{machine.root}/file/other")]
    with pytest.raises(install.ERRORS):
        machine.apply(*jobs)
    (machine.destination / "backup.marker").unlink()
    (machine.root / "file").unlink()
    assert "is the disk mounted" in machine.apply(*jobs).warnings[0]
    assert not (machine.destination / "backup.marker").exists()
    assert (machine.root / "file/other/backup.marker").exists()


def test_killed_while_a_marker_is_made(tmp_path: Path) -> None:
    """At each call: the next run makes folder and marker, with their owner, and only then counts them as made."""
    for when, machine in machines(tmp_path):
        peers, folder = [machine.peer()], machine.destination
        died = machine.killed(when, "_make_markers", peers=peers)
        noted = json.loads(Path(install.MADE).read_text()) if os.path.exists(install.MADE) else []
        assert (folder / "backup.marker").exists() or not noted
        assert not machine.apply(peers=peers).warnings
        assert folder.stat().st_ino in machine.owned
        assert tree(folder.parent) == ["data", "data/backup.marker"]
        assert machine.apply(peers=peers).changed == []
        if not died:
            break
    assert when > 10


# --- check mode ---


def agree(machine: Machine, *jobs: dict[str, Any]) -> list[str]:
    """What check mode says, which is what the run then says; check mode changes nothing."""
    before = tree(machine.root), set(machine.active)
    check = machine.apply(*jobs, check=True)
    assert (tree(machine.root), machine.active) == before
    real = machine.apply(*jobs)
    assert (check.changed, check.diff) == (real.changed, real.diff)
    assert machine.apply(*jobs, check=True).changed == []
    return check.changed


def test_check_mode_says_what_the_run_will_do(machine: Machine) -> None:
    timer = "postmeister-backup-data.timer"
    assert f"{timer}: enabled" in agree(machine, machine.job())
    machine.active.clear()
    assert agree(machine, machine.job()) == [f"{timer}: started"]
    os.unlink(machine.link(timer))
    assert agree(machine, machine.job()) == [f"{timer}: enabled"]
    assert agree(machine, machine.job(schedule="*-*-* 04:00:00"))
    machine.active.clear()
    assert agree(machine, machine.job(schedule=""))


def test_two_that_share_a_folder_need_one_marker(machine: Machine) -> None:
    peers = [machine.peer()]
    told = machine.apply(machine.job(), peers=peers, check=True)
    assert told.changed.count(str(machine.destination / "backup.marker")) == 1
    assert not told.warnings and not machine.apply(machine.job(), peers=peers).warnings


def cut_short(machine: Machine, *files: _files.File) -> None:
    """A change of these files was killed after the swap."""
    change = _files.FileSet(f"{_recover.SERVICES}/rsync_time_backup", files, {"service": "rsync_time_backup"})
    change.prepare()
    change.swap()


def test_a_change_that_was_cut_short(machine: Machine) -> None:
    given = machine.job()
    machine.apply(given)
    cut_short(machine, _files.File(f"{install.JOBS}/data.json", b"{}", 0o600))
    before = tree(machine.root)
    assert "a change that was cut short was undone" in machine.apply(given, check=True).changed
    assert tree(machine.root) == before
    assert machine.apply(given).changed == ["a change that was cut short was undone"]
    assert machine.apply(given, check=True).changed == []


def test_what_a_change_that_was_cut_short_brings_back_goes(machine: Machine) -> None:
    """Jobs are looked for when it was undone."""
    machine.apply(machine.job())
    cut_short(machine, _files.File(f"{install.JOBS}/data.json", None))
    machine.apply()
    assert os.listdir(install.JOBS) == []


# --- keys ---


def pair(name: str = "data") -> tuple[str, str]:
    """A job's private key, and its public one, which belongs to it."""
    path = Path(install.KEYS) / name
    assert path.stat().st_mode & 0o777 == 0o600
    public = Path(f"{path}.pub").read_text()
    assert public.split()[:2] == _command.run(["ssh-keygen", "-y", "-f", str(path)]).out.split()[:2]
    assert public.split()[2] == f"postmeister-backup:{name}"
    return path.read_text(), public


@needs_ssh
def test_a_key_is_made_once(machine: Machine) -> None:
    assert machine.apply(machine.pushed(), check=True).public_keys == {"data": ""}
    told = machine.apply(machine.pushed())
    private, public = pair()
    assert told.public_keys == {"data": public.strip()}
    again = machine.apply(machine.pushed())
    assert (again.changed, again.public_keys, pair()) == ([], told.public_keys, (private, public))
    assert sorted(os.listdir(install.KEYS)) == ["data", "data.pub"]


@needs_ssh
@pytest.mark.parametrize(
    "left",
    [None, b"", b"\0" * 80, "ssh-ed25519 AAAA…".encode(), b"\xff\xfe"],
    ids=["missing", "empty", "zeros", "cut", "binary"],
)
def test_a_public_key_that_was_lost_comes_from_the_private_one(machine: Machine, left: bytes | None) -> None:
    machine.apply(machine.pushed())
    before = pair()
    path = Path(f"{install.KEYS}/data.pub")
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    assert agree(machine, machine.pushed()) == [str(path)]
    assert pair() == before


@needs_ssh
def test_a_public_key_without_its_private_one_is_none(machine: Machine) -> None:
    machine.apply(machine.pushed())
    before = pair()
    os.unlink(f"{install.KEYS}/data")
    assert agree(machine, machine.pushed()) == [f"{install.KEYS}/data"]
    assert pair() != before


@needs_ssh
def test_a_private_key_that_cannot_be_read_stays(machine: Machine) -> None:
    machine.apply(machine.pushed())
    path = Path(f"{install.KEYS}/data")
    path.write_text("damaged")
    os.unlink(f"{path}.pub")
    with pytest.raises(_command.CommandError, match=str(path)):
        machine.apply(machine.pushed())
    assert path.read_text() == "damaged"


@needs_ssh
def test_killed_while_a_key_is_made(tmp_path: Path) -> None:
    """At each call: what has its place is whole, and the next run ends with a pair and nothing beside it."""
    for when, machine in machines(tmp_path):
        died = machine.killed(when, "_make_keys", machine.pushed())
        private = Path(f"{install.KEYS}/data")
        kept = pair()[0] if private.exists() else ""
        machine.apply(machine.pushed())
        assert kept in ("", pair()[0])
        assert sorted(os.listdir(install.KEYS)) == ["data", "data.pub"]
        assert machine.apply(machine.pushed()).changed == []
        if not died:
            break
    assert when > 10
