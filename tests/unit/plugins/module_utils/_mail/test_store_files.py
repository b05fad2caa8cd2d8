# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._mail import store_files
from ansible_collections.postmeister.host.plugins.module_utils._mail.directory import (
    ADHOC,
    INVENTORY,
    Alias,
    Directory,
    Mailbox,
)
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import (
    COPY,
    TRUTH,
    FileStore,
    StoreError,
    dump,
    load,
    mail_folder,
)

HASH = "{BLF-CRYPT}$2y$10$" + "a" * 53

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


@pytest.fixture(autouse=True)
def folder(store: FileStore) -> None:
    with store.locked(False):
        pass


def directory(*names: str, aliases: dict[str, str] | None = None, enabled: bool = True) -> Directory:
    return Directory(
        {"a.test": INVENTORY},
        {f"{name}@a.test": Mailbox(HASH, None, enabled, INVENTORY) for name in names},
        {f"{key}@a.test": Alias((f"{value}@a.test",), ADHOC) for key, value in (aliases or {}).items()},
    )


def content(store: FileStore) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(store.path).iterdir() if path.is_file()}


# --- the truth ----------------------------------------------------------------------------------------------------


def test_truth_comes_back_as_it_was() -> None:
    whole = Directory(
        {"a.test": INVENTORY},
        {
            "x@a.test": Mailbox(HASH, None, True, INVENTORY),
            "y@a.test": Mailbox('"\\', 5, False, ADHOC),
        },
        {"@a.test": Alias(("x@a.test", "me@outside.example"), INVENTORY)},
        "-",
        True,
    )
    assert load(dump(whole)) == whole
    assert load(dump(Directory())) == Directory()
    assert dump(load(dump(whole))) == dump(whole)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"quota": null', '"quota": "5G"'),
        ('"enabled": true', '"enabled": 1'),
        ('"origin"', '"orign"'),
        ("}", ""),
        ('"mailboxes": {', '"mailboxes": [{'),
    ],
)
def test_damaged_truth_is_told(old: str, new: str) -> None:
    text = dump(directory("x")).decode()
    assert old in text
    with pytest.raises(ValueError, match=r"\S"):
        load(text.replace(old, new).encode())


# --- the folder ---------------------------------------------------------------------------------------------------


def test_first_write(store: FileStore) -> None:
    wanted = directory("x", "y", aliases={"z": "x"}, enabled=False)
    assert store.stale(wanted) == store.write(Directory(), wanted)
    found = content(store)
    assert load(found[TRUTH].encode()) == wanted
    assert found[COPY] == found[TRUTH]
    assert f"x@a.test:{HASH}:::::\ny@a.test:{HASH}:::::\n" in found["dovecot-users"]
    assert found["dovecot-disabled"].endswith("\nx@a.test\ny@a.test\n")
    assert found["virtual_mailboxes.lmdb"] == "x@a.test\tok\ny@a.test\tok\n"
    assert found["virtual_aliases.lmdb"] == "z@a.test\tx@a.test\n"
    assert found["virtual_domains.lmdb"] == "a.test\tok\n"
    assert found["sender_logins.map"].endswith("\nx@a.test x@a.test\ny@a.test y@a.test\nz@a.test x@a.test\n")
    assert set(found) == {".lock", TRUTH, COPY, *(table.name for table in store_files._TABLES)}
    assert store.write(wanted, wanted) == []
    assert store.stale(wanted) == []


def test_modes(store: FileStore) -> None:
    store.write(Directory(), directory("x"))
    for path in Path(store.path).iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o600 if path.name in (".lock", TRUTH, COPY) else 0o640), path
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o755


@pytest.mark.parametrize("name", [TRUTH, COPY, *(table.name for table in store_files._TABLES)])
@pytest.mark.parametrize("harm", ["content", "mode", "owner", "gone", "symlink"])
def test_harm_is_repaired(store: FileStore, name: str, harm: str) -> None:
    wanted = directory("x", aliases={"z": "x"})
    store.write(Directory(), wanted)
    before = content(store)
    path = Path(store.path) / name
    if harm == "content":
        path.write_bytes(path.read_bytes() + b"x")
    elif harm == "mode":
        path.chmod(0o644)
    elif harm == "owner":
        os.chown(path, 1, -1)
    else:
        path.rename(path.with_name("elsewhere"))
        if harm == "symlink":
            path.symlink_to("elsewhere")
    assert store.stale(wanted) == [name]
    assert store.write(wanted, wanted) == [name]
    assert {key: value for key, value in content(store).items() if key != "elsewhere"} == before
    assert not path.is_symlink()
    assert store.stale(wanted) == []


