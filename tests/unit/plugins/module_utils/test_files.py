# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files, _recover
from ansible_collections.postmeister.host.plugins.module_utils._files import File, FileError, FileSet

UID, GID = os.getuid(), os.getgid()
#: every call by which the code changes a disk
CALLS = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "fchmod", "fchown")


def wanted(path: Path, content: str | None, mode: int = 0o644, secret: bool = False) -> File:
    return File(str(path), None if content is None else content.encode(), mode, UID, GID, secret)


class Killed(BaseException):
    """kill -9."""


class Process:
    """Dies at the when-th system call; after that not even its cleaning up reaches the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
        self.left = when
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name), durable=name != "fsync"))

    def wrap(self, call: Callable[..., Any], durable: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left <= 0:
                raise Killed
            return call(*args, **kwargs) if durable else None

        return wrapped


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    calls: list[tuple[str, ...]] = []

    def record(*argv: str) -> int:
        calls.append(argv)
        return 0

    monkeypatch.setattr(_recover, "systemctl", record)
    return calls


def test_write_then_no_op(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a", "one\n", 0o640)

    assert _files.write([file]) == [file.path]
    assert (tmp_path / "a").read_text() == "one\n"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    inode = (tmp_path / "a").stat().st_ino
    assert _files.write([file]) == []
    assert (tmp_path / "a").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["a"]


def test_mode_alone_is_repaired(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a", "one\n", 0o600)
    _files.write([file])
    (tmp_path / "a").chmod(0o644)

    assert _files.write([file]) == [file.path]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_absent(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    assert _files.write([wanted(tmp_path / "a", None)]) == [str(tmp_path / "a")]
    assert _files.write([wanted(tmp_path / "a", None)]) == []
    assert os.listdir(tmp_path) == []


def test_symlink_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine\n")
    (tmp_path / "a").symlink_to("elsewhere")

    assert _files.write([wanted(tmp_path / "a", "mine\n")]) == [str(tmp_path / "a")]
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine\n"


def test_private_before_a_byte_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = os.write

    def look(handle: int, data: bytes) -> int:
        info = os.fstat(handle)
        seen.append((stat.S_IMODE(info.st_mode), info.st_uid, info.st_size))
        return write(handle, data)

    created = []
    opened = os.open

    def look_open(path: str, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            created.append((mode, bool(flags & os.O_EXCL)))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "write", look)
    monkeypatch.setattr(os, "open", look_open)
    _files.write([wanted(tmp_path / "key", "secret", 0o640)])

    assert created == [(0o600, True)]
    assert seen == [(0o640, UID, 0)]


def test_leftover_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    Path(_recover.aside(str(tmp_path / "a"), "new")).write_text("half")

    _files.write([wanted(tmp_path / "a", "one\n")])

    assert (tmp_path / "a").read_text() == "one\n"
    assert os.listdir(tmp_path) == ["a"]


def test_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("former a\n")
    (tmp_path / "b").write_text("former b\n")
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if bytes(data) == b"new b\n":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FileError, match="/b: the disk is full; nothing was changed"):
        _files.write([wanted(tmp_path / "a", "new a\n"), wanted(tmp_path / "b", "new b\n")])

    found = {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert found == {"a": "former a\n", "b": "former b\n"}


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:3]))

    _files.write([wanted(tmp_path / "a", "0123456789")])

    assert (tmp_path / "a").read_text() == "0123456789"


def test_date_back(tmp_path: Path) -> None:
    path = _files.prepare(wanted(tmp_path / "a", "x"), age=100)

    assert 90 < os.stat(tmp_path).st_mtime - os.stat(path).st_mtime < 110


def test_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileError, match="/a: is a directory"):
        _files.write([wanted(tmp_path / "a", "x")])


def test_relative_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("there")
    for path in ("directory", "there/directory"):
        with pytest.raises(FileError, match=f"^{path}: is not an absolute path$"):
            _files.look(path)
        with pytest.raises(FileError, match=f"^{path}: is not an absolute path$"):
            _files.make_folders(path)
        with pytest.raises(FileError, match=f"^{path}: is not an absolute path$"):
            FileSet(str(tmp_path), [wanted(Path(path) / "file", "x")], {}).prepare()
    assert os.listdir(tmp_path) == ["there"] and os.listdir("there") == []


def test_unknown_owner(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no user no-such-user"):
        _files.uid_of("no-such-user")
    with pytest.raises(FileError, match="there is no group no-such-group"):
        _files.gid_of("no-such-group")
    assert _files.gid_of("no-such-group", missing=0) == 0
    path = tmp_path / "a"
    path.write_text("x")
    assert not _files.equal(File(str(path), b"x", 0o644, "no-such-user"), _files.look(str(path)))


def test_digest_of_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = _files.digest(str(folder))
    (folder / "b").write_text("2")
    second = _files.digest(str(folder))
    (folder / "a").rename(folder / "c")

    assert len({first, second, _files.digest(str(folder))}) == 3
    assert _files.digest(str(folder / "c")) == _files.digest(str(folder / "c"))
    assert _files.digest(str(tmp_path / "none")) == ""


def test_lock_is_root_only_and_waits_then_says_who(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    with _files.lock(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        message = r"another run is at work and did not end within 0\.2 s"
        with pytest.raises(FileError, match=message), _files.lock(str(path), 0.2):
            pass
    with _files.lock(str(path), 0):
        pass


def test_lock_falls_with_the_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    holder = subprocess.Popen(["flock", path, "sleep", "60"])
    try:
        for _turn in range(100):
            with open(path, "a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    break
        # flock has the lock a moment before it has its child.
        for _turn in range(1000):
            if subprocess.run(["pkill", "-P", str(holder.pid)], check=False).returncode == 0:
                break
        with _files.lock(path, 5):
            pass
    finally:
        holder.kill()
        holder.wait()


class Scene:
    """A service's folder and its files: one to change, one to add (in a new folder), one to remove, one untouched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "services" / "demo"
        self.state.mkdir(parents=True)
        self.etc = root / "etc"
        self.etc.mkdir()
        (self.etc / "change").write_text("former\n")
        (self.etc / "change").chmod(0o640)
        (self.etc / "remove").write_text("former\n")
        (self.etc / "foreign").write_text("foreign\n")
        self.former = self.look()
        self.files = [
            wanted(self.etc / "new.d" / "deep" / "add", "wanted\n"),
            wanted(self.etc / "change", "wanted\n", 0o600),
            wanted(self.etc / "remove", None),
        ]
        self.wanted = {
            "change": ("wanted\n", 0o600),
            "foreign": self.former["foreign"],
            "new.d/deep/add": ("wanted\n", 0o644),
        }

    def look(self) -> dict[str, tuple[str, int]]:
        return {
            str(path.relative_to(self.etc)): (path.read_text(), stat.S_IMODE(path.stat().st_mode))
            for path in self.etc.rglob("*")
            if path.is_file()
        }

    def change(self) -> None:
        files = FileSet(str(self.state), self.files, {"units": ["demo.service"], "former": True})
        files.prepare()
        files.swap()
        files.commit()

    def clean(self) -> bool:
        names = [path.name for path in self.root.rglob("*")]
        return not [name for name in names if "postmeister" in name or name.startswith("journal")]


