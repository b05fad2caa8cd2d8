# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever somebody damaged by hand is repaired and reported by the next run."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from clients import Box
from conftest import CACHE, HOSTS, Run, Site, Story
from test_runs import secrets_of
from zones import ask, put

DIRECTORY = ["dovecot-users", "dovecot-disabled", "sender_logins.map", "forwards.map"]
# Of every kind that the hosts publish
RECORDS = {"{domain}": "MX", "_dmarc.{domain}": "TXT", "rsa1._domainkey.{fqdn}": "TXT", "_25._tcp.{fqdn}": "TLSA"}
RECORDS |= {"_imaps._tcp.{domain}": "SRV", "{fqdn}": "CAA"}
TABLES = ["virtual_domains", "virtual_mailboxes", "virtual_aliases", "sender_logins"]


# Who repairs what he manages
REPORTS = {
    "Write the directory of domains, mailboxes and aliases",
    "Configure Unbound, the host's only resolver",
    "Test the DNS lists, now and every ten minutes",
    "Make or get the certificate and the next key",
    "Configure postgrey",
    # One task for all of them
    *("dovecot", "redis", "rspamd", "postfix", "fail2ban"),
}

# Looks at the arguments of every process until standard input ends, and prints those that hold a secret.
WATCHER = """
import json, os, select, sys
secrets, found = json.loads(sys.stdin.readline()), []
while not select.select([sys.stdin], [], [], 0.05)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", errors="replace") as file:
                line = file.read()
        except OSError:
            continue
        found += [line for secret in secrets if secret in line and line not in found]
print(json.dumps(found))
"""


@contextmanager
def watched(box: Box, secrets: list[str]) -> Iterator[None]:
    """No process of the host shows a secret to everybody meanwhile. The control: it would be seen."""
    control = f"control-{uuid.uuid4().hex}"
    argv = ["podman", "exec", "-i", f"pm-{box.name}", "python3", "-c", WATCHER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write(json.dumps([control, *secrets]) + "\n")
        process.stdin.flush()
        yield
        box.run("sh", "-c", "sleep 2; true", control)
        found = json.loads(process.communicate(timeout=120)[0])
    assert found and all(control in line for line in found), found


def managed(box: Box) -> list[str]:
    """Every file that a role wrote: the marked ones, the directory, the resolver's file."""
    marked = box.sh("grep -rlsI -e 'Ansible managed' -e 'Managed by Ansible' /etc /usr/local/lib").split()
    assert len(marked) > 25
    return sorted(
        {*marked, "/etc/resolv.conf", *(f"/etc/postmeister/directory/{name}" for name in DIRECTORY), *tables()}
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


def repaired(site: Site, boxes: dict[str, Box], before: dict[str, dict[str, str]], *further: str) -> None:
    run = site.play("-v")
    assert run.rc == 0, run.failed_because()
    for name, files in before.items():
        assert snapshot(boxes[name], list(files)) == files
        assert {*REPORTS, *further} <= changed(run, name), run.failed_because()


def changed(run: Run, name: str) -> set[str]:
    """The tasks that said so, without the names of their roles, and the services that service_config named."""
    found = set()
    for task in run.output.split("\nTASK [")[1:]:
        match = re.search(rf"^changed: \[{name}(?: -> \S+)?\] => (.*)$", task, re.MULTILINE)
        if match:
            found.add(task.partition("]")[0].rpartition(" : ")[2])
            services = json.loads(match[1]).get("services", [])
            found |= {each["service"] for each in services if each["changed"]}
    return found


def test_damaged_content_is_repaired_and_reported(story: Story, site: Site, boxes: dict[str, Box]) -> None:
    table = "postmap -d alice@example.test lmdb:${f%.lmdb}; echo 'x y' | postmap -i lmdb:${f%.lmdb}"
    before = {name: snapshot(boxes[name], managed(boxes[name])) for name in HOSTS}
    for name, files in before.items():
        damage(boxes[name], list(files), f"case $f in *.lmdb) {table} ;; *) echo '# damaged' >>$f ;; esac")
    repaired(site, boxes, before)


def test_lost_and_loosened_files_and_lost_records_come_back_and_no_process_shows_a_secret(
    story: Story,
    site: Site,
    boxes: dict[str, Box],
    accounts: dict[str, tuple[str, str]],
    others: dict[str, tuple[str, str]],
) -> None:
    hosts = [boxes[name] for name in HOSTS]
    records = [(name.format(domain=box.domain, fqdn=box.fqdn), kind) for name, kind in RECORDS.items() for box in hosts]
    there = {record: ask(*record) for record in records}
    assert all(there.values())
    for record in records:
        put(*record, [])
    before = {}
    with ExitStack() as stack:
        for turn, box in enumerate(hosts):
            files, keys = managed(box), private_keys(box)
            before[box.name] = snapshot(box, files + keys)
            passwords = [accounts[box.name][1], others[box.name][1]]
            tsig = (CACHE / "lab" / "tsig" / f"{box.domain}.secret").read_text().strip()
            stack.enter_context(watched(box, [*passwords, tsig, *secrets_of(box)]))
            # What one host loses, everybody may read and write on the other.
            lost = [file for file in files if zlib.crc32(file.encode()) % 2 == turn]
            damage(box, lost, "rm $f")
            damage(box, sorted({*files} - {*lost}), "chmod 0666 $f; chown daemon:daemon $f")
            damage(box, keys, "chmod 0644 $f")
        repaired(site, boxes, before, "Make the DKIM keys", "Bring DNS to the wanted records")
    assert {record: ask(*record) for record in records} == there


# Of each kind one on one host and one on the other: what is damaged, and who repairs it
ALONE = [
    {
        "mx": ("/etc/unbound/unbound.conf", {"Configure Unbound, the host's only resolver", "unbound"}),
        "mx12": ("{dkim}", {"Make the DKIM keys"}),
    },
    {
        "mx": ("/etc/postgrey/whitelist_clients.local", {"Configure postgrey"}),
        "mx12": ("/etc/systemd/system/postmeister-dnsbl.timer", {"Test the DNS lists, now and every ten minutes"}),
    },
    {
        "mx": ("/etc/systemd/system/postmeister-certificate.timer", {"Make or get the certificate and the next key"}),
        "mx12": (
            "/etc/postmeister/directory/virtual_aliases.lmdb",
            {"Write the directory of domains, mailboxes and aliases"},
        ),
    },
]


@pytest.mark.parametrize("damaged", ALONE, ids=["resolver-dkim", "greylist-lists", "certificate-directory"])
def test_one_that_is_loosened_alone_is_repaired_and_reported(
    site: Site, boxes: dict[str, Box], damaged: dict[str, tuple[str, set[str]]]
) -> None:
    """The run leaves out what it finds in place, and nothing else."""
    before = {}
    for name, (path, _tasks) in damaged.items():
        box = boxes[name]
        files = [path.format(dkim=f"/etc/postmeister/dkim/{box.domain}/rsa1.key")]
        before[name] = snapshot(box, files)
        damage(box, files, "chmod 0646 $f")
    run = site.play("-v")
    assert run.rc == 0, run.failed_because()
    for name, (_path, tasks) in damaged.items():
        assert snapshot(boxes[name], list(before[name])) == before[name]
        assert changed(run, name) == tasks


def private_keys(box: Box) -> list[str]:
    folders = "/etc/postmeister/dkim /etc/ssl/postmeister"
    keys = box.sh(f"find {folders} -type f \\( -name '*.key' -o -name '*.pem' \\)").split()
    assert len(keys) >= 6
    return keys
