# SPDX-License-Identifier: GPL-3.0-or-later

"""A real cron: real WordPress, WP-CLI and MariaDB on Debian 12 and 13; no web server runs but where a test says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pmlab.machine import Machine, Run
from pmlab.wordpress import WordPressMachine, both

Machines = dict[int, WordPressMachine]
ROOT = Path(__file__).resolve().parents[2]

#: name, whether it uses MariaDB, its user
MADE = (
    ("crona", True, "crona"),
    ("cronb", True, "www-data"),
    ("cronnet", True, "www-data"),
    ("cronhang", False, "www-data"),
    ("crontab", False, "www-data"),
)
SITES: list[dict[str, Any]] = [
    {"path": "/var/www/crona", "user": "crona"},
    {"path": "/var/www/cronb/", "command": "wp", "install": {"options": {"blogdescription": "by the role"}}},
    {"path": "/var/www/cronnet"},
    {"path": "/var/www/cronhang", "timeout": 20},
    {"path": "/var/www/crontab", "scheduler": "crontab", "crontab_guard": True},
]
GIVEN = {"wordpress_mail_wait": 4}
ROLE = [{"ansible.builtin.import_role": {"name": "postmeister.host.wordpress"}}]
#: tasks for the tests, in each site
LAB = r"""<?php
add_action('lab_note', function ($text) {
    $line = time() . ' ' . get_current_blog_id() . ' ' . posix_getpwuid(posix_geteuid())['name'] . " $text\n";
    file_put_contents(WP_CONTENT_DIR . '/notes', $line, FILE_APPEND);
});
add_action('lab_slow', function ($text) {
    sleep(4);
    do_action('lab_note', $text);
});
add_action('lab_hang', function () {
    for (;;) {
        sleep(1);
    }
});
add_action('lab_held', function () {
    while (file_exists(WP_CONTENT_DIR . '/hold')) {
        clearstatcache();
        usleep(200000);
    }
});
add_action('lab_fatal', function () {
    lab_no_such_function();
});
"""
#: the sites of the network: 2, 3, 4 and 5
NET = r"""<?php
foreach (array('one', 'two', 'stuck', 'old') as $slug) {
    is_int($id = wpmu_create_blog('cronnet.test', "/$slug/", $slug, 1)) || exit(1);
}
switch_to_blog($id);
wp_schedule_single_event(time(), 'lab_note', array('archived'));
restore_current_blog();
update_blog_status($id, 'archived', 1);
"""
#: the fake sendmail: one file of all mails
MAILS = "/var/tmp/mails"
CRONTAB = "MAILTO=ops@example.org\n# mine\n*/5 * * * * /bin/true\n"


def role(machine: Machine, sites: list[dict[str, Any]], *options: str, **variables: Any) -> Run:
    return machine.play(ROLE, *options, wordpress_sites=sites, **{**GIVEN, **variables}).good()


def event(machine: WordPressMachine, site: str, hook: str, when: str = "now", **more: str) -> None:
    """Schedule an event; more are options of wp, or text for the hook's first argument."""
    user = next(user for name, _database, user in MADE if name == site)
    options = " ".join(f"--{name}={value}" for name, value in more.items() if name != "text")
    text = f" --0='{more['text']}'" if "text" in more else ""
    machine.wp(f"/var/www/{site}", f"cron event schedule {hook} '{when}'{text} {options}", user=user)


def query(machine: Machine, sql: str) -> str:
    """Asked of MariaDB itself: a question through WordPress would be a visit."""
    return machine.sh("mariadb --skip-column-names --batch", stdin=sql.encode()).strip()


def notes(machine: Machine, site: str) -> list[str]:
    return machine.sh(f"cat /var/www/{site}/wp-content/notes 2>/dev/null || true").splitlines()


def journal(machine: Machine, unit: str) -> str:
    return machine.sh(f"journalctl --unit={unit} --no-pager --output=cat")


def mails(machine: Machine) -> list[str]:
    return machine.sh(f"cat {MAILS} 2>/dev/null || true").split("== mail\n")[1:]


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.5)