def scenes(tmp_path: Path) -> Iterator[Scene]:
    number = 0
    while True:
        number += 1
        yield Scene(tmp_path / str(number))


def test_set_swaps_as_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.change()

    assert scene.look() == scene.wanted
    assert scene.clean()


def test_set_rolls_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    inode = (scene.etc / "change").stat().st_ino
    files = FileSet(str(scene.state), scene.files, {})
    files.prepare()
    assert scene.look().items() >= scene.former.items()
    files.swap()
    files.rollback()
    files.rollback()
    files.close()

    assert scene.look() == scene.former
    assert (scene.etc / "change").stat().st_ino == inode
    assert scene.clean()
    assert not (scene.etc / "new.d").exists()


@pytest.mark.parametrize("twice", [False, True])
def test_killed_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemctl: Any, twice: bool) -> None:
    """At whatever call the run dies, and at whatever call the recovery dies after it: all or nothing, no leftovers."""
    outcomes = set()
    for when, scene in enumerate(scenes(tmp_path), 1):
        with monkeypatch.context() as patch:
            Process(patch, when)
            try:
                scene.change()
            except Killed:
                survived = False
            else:
                survived = True
        if survived:
            break
        second = 0
        done = not twice
        while not done:
            second += 3
            with monkeypatch.context() as patch:
                Process(patch, second)
                try:
                    _recover.recover(str(scene.state))
                    done = True
                except Killed:
                    pass
        _recover.recover(str(scene.state))
        state = scene.look()
        assert state in (scene.former, scene.wanted), f"killed at call {when}"
        outcomes.add(state == scene.wanted)
        # What died before the journal was there, is met by name by the next run.
        scene.change()
        assert scene.look() == scene.wanted
        assert scene.clean(), f"killed at call {when}"
    assert when > 40
    assert outcomes == {False, True}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_error_at_every_call_of_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    failures = 0
    for name in ("write", "fsync", "link", "mkdir", "rename"):
        for when in range(1, 30):
            scene = Scene(tmp_path / f"{name}{when}")
            real = getattr(os, name)
            left = when

            def fail(*args: Any, real: Callable[..., Any] = real, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            files = FileSet(str(scene.state), scene.files, {})
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                try:
                    files.prepare()
                except FileError as exc:
                    failures += 1
                    assert ("the disk is full" in str(exc)) == (code == errno.ENOSPC)
                    assert scene.look() == scene.former
                    assert scene.clean(), f"{name} {when}"
                    continue
            break
    assert failures > 10


def test_order_of_what_becomes_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step relies on something that a power failure may still take away."""
    scene = Scene(tmp_path)
    events: list[tuple[str, str]] = []
    fsync, rename, link, unlink = os.fsync, os.rename, os.link, os.unlink

    def name(path: str) -> str:
        return os.path.relpath(path, tmp_path)

    def on_fsync(handle: int) -> None:
        events.append(("fsync", name(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def on_rename(source: str, target: str) -> None:
        events.append(("rename", name(target)))
        rename(source, target)

    def on_link(source: str, target: str, **more: Any) -> None:
        events.append(("link", name(target)))
        link(source, target, **more)

    def on_unlink(path: str) -> None:
        events.append(("unlink", name(path)))
        unlink(path)

    for call, hook in (("fsync", on_fsync), ("rename", on_rename), ("link", on_link), ("unlink", on_unlink)):
        monkeypatch.setattr(os, call, hook)
    scene.change()

    def at(*event: str, after: int = -1) -> int:
        return events.index((event[0], event[1]), after + 1)

    journal = "services/demo"
    opened = at("rename", f"{journal}/journal-prepare.json")
    assert at("fsync", journal, after=opened) < at("link", "etc/.change.postmeister-old")
    committed = at("rename", f"{journal}/journal-swap.json")
    for path in ("etc/.change.postmeister-new", "etc/new.d/deep/.add.postmeister-new"):
        assert at("fsync", path) < committed
    linked = max(at("link", "etc/.change.postmeister-old"), at("link", "etc/.remove.postmeister-old"))
    assert at("fsync", "etc", after=linked) < committed
    first = at("rename", "etc/new.d/deep/add")
    assert at("fsync", journal, after=committed) < first < at("rename", "etc/change") < at("unlink", "etc/remove")
    done = at("rename", f"{journal}/journal-done.json")
    for folder in ("etc", "etc/new.d/deep"):
        assert at("fsync", folder, after=at("unlink", "etc/remove")) < done
    assert at("fsync", journal, after=done) < at("unlink", "etc/.change.postmeister-old", after=done)
    gone = at("unlink", f"{journal}/journal-done.json")
    assert at("fsync", "etc", after=at("unlink", "etc/.remove.postmeister-old", after=done)) < gone
    assert ("fsync", journal) in events[gone:]


def test_recovery_lets_systemd_follow(tmp_path: Path, systemctl: list[tuple[str, ...]]) -> None:
    scene = Scene(tmp_path)
    files = FileSet(str(scene.state), scene.files, {"units": ["demo.service"], "former": True})
    files.prepare()
    files.swap()

    assert _recover.recover(str(scene.state)) == "the former files are back"
    assert scene.look() == scene.former
    assert systemctl == [("daemon-reload",), ("is-active", "--quiet", "demo.service"), ("restart", "demo.service")]


def test_recovery_without_a_former_set_masks(tmp_path: Path, systemctl: list[tuple[str, ...]]) -> None:
    scene = Scene(tmp_path)
    files = FileSet(str(scene.state), scene.files, {"units": ["demo.service"], "former": False})
    files.prepare()
    files.swap()
    _recover.recover(str(scene.state))

    assert systemctl == [("daemon-reload",), ("mask", "demo.service"), ("stop", "--no-block", "demo.service")]


def test_recovery_script_mends_each_service_and_leaves_a_run_alone(
    tmp_path: Path, systemctl: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken", "busy", "open"):
        scene = Scene(tmp_path / name)
        files = FileSet(str(scene.state), scene.files, {"units": [], "former": True})
        files.prepare()
        files.swap()
        (tmp_path / "services").mkdir(exist_ok=True)
        scene.state.rename(tmp_path / "services" / name)
    (tmp_path / "services" / "broken" / "journal-swap.json").write_text("{")
    (tmp_path / "services" / "idle").mkdir()
    with _files.lock(str(tmp_path / "services" / "busy" / "lock")):
        assert _recover.main(str(tmp_path / "services")) == 1

    out, err = capsys.readouterr()
    assert out == "busy: a run is at work, nothing done\nopen: the former files are back\n"
    assert err.startswith("broken: ")
    assert (tmp_path / "busy" / "etc" / "change").read_text() == "wanted\n"
    assert (tmp_path / "open" / "etc" / "change").read_text() == "former\n"
    assert _recover.main(str(tmp_path / "nothing")) == 0


def test_recovery_script_needs_nothing_but_python(tmp_path: Path) -> None:
    """Its source is what runs at boot."""
    script = tmp_path / "recover.py"
    script.write_text(Path(str(_recover.__file__)).read_text().replace(_recover.SERVICES, str(tmp_path / "services")))
    scene = Scene(tmp_path)
    files = FileSet(str(scene.state), scene.files, {"units": [], "former": True})
    files.prepare()
    files.swap()
    bare = {"PATH": "/nonexistent"}
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False, env=bare)

    # systemctl is not to be found; that must not keep the files from coming back.
    assert scene.look() == scene.former, done.stderr
    assert done.returncode == 0, done.stderr
    assert scene.clean()
