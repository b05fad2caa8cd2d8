# SPDX-License-Identifier: GPL-3.0-or-later

"""The daily upkeep changes exactly what it says, on a site and on a network; wordpress.org is wordpress_org.py."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from pmlab.machine import Machine
from pmlab.wordpress import WORDPRESS, WordPressMachine, both, far_hour
from wordpress_org import NAMES, WordPressOrg

Machines = dict[int, WordPressMachine]

SITES = [{"path": "/var/www/upkeepa"}, {"path": "/var/www/upkeepnet"}]
GIVEN: dict[str, Any] = {
    "wordpress_mail_wait": 1,
    "wordpress_upkeep_time": far_hour(),
    "wordpress_upkeep_spam": True,
    # Not in the way of the tests.
    "wordpress_cron_scheduler": "none",
}
ROLE = [{"ansible.builtin.import_role": {"name": "postmeister.host.wordpress"}}]
#: tables of options of the site, of the network's first site and of its second one
OPTIONS = ("upkeepa.wp_options", "upkeepnet.wp_options", "upkeepnet.wp_2_options")
MAILS = "/var/tmp/upkeep-mails"
LONG = 1203


def query(machine: Machine, sql: str) -> str:
    return machine.sh("mariadb --skip-column-names --batch", stdin=sql.encode()).strip()


def transient(name: str, seconds: int | None, network: bool = False) -> str:
    """Rows of a transient: seconds until it expires, negative for expired, None for never."""
    prefix = "_site_transient_" if network else "_transient_"
    rows = [(f"{prefix}{name}", "value")]
    if seconds is not None:
        rows.append((f"{prefix}timeout_{name}", f"unix_timestamp() + {seconds}"))
    return ", ".join(f"('{key}', {value if value.startswith('unix') else repr(value)})" for key, value in rows)


def names(machine: Machine, table: str, column: str = "option_name") -> set[str]:
    """The transients of the test that are left."""
    found = query(machine, f"select {column} from {table} where {column} like '%transient%lab\\_%'").split()
    return {name.replace("_transient_", "", 1).replace("_site", "site:", 1) for name in found if "timeout" not in name}


def comments(machine: Machine, table: str) -> dict[str, int]:
    rows = query(machine, f"select comment_approved, count(*) from {table} group by 1").splitlines()
    return {status: int(count) for status, count in (row.split() for row in rows)}


def run(machine: Machine, name: str) -> str:
    """Start a site's upkeep; what this run told the journal."""
    unit = f"wp-upkeep@{name}.service"
    return machine.sh(
        f"systemctl start {unit}; systemctl reset-failed {unit} 2>/dev/null; journalctl --sync\n"
        f"journalctl _SYSTEMD_INVOCATION_ID=$(systemctl show --property=InvocationID --value {unit})"
        " --no-pager --output=cat"
    )


def certificate() -> bytes:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=wordpress.org"]
    argv += ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES), "-keyout", "-", "-out", "-"]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def set_up(machine: WordPressMachine, pem: bytes) -> None:
    org = WordPressOrg(machine)
    org.start(pem)
    # What wordpress.org says when there is nothing new.
    newest = {"response": "latest", "current": WORDPRESS, "version": WORDPRESS, "locale": "en_US", "packages": {}}
    org.answer("core/version-check/1.7", {"offers": [newest], "translations": []})
    for site in SITES:
        name = site["path"].rsplit("/", 1)[1]
        org.trust(machine.site(name, mariadb=True))
    machine.wp("/var/www/upkeepnet", "core multisite-convert --title=Net")
    machine.wp("/var/www/upkeepnet", "site create --slug=one --porcelain")
    sums = machine.sh(
        "cd /var/www/upkeepa; find wp-admin wp-includes *.php -type f ! -name wp-config.php | xargs md5sum"
    )
    checksums = {path: md5 for md5, path in (line.split() for line in sums.splitlines())}
    org.answer("core/checksums/1.0", {"checksums": checksums})
    machine.put("/usr/sbin/sendmail", f"#!/bin/sh\n{{ echo '== mail'; cat; }} >> {MAILS}\n", 0o755)


@pytest.fixture(scope="module")
def hosts(machines: Machines) -> Machines:
    pem = certificate()
    both(machines, lambda machine: set_up(machine, pem))
    both(machines, lambda machine: machine.play(ROLE, wordpress_sites=SITES, **GIVEN).good())
    return machines


