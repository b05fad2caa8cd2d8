# SPDX-License-Identifier: GPL-3.0-or-later

"""What was backed up comes back as it was, and what would not is named."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import Host

# Names with what a shell, rsync and a line of text would read in their own way.
FILES = {"plain": "1", "deep/er/file": "2", "with space": "3", "new\nline": "4", "star*": "5", "übung": "6"}
MAKE = """
set -e
rm -rf /srv/own; mkdir -p /srv/own/deep/er; cd /srv/own
printf 1 > plain; printf 2 > deep/er/file; printf 3 > 'with space'; printf 4 > 'new
line'; printf 5 > 'star*'; printf 6 > übung; echo no > left.tmp
chown 1234:2345 plain; chmod 4751 deep/er/file; chmod 750 deep; chown 77:78 deep
setfacl -m u:daemon:r 'with space'; setfattr -n user.note -v kept 'star*'; ln -s plain link
find . -exec touch -h -d '2001-02-03 04:05:06' {} +
"""
LOOK = """
cd /srv/own
find . ! -name '*.tmp' -printf '%P %y %U %G %m %T@ %l\\n' | sort
find . -type f ! -name '*.tmp' -print0 | sort -z | xargs -0 sha256sum
find . ! -name '*.tmp' -print0 | sort -z | { xargs -0 getfacl -np -- 2>/dev/null; }
getfattr -d -- star*
"""


def verify(host: Host, **options: Any) -> tuple[bool, str, dict[str, Any]]:
    """Whether it succeeded, what it said, what it returned for the first job."""
    play = [
        {"postmeister.host.rsync_time_backup_verify": options, "register": "found", "ignore_errors": True},
        {"debug": {"msg": "TOLD={{ found | to_json }}=TOLD"}},
    ]
    told = re.search(r'"TOLD=(.*)=TOLD"', host.machine.play(play).good().output)
    assert told
    found = json.loads(json.loads(f'"{told[1]}"'))
    return not found.get("failed", False), found.get("msg", ""), (found.get("jobs") or [{}])[0]


def restore(host: Host, *options: str, **arguments: Any) -> tuple[int, str]:
    run = host.machine.play([{"postmeister.host.rsync_time_backup_restore": {"job": "own", **arguments}}], *options)
    return run.rc, " ".join(run.output.split())


@pytest.fixture(params=[0, 1], ids=["debian13", "debian12"])
def box(request: pytest.FixtureRequest, hosts: tuple[Host, Host]) -> Host:
    """Each of the hosts."""
    return hosts[request.param]


@pytest.fixture
def snapshot(box: Host) -> str:
    """A fresh source, and the name of its snapshot, which shares no file with another."""
    box.sh(MAKE)
    box.end("own").sh("rm -rf /srv/vault/own/2* /srv/vault/own/latest")
    return box.good("own").rpartition("/")[2]


def test_a_good_backup_is_found_good(box: Host, snapshot: str) -> None:
    good, said, found = verify(box, names=["own"])
    assert good, said
    assert (found["snapshot"], found["files"], found["compared"]) == (snapshot, len(FILES) + 1, len(FILES) + 1)
    assert not box.sh("ls -d /var/lib/postmeister/backup/verify.* 2>/dev/null", check=False).strip()


def test_what_would_not_come_back_is_named(box: Host, snapshot: str) -> None:
    damage = (
        f"cd /srv/vault/own/{snapshot}; touch -r plain /root/when; printf X > plain; touch -r /root/when plain; "
        "chown 9:9 deep/er/file; chmod 600 'star*'; rm link; setfacl -b 'with space'"
    )
    box.end("own").sh(damage)
    good, said, found = verify(box, names=["own"])
    assert not good
    faults = {fault["name"]: set(fault["differs"]) for fault in found["faults"]}
    assert faults["plain"] == {"content"}
    # Another owner takes the set-uid bit along.
    assert faults["deep/er/file"] >= {"owner", "group"}
    assert faults["star*"] == {"mode"}
    assert faults["link"] == {"missing"}
    assert "ACL" in faults["with space"]
    assert set(faults) == {"plain", "deep/er/file", "star*", "link", "with space"}
    assert said.startswith("job own: 5 would not come back as they are: ") and "plain: content" in said


def test_what_changed_since_is_no_fault(box: Host, snapshot: str) -> None:
    box.sh("cd /srv/own; echo more >> plain; chmod 600 'star*'; echo new > newer")
    good, said, found = verify(box, names=["own"])
    assert good, said
    assert set(found["changed_since"]) == {"plain", "star*", "newer"}


def test_a_lost_folder_comes_back_as_it_was(box: Host, snapshot: str) -> None:
    before = box.sh(LOOK)
    box.sh("rm -r /srv/own")
    rc, said = restore(box, "--check", "--diff")
    assert rc == 0 and "+ deep/er/file" in said
    assert box.sh("ls /srv/own 2>/dev/null", check=False) == ""
    rc, said = restore(box, confirm=f"own {snapshot}")
    assert rc == 0, said
    assert box.sh(LOOK) == before


def test_nothing_happens_without_confirmation(box: Host, snapshot: str) -> None:
    box.sh("echo mine > /srv/own/plain")
    for confirm in ("", "own latest", "yes", f"other {snapshot}"):
        rc, said = restore(box, confirm=confirm)
        assert rc != 0 and f"confirm: 'own {snapshot}'" in said
    assert box.sh("cat /srv/own/plain") == "mine\n"


def test_what_is_replaced_is_kept_and_the_rest_stays(box: Host, snapshot: str) -> None:
    box.sh("echo mine > /srv/own/plain; echo other > /srv/own/newer")
    rc, said = restore(box, confirm=f"own {snapshot}", path="/plain", snapshot=snapshot)
    assert rc == 0, said
    assert box.sh("cat /srv/own/plain /srv/own/newer") == "1other\n"
    assert box.sh("cat /var/lib/postmeister/backup/own/replaced/*/plain") == "mine\n"
    box.sh("rm -r /var/lib/postmeister/backup/own/replaced")


def test_a_part_goes_elsewhere(box: Host, snapshot: str) -> None:
    rc, said = restore(box, confirm=f"own {snapshot}", path="deep", to="/root/elsewhere/deeper")
    assert rc == 0, said
    assert box.sh("find /root/elsewhere -type f -printf '%P %m\\n'") == "deeper/deep/er/file 4751\n"
    again = restore(box, confirm=f"own {snapshot}", path="deep", to="/root/elsewhere/deeper")
    assert again[0] == 0 and "changed=0" in again[1]
    box.sh("rm -r /root/elsewhere")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"job": "none"}, "there is no job none on this host"),
        ({"snapshot": "2001-01-01-000000"}, "there is no snapshot '2001-01-01-000000'; the newest are 20"),
        ({"path": "../etc"}, "is not a plain path inside the source"),
        ({"path": "a/../b"}, "is not a plain path"),
        ({"path": "missing"}, "missing is not in the snapshot"),
        ({"to": "relative"}, "is not a plain absolute path"),
        ({"to": "/etc/passwd"}, "is no folder"),
        ({"job": "pull"}, "is on another host"),
    ],
)
def test_bad_input_is_refused(hosts: tuple[Host, Host], given: dict[str, str], reason: str) -> None:
    host = hosts[0]
    if not host.snapshots("own"):
        host.good("own")
    rc, said = restore(host, "--check", **given)
    # Ansible breaks long lines of an error anywhere.
    assert rc != 0 and re.sub(r"\s", "", reason) in re.sub(r"\s|\\", "", said), said
