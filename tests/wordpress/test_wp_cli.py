# SPDX-License-Identifier: GPL-3.0-or-later

"""The role wp_cli on bare machines of both releases, with the real phar file, signed by a key of the test."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pmlab.wordpress import HERE, WP_CLI, WordPressMachine, both, core_archive, files, results

CORE = "/srv/wordpress-sqlite.zip"
PLAYBOOK = Path(__file__).resolve().parents[2] / "playbooks/wordpress.yml"
WP = "/usr/local/bin/wp"
ROLE = {"ansible.builtin.import_role": {"name": "postmeister.host.wp_cli"}}
#: works where it is tried first, and not in its place
TWO_FACED = """#!/bin/sh
case $0 in */wp) echo broken >&2; exit 3;; esac
printf 'WP-CLI version:\\t9.9.9\\n'
"""


def sha512(content: bytes) -> str:
    return hashlib.sha512(content).hexdigest()


@pytest.fixture(scope="module")
def bare() -> Iterator[dict[int, WordPressMachine]]:
    """Machines with nothing but the signer's gpg."""
    made = {release: WordPressMachine(release, "wpcli") for release in (12, 13)}

    def set_up(machine: WordPressMachine) -> None:
        machine.start()
        machine.install("gpg gpg-agent")
        machine.sh(
            "cd /root; gpg --batch --quiet --passphrase '' --quick-gen-key signer@example.test rsa2048 sign never\n"
            "gpg --armor --export > key.pgp; mkdir /srv/mirror\n"
            f"cp {HERE}/wp-cli.phar /srv/mirror; gpg --batch --armor --detach-sign /srv/mirror/wp-cli.phar"
        )

    try:
        both(made, set_up)
        yield made
    finally:
        both(made, WordPressMachine.remove)


def given(machine: WordPressMachine, folder: Path) -> dict[str, Any]:
    """The role's variables for a file of the controller that the test's key signed."""
    folder.mkdir()
    shutil.copy(files() / "wp-cli.phar", folder / "wp-cli.phar")
    (folder / "wp-cli.phar.asc").write_text(machine.read("/srv/mirror/wp-cli.phar.asc"))
    return {"wp_cli_key": machine.read("/root/key.pgp"), "wp_cli_file": str(folder / "wp-cli.phar")}


def test_playbook_makes_sites_of_a_bare_host(bare: dict[int, WordPressMachine], tmp_path: Path) -> None:
    """Check mode changes nothing and does not fail; one run makes two sites; the next changes nothing."""
    admin = {"name": "alice", "password": "admin's word", "email": "alice@example.test"}
    new = {"title": "Bare", "admin": admin, "core": {"source": CORE}, "database": {"name": "none", "user": "none"}}
    sites = [
        {"path": "/var/www/bare", "install": {**new, "url": "http://bare.test"}},
        {"path": "/var/www/wordpress", "scheduler": "crontab", "install": {**new, "url": "http://plain.test"}},
    ]

    def work(machine: WordPressMachine) -> None:
        variables: dict[str, Any] = {
            **given(machine, tmp_path / str(machine.release)),
            "target": "all",
            "ansible_become": False,
            "wordpress_sites": sites,
            "wp_cli_packages": [
                "php-cli",
                "php-curl",
                "php-mbstring",
                "php-mysql",
                "php-xml",
                "php-zip",
                "php-sqlite3",
            ],
        }
        machine.put(CORE, core_archive(sqlite=True).read_bytes())
        # Without what systemd's own timers may write at any time.
        quiet = "! -path '/var/lib/systemd/*' ! -path '/var/lib/apt/*' ! -path '/var/lib/logrotate/*'"
        look = f"find /etc /usr/local /var/lib /var/www -newer /proc/1/cmdline -type f {quiet} 2>/dev/null | sort"
        before = machine.sh(look, check=False)
        dry = machine.play(PLAYBOOK, "--check", "--diff", **variables).good()
        assert dry.stats["changed"] >= 4 and "OnCalendar=" in dry.output
        assert machine.sh(look, check=False) == before
        assert machine.sh(f"ls {WP} /usr/bin/php /var/www", check=False).count("No such file") == 3
        first = machine.play(PLAYBOOK, "-v", "--diff", **variables).good()
        assert first.stats["changed"] >= 4 and "admin's word" not in first.output
        again = machine.play(PLAYBOOK, **variables).good()
        assert again.stats["changed"] == 0, again.output
        for site in sites:
            assert machine.wp(site["path"], "option get siteurl").strip() == site["install"]["url"]
            machine.wp(site["path"], 'user check-password alice "admin\'s word"')
            assert "DISABLE_WP_CRON" in machine.read(f"{site['path']}/wp-config.php")
        assert machine.sh("systemctl is-active wp-cron@bare.timer wp-upkeep@wordpress.timer cron") == "active\n" * 3
        lines = machine.sh("crontab -u www-data -l").splitlines()
        assert lines[1:] == ["*/1 * * * * php /var/www/wordpress/wp-cron.php"]
        # What cron runs and what the timer runs are there; wordpress.org is not.
        for site in sites:
            machine.wp(site["path"], "config set WP_HTTP_BLOCK_EXTERNAL true --raw")
        machine.sh("runuser -u www-data -- php /var/www/wordpress/wp-cron.php; systemctl start wp-cron@bare")

    both(bare, work)


