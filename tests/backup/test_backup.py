# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups over real SSH between two hosts, of Debian 12 and 13, with both implementations where both can be had."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from conftest import JOBS, First, Host, both, on_both

RUNNING = "/var/lib/postmeister/backup"
#: writes down each rsync's arguments, as the kernel has them, until told to stop
WATCH = """
import glob, json, os, time
seen = set()
while not os.path.exists("/root/stop"):
    time.sleep(0.005)
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            argv = tuple(open(path, "rb").read().decode().rstrip("\\0").split("\\0"))
        except OSError:
            continue
        if argv[0].rpartition("/")[2] == "rsync":
            seen.add(argv)
with open("/root/seen", "w") as file:
    json.dump(sorted(seen), file)
"""


@contextlib.contextmanager
def watching(*hosts: Host) -> Iterator[list[list[str]]]:
    """The arguments of all rsync processes on these hosts meanwhile."""
    found: list[list[str]] = []
    for host in hosts:
        host.machine.put("/root/watch.py", WATCH)
        host.sh("rm -f /root/stop /root/seen; systemd-run --quiet --collect --unit=watch python3 /root/watch.py")
    try:
        yield found
    finally:
        for host in hosts:
            host.sh("touch /root/stop")
    for host in hosts:
        poll(host, "cat /root/seen", "]")
        found += json.loads(host.machine.read("/root/seen"))


def compressing(argv: list[str]) -> list[str]:
    """Arguments that turn compression on: long, short, and in the bundle that a client sends to a server."""
    hits = [word for word in argv if re.match(r"--(old-|new-)?compress|--z[clt]\b", word)]
    return hits + [word for word in argv if re.fullmatch(r"-[A-Za-df-z]*z[A-Za-z]*(e.*)?", word)]


# --- the role's runs ---


def test_check_mode_on_a_bare_host(first: First) -> None:
    """It says what would change, and leaves nothing."""
    assert [run.stats["changed"] for run in first.check] == [3, 3]
    assert not first.left


def test_runs_settle(first: First) -> None:
    """The second run has the peers' keys; the third has nothing to do."""
    assert all(run.stats["changed"] for run in [*first.first, *first.peers])
    assert [run.stats["changed"] for run in first.again] == [0, 0]


# --- snapshots ---


@pytest.mark.parametrize("job", ["push", "pull", "local"])
@on_both
def test_unchanged_files_are_shared(host: Host, job: str) -> None:
    """Two snapshots share the inodes of what did not change; content, owners, modes, times, ACLs, attributes stay."""
    end = host.end(job)
    source = host.other if "@" in JOBS[job]["source"] else host
    assert source is not None
    first = host.good(job)
    source.sh("echo more >> /srv/data/deep/6")
    second = host.good(job)
    assert first != second
    inodes = [
        end.sh(f"cd {path} && stat -c '%n %i' link private twin deep/[1-6]").splitlines() for path in (first, second)
    ]
    changed = [one.split()[0] for one, other in zip(*inodes) if one != other]
    assert changed == ["deep/6"]
    for tool in (
        "find . -name '*.tmp' -o -printf '%p %y %U %G %m %T@ %l\n' | sort",
        "getfacl -Rn deep",
        "getfattr -Rd deep",
    ):
        assert end.sh(f"cd {second} && {tool}") == source.sh(f"cd /srv/data && {tool}")
    assert ("x.tmp" in end.sh(f"ls {second}")) == (job != "push")
    assert end.sh(f"readlink {host.folder(job)}/latest").strip() == second.rpartition("/")[2]


def test_nothing_compresses(hosts: tuple[Host, Host]) -> None:
    """No rsync process of a job has compression in its arguments, at either end; with zstd and lz4 that method only."""
    for job, wanted in (("push", set()), ("pull", set()), ("thin", {"zstd"}), ("thinner", {"lz4"})):
        found: list[list[str]] = []
        # A process may come and go between two looks.
        for _turn in range(10):
            with watching(*hosts) as seen:
                both(lambda host, job=job: host.good(job), *hosts)
            found += seen
            sides = ["--server" in argv for argv in found]
            if min(sides.count(True), sides.count(False)) >= 2:
                break
        assert min(sides.count(True), sides.count(False)) >= 2, (job, found)
        hits = {word for argv in found for word in compressing(argv)}
        assert hits == {f"--compress-choice={method}" for method in wanted}, (job, found)