def set_up(machine: WordPressMachine) -> None:
    for name, mariadb, user in MADE[:4]:
        path = machine.site(name, mariadb=mariadb, user=user)
        machine.put(f"{path}/wp-content/mu-plugins/lab.php", LAB)
        machine.sh(f"chmod 755 {path}/wp-content/mu-plugins")
    machine.sh("cp -a /var/www/cronhang /var/www/crontab")
    machine.wp("/var/www/cronnet", "core multisite-convert --title=Net")
    machine.put("/var/tmp/net.php", NET)
    machine.wp("/var/www/cronnet", "eval-file /var/tmp/net.php")
    machine.put("/usr/sbin/sendmail", f"#!/bin/sh\n{{ echo '== mail'; cat; }} >> {MAILS}\n", 0o755)


@pytest.fixture(scope="module")
def hosts(machines: Machines) -> Iterator[Machines]:
    """The sites, and the role over them."""
    both(machines, set_up)
    first = both(machines, lambda machine: role(machine, SITES, "--diff"))
    assert all(run.stats["changed"] for run in first.values())
    yield machines
    both(machines, lambda machine: machine.sh("systemctl disable --now 'wp-*.timer'", check=False))


def test_second_run_changes_nothing(hosts: Machines) -> None:
    runs = both(hosts, lambda machine: role(machine, SITES))
    assert [run.stats["changed"] for run in runs.values()] == [0, 0]
    assert all(run.stats["ok"] <= 6 for run in runs.values())
    for machine in hosts.values():
        told = query(machine, "select option_value from cronb.wp_options where option_name = 'blogdescription'")
        assert told == "by the role"


def test_overlapping_starts_run_an_event_once(hosts: Machines) -> None:
    def overlap(machine: WordPressMachine) -> None:
        # The unit makes the folder that the lock lies in.
        machine.sh("systemctl start wp-cron@crona")
        event(machine, "crona", "lab_slow", text="once")
        run = "runuser -u crona -- python3 -I /usr/local/lib/postmeister/wordpress/run.py cron crona"
        plain = "runuser -u crona -- php /var/www/crona/wp-cron.php"
        said = machine.sh(f"{run} & sleep 1.5; {run} & {run} & systemctl start wp-cron@crona & {plain} & wait")
        assert len([line for line in notes(machine, "crona") if "once" in line]) == 1
        assert said.count("another run is still at work") == 2, said
        assert notes(machine, "crona")[-1].split()[2] == "crona"

    both(hosts, overlap)


def test_fatal_error_is_told_in_its_own_words(hosts: Machines) -> None:
    def fatal(machine: WordPressMachine) -> None:
        event(machine, "crona", "lab_fatal")
        machine.sh("systemctl start wp-cron@crona || true")
        assert "Call to undefined function lab_no_such_function()" in journal(machine, "wp-cron@crona")
        until(lambda: "lab_no_such_function()" in "".join(mails(machine)), 60, "a mail")

    both(hosts, fatal)


def test_crontab_line_is_the_plain_one_and_other_lines_stay(hosts: Machines) -> None:
    def change(machine: WordPressMachine) -> None:
        machine.sh("crontab -u crona -", stdin=CRONTAB.encode())
        # crona by a plain line, cronb not at all, the others as they are.
        now = [
            {"path": "/var/www/crona", "user": "crona", "scheduler": "crontab", "upkeep_transients": "none",
             "upkeep_checksums": False, "upkeep_updates": False},
            {"path": "/var/www/cronb", "state": "absent"},
            *SITES[2:],
        ]  # fmt: skip
        role(machine, now)
        lines = machine.sh("crontab -u crona -l").splitlines()
        assert lines[:3] == CRONTAB.splitlines()
        assert lines[-1] == "*/1 * * * * php /var/www/crona/wp-cron.php"
        assert len(lines) == 5
        timers = machine.sh("systemctl list-timers --all --no-legend 'wp-*'")
        assert "crona" not in timers and "cronb" not in timers and "wp-cron@cronnet.timer" in timers
        assert "cronb" not in machine.sh("ls -R /etc/systemd/system /etc/postmeister/wordpress /var/lib/wp-cron")
        assert "DISABLE_WP_CRON" not in machine.read("/var/www/cronb/wp-config.php")
        assert "DISABLE_WP_CRON" in machine.read("/var/www/crona/wp-config.php")
        assert role(machine, now).stats["changed"] == 0
        # And back.
        role(machine, SITES)
        assert machine.sh("crontab -u crona -l") == CRONTAB
        assert "wp-cron@crona.timer" in machine.sh("systemctl list-timers --all --no-legend 'wp-*'")

    both(hosts, change)


