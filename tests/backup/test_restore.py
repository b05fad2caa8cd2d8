# SPDX-License-Identifier: GPL-3.0-or-later

"""What was backed up comes back as it was, and what would not is named, whichever implementation made the snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import First, Host, on_both

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"

# Names with what a shell, rsync and a line of text would read in their own way.
FILES = ("plain", "deep/er/file", "with space", "new\nline", "star*", "übung", "latin-1")
MAKE = """
set -e
rm -rf /srv/own; mkdir -p /srv/own/deep/er; cd /srv/own
printf 1 > plain; printf 2 > deep/er/file; printf 3 > 'with space'; printf 4 > 'new
line'; printf 5 > 'star*'; printf 6 > übung; printf 7 > "$(printf 'latin\\374')"; echo no > left.tmp
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


def verify(host: Host, **options: Any) -> dict[str, Any]:
    """What the module returned, and in "first" what it says of its first job."""
    found = host.machine.module("rsync_time_backup_verify", {"names": ["own"], **options})
    return {**found, "first": (found.get("jobs") or [{}])[0]}


def restore(host: Host, look: bool = False, **given: Any) -> dict[str, Any]:
    """What the module returned; look: in check mode, with the diff."""
    mode = {"_ansible_check_mode": True, "_ansible_diff": True} if look else {}
    return host.machine.module("rsync_time_backup_restore", {"job": "own", **given, **mode})


def fresh(host: Host) -> str:
    """A fresh source, and the name of its snapshot, which shares no file with another."""
    host.sh(MAKE)
    host.end("own").sh("rm -rf /srv/vault/own/2* /srv/vault/own/latest")
    return host.good("own").rpartition("/")[2]


@on_both
def test_a_good_backup_is_found_good(host: Host, first: First) -> None:
    snapshot = fresh(host)
    found = verify(host)
    assert not found["failed"], found
    told = found["first"]
    assert (told["snapshot"], told["files"], told["compared"]) == (snapshot, len(FILES) + 1, len(FILES) + 1)
    assert not host.sh("ls -d /var/lib/postmeister/backup/verify.* 2>/dev/null", check=False).strip()


@on_both
def test_what_would_not_come_back_is_named(host: Host, first: First) -> None:
    snapshot = fresh(host)
    damage = (
        f"cd /srv/vault/own/{snapshot}; touch -r plain /root/when; printf X > plain; touch -r /root/when plain; "
        "chown 9:9 deep/er/file; chmod 600 'star*'; rm link latin*; setfacl -b 'with space'; "
        "setfattr -n user.note -v other übung"
    )
    host.end("own").sh(damage)
    found = verify(host)
    assert found["failed"]
    faults = {fault["name"]: set(fault["differs"]) for fault in found["first"]["faults"]}
    assert faults["plain"] == {"content"}
    # Another owner takes the set-uid bit along.
    assert faults["deep/er/file"] >= {"owner", "group"}
    assert faults["star*"] == {"mode"}
    assert faults["link"] == faults["latin\\xfc"] == {"missing"}
    assert "ACL" in faults["with space"]
    assert faults["übung"] == {"xattrs"}
    assert set(faults) == {"plain", "deep/er/file", "star*", "link", "latin\\xfc", "with space", "übung"}
    assert found["msg"].startswith("job own: 7 would not come back as they are: ")
    assert "plain: content" in found["msg"]


@on_both
def test_what_changed_since_is_no_fault(host: Host, first: First) -> None:
    fresh(host)
    # Times have whole seconds in the name of a snapshot.
    host.sh("sleep 1; cd /srv/own; echo more >> plain; chmod 600 'star*'; echo new > newer")
    found = verify(host)
    assert not found["failed"], found
    assert set(found["first"]["changed_since"]) == {"plain", "star*", "newer"}


@on_both
def test_a_lost_folder_comes_back_as_it_was(host: Host, first: First) -> None:
    snapshot = fresh(host)
    before = host.sh(LOOK)
    host.sh("rm -r /srv/own")
    found = restore(host, look=True)
    assert not found["failed"] and "+ deep/er/file\n" in found["diff"]["prepared"], found
    assert found["confirm"] == f"own {snapshot}"
    assert host.sh("ls /srv/own 2>/dev/null", check=False) == ""
    found = restore(host, confirm=f"own {snapshot}")
    assert not found["failed"] and found["changed"], found
    assert host.sh(LOOK) == before
    assert not restore(host, confirm=f"own {snapshot}")["changed"]