@pytest.mark.parametrize("job", ["push", "local"])
@on_both
def test_expiry_follows_the_strategy(host: Host, job: str) -> None:
    """All of a day, one a day for 30 days, one in seven for a year, then one in thirty; the oldest stays."""
    end, folder = host.end(job), host.folder(job)
    # A snapshot of noon or midnight is a day older a moment later: not in the middle of this.
    while (moment := datetime.now(timezone.utc)).hour % 12 == 11 and moment.minute >= 57:
        time.sleep(1)
    now = datetime.now(timezone.utc)
    kept_from_before = host.snapshots(job)
    # Two a day, at noon and midnight (UTC), around each of the strategy's borders: names as the program makes them.
    days = [*range(1, 8), *range(24, 48, 3), *range(350, 420, 10)]
    stamps = sorted(
        (now - timedelta(days=day)).replace(hour=hour, minute=0, second=0).strftime("%Y-%m-%d-%H%M%S")
        for day in days
        for hour in (0, 12)
    )
    end.sh(f"cd {folder} && mkdir {' '.join(stamps)}")
    latest = host.good(job).rpartition("/")[2]
    left = [name for name in host.snapshots(job) if name not in kept_from_before and name != latest]
    assert left == expected(stamps, now), set(left) ^ set(expected(stamps, now))
    assert len(left) < len(stamps) / 2
    assert set(kept_from_before) <= set(host.snapshots(job))
    end.sh(f"cd {folder} && rm -rf {' '.join(left)}")


def expected(stamps: list[str], now: datetime) -> list[str]:
    """What 1:1 30:7 365:30 keeps, said in another way than the programs do."""
    kept: list[datetime] = []
    for moment in (datetime.strptime(stamp, "%Y-%m-%d-%H%M%S").replace(tzinfo=timezone.utc) for stamp in stamps):
        age = now - moment
        every = 30 if age >= timedelta(365) else 7 if age >= timedelta(30) else 1 if age >= timedelta(1) else 0
        if not kept or not every or (moment.date() - kept[-1].date()).days >= every:
            kept.append(moment)
    return [moment.strftime("%Y-%m-%d-%H%M%S") for moment in kept]


# --- what goes wrong ---


@on_both
def test_killed_in_the_middle(host: Host) -> None:
    """The half snapshot counts as none, what it holds is not transferred again, older snapshots stay as they were."""
    whole = host.good("slow")
    before = host.digest("slow")
    end, folder, unit = host.end("slow"), host.folder("slow"), "postmeister-backup-slow.service"
    # A name that no snapshot has: the other implementation may have been here before.
    new = f"new-{host.implementation}"
    host.sh(
        f"mkdir /srv/slow/{new}; for n in 1 2 3 4 5 6 7 8; do head -c 300000 /dev/urandom > /srv/slow/{new}/$n; done"
    )
    host.sh(f"sleep 1; systemctl start --no-block {unit}")
    # The second file takes its place when it is whole; from here to the end the line is busy for six seconds.
    half = end.sh(
        f"for turn in $(seq 3000); do ls -d {folder}/2*/{new}/2 2>/dev/null && break; sleep 0.04; done", check=False
    ).strip()
    # Held, so that it is in the middle however slow this machine is.
    host.sh(f"systemctl kill --signal=STOP {unit}")
    assert half, host.sh(f"journalctl -o cat -n 30 -u {unit}")
    assert host.sh(f"systemctl is-active {unit}", check=False).strip() == "activating"
    # A second run at the same time has no chance, and does not disturb the first.
    assert "another run is at work" in host.sh("/usr/local/lib/postmeister/backup/bin/run slow", check=False)
    host.sh(f"rm -f /root/mail; systemctl kill --signal=KILL {unit}")
    poll(host, f"systemctl is-failed {unit}", "failed")
    assert end.sh(f"readlink -f {folder}/latest").strip() == whole
    assert host.status("slow")["started"]
    poll(host, "cat /root/mail", "backup slow was killed")
    inode = end.sh(f"stat -c %i {half}")
    latest = host.good("slow")
    assert host.end("slow").sh(f"stat -c %i {latest}/{new}/2") == inode
    now = host.digest("slow")
    assert {name: now[name] for name in before} == before
    assert sorted(now) == [*sorted(before), latest.rpartition("/")[2]] == host.snapshots("slow")
    host.sh("cd /srv/slow && sha256sum $(find . -type f) > /root/sums")
    end.machine.put("/root/sums", host.machine.read("/root/sums"))
    end.sh(f"cd {latest} && sha256sum --quiet -c /root/sums")


def poll(host: Host, script: str, wanted: str) -> None:
    """Wait until a command prints something."""
    text, deadline = "", time.monotonic() + 180
    while time.monotonic() < deadline:
        text = host.sh(script, check=False)
        if wanted in text:
            return
        time.sleep(0.1)
    raise AssertionError(f"{script}: {wanted} is not in {text}")