def test_harm_that_the_rows_do_not_show(store: FileStore) -> None:
    """A real database with bytes at its end still has the same rows; the digest tells."""
    wanted = directory("x")
    store.write(Directory(), wanted)
    store.remember(None)
    path = Path(store.file("virtual_domains.lmdb"))
    state = json.loads(Path(store.file(".state")).read_text())
    state["files"]["virtual_domains.lmdb"] = "0" * 64
    Path(store.file(".state")).write_text(json.dumps(state))
    assert path.read_text() == "a.test\tok\n"
    assert store.write(wanted, wanted) == ["virtual_domains.lmdb"]
    for text in ("", "[]", "x"):
        Path(store.file(".state")).write_text(text)
        assert store.stale(wanted) == []


def test_folder_mode_is_repaired(store: FileStore) -> None:
    store.write(Directory(), directory("x"))
    os.chmod(store.path, 0o700)
    assert store.write(directory("x"), directory("x")) == ["."]
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o755


def test_time_of_a_file_always_grows(store: FileStore) -> None:
    users = Path(store.path) / "dovecot-users"
    store.write(Directory(), directory("x"))
    ahead = int(users.stat().st_mtime) + 1000
    os.utime(users, (ahead, ahead))
    store.write(directory("x"), directory("y"))
    assert int(users.stat().st_mtime) > ahead
    first = int(users.stat().st_mtime)
    store.write(directory("y"), directory("x"))
    assert int(users.stat().st_mtime) > first


