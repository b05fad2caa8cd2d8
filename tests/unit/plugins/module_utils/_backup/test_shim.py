# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._backup import shim, status, tell, upstream
from ansible_collections.postmeister.host.plugins.module_utils._backup.job import Job, Location

# Lines of our own that look as the two programs' do where it counts.
SCRIPT = b"""#!/usr/bin/env bash
echo "--compress will be added."
\tif [ -n "$SSH_CMD" ]; then
\t\tRSYNC_FLAGS="$RSYNC_FLAGS --compress"
\tfi
"""
PORT = b"""def flags(ssh):
    if ssh is not None:
        rsync_flags.append("--compress")
    return rsync_flags
"""


def test_exactly_one_place_of_the_script() -> None:
    changed = upstream.without_compression("script", SCRIPT)
    lines = list(zip(SCRIPT.splitlines(), changed.splitlines()))
    assert [after.strip()[:2] for before, after in lines if before != after] == [b": "]
    assert len(SCRIPT.splitlines()) == len(changed.splitlines())


def test_exactly_one_place_of_the_port() -> None:
    changed = upstream.without_compression("python", PORT)
    compile(changed, "port", "exec")
    assert b"append" not in changed


@pytest.mark.parametrize(
    ("implementation", "content"),
    [
        ("script", SCRIPT + SCRIPT),
        ("script", SCRIPT.replace(b' --compress"', b' -z"')),
        ("script", SCRIPT.replace(b"RSYNC_FLAGS=", b"export RSYNC_FLAGS=")),
        ("python", PORT + PORT),
        ("python", PORT.replace(b"append", b"extend")),
    ],
)
def test_upstream_changed(implementation: str, content: bytes) -> None:
    with pytest.raises(upstream.UpstreamError, match=r"upstream changed: .* places instead of one"):
        upstream.without_compression(implementation, content)


def test_the_wheel() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("rsync_time_machine.py", PORT)
    content = buffer.getvalue()
    checksum = hashlib.sha256(content).hexdigest()
    assert upstream.program("python", content, checksum.upper()) == upstream.without_compression("python", PORT)
    with pytest.raises(upstream.UpstreamError, match=f"{checksum}, not {upstream.CHECKSUMS['python']}"):
        upstream.program("python", content)
    with pytest.raises(upstream.UpstreamError, match="is no wheel"):
        upstream.program("python", SCRIPT, hashlib.sha256(SCRIPT).hexdigest())


# --- rsync's arguments ---

ARGUMENTS = [
    "-e",
    "ssh -o StrictHostKeyChecking=no",
    "-D",
    "--log-file",
    "/l/x.log",
    "--exclude-from",
    "/e",
    "--link-dest=/b/old",
]


def test_the_real_arguments() -> None:
    plan = {"link_dest": ["/b/1", "/b/backup.partial.2"], "compression": ""}
    real, log = shim.rewrite([*ARGUMENTS, "--", "/s/", "a@b:/b/3/"], plan, "/our.log")
    assert log == "/l/x.log"
    assert real == [
        *("-e", "/usr/local/lib/postmeister/backup/bin/ssh", "-D", "--exclude-from", "/e"),
        *("--link-dest=/b/1", "--link-dest=/b/backup.partial.2", "--log-file=/our.log", "--", "/s/", "a@b:/b/3/"),
    ]
    real, _log = shim.rewrite([*ARGUMENTS, "--", "/s/", "a@b:/b/3/"], {**plan, "compression": "zstd"}, "/our.log")
    assert "--compress-choice=zstd" in real


@pytest.mark.parametrize("extra", ["--compress", "-z", "--new-compress", "--zc=zlib"])
def test_compression_is_found(extra: str) -> None:
    with pytest.raises(shim.ShimError, match="run the role again"):
        shim.rewrite([*ARGUMENTS, extra, "--", "/s/", "/b/3/"], {"link_dest": []}, "/our.log")


@pytest.mark.parametrize(
    "arguments", [[*ARGUMENTS, "/s/", "/b/3/"], ["-D", "--", "/s/", "/b/"], [*ARGUMENTS, "--", "/s/"]]
)
def test_an_unknown_call(arguments: list[str]) -> None:
    with pytest.raises(shim.ShimError, match="in an unknown way"):
        shim.rewrite(arguments, {"link_dest": []}, "/our.log")


# --- rsync's verdict ---

LOG = "2030/01/01 00:00:00 [9] Number of files: 1,012 (reg: 9)\n2030/01/01 00:00:00 [9] Total file size: 1,234,567 b\n"
UNREAD = 'rsync: [sender] send_files failed to open "/proc/self/fd/3/private": Permission denied (13)\n'
END = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394) [sender]\n"


def test_whole() -> None:
    assert shim.judge(0, LOG, "", "/srv") == shim.Result("ok", 0, size=1234567)
    assert (
        shim.judge(24, LOG, 'file has vanished: "/srv/x"\nrsync warning: some files vanished\n', "/srv").result == "ok"
    )