def test_role(bare: dict[int, WordPressMachine], tmp_path: Path) -> None:
    """From a file of the controller; then no run looks for it again."""

    def work(machine: WordPressMachine) -> None:
        variables = given(machine, tmp_path / str(machine.release))
        machine.sh(f"rm -f {WP}")
        assert machine.play([ROLE], **variables).good().stats["changed"] >= 1
        shown = machine.sh(f"runuser -u www-data -- {WP} --info; stat -c '%U %G %a' {WP}")
        assert f"WP-CLI version:\t{WP_CLI}" in shown and shown.endswith("root root 755\n")
        assert "YIKES" in machine.sh("wp core version", check=False)
        inode = machine.sh(f"stat -c '%i %Z' {WP}")
        # The default address, which does not exist here: it is not asked, as the pinned version is in place.
        again = machine.play([ROLE], wp_cli_key=variables["wp_cli_key"]).good()
        assert (again.stats["changed"], machine.sh(f"stat -c '%i %Z' {WP}")) == (0, inode)

    both(bare, work)


def test_bad_downloads(bare: dict[int, WordPressMachine]) -> None:
    """A wrong checksum, a wrong signature, a wrong version, no answer, one that does not run: the former one stays."""

    def work(machine: WordPressMachine) -> None:
        machine.sh(
            f"test -e {WP} || install -m 0755 {HERE}/wp-cli.phar {WP}\n"
            "cd /srv/mirror; systemd-run --quiet --unit=mirror python3 -m http.server 8080 --directory /srv/mirror\n"
            "cp wp-cli.phar changed.phar; printf x >> changed.phar; cp wp-cli.phar.asc changed.phar.asc\n"
            "probe='import socket; socket.create_connection((\"127.0.0.1\", 8080))'\n"
            'for turn in $(seq 100); do python3 -c "$probe" 2>/dev/null && break; sleep 0.1; done'
        )
        phar = (files() / "wp-cli.phar").read_bytes()
        unsigned = {"verify_signature": False}
        dead, two_faced = b"#!/bin/sh\nexit 7\n", TWO_FACED.encode()
        machine.put("/srv/mirror/dead", dead)
        machine.put("/srv/mirror/two-faced", two_faced)
        key = machine.read("/root/key.pgp")
        real_key = (Path(__file__).parents[2] / "roles/wp_cli/files/wp-cli.pgp").read_text()
        mirror = "http://127.0.0.1:8080"
        good = {"version": WP_CLI, "checksum": sha512(phar), "source": f"{mirror}/wp-cli.phar", "key": key}
        other = {**good, "path": "/usr/local/bin/wp-other"}
        cases: list[tuple[dict[str, Any], str]] = [
            ({**good, "checksum": "0" * 128}, "wrong checksum"),
            ({**good, "checksum": "abc"}, "no SHA-512"),
            ({**other, "source": f"{mirror}/changed.phar"}, "wrong checksum"),
            ({**good, "checksum": sha512(phar + b"x"), "source": f"{mirror}/changed.phar"}, "BAD signature"),
            ({**other, "key": real_key}, "wrong signature"),
            ({**other, "key": "x"}, "not an OpenPGP public key"),
            ({**other, "source": f"{mirror}/nothing"}, "HTTP Error 404"),
            ({**other, "source": "http://127.0.0.1:1/x"}, "Connection refused"),
            ({**other, "source": "/srv/mirror/nothing"}, "No such file"),
            ({**other, "version": "2.11.0"}, f"is WP-CLI {WP_CLI}, not 2.11.0"),
            (
                {**good, "checksum": sha512(dead), "source": f"{mirror}/dead", "verify_signature": False},
                "--info does not work: exit status 7",
            ),
            (
                {**unsigned, "version": "9.9.9", "checksum": sha512(two_faced), "source": f"{mirror}/two-faced"},
                "broken; the former one is back",
            ),
        ]
        tasks = [{"postmeister.host.wp_cli": given, "ignore_errors": True} for given, _words in cases]
        tasks += [{"postmeister.host.wp_cli": other}] * 2
        before = machine.sh(f"sha512sum {WP}; stat -c '%U %a' {WP}")
        *bad, new, again = results(machine.play(tasks, "-v").good())
        for (given, words), found in zip(cases, bad, strict=True):
            assert found["failed"] and words in found["msg"], (given, found)
        assert machine.sh(f"sha512sum {WP}; stat -c '%U %a' {WP}") == before
        # From the mirror, with a good signature
        assert (new["changed"], again["changed"]) == (True, False)
        assert machine.sh("ls -A /usr/local/bin").split() == ["wp", "wp-other"]

    both(bare, work)