def test_bad_input_is_refused_before_anything_changes(hosts: Machines) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "root": ({"path": "/var/www/crona", "user": "root"}, "as root it could do anything to the host"),
        "alias": ({"path": "/var/www/crona", "user": "toor"}, "toor is root by another name"),
        "nobody": ({"path": "/var/www/crona", "user": "nosuch"}, "there is no user nosuch"),
        "path": ({"path": "/var/www"}, "there is no WordPress in /var/www"),
        "interval": ({"path": "/var/www/crona", "interval": 7}, "7 minutes do not divide an hour"),
    }

    def refuse(machine: WordPressMachine) -> None:
        machine.sh("id toor >/dev/null 2>&1 || useradd --non-unique --uid 0 --no-create-home toor")
        tasks = [
            {
                "postmeister.host.wp_cron": {"sites": [site, {"path": "/var/www/cronb", "interval": 30}]},
                "ignore_errors": True,
            }
            for site, _words in cases.values()
        ]
        before = machine.sh("find /etc/systemd/system /etc/postmeister -type f | xargs sha256sum")
        output = machine.play(tasks).good().output
        for _site, words in cases.values():
            assert words in output, output
        assert machine.sh("find /etc/systemd/system /etc/postmeister -type f | xargs sha256sum") == before
        run = "python3 -I /usr/local/lib/postmeister/wordpress/run.py"
        assert "refused" in machine.sh(f"{run} cron crona; test $? = 2")

    both(hosts, refuse)


def test_fifty_sites_in_one_run(hosts: Machines) -> None:
    """Fifty copies of one site; they start at seconds of their own, all within a minute."""
    names = [f"many{number}" for number in range(50)]
    sites = [{"path": f"/var/www/{name}"} for name in names]

    def many(machine: WordPressMachine) -> None:
        # WordPress itself is shared by hard links, its database is each site's own.
        machine.sh(
            "cd /var/www; rm -f cronhang/wp-content/notes; for n in $(seq 0 49); do cp -al cronhang many$n;"
            " rm -r many$n/wp-content/database many$n/wp-config.php;"
            " cp -a cronhang/wp-content/database many$n/wp-content/; cp -a cronhang/wp-config.php many$n/; done"
        )
        before = role(machine, sites, wordpress_purge=True, wordpress_upkeep_updates=False)
        assert before.stats["ok"] <= 6
        left = machine.sh("systemctl list-timers --all --no-legend 'wp-cron@*' | grep -o 'wp-cron@[a-z0-9]*.timer'")
        assert sorted(left.split()) == sorted(f"wp-cron@{name}.timer" for name in names)
        starts = machine.sh("grep -h OnCalendar /etc/systemd/system/wp-cron@many*.timer.d/site.conf").split()
        assert len(set(starts)) >= 25
        assert role(machine, sites, wordpress_purge=True, wordpress_upkeep_updates=False).stats["changed"] == 0
        # Not waiting for the rest of the minute.
        machine.sh("systemctl start " + " ".join(f"wp-cron@{name}" for name in names))
        left = machine.sh("cat /var/lib/wp-cron/many*/last.json")
        assert left.count('"failed": []') == 50, left
        machine.sh("systemctl stop 'wp-*.timer'")

    both(hosts, many)


def test_check_mode_on_a_bare_host() -> None:
    with Machine(13, "wpbare") as machine:
        before = machine.sh("find /etc /usr/local /var/lib -newer /proc/1/cmdline -type f | sort")
        variables = {
            "target": "all",
            "wordpress_sites": SITES,
            "wp_cli_verify_signature": False,
            "ansible_become": False,
        }
        run = machine.play(ROOT / "playbooks/wordpress.yml", "--check", "--diff", **variables).good()
        assert run.stats["changed"] >= 2
        assert "OnCalendar=" in run.output
        assert machine.sh("find /etc /usr/local /var/lib -newer /proc/1/cmdline -type f | sort") == before
