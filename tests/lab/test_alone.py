# SPDX-License-Identifier: GPL-3.0-or-later

"""Every role by itself, each in a play of its own on bare hosts: check mode, first run, second run (alone.yml)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clients import Box, search_imap, talk
from conftest import INVENTORY, Run, Site, lab

HOSTS = ("single13", "single12")
PASSWORD = "canary-alone-Tn4vJw8X"
# The same, as the scheme that takes most memory to verify; Dovecot's auth process must have it.
HASH = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$cQtUoeOvTZrkLx9h3iKPEw$wI18wUdL38mSLxgL+STgvgJHUNP0C5P1ytR9LcDT9Pc"
ZONE = "$ORIGIN {}.test.\n@ 3600 SOA ns1 hostmaster 1 3600 900 604800 300\n@ NS ns1\nns1 A 198.51.100.53\n"
# The play of each role, and the services that it leaves behind.
ROLES = {
    "Resolver": ["unbound"],
    "Certificate": ["postmeister-certificate.timer"],
    "Redis": ["redis-server"],
    "Spam filter": ["rspamd"],
    "Mailboxes": ["dovecot"],
    "Mail server": ["postfix"],
    "DNS records in a zone file": [],
    "DNS records to paste": [],
}
# It shows text and never has anything to change.
ONLY_SHOWS = "DNS records to paste"


@dataclass(frozen=True)
class Alone:
    check: Run
    first: Run
    second: Run
    before_check: str
    after_check: str
    zones: Path
    # What `ansible -m` said when a user and an alias were made on the command line, between the two runs.
    made: list[str]


def changed(run: Run) -> dict[tuple[str, str], int]:
    """How many tasks changed something, by play and host."""
    counts: dict[tuple[str, str], int] = {}
    play = ""
    for line in run.output.splitlines():
        if found := re.match(r"PLAY \[(.+)\]", line):
            play = found[1]
            counts |= {(play, name): 0 for name in HOSTS}
        elif found := re.match(r"changed: \[(\w+)", line):
            counts[play, found[1]] += 1
    return counts


def ad_hoc(site: Site, module: str, **arguments: object) -> str:
    """One module on both hosts, as somebody types it."""
    argv = ["ansible", "-i", str(INVENTORY), "single", "-m", f"postmeister.host.{module}", "-a", json.dumps(arguments)]
    own = {"ANSIBLE_COLLECTIONS_PATH": str(site.collections), "PYTHONPATH": "", "ANSIBLE_NOCOLOR": "1"}
    environment = {**os.environ, **own}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def singles() -> Iterator[dict[str, Box]]:
    lab("up")
    lab("fresh", *HOSTS)
    numbers = {"single13": 96, "single12": 97}
    yield {
        name: Box(name, f"mx.{name}.test", f"198.51.100.{number}", f"2001:db8:51::{number}")
        for name, number in numbers.items()
    }
    lab("rm", *HOSTS)


@pytest.fixture(scope="module")
def alone(site: Site, singles: dict[str, Box], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    zones = tmp_path_factory.mktemp("zones")
    for name in HOSTS:
        (zones / f"{name}.test.zone").write_text(ZONE.format(name))
    extra = {"single_zones": str(zones), "single_password": PASSWORD, "ansible_become": False}

    def play(*options: str) -> Run:
        return site.play(*options, playbook=str(Path(__file__).with_name("alone.yml")), extra=extra)

    before = state_of(singles, zones)
    check = play("--check", "--diff")
    after = state_of(singles, zones)
    first = play("--diff")
    assert first.rc == 0, first.failed_because()
    # The hosts' names differ only in their domains, and one command speaks to both.
    made = [
        ad_hoc(site, "mail_user", address="guest@{{ lab_zones[0] }}", password_hash=HASH),
        ad_hoc(site, "mail_alias", address="visitor@{{ lab_zones[0] }}", destinations=["guest@{{ lab_zones[0] }}"]),
    ]
    return Alone(check, first, play("--diff"), before, after, zones, made)


def state_of(singles: dict[str, Box], zones: Path) -> str:
    """All that a role could have changed."""
    script = (
        "dpkg-query -W; find /etc /usr /opt /root /home /var/lib /var/spool /var/vmail -xdev"
        " -path /var/lib/systemd -prune -o -printf '%p %s %m %u %T@\\n' 2>/dev/null | sort"
    )
    return "".join(box.sh(script) for box in singles.values()) + "".join(
        path.read_text() for path in sorted(zones.iterdir())
    )


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_works_alone(alone: Alone, singles: dict[str, Box], role: str, host: str) -> None:
    check, first, second = (changed(run)[role, host] for run in (alone.check, alone.first, alone.second))
    assert (check > 0, first > 0, second) == (role != ONLY_SHOWS, role != ONLY_SHOWS, 0)
    for unit in ROLES[role]:
        assert singles[host].run("systemctl", "is-active", unit).strip() == "active"


def test_check_mode_succeeds_on_bare_hosts_and_changes_nothing(alone: Alone) -> None:
    assert alone.check.rc == 0, alone.check.failed_because()
    assert alone.after_check == alone.before_check


def test_the_second_run_succeeds(alone: Alone) -> None:
    assert alone.second.rc == 0, alone.second.failed_because()
    assert {name: alone.second.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0)


@pytest.mark.parametrize("host", HOSTS)
def test_the_hosts_are_well(alone: Alone, singles: dict[str, Box], host: str) -> None:
    assert singles[host].run("systemctl", "--failed", "--no-legend").strip() == ""
    # Nobody named another resolver, and it validates.
    assert "nameserver 127.0.0.1\n" in singles[host].run("cat", "/etc/resolv.conf")


@pytest.mark.parametrize("host", HOSTS)
def test_a_default_quota_without_a_unit_is_bytes(alone: Alone, singles: dict[str, Box], host: str) -> None:
    """Dovecot 2.3 would read it as KiB; it shows all sizes so."""
    shown = singles[host].run("doveadm", "-f", "tab", "quota", "get", "-u", f"guest@{host}.test")
    assert re.search(r"\tSTORAGE\t\d+\t5000\t", shown), shown


@pytest.mark.parametrize("host", HOSTS)
def test_records_stand_in_the_zone_file_and_in_the_text_to_paste(
    alone: Alone, singles: dict[str, Box], host: str
) -> None:
    words = [f"{host}.test. 3600 IN MX 10 mx.{host}.test.", f"mx.{host}.test. 3600 IN A {singles[host].ipv4}"]
    zone = (alone.zones / f"{host}.test.zone").read_text()
    pasted = re.sub(" +", " ", alone.first.output)
    for word in words:
        assert word in zone
        assert word in pasted
    # What somebody else wrote stays, and secondaries notice the change.
    assert "ns1 A 198.51.100.53" in zone
    assert "hostmaster 2 " in zone


@pytest.mark.parametrize("host", HOSTS)
def test_ad_hoc_entries_work_and_outlive_a_run_that_purges(alone: Alone, singles: dict[str, Box], host: str) -> None:
    assert all(f"{host} | CHANGED" in said for said in alone.made)
    # alone.yml purges, and the second run came after these were made.
    box, domain = singles[host], f"{host}.test"
    assert search_imap(box.ipv4, f"guest@{domain}", PASSWORD, "any") == []
    names = ("guest", "visitor", "alice", "nobody")
    asked = ["MAIL FROM:<carol@remote.test>", *(f"RCPT TO:<{name}@{domain}>" for name in names)]
    answers = talk(box.ipv4, 25, asked)[0]
    assert [answer[:3] for answer in answers] == ["250", "250", "250", "250", "550"], answers


def test_the_directory_remembers_who_was_made_ad_hoc(alone: Alone, site: Site) -> None:
    said = ad_hoc(site, "mail_directory_info", entries=True)
    for host in HOSTS:
        found = json.loads(re.search(rf"^{host} \| SUCCESS => (\{{.*?^\}})", said, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
        origins = {entry["address"]: entry["origin"] for entry in [*found["mailboxes"], *found["aliases"]]}
        assert {name.partition("@")[0]: origin for name, origin in origins.items()} == {
            "alice": "inventory",
            "guest": "adhoc",
            "visitor": "adhoc",
        }


def test_no_output_shows_the_password(alone: Alone) -> None:
    for text in (alone.check.output, alone.first.output, alone.second.output, *alone.made):
        assert PASSWORD not in text
        assert HASH not in text