def test_upkeep_changes_what_it_says_and_nothing_else(hosts: Machines) -> None:
    def tidy(machine: WordPressMachine) -> None:
        rows = ", ".join(
            [
                transient("lab_old", -60),
                transient("lab_new", 3600),
                transient("lab_ever", None),
                transient("lab_old", -60, network=True),
                transient("lab_new", 3600, network=True),
            ]
        )
        for table in OPTIONS:
            query(machine, f"insert into {table} (option_name, option_value) values {rows}")
        shared = f"{transient('lab_old', -60, True)}, {transient('lab_new', 3600, True)}"
        shared = shared.replace("('", "(1, '")
        query(machine, f"insert into upkeepnet.wp_sitemeta (site_id, meta_key, meta_value) values {shared}")
        # A very long list of spam on one site, none on another, some on a sub-site; other comments beside it.
        for table, spam in (("upkeepa.wp_comments", LONG), ("upkeepnet.wp_2_comments", 2)):
            query(
                machine,
                f"use {table.partition('.')[0]};"  # whose engine makes the numbers
                f" insert into {table} (comment_post_ID, comment_author, comment_content, comment_approved)"
                f" select 1, 'x', 'y', 'spam' from seq_1_to_{spam};"
                f" insert into {table} (comment_post_ID, comment_author, comment_content, comment_approved)"
                " values (1, 'x', 'y', '1'), (1, 'x', 'y', '0'), (1, 'x', 'y', 'trash')",
            )
        before = comments(machine, "upkeepa.wp_comments")
        assert before["spam"] == LONG
        posts = query(machine, "select count(*) from upkeepa.wp_posts")

        told = run(machine, "upkeepa")
        assert f"{LONG} spam comments deleted" in told
        assert "Success: WordPress installation verifies against checksums." in told
        assert comments(machine, "upkeepa.wp_comments") == {k: n for k, n in before.items() if k != "spam"}
        assert names(machine, "upkeepa.wp_options") == {"lab_new", "lab_ever", "site:lab_new"}
        assert query(machine, "select count(*) from upkeepa.wp_posts") == posts

        told = run(machine, "upkeepnet")
        assert "http://upkeepnet.test/: 0 spam comments deleted" in told
        assert "http://upkeepnet.test/one/: 2 spam comments deleted" in told
        assert "spam" not in comments(machine, "upkeepnet.wp_2_comments")
        for table in OPTIONS[1:]:
            # What a single site keeps here, a network has in its own table: these rows mean nothing to it.
            left = {name for name in names(machine, table) if not name.startswith("site:")}
            assert left == {"lab_new", "lab_ever"}, table
        assert names(machine, "upkeepnet.wp_sitemeta", "meta_key") == {"site:lab_new"}

    both(hosts, tidy)


def test_changed_file_of_wordpress_is_a_failure(hosts: Machines) -> None:
    def changed(machine: WordPressMachine) -> None:
        file = "/var/www/upkeepa/wp-includes/version.php"
        machine.sh(f"cp {file} /tmp/kept; echo '// evil' >> {file}; rm -f {MAILS}")
        told = run(machine, "upkeepa")
        machine.sh(f"cat /tmp/kept > {file}")
        assert "File doesn't verify against checksum: wp-includes/version.php" in told
        # The other chores were done.
        assert "0 spam comments deleted" in told and "updates: none" in told
        mailed = (
            f"for turn in $(seq 240); do grep -q wp-includes/version.php {MAILS} && exit 0; sleep 0.5; done; exit 1"
        )
        machine.sh(mailed)

    both(hosts, changed)


def test_updates_are_told_once_and_not_installed(hosts: Machines) -> None:
    def updates(machine: WordPressMachine) -> None:
        org = WordPressOrg(machine)
        machine.put("/var/www/upkeepa/wp-content/plugins/lab/lab.php", "<?php\n/* Plugin Name: Lab\nVersion: 1.0 */\n")
        machine.sh("chmod 755 /var/www/upkeepa/wp-content/plugins/lab")
        offer = {"response": "upgrade", "current": "99.1", "version": "99.1", "locale": "en_US", "packages": {}}
        org.answer("core/version-check/1.7", {"offers": [offer], "translations": []})
        plugin = {
            "id": "w.org/plugins/lab",
            "slug": "lab",
            "plugin": "lab/lab.php",
            "new_version": "2.0",
            "package": "",
        }
        org.answer(
            "plugins/update-check/1.1", {"plugins": {"lab/lab.php": plugin}, "no_update": {}, "translations": []}
        )
        query(machine, "delete from upkeepa.wp_options where option_name like '\\_site\\_transient%update\\_%'")
        line = f"updates: WordPress {WORDPRESS} -> 99.1, plugin lab 1.0 -> 2.0"
        assert line in run(machine, "upkeepa")
        machine.sh(f"rm -f {MAILS}; systemctl start wp-updates; systemctl start wp-updates")
        # Others speak of what failed before.
        (mail,) = [mail for mail in machine.read(MAILS).split("== mail\n") if ": updates for " in mail]
        assert "updates for 1 WordPress site\n" in mail
        assert f"upkeepa\n  WordPress {WORDPRESS} -> 99.1\n  plugin lab 1.0 -> 2.0\n" in mail
        assert "upkeepnet" not in mail
        assert "Version: 1.0" in machine.read("/var/www/upkeepa/wp-content/plugins/lab/lab.php")
        assert machine.wp("/var/www/upkeepa", "core version").strip() == WORDPRESS
        # No answer is not "no updates".
        machine.sh("systemctl stop wordpress-org")
        assert "wordpress.org does not answer." in run(machine, "upkeepa")

    both(hosts, updates)


def test_all_transients_and_nothing_switched_on(hosts: Machines) -> None:
    def all_of_them(machine: WordPressMachine) -> None:
        sites = [
            {"path": "/var/www/upkeepa", "upkeep_transients": "all"},
            {"path": "/var/www/upkeepnet", "upkeep_transients": "none"},
        ]
        off = {"wordpress_upkeep_spam": False, "wordpress_upkeep_checksums": False, "wordpress_upkeep_updates": False}
        machine.play(ROLE, wordpress_sites=sites, **{**GIVEN, **off}).good()
        query(
            machine,
            "insert into upkeepa.wp_comments (comment_author, comment_content, comment_approved)"
            " values ('x', 'y', 'spam')",
        )
        told = run(machine, "upkeepa")
        assert "transients deleted from the database" in told
        assert names(machine, "upkeepa.wp_options") == set()
        assert comments(machine, "upkeepa.wp_comments")["spam"] == 1
        timers = machine.sh("systemctl list-timers --all --no-legend 'wp-*'")
        assert "wp-upkeep@upkeepa.timer" in timers and "upkeepnet" not in timers

    both(hosts, all_of_them)