@on_both
def test_disk_full(host: Host) -> None:
    """It fails, is told, and costs no snapshot; with room again the next run is whole."""
    host.sh("rm -f /srv/big/second")
    host.good("full")
    before = host.digest("full")
    host.sh("rm -f /root/mail; head -c 8000000 /dev/urandom > /srv/big/second")
    last = host.failed("full")
    assert (last["result"], last["rsync_status"]) == ("failed", 11)
    assert "No space left on device" in " ".join([last["reason"], *last["errors"]])
    poll(host, "cat /root/mail", "backup full failed")
    assert host.digest("full") == before
    host.sh("rm /srv/big/second")
    host.good("full")
    assert {name: host.digest("full")[name] for name in before} == before


def whole(host: Host, job: str) -> list[str]:
    """Snapshots without what failed runs left for the next one."""
    return [name for name in host.snapshots(job) if name.startswith("2")]


@on_both
def test_source_unreadable(host: Host) -> None:
    """A file that cannot be read is told each time, and the history goes on; one that is unreadable fails."""
    assert host.other is not None
    known = whole(host, "reader")
    for turn in (1, 2):
        host.sh("rm -f /root/mail")
        last = host.failed("reader")
        assert (last["result"], last["rsync_status"]) == ("partial", 23)
        assert any("/srv/data/private" in error for error in last["errors"]), last
        assert len(whole(host, "reader")) == len(known) + turn
        poll(host, "cat /root/mail", "backup reader is incomplete")
    status = host.status("reader")
    assert status["last_success"] is None
    assert {entry["result"] for entry in status["snapshots"].values()} == {"partial"}
    before = host.digest("reader")
    newest = f"{host.folder('reader')}/{sorted(before)[-1]}"
    assert host.sh(f"ls {newest}/deep").split() == ["1", "2", "4", "5", "6"]
    host.other.sh("chmod 700 /srv/data")
    try:
        assert host.failed("reader")["result"] == "failed"
    finally:
        host.other.sh("chmod 755 /srv/data")
    assert host.digest("reader") == before


@on_both
def test_disk_not_mounted(host: Host) -> None:
    """Without its marker nothing is written to a destination, and a run of the role does not make it anew."""
    host.good("local")
    before = host.snapshots("local")
    host.sh("mv /srv/local /srv/away; mkdir /srv/local; rm -f /root/mail")
    try:
        assert "backup.marker" in host.failed("local")["reason"]
        run = host.play().good()
        assert "is the disk mounted" in " ".join(run.output.split())
        assert host.snapshots("local") == []
        assert run.stats["changed"] == 0
    finally:
        host.sh("rmdir /srv/local; mv /srv/away /srv/local")
    assert host.snapshots("local") == before


# --- keys ---

FORBIDDEN = {
    "push": [
        "id",
        "cat /etc/shadow",
        "",
        "rsync --server --sender -logDtpr . /etc/",
        "rsync --server --sender -logDtpr . /srv/vault/push/../../data/",
        "rsync --server -logDtpr --log-file=/etc/x . /srv/vault/push/",
        "rm -rf -- /srv/vault/push",
        "rm -rf -- /srv/vault/push/../slow",
        "rm -rf -- /srv/vault/slow/2026-01-01-000000",
        "mv -- /srv/vault/push/2026-01-01-000000 /etc/x",
        "find /srv/vault/push/backup.marker; id",
        "find /srv/vault/push/$(id)/backup.marker",
    ],
    "pull": [
        "id",
        "ls -1A -- /srv/data/",
        "rsync --server -logDtpr . /srv/data/",
        "rsync --server --sender -logDtpr . /etc/",
    ],
}


@on_both
def test_the_key_serves_its_folder_only(host: Host) -> None:
    """No shell, no other folder, no writing with a key to read, no forwarding."""
    assert host.other is not None
    host.sh("ls /root/.ssh/known_hosts 2>/dev/null && exit 1 || true")
    tried = "uid=0"
    for job, commands in FORBIDDEN.items():
        for command in commands:
            told = ssh(host, job, f"'{command}'" if command else "")
            assert "status 0" not in told, (job, command, told)
            assert tried not in told and "root:" not in told, (job, command, told)
    assert "status 0" not in ssh(host, "push", "", "-N -o ExitOnForwardFailure=yes -R 2222:127.0.0.1:22 -f")
    # The control: what the key is for.
    assert "status 0" in ssh(host, "push", "'find /srv/vault/push/backup.marker'")
    assert host.other.sh("test -e /etc/x || echo none").strip() == "none"


