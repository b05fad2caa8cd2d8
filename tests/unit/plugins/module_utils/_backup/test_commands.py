# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._backup import commands, peer

ONE, TWO = "2030-01-31-021106", "2030-02-01-021106"

#: as they arrive at the other host: the script's, whose quotes its eval takes away, and the port's
KNOWN = [
    ("find /b/s/backup.marker", "exists"),
    ("find '/b/s/backup.marker'", "exists"),
    (f"find /b/s/{ONE} -type d", "exists"),
    (f"find '/b/s/{ONE}' -maxdepth 0", "exists"),
    ('find /b/s/ -maxdepth 1 -type d -name "????-??-??-??????" -prune | sort -r', "snapshots"),
    ("find '/b/s/' -maxdepth 1 -type d -name '????-??-??-??????' -prune | sort -r", "snapshots"),
    (f"cd /b/s/{ONE};pwd", "absolute"),
    (f"cd '/b/s/{ONE}' && pwd", "absolute"),
    (f"mkdir -p -- /b/s/{ONE}", "make"),
    ("rm -f -- /b/s/latest", "unlink"),
    ("rm -f -- '/b/s/backup.inprogress'", "unlink"),
    (f"rm -rf -- /b/s/{ONE}", "remove"),
    (f"rm -rf -- /b/s/backup.partial.{ONE}", "remove"),
    (f"ln -s -- {ONE} /b/s/latest", "link"),
    ("df -T /b/s", "filesystem"),
    ("cat /b/s/backup.inprogress", "running"),
    ("echo 4711 > /b/s/backup.inprogress", "start"),
    (f"mv -- /b/s/{ONE} /b/s/{TWO}", "move"),
    (f"mv -- /b/s/{ONE} /b/s/backup.partial.{ONE}", "move"),
    ("ls -1A -- /b/s/", "list"),
    ("readlink -- /b/s/latest", "latest"),
]


@pytest.mark.parametrize(("text", "form"), KNOWN)
def test_upstreams_commands(text: str, form: str) -> None:
    command = commands.parse(text)
    assert command is not None
    assert (command.form, command.folder) == (form, "/b/s")


@pytest.mark.parametrize(
    "text",
    [
        "id",
        "",
        "find /b/s/backup.marker; id",
        "find /b/s/backup.marker -delete",
        "rm -rf -- /b/s",
        "rm -rf -- /b/s/backup.marker",
        "rm -f -- /b/s/backup.marker",
        f"rm -rf -- /b/s/{ONE}/etc",
        f"mv -- /b/s/{ONE} /etc/{TWO}",
        "ln -s -- /etc /b/s/latest",
        f"cd /b/s/{ONE}; pwd; id",
        "echo 1 > /etc/passwd",
        "echo $(id) > /b/s/backup.inprogress",
    ],
)
def test_what_is_not_upstreams(text: str) -> None:
    assert commands.parse(text) is None


@pytest.mark.parametrize(
    ("access", "text"),
    [
        ("write", "find /b/other/backup.marker"),
        ("write", f"rm -rf -- /b/s/../other/{ONE}"),
        ("write", "rsync --server --sender -logDtpr . /etc/"),
        ("write", "rsync --server -logDtpr --log-file=/etc/x . /b/s/"),
        ("write", "rsync --daemon"),
        ("write", "rsync --version; id"),
        ("write", ""),
        ("read", "find /b/s/backup.marker"),
        ("read", "rsync --server -logDtpr . /b/s/"),
    ],
)
def test_a_key_for_one_folder(access: str, text: str) -> None:
    with pytest.raises(peer.PeerError):
        peer.answer(access, "/b/s", text)


def test_rrsync_counts_from_the_folder() -> None:
    text = f"rsync --server -logDtprxe.iLsfxCIvu --timeout=9 --link-dest=/b/s/{ONE} . /b/s/{TWO}/"
    assert peer.answer("write", "/b/s", text) == (
        ["/usr/bin/rrsync", "/b/s"],
        f"rsync --server -logDtprxe.iLsfxCIvu --timeout=9 --link-dest=/{ONE} . /{TWO}/",
    )
    # Who only reads takes no lock: two hosts may restore at once.
    for access in ("read", "write"):
        assert peer.answer(access, "/b/s", "rsync --server --sender -logDtpre.LsfxCIvu . /b/s/") == (
            ["/usr/bin/rrsync", "-ro", "/b/s"],
            "rsync --server --sender -logDtpre.LsfxCIvu . /",
        )


def do(text: str) -> tuple[int, str]:
    command = commands.parse(text)
    assert command is not None
    return commands.perform(command)


def test_they_do_what_a_shell_would(tmp_path: Path) -> None:
    top = str(tmp_path)
    assert do(f"find {top}/backup.marker") == (1, "")
    (tmp_path / "backup.marker").touch()
    assert do(f"find {top}/backup.marker") == (0, f"{top}/backup.marker\n")
    for name in (TWO, ONE):
        assert do(f"mkdir -p -- {top}/{name}") == (0, "")
    assert do(f'find {top}/ -maxdepth 1 -type d -name "????-??-??-??????" -prune | sort -r')[1].split() == [
        f"{top}/{TWO}",
        f"{top}/{ONE}",
    ]
    assert do(f"cd {top}/{ONE};pwd") == (0, f"{top}/{ONE}\n")
    do(f"echo 12 > {top}/backup.inprogress")
    assert do(f"cat {top}/backup.inprogress") == (0, "12\n")
    do(f"rm -f -- {top}/latest")
    do(f"ln -s -- {TWO} {top}/latest")
    assert do(f"readlink -- {top}/latest") == (0, f"{TWO}\n")
    do(f"mv -- {top}/{TWO} {top}/backup.partial.{TWO}")
    do(f"rm -rf -- {top}/{ONE}")
    do(f"rm -f -- {top}/backup.inprogress")
    assert do(f"ls -1A -- {top}/")[1].split() == ["backup.marker", f"backup.partial.{TWO}", "latest"]


def test_nothing_is_removed_without_a_marker(tmp_path: Path) -> None:
    (tmp_path / ONE).mkdir()
    with pytest.raises(OSError, match=r"no backup\.marker"):
        do(f"rm -rf -- {tmp_path}/{ONE}")
    assert os.path.isdir(tmp_path / ONE)


@pytest.mark.parametrize(
    ("names", "latest", "known", "killed", "half"),
    [
        # Nothing tells of a run that did not end: whatever lies there is left alone.
        ([ONE, TWO], ONE, [], False, []),
        ([ONE, TWO], "", [], False, []),
        # Upstream's mark, or our own record.
        ([ONE, TWO, "backup.inprogress"], ONE, [], False, [TWO]),
        ([ONE, TWO], ONE, [ONE], True, [TWO]),
        ([ONE], "", [], True, [ONE]),
        # Killed after the link was made, before the mark was taken away.
        ([ONE, TWO, "backup.inprogress"], TWO, [ONE], True, []),
        # Killed before a snapshot was begun.
        ([ONE], ONE, [ONE], True, []),
        # The clock went back: the one that nobody knows is half, not the newest.
        ([ONE, TWO, "backup.inprogress"], TWO, [TWO], True, [ONE]),
        ([ONE, TWO], "", [ONE, TWO], True, []),
    ],
)
def test_which_snapshot_is_half(names: list[str], latest: str, known: list[str], killed: bool, half: list[str]) -> None:
    assert commands.contents([*names, "backup.marker", "lost+found"], latest).unfinished(known, killed) == half
