# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever somebody damaged by hand is repaired and reported by the next run."""

from __future__ import annotations

from clients import Box
from conftest import HOSTS, Site, Story

DIRECTORY = ["dovecot-users", "dovecot-disabled", "sender_logins.map", "forwards.map"]
TABLES = ["virtual_domains", "virtual_mailboxes", "virtual_aliases", "sender_logins"]


def managed(box: Box) -> list[str]:
    """Every file that a role wrote: the marked ones, the directory, the resolver's file."""
    marked = box.sh("grep -rlsI 'Ansible managed' /etc /usr/local/lib").split()
    assert len(marked) > 25
    return sorted(
        [*marked, "/etc/resolv.conf", *(f"/etc/postmeister/directory/{name}" for name in DIRECTORY), *tables()]
    )


def tables() -> list[str]:
    return [f"/etc/postmeister/directory/{name}.lmdb" for name in TABLES]


def snapshot(box: Box, files: list[str]) -> dict[str, str]:
    """Content, mode and owner of each; of a compiled table its entries, because its pages differ with each writing."""
    script = (
        'for f; do case $f in *.lmdb) sum=$(postmap -s lmdb:"${f%.lmdb}" | sort | sha256sum) ;;'
        ' *) sum=$(sha256sum <"$f") ;; esac;'
        ' echo "$f $sum $(stat -c %a:%U:%G "$f")"; done'
    )
    lines = box.run("sh", "-c", script, "sh", *files).splitlines()
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}


def damage(box: Box, files: list[str], how: str) -> None:
    box.run("sh", "-c", f"for f; do {how}; done", "sh", *files)


def damage_and_repair(site: Site, boxes: dict[str, Box], how: str) -> None:
    before = {}
    for name in HOSTS:
        files = managed(boxes[name])
        before[name] = snapshot(boxes[name], files)
        damage(boxes[name], files, how)
    run = site.play()
    assert run.rc == 0, run.failed_because()
    for name in HOSTS:
        after = snapshot(boxes[name], list(before[name]))
        assert after == before[name]
        # Each reports its own: resolver (2), directory, certificate, dovecot, redis, rspamd, postfix.
        assert run.stats[name]["changed"] >= 8, run.failed_because()


def test_damaged_content_is_repaired_and_reported(story: Story, site: Site, boxes: dict[str, Box]) -> None:
    damage_and_repair(
        site,
        boxes,
        "case $f in *.lmdb) postmap -d alice@example.test lmdb:${f%.lmdb}; echo 'x y' | postmap -i lmdb:${f%.lmdb} ;;"
        " *) echo '# damaged' >>$f ;; esac",
    )


def test_damaged_modes_and_owners_are_repaired_and_reported(story: Story, site: Site, boxes: dict[str, Box]) -> None:
    damage_and_repair(site, boxes, "chmod 0666 $f; chown daemon:daemon $f")


def test_lost_files_and_records_come_back(story: Story, site: Site, boxes: dict[str, Box]) -> None:
    damage_and_repair(site, boxes, "rm $f")


def test_after_the_repair_nothing_is_left_to_do(story: Story, site: Site) -> None:
    again = site.play()
    assert {name: again.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0), again.failed_because()


def test_a_loosened_private_key_is_tightened(story: Story, site: Site, mx: Box) -> None:
    keys = mx.sh(
        "find /etc/postmeister/dkim /etc/ssl/postmeister -type f \\( -name '*.key' -o -name '*.pem' \\)"
    ).split()
    assert len(keys) >= 6
    before = snapshot(mx, keys)
    damage(mx, keys, "chmod 0644 $f")
    run = site.play("-l", mx.name)
    assert run.rc == 0, run.failed_because()
    assert snapshot(mx, keys) == before
    assert run.stats[mx.name]["changed"] >= 2