def ssh(host: Host, job: str, command: str, options: str = "") -> str:
    """ssh with a job's key, past our own wrapper."""
    assert host.other is not None
    user = JOBS[job]["destination" if "@" in JOBS[job]["destination"] else "source"].partition("@")[0]
    folder = "/etc/postmeister/backup"
    return host.sh(
        f"timeout 20 ssh -F none -i {folder}/keys/{job} -o IdentitiesOnly=yes -o BatchMode=yes -o HostKeyAlias={job} "
        f"-o UserKnownHostsFile={folder}/jobs/{job}.known_hosts -o ControlPath=none {options} "
        f"{user}@{host.other.machine.address} {command}; echo status $?",
        check=False,
    )


@pytest.mark.parametrize("job", ["push", "pull"])
@on_both
def test_another_host_key_is_refused(host: Host, job: str) -> None:
    """Whatever upstream tells ssh: a host that shows another key gets nothing."""
    file = f"/etc/postmeister/backup/jobs/{job}.known_hosts"
    host.sh(f"cp {file} /root/kept")
    host.sh(
        "rm -f /root/key*; ssh-keygen -q -t ed25519 -N '' -f /root/key; "
        f"echo {job} $(cut -d' ' -f1,2 /root/key.pub) > {file}"
    )
    before = host.digest(job)
    try:
        last = host.failed(job)
        assert "Host key verification failed" in " ".join([last["reason"], *last["errors"]]), last
    finally:
        host.sh(f"cp /root/kept {file}")
    assert host.digest(job) == before


# --- what the role refuses ---


@on_both
def test_bad_input_is_refused(host: Host, first: First) -> None:
    """Before anything changes, with the job, the value and the reason."""
    tree = (
        "find /etc/postmeister /var/lib/postmeister /etc/systemd/system /usr/local/lib /srv/data /root/.ssh "
        "! -path '*/services/*' -printf '%p %T@\n' | sort | sha256sum"
    )
    good = {"source": "/srv/data", "destination": "/srv/other", "schedule": ""}
    bad = {
        "nosource": ({"source": ""}, "source: missing"),
        "missing": ({"source": "/srv/nothing"}, "there is no folder /srv/nothing"),
        "inside": ({"destination": "/srv/data/backup"}, "lies inside the source"),
        "around": ({"destination": "/srv"}, "lies inside the destination"),
        "throughlink": ({"destination": "/srv/alias/backup"}, "one lies in the other"),
        "strategy": ({"strategy": "daily"}, "is not a list of pairs of days"),
        "schedule": ({"schedule": "every full moon"}, "systemd-analyze calendar does not understand"),
        "zlib": ({"rsync_options": ["-z"]}, "compresses"),
        "unmounted": ({"mount": "/srv", "destination": "/srv/other"}, "nothing is mounted on /srv"),
        "nokey": ({"destination": "root@198.51.100.1:/srv"}, "host_keys: missing"),
        "nopath": ({"paths": ["/srv/data/typo"]}, "paths: there is no /srv/data/typo"),
        "outside": ({"paths": ["/etc"]}, "paths: /etc is not a plain absolute path inside the source"),
        "linked": ({"paths": ["/srv/alias"], "source": "/srv", "destination": "/root/x"}, "leads to /srv/data"),
        "preset": ({"preset": "mail_host"}, "does not go with preset mail_host"),
    }
    host.sh("ln -sfn /srv/data /srv/alias")
    before = host.sh(tree)
    for name, (options, words) in bad.items():
        given = {"source": "/root/none", "jobs": [{"name": name, **good, **options}]}
        told = host.machine.module("rsync_time_backup", given)
        assert told["failed"] and f"job {name}: " in told["msg"] and words in told["msg"], (name, told)
    assert host.sh(tree) == before


def test_another_upstream_is_refused(hosts: tuple[Host, Host], tmp_path: object) -> None:
    """A source whose checksum is not the pinned one is not installed."""
    host = hosts[1]
    before = host.sh("sha256sum /usr/local/lib/postmeister/backup/upstream/*")
    run = host.play(checksum="0" * 64)
    assert run.rc != 0
    assert "its SHA-256 is" in " ".join(run.output.split())
    assert host.sh("sha256sum /usr/local/lib/postmeister/backup/upstream/*") == before