def test_nothing_is_missing_at_any_moment(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """x becomes an alias, y stays, z is new: after each rename what Postfix takes, Dovecot or an alias must know."""
    before = directory("x", "y")
    after = directory("y", "z", aliases={"x": "z"})
    store.write(Directory(), before)
    rename = os.rename
    states: list[dict[str, str]] = []

    def watched(source: str, target: str) -> None:
        rename(source, target)
        states.append(content(store))

    monkeypatch.setattr(os, "rename", watched)
    store.write(before, after)
    assert len(states) > 6
    for state in states:
        users = {line.partition(":")[0] for line in state["dovecot-users"].splitlines()[1:]}
        boxes = {line.partition("\t")[0] for line in state["virtual_mailboxes.lmdb"].splitlines()}
        aliases = dict(line.split("\t") for line in state["virtual_aliases.lmdb"].splitlines())
        assert boxes <= users
        assert {"x@a.test", "y@a.test"} <= boxes | set(aliases)
        assert set(aliases.values()) <= users
    assert "z@a.test" in states[-1]["virtual_mailboxes.lmdb"]
    assert "x@a.test" not in states[-1]["virtual_mailboxes.lmdb"]


def test_run_cut_short_is_finished_by_the_next(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = directory("x", "y"), directory("y", "z", aliases={"x": "z"})
    store.write(Directory(), before)
    store.write(Directory(), after)
    wanted = content(store)
    rename = os.rename
    cut = 0
    while True:
        store.write(store.load(), before)
        renames = iter(range(cut))

        def cutting(source: str, target: str, renames: Iterator[int] = renames) -> None:
            if next(renames, None) is None:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(os, "rename", cutting)
        try:
            store.write(before, after)
            break
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(os, "rename", rename)
        store.write(store.load(), after)
        assert content(store) == wanted
        cut += 1
    assert cut > 6


def test_failed_build_changes_nothing(store: FileStore, tmp_path: Path) -> None:
    store.write(Directory(), directory("x"))
    before = content(store)
    (tmp_path / "fail").write_text("open database: No space left on device")
    with pytest.raises(StoreError, match="No space left"):
        store.write(directory("x"), directory("x", "y"))
    assert content(store) == before
    assert not (Path(store.path) / ".build").exists()


def test_postfix_without_lmdb(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "fail").write_text("unsupported dictionary type: lmdb")
    with pytest.raises(StoreError, match="install postfix-lmdb"):
        store.write(Directory(), directory("x"))
    assert set(content(store)) == {".lock"}


def test_no_postfix(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "virtual_domains.lmdb" in store.stale(directory("x"))
    with pytest.raises(StoreError, match="install postfix and postfix-lmdb first"):
        store.write(Directory(), directory("x"))


def test_check_mode_leaves_no_trace(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "nothing"))
    with store.locked(True):
        assert store.load() == Directory()
        assert TRUTH in store.stale(directory("x"))
    assert not (tmp_path / "nothing").exists()


def test_copy_serves_where_the_truth_is_damaged(store: FileStore) -> None:
    wanted = directory("x", aliases={"z": "x"})
    store.write(Directory(), wanted)
    truth = Path(store.file(TRUTH))
    truth.write_bytes(truth.read_bytes()[:-5])
    assert store.load() == wanted
    assert "directory.json is damaged" in store.warnings[0]
    Path(store.file(COPY)).write_text("{}")
    with pytest.raises(StoreError, match="from a backup"):
        store.load()
    truth.unlink()
    with pytest.raises(StoreError, match=r"directory\.json is missing"):
        store.load()


def test_group_that_comes_later(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = directory("x")
    groups: dict[str, int] = {}

    def gid_of(group: Any, missing: int | None = None) -> int:
        return groups.get(group, 0) if isinstance(group, str) else int(group)

    monkeypatch.setattr(_files, "gid_of", gid_of)
    store.write(Directory(), wanted)
    assert os.stat(store.file("sender_logins.map")).st_gid == 0
    groups["_rspamd"] = 4711
    assert store.write(wanted, wanted) == ["sender_logins.map", "forwards.map"]
    assert os.stat(store.file("sender_logins.map")).st_gid == 4711


# --- the same as last time ----------------------------------------------------------------------------------------


def test_same_request_on_untouched_files(store: FileStore) -> None:
    assert store.touched("f") is None
    store.write(Directory(), directory("x"))
    store.remember("f")
    assert store.touched("f") == []
    assert store.touched("g") is None
    users = Path(store.file("dovecot-users"))
    users.write_text("harm")
    assert store.touched("f") == ["dovecot-users"]
    assert store.write(directory("x"), directory("x"), ["dovecot-users"]) == ["dovecot-users"]
    assert store.touched("f") == []
    Path(store.file("virtual_domains.lmdb")).chmod(0o600)
    assert store.touched("f") == ["virtual_domains.lmdb"]


@pytest.mark.parametrize("name", [TRUTH, COPY])
def test_touched_truth_means_a_look_at_everything(store: FileStore, name: str) -> None:
    store.write(Directory(), directory("x"))
    store.remember("f")
    os.chmod(store.file(name), 0o644)
    assert store.touched("f") is None
    os.chmod(store.file(name), 0o600)
    assert store.touched("f") == []
    Path(store.file(name)).write_text("{}")
    assert store.touched("f") is None


def test_other_code_means_a_look_at_everything(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(Directory(), directory("x"))
    store.remember("f")
    monkeypatch.setattr(store_files, "_revision", lambda: "another")
    assert store.touched("f") is None


def test_fingerprint_is_forgotten(store: FileStore) -> None:
    store.write(Directory(), directory("x"))
    store.remember("f")
    store.remember(None)
    assert store.touched("f") is None
    store.remember("f")
    assert store.touched("f") == []
    Path(store.file(".state")).write_text("[]")
    assert store.touched("f") is None


# --- mail on the disk ---------------------------------------------------------------------------------------------


def test_mail_folder(tmp_path: Path) -> None:
    (tmp_path / "a.test" / "x").mkdir(parents=True)
    assert mail_folder(str(tmp_path), "x@a.test") == str(tmp_path / "a.test" / "x")
    assert mail_folder(str(tmp_path), "y@a.test") is None
    (tmp_path / "b.test").symlink_to("a.test")
    with pytest.raises(StoreError, match="symbolic link"):
        mail_folder(str(tmp_path), "x@b.test")
    (tmp_path / "a.test" / "y").symlink_to("x")
    with pytest.raises(StoreError, match="symbolic link"):
        mail_folder(str(tmp_path), "y@a.test")
