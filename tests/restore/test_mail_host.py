# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole mail host out of its backup: it delivers, Alice reads her old mail, and it is the host that it was."""

from __future__ import annotations

import re

from conftest import ADHOC, ADHOC_PASSWORD, ALICE, JOB, KEYS, KNOWN, OWNERS, PASSWORD, STRANGER, VAULT, Host, Story


def test_an_empty_host_is_not_backed_up(story: Story) -> None:
    """Its snapshot would be the newest, which a restore takes."""
    said = story.said["backup of an empty host"]
    assert said.startswith("False ") and "this host is no mail host yet" in said
    assert story.old.sh(f"readlink {VAULT}/latest").strip() >= story.snapshot


def test_the_way_to_a_restore_is_told(story: Story) -> None:
    assert f"backup_confirm='{JOB} {story.snapshot}'" in story.said["look"].replace("\\", "")
    assert "+ var/vmail/example.test/alice" in story.said["look"]
    assert f"confirm: '{JOB} {story.snapshot}'" in story.said["without confirmation"].replace("\\", "")


def test_alice_reads_her_old_mail(host: Host) -> None:
    assert b"Subject: An old mail" in host.inbox(ALICE, PASSWORD, "An old mail")[0]
    assert host.inbox(ALICE, PASSWORD, "An old mail", "Kept")


def test_it_delivers(host: Host) -> None:
    """Mail from a sender whom the old host's greylist knew is not put off."""
    assert host.knock(KNOWN, "A new mail") == 250
    assert b"Subject: A new mail" in host.delivered("A new mail")[0]
    host.submit("By Alice herself")
    assert b"DKIM-Signature: " in host.delivered("By Alice herself")[0]


def test_a_stranger_waits(host: Host) -> None:
    """The control: the greylist is on."""
    assert 450 <= host.knock(STRANGER) <= 451


def test_it_is_the_same_host(story: Story, host: Host) -> None:
    """DKIM keys, certificate and the next key: what is in DNS stays true. No run of the playbook made them anew."""
    assert host.sh(KEYS) == story.keys
    assert story.keys.count("/etc/postmeister/dkim/") >= 1 and story.keys.count("/etc/ssl/postmeister/") >= 2


def test_a_mailbox_that_the_inventory_does_not_have(host: Host) -> None:
    """The directory came back, not only what the inventory says of it."""
    assert host.inbox(ADHOC, ADHOC_PASSWORD, "nothing") == []


def test_what_was_learnt(host: Host) -> None:
    assert host.sh("redis-cli -s /run/redis/redis-server.sock get learnt").strip() == "kept"


def test_all_have_their_owners_by_name(story: Story, host: Host) -> None:
    """Whatever numbers they have here: others had those of the old host."""
    now = set(host.sh(OWNERS).splitlines())
    owners = {tuple(line.split(" ")[1:]) for line in story.owners.splitlines()}
    assert {tuple(line.split(" ")[1:]) for line in now} == owners
    assert [owner for owner in owners if owner[0] == "vmail"]
    numbers = {name: host.sh(f"id -u {name}").strip() for name in story.uids}
    assert all(numbers[name] != uid for name, uid in story.uids.items()), (numbers, story.uids)
    assert all(host.sh(f"id -nu {uid}").strip() == f"taken-{name}" for name, uid in story.uids.items())


def test_a_running_host_is_not_overwritten(story: Story, host: Host) -> None:
    """Redis and postgrey would write their own data back; one mailbox may come back at any time."""
    given = {"job": JOB, "snapshot": story.snapshot, "confirm": f"{JOB} {story.snapshot}"}
    refused = host.play([{"postmeister.host.rsync_time_backup_restore": given}], good=False)
    assert "redis-server.service and postgrey.service would write over what is brought back" in refused
    host.sh("rm -r /var/vmail/example.test/alice")
    host.play([{"postmeister.host.rsync_time_backup_restore": {**given, "path": "var/vmail/example.test/alice"}}])
    assert host.inbox(ALICE, PASSWORD, "An old mail")


def test_the_new_host_backs_itself_up(story: Story, host: Host) -> None:
    """Into the same history, and what it holds is found good."""
    assert host.backup(), host.journal()
    latest = story.old.sh(f"readlink {VAULT}/latest").strip()
    assert latest > story.snapshot
    held = story.old.sh(f"cd {VAULT}/latest; find . -type f -o -type l")
    for path in ("var/lib/redis/dump.rdb", "var/backups/postmeister/postgrey/postgrey.db", "etc/postmeister/directory"):
        assert f"./{path}" in held
    # Neither the job's own key nor the mark of a whole run, nor anything that was not asked for.
    assert not re.search(r"\./(etc/postmeister/backup|etc/passwd|var/lib/postgrey|.*postmeister_mailserver)", held)
    said = host.play([{"postmeister.host.rsync_time_backup_verify": {"names": [JOB]}}], "-v")
    assert '"faults": []' in said