def test_from_a_mirror(pair: tuple[Host, Host], first: First) -> None:
    """A URL instead of the default; what it gives is checked like any other."""
    host = pair[1]
    folder, program = "/root/mirror", "/usr/local/lib/postmeister/backup/upstream"
    host.machine.put(f"{folder}/upstream", host.source.read_bytes())
    serve = f"python3 -m http.server --bind 127.0.0.1 --directory {folder} 8088"
    host.sh(f"systemd-run --quiet --collect --unit=mirror {serve}")
    installed = host.sh(f"sha256sum {program}/*")
    try:
        poll(host, 'python3 -c \'import socket; socket.create_connection(("127.0.0.1", 8088)); print("up")\'', "up")
        host.sh(f"rm -f {program}/* /var/cache/postmeister-backup-*")
        host.play(source="http://127.0.0.1:8088/upstream").good()
        assert host.sh(f"sha256sum {program}/*") == installed
        host.sh(f"echo >> {folder}/upstream; rm -f /var/cache/postmeister-backup-*")
        refused = host.play(source="http://127.0.0.1:8088/upstream")
        assert refused.rc != 0 and "checksum" in refused.output
        assert host.sh(f"sha256sum {program}/*") == installed
    finally:
        host.sh("systemctl stop mirror")


def test_the_port_by_pip(pair: tuple[Host, Host], first: First) -> None:
    """Without a source the port is what pip brings, checked like any other; here pip has a folder for an index."""
    host = pair[0]
    wheel = host.wheel
    host.machine.put(f"/root/wheels/{wheel.name}", wheel.read_bytes())
    host.machine.put("/etc/pip.conf", "[global]\nno-index = true\nfind-links = /root/wheels\n")
    was, host.implementation = host.implementation, "python"
    upstream = "/usr/local/lib/postmeister/backup/upstream/rsync_time_machine.py"
    host.sh(f"rm -f {upstream}")
    try:
        host.play(source="").good()
        assert host.sh(f"grep -c 'no --compress' {upstream}").strip() == "1"
        assert host.play(source="").good().stats["changed"] == 0
    finally:
        host.implementation = was


# --- the timer, the end of a job ---


def test_timer_commands_and_the_end_of_a_job(hosts: tuple[Host, Host]) -> None:
    """A job with a schedule waits for it; its commands run; one that is listed no more leaves its snapshots behind."""

    def check(host: Host) -> None:
        extra = {
            "source": "/srv/dump",
            "destination": "/srv/timed",
            "schedule": "*-*-* 03:00:00",
            "random_delay": "10min",
            "before": ["date +%N > /srv/dump/database"],
            "nice": 12,
            "ionice": "idle",
            "after": ["echo $BACKUP_JOB $BACKUP_RESULT > /root/after"],
        }
        host.sh("mkdir -p /srv/dump; rm -rf /srv/timed/2* /srv/timed/latest")
        assert host.play(jobs=host.jobs(timed=extra)).good().stats["changed"] == 1
        told = host.info("timed")
        assert (told["result"], told["age"], told["snapshots"]) == ("never", None, [])
        when = datetime.strptime(told["next_run"], "%Y-%m-%dT%H:%M:%SZ")
        assert (when.hour, when.minute // 10) == (3, 0)
        shown = host.sh(
            "systemctl show -p Nice,IOSchedulingClass,FragmentPath postmeister-backup-timed.service; "
            "systemctl show -p Persistent,RandomizedDelayUSec postmeister-backup-timed.timer"
        )
        assert {"Nice=12", "IOSchedulingClass=3", "Persistent=yes", "RandomizedDelayUSec=10min"} <= set(
            shown.split()
        ), shown
        assert host.backup("timed")
        latest = host.sh("cat /srv/timed/latest/database")
        assert latest == host.sh("cat /srv/dump/database")
        assert host.sh("cat /root/after").split() == ["timed", "ok"]
        told = host.info("timed")
        assert (told["result"], told["age"] < 900, told["size"] > 0, len(told["snapshots"])) == ("ok", True, True, 1)
        failing = {**extra, "before": ["exit 3"]}
        host.play(jobs=host.jobs(timed=failing)).good()
        assert not host.backup("timed")
        assert host.status("timed")["last_run"]["reason"] == "command 1 of before ended with status 3"
        assert host.sh("cat /root/after").split() == ["timed", "failed"]
        assert host.play().good().stats["changed"] == 1
        assert host.sh("systemctl is-active postmeister-backup-timed.timer", check=False).strip() == "inactive"
        assert not host.sh("ls -d /etc/postmeister/backup/*/timed* 2>/dev/null", check=False)
        assert host.sh("ls /srv/timed/*/database").strip()
        assert host.play().good().stats["changed"] == 0

    both(check, *hosts)
