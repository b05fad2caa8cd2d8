# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._backup import job
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIZ13ibZC8pKLAXtawT59i3lILWtG1/slx97FEnNK1Q6"


def options(**given: Any) -> dict[str, Any]:
    """A job as the module has it, with its defaults."""
    defaults = {name: spec.get("default") for name, spec in rsync_time_backup.JOB.items()}
    common = {"name": "srv", "source": "/srv", "destination": "/backup", "implementation": "script", "operator": "root"}
    return {**defaults, **common, **given}


def refused(**given: Any) -> str:
    with pytest.raises(job.JobError) as told:
        job.parse(options(**given))
    return str(told.value)


@pytest.mark.parametrize(
    ("text", "user", "host", "path"),
    [
        ("/srv", "", "", "/srv"),
        ("/srv/", "", "", "/srv"),
        ("/", "", "", "/"),
        ("root@web1.example.org:/srv/x", "root", "web1.example.org", "/srv/x"),
    ],
)
def test_locations(text: str, user: str, host: str, path: str) -> None:
    assert job.parse_location(text) == job.Location(user, host, path)


@pytest.mark.parametrize(
    "text",
    [
        "srv",
        "",
        "host:/srv",
        "root@host:srv",
        "/srv/$(id)",
        "/srv/a b",
        "/srv/'x'",
        "/srv/../etc",
        "//srv",
        "/a;b",
        "~/x",
    ],
)
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(job.JobError, match="is n"):
        job.parse_location(text)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "Srv"}, "lower case letters"),
        ({"name": "a/b"}, "lower case letters"),
        ({"destination": "/srv"}, "lies inside the destination"),
        ({"destination": "/srv/backup"}, "destination /srv/backup lies inside the source /srv"),
        ({"source": "/backup/x"}, "source /backup/x lies inside the destination /backup"),
        ({"source": "/", "destination": "/mnt/b"}, "exclude /mnt/b"),
        ({"destination": "/"}, "cannot hold snapshots"),
        ({"source": "a@b:/x", "destination": "c@d:/y"}, "both on another host"),
        ({"destination": "c@d:/y"}, "host_keys: missing"),
        ({"destination": "c@d:/y", "host_keys": ["AAAA"]}, "is not a public key"),
        ({"destination": "c@d:/y", "host_keys": ["ssh-ed25519 AAAA…"]}, "is not base64"),
        ({"destination": "c@d:/y", "host_keys": [KEY.replace("ssh-ed25519", "ssh-rsa")]}, "another type of key"),
        ({"destination": "c@d:/y", "host_keys": [KEY], "port": 0}, "port: 0"),
        ({"strategy": "daily"}, "'daily' is not a list of pairs"),
        ({"strategy": ""}, "is not a list of pairs"),
        ({"strategy": "1:1 1:7"}, "names one number of days twice"),
        ({"strategy": "1:1; id"}, "is not a list of pairs"),
        ({"nice": 20}, "nice: 20"),
        ({"timeout": -1}, "timeout: -1"),
        ({"bandwidth_limit": "fast"}, "is not a rate"),
        ({"rsync_options": ["--foo bar"]}, "one option without spaces"),
        ({"rsync_options": ["--foo=$(id)"]}, "one option without spaces"),
        ({"rsync_options": ["srv"]}, "one option without spaces"),
        ({"rsync_options": ["--compress"]}, "compresses"),
        ({"rsync_options": ["--zc=zlib"]}, "compresses"),
        ({"rsync_options": ["-az"]}, "compresses"),
        ({"rsync_options": ["--delete-after"]}, "belongs to the role"),
        ({"rsync_options": ["--rsh=sh"]}, "belongs to the role"),
        ({"excludes": ["a\nb"]}, "one pattern an entry"),
        ({"mount": "/mnt"}, "does not lie below /mnt"),
        ({"destination": "c@d:/y", "host_keys": [KEY], "mount": "/y"}, "for a local destination"),
        ({"compression": "zstd"}, "has no use"),
    ],
)
def test_refusals_name_the_job_and_the_reason(given: dict[str, Any], reason: str) -> None:
    told = refused(**given)
    assert reason in told
    assert told.startswith(f"job {given.get('name', 'srv')}: ")