@on_both
def test_nothing_happens_without_confirmation(host: Host, first: First) -> None:
    snapshot = fresh(host)
    host.sh("echo mine > /srv/own/plain")
    for confirm in ("", "own latest", "yes", f"other {snapshot}"):
        found = restore(host, confirm=confirm)
        assert found["failed"] and f"confirm: 'own {snapshot}'" in found["msg"], found
    assert host.sh("cat /srv/own/plain") == "mine\n"


@on_both
def test_what_is_replaced_is_kept_and_the_rest_stays(host: Host, first: First) -> None:
    snapshot = fresh(host)
    host.sh("cd /srv/own; echo mine > plain; echo other > newer; rm -r deep; echo file > deep")
    found = restore(host, confirm=f"own {snapshot}", path="/plain", snapshot=snapshot)
    assert not found["failed"], found
    assert host.sh("cat /srv/own/plain /srv/own/newer") == "1other\n"
    assert host.sh(f"cat {found['kept']}/plain") == "mine\n"
    # A file that is in the way of a folder.
    found = restore(host, confirm=f"own {snapshot}")
    assert not found["failed"], found
    assert host.sh(f"cat /srv/own/deep/er/file {found['kept']}/deep") == "2file\n"
    # A folder that is in the way of a file, with something in it: nothing is deleted, and it is said.
    host.sh("cd /srv/own; rm plain; mkdir plain; touch plain/precious; echo mine > übung")
    found = restore(host, confirm=f"own {snapshot}")
    assert found["failed"] and "nothing was brought back: " in found["msg"], found
    assert "could not make way for new regular file: plain" in found["msg"]
    assert host.sh("cd /srv/own; ls plain/precious; cat übung") == "plain/precious\nmine\n"
    host.sh("rm -r /srv/own/plain /var/lib/postmeister/backup/own/replaced")
    assert not restore(host, confirm=f"own {snapshot}")["failed"]


@on_both
def test_a_part_goes_elsewhere(host: Host, first: First) -> None:
    snapshot = fresh(host)
    given = {"confirm": f"own {snapshot}", "path": "deep", "to": "/root/elsewhere/deeper"}
    found = restore(host, **given)
    assert not found["failed"], found
    assert host.sh("find /root/elsewhere -type f -printf '%P %m\\n'") == "deeper/deep/er/file 4751\n"
    assert not restore(host, **given)["changed"]
    host.sh("rm -r /root/elsewhere")


BAD: list[tuple[dict[str, str], str]] = [
    ({"job": "none"}, "there is no job none on this host"),
    ({"snapshot": "2001-01-01-000000"}, "there is no whole snapshot '2001-01-01-000000'; the newest are 20"),
    ({"path": "../etc"}, "is not a plain path inside the source"),
    ({"path": "a/../b"}, "is not a plain path"),
    ({"path": "missing"}, "missing is not in the snapshot"),
    ({"to": "relative"}, "is not a plain absolute path"),
    ({"to": "/etc/passwd"}, "is no folder"),
    ({"job": "pull"}, "is on another host"),
]


@on_both
def test_bad_input_is_refused(host: Host, first: First) -> None:
    snapshot = fresh(host)
    before = host.sh(LOOK)
    for given, reason in BAD:
        for look in (True, False):
            found = restore(host, look, **{"confirm": f"own {snapshot}", **given})
            assert found["failed"] and reason in found["msg"], (given, found)
    assert host.sh(LOOK) == before


@on_both
def test_the_playbooks(host: Host, first: First) -> None:
    """Look, read how to confirm, bring back, verify: as an operator does it."""
    snapshot = fresh(host)
    host.sh("rm /srv/own/plain")
    given = {"target": "all", "ansible_become": False, "backup_job": "own"}
    said = " ".join(
        host.machine.play(PLAYBOOKS / "backup_restore.yml", "--check", "--diff", **given).good().output.split()
    )
    assert f"backup_confirm='own {snapshot}'" in said.replace("\\", "")
    told = host.machine.play(PLAYBOOKS / "backup_restore.yml", backup_confirm=f"own {snapshot}", **given).good()
    assert told.stats["changed"] == 1
    assert host.sh("cat /srv/own/plain") == "1"
    verified = host.machine.play(PLAYBOOKS / "backup_verify.yml", backup_jobs=["own"], **given).good()
    assert "'compared': 8" in verified.output