def test_a_file_that_cannot_be_read() -> None:
    found = shim.judge(23, LOG, UNREAD + END, "/srv")
    assert (found.result, found.reason) == ("partial", "1 file of the source could not be read")
    assert found.errors == ['rsync: [sender] send_files failed to open "/srv/private": Permission denied (13)']
    found = shim.judge(
        23, LOG, UNREAD + 'rsync: [sender] read errors mapping "/srv/x": Input/output error (5)\n' + END, "/srv"
    )
    assert (found.result, found.reason) == ("partial", "2 files of the source could not be read")


@pytest.mark.parametrize(
    ("status", "log", "words", "reason"),
    [
        (
            23,
            LOG,
            UNREAD + 'rsync: [receiver] mkstemp "/b/.x" failed: No space left on device (28)\n' + END,
            "No space left",
        ),
        (23, LOG, 'rsync: [sender] change_dir "/srv" failed: No such file or directory (2)\n' + END, "change_dir"),
        (
            23,
            LOG.replace("1,012", "1"),
            'rsync: [sender] opendir "/srv/." failed: Permission denied (13)\n' + END,
            "opendir",
        ),
        (23, LOG, END, "(code 23)"),
        (
            11,
            "",
            'rsync: [receiver] write failed on "/b/x": No space left on device (28)\nrsync error: error in file IO\n',
            "No sp",
        ),
        (
            12,
            "",
            "deflate on token returned 0 (32765 bytes left)\nrsync error: error in rsync protocol data stream\n",
            "rsync error",
        ),
        (137, LOG, "", "rsync ended with status 137"),
        (30, LOG, "rsync error: timeout in data send/receive (code 30)\n", "timeout"),
    ],
)
def test_failed(status: int, log: str, words: str, reason: str) -> None:
    found = shim.judge(status, log, words, "/srv")
    assert found.result == "failed"
    assert reason in found.reason


# --- ssh ---


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["-p", "22", "root@h", "find '/b/backup.marker'"], "find '/b/backup.marker'"),
        (["-p", "22", "-i", "/k", "root@h", "find /b/x", "-type", "d"], "find /b/x -type d"),
        (["-l", "root", "h", "rsync", "--server", ".", "/b/"], "rsync --server . /b/"),
    ],
)
def test_the_command_for_the_other_host(arguments: list[str], command: str) -> None:
    assert shim.remote_command(arguments) == command


def a_job(source: str, destination: str) -> Job:
    ends = [
        Location("root", text[2:].split(":")[0], text.split(":")[1]) if ":" in text else Location("", "", text)
        for text in (source, destination)
    ]
    return Job("j", ends[0], ends[1], {"operator": "root"})


def test_each_end_gets_its_own_commands() -> None:
    push, pull = a_job("/", "r@h:/b"), a_job("r@h:/s", "/b")
    for text in ("test -e /", "df -T /"):
        assert shim.here(push, command(text)) == (True, (0, ""))
    assert shim.here(push, command("find /b/backup.marker"))[0] is False
    # The port asks the source's host for what lies at the destination.
    assert shim.here(pull, command("find /b/backup.marker")) == (True, (1, ""))
    assert shim.here(pull, command("test -e /s")) == (True, (0, ""))
    assert shim.here(pull, command("find /elsewhere/backup.marker"))[1][0] == 2


def command(text: str) -> shim.commands.Command:
    found = shim.commands.parse(text)
    assert found is not None
    return found


# --- the mail ---


def test_the_mail() -> None:
    job = a_job("/s", "r@h:/b")
    last = {"result": "partial", "reason": "1 file could not be read", "errors": ["rsync: ü"], "started": 1, "ended": 2}
    mail = tell.message(job, {"started": None, "last_run": last, "last_success": None}, "web1", "the journal")
    assert (mail["To"], mail["Subject"]) == ("root", "web1: backup j is incomplete")
    for part in ("1 file could not be read", "rsync: ü", "the journal", "Last success: never"):
        assert part in mail.get_content()
    killed = tell.message(job, json.loads('{"started": 3, "last_run": null, "last_success": 0}'), "web1", "")
    assert killed["Subject"] == "web1: backup j was killed"


# --- the record ---


def test_what_info_tells() -> None:
    job = a_job("/s", "r@h:/b")
    told = status.summary(job, status.read("/nowhere"), 100.0, None)
    assert (told["result"], told["age"], told["snapshots"], told["next_run"]) == ("never", None, [], None)
    last = {"result": "partial", "reason": "1 file", "errors": ["x"], "rsync_status": 23, "started": 50.0}
    snapshots = {"2030-01-02-000000": {"result": "partial", "size": 7}, "2030-01-01-000000": {"result": "ok"}}
    known = {"started": None, "last_run": last, "last_success": 40.0, "snapshots": snapshots}
    told = status.summary(job, known, 100.0, 86400.0)
    assert (told["result"], told["reason"], told["age"], told["size"]) == ("partial", "1 file", 60, 7)
    assert [entry["name"] for entry in told["snapshots"]] == sorted(snapshots)
    assert (told["last_success"], told["next_run"]) == ("1970-01-01T00:00:40Z", "1970-01-02T00:00:00Z")
    told = status.summary(job, {**known, "started": 90.0}, 100.0, None)
    assert (told["result"], told["errors"], told["last_run"]) == ("interrupted", [], "1970-01-01T00:01:30Z")