def test_a_destination_inside_the_source_that_is_not_read() -> None:
    job.parse(options(source="/", destination="/mnt/b", mount="/mnt"))
    job.parse(options(source="/", destination="/mnt/b", excludes=["/mnt/b"]))
    job.parse(options(source="/", destination="/mnt/b", excludes=["+ /etc/***", "- *"]))
    assert "lies inside" in refused(source="/", destination="/mnt/b", mount="/mnt", one_file_system=False)
    assert "lies inside" in refused(source="/", destination="/mnt/b", excludes=["+ /mnt/***", "- *"])


@pytest.mark.parametrize(
    ("path", "patterns", "out"),
    [
        ("mnt/b", ["/mnt"], True),
        ("mnt/b", ["/mnt/"], True),
        ("mnt/b", ["mnt"], True),
        ("mnt/b", ["b"], True),
        ("mnt/b", ["/b"], False),
        ("mnt/b", ["/mnt/*"], True),
        ("mnt/b", ["/m?t/*"], True),
        ("mnt/b/c", ["/mnt/**c"], True),
        ("mnt/b", ["/mnt/b/***"], True),
        ("mnt/b", ["/mnt/b/*"], False),
        ("mnt/b", ["- *"], True),
        ("mnt/b", ["+ /mnt/", "+ /mnt/b/***", "- *"], False),
        ("mnt/b", ["+ /mnt/", "- *"], True),
        ("mnt/b", ["*.tmp"], False),
        ("mnt/b", [], False),
    ],
)
def test_excluded_as_rsync_does_it(path: str, patterns: list[str], out: bool) -> None:
    assert job.left_out(path, patterns) is out


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("-z", True),
        ("-avz", True),
        ("-logDtprze.iLsfxCIvu", True),
        ("-logDtpre.iLsfxCIvuz", False),
        ("--compress", True),
        ("--old-compress", True),
        ("--new-compress", True),
        ("--compress-choice=zstd", True),
        ("--zl=1", True),
        ("--zz", False),
        ("--skip-compress=gz", False),
        ("--no-compress", False),
        ("--fuzzy", False),
        ("-D", False),
    ],
)
def test_what_compresses(option: str, found: bool) -> None:
    assert job.compresses(option) is found


def test_jobs_that_are_in_each_others_way() -> None:
    first = options(name="one")
    with pytest.raises(job.JobError, match="job one: is there twice"):
        job.parse_all([first, options(name="one", destination="/other")])
    with pytest.raises(
        job.JobError, match=r"job two: its destination /backup/two and that of job one, /backup, overlap"
    ):
        job.parse_all([first, options(name="two", destination="/backup/two")])
    remote = {"host_keys": [KEY]}
    job.parse_all([first, options(name="two", destination="a@b:/backup", **remote)])


def test_the_command_line() -> None:
    parsed = job.parse(options(bandwidth_limit="5m", rsync_options=["--fake-super"], acls=False))
    argv = parsed.program()
    flags = argv[argv.index("--rsync-set-flags") + 1].split()
    assert argv[0].endswith("/rsync_tmbackup.sh")
    assert argv[-3:] == ["/srv", "/backup", "/etc/postmeister/backup/jobs/srv.exclude"]
    assert {"--one-file-system", "--xattrs", "--bwlimit=5m", "--fake-super", "--timeout=3600"} < set(flags)
    assert "--acls" not in flags
    assert not any(job.compresses(flag) for flag in flags)
    assert argv[argv.index("--strategy") + 1] == "1:1 30:7 365:30"


def test_the_port_sorts_its_strategy_as_text() -> None:
    argv = job.parse(options(implementation="python", strategy="2:1 10:7")).program()
    strategy = argv[argv.index("--strategy") + 1]
    assert strategy == "000002:1 000010:7"
    assert sorted(strategy.split(), reverse=True) == ["000010:7", "000002:1"]


def test_ssh_takes_the_jobs_keys_only() -> None:
    argv = job.parse(options(destination="backup@vault:/b", host_keys=[f"{KEY} a comment"], port=2222)).ssh()
    assert argv[-5:] == ["-p", "2222", "-l", "backup", "vault"]
    for setting in (
        "StrictHostKeyChecking=yes",
        "HostKeyAlias=srv",
        "IdentitiesOnly=yes",
        "GlobalKnownHostsFile=/dev/null",
    ):
        assert argv[argv.index(setting) - 1] == "-o"
