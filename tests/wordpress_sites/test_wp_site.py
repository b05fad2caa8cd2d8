# SPDX-License-Identifier: GPL-3.0-or-later

"""wp_site on real WordPress with real WP-CLI, MariaDB and SQLite."""

from __future__ import annotations

import base64
import datetime
import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pmlab.wordpress import WORDPRESS, WordPressMachine, both, core_archive, results
from wordpress_org import NAMES, WordPressOrg, plugin

CORE = "/srv/wordpress.zip"
#: writes down each command line before it is WP-CLI
LOGGED = '#!/bin/sh\nprintf "%s|" "$(id -un)" "$@" >> /tmp/wp.log; echo >> /tmp/wp.log\nexec /usr/local/bin/wp "$@"\n'
Machines = dict[int, WordPressMachine]


def task(*sites: dict[str, Any], **options: Any) -> dict[str, Any]:
    """One call of the module."""
    return {"postmeister.host.wp_site": {"sites": list(sites), "wp": "/srv/wp", **options}, "ignore_errors": True}


def ask(machine: WordPressMachine, path: str, *commands: str, user: str = "www-data") -> list[str]:
    """The last line that each command of WP-CLI prints."""
    return [machine.wp(path, command, user=user).splitlines()[-1] for command in commands]


def certificate() -> bytes:
    """Of the test's wordpress.org."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=30))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def trusting(core: Path, pem: bytes) -> bytes:
    """An archive of WordPress that believes the test's wordpress.org."""
    buffer = io.BytesIO(core.read_bytes())
    bundle = "wordpress/wp-includes/certificates/ca-bundle.crt"
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as made, warnings.catch_warnings(action="ignore"):
        made.writestr(bundle, made.read(bundle) + b"\n" + pem)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def org(machines: Machines) -> dict[int, WordPressOrg]:
    """A wordpress.org of each machine's own with a plugin; an archive of WordPress."""
    pem = certificate()

    def set_up(machine: WordPressMachine) -> WordPressOrg:
        machine.put("/srv/wp", LOGGED, 0o755)
        machine.put(CORE, trusting(core_archive(), pem))
        made = WordPressOrg(machine)
        made.start(pem)
        made.extension("plugin", "tidy", {version: plugin("tidy", version) for version in ("1.0", "1.1", "2.0")})
        machine.put("/srv/local.zip", plugin("local", "3.0"))
        return made

    return both(machines, set_up)


def test_new_site(machines: Machines, org: dict[int, WordPressOrg]) -> None:
    """WordPress, database and administrator out of nothing; no password in a command line; then nothing more to do."""
    secrets = {"admin": 'admin\'s "secret" 1', "database": "data's \\secret 2"}
    wanted = {
        "path": "/var/www/site_new/html",
        "user": "sitenew",
        "url": "http://new.test",
        "title": "A new one",
        "admin": {"name": "alice", "password": secrets["admin"], "email": "alice@example.test"},
        "database": {"name": "site_new", "user": "site_new", "password": secrets["database"]},
        "core": {"version": WORDPRESS, "source": CORE},
        "plugins": [
            {"name": "akismet", "state": "active"},
            {"name": "hello", "state": "absent"},
            {"name": "tidy", "version": "1.0"},
            {"name": "local", "state": "active", "source": "/srv/local.zip"},
        ],
        "options": {"blogdescription": "It's ours", "blog_public": False, "posts_per_page": 7},
        "secret_options": {"mailserver_pass": secrets["admin"]},
    }
    unmade = {**wanted, "path": "/var/www/site_wrong", "database": {**wanted["database"], "password": "wrong"}}

    def work(machine: WordPressMachine) -> None:
        password = secrets["database"].replace("\\", "\\\\").replace("'", "''")
        sql = (
            f"create user site_new@localhost identified by '{password}'; grant all on site_new.* to site_new@localhost"
        )
        machine.sh("useradd --system --create-home sitenew; mariadb", stdin=sql.encode())
        dry = results(machine.play([task(wanted)], "-v", "--check", "--diff").good())[0]
        assert dry["changed"] and not dry["failed"], dry
        assert machine.sh(
            "ls /var/www/site_new; mariadb -Ne 'show databases' | grep -c site_new", check=False
        ).endswith("0\n")
        machine.sh(": > /tmp/wp.log; chmod 666 /tmp/wp.log")
        org[machine.release].requests()
        run = machine.play([task(unmade), task(wanted), task(wanted)], "-vvv", "--diff").good()
        failed, real, again = results_vvv(run.output)
        assert failed["failed"] and "Access denied for user" in failed["msg"], failed
        assert (real["failed"], real["changed"], again["changed"]) == (False, True, False), (real, again)
        commands = machine.read("/tmp/wp.log")
        for secret in ("secret 1", "secret 2"):
            assert secret not in commands and secret not in run.output
        assert {line.split("|")[0] for line in commands.splitlines()} == {"sitenew"}
        assert machine.sh("ls -d /var/www/site_wrong", check=False).count("No such file") == 1
        path = wanted["path"]
        password = f'base64_decode("{base64.b64encode(secrets["admin"].encode()).decode()}")'
        code = f'echo json_encode(wp_check_password({password}, get_user_by("login", "alice")->user_pass));'
        seen = ask(
            *(machine, path, "core version", "option get siteurl", "option get blogdescription"),
            *("option get posts_per_page", "option get blog_public", "option get mailserver_pass"),
            "plugin list --fields=name,status,version --format=json",
            f"eval '{code}'",
            user="sitenew",
        )
        # WordPress itself keeps the apostrophe so.
        assert seen[:6] == [WORDPRESS, "http://new.test", "It&#039;s ours", "7", "0", secrets["admin"]]
        assert {(one["name"], one["status"], one["version"]) for one in json.loads(seen[6])} == {
            ("akismet", "active", "5.7.2"),
            ("local", "active", "3.0"),
            ("tidy", "inactive", "1.0"),
        }
        assert seen[7] == "true"
        assert machine.sh(f"stat -c '%U %a' {path} {path}/wp-config.php") == "sitenew 755\nsitenew 640\n"
        assert machine.sh(f"find {path} ! -user sitenew") == ""

    both(machines, work)


def test_bad_input(machines: Machines, org: dict[int, WordPressOrg]) -> None:
    """Each is told with its site and reason, before the other site of the call changes."""

    def work(machine: WordPressMachine) -> None:
        good, other = machine.site("site_good"), machine.site("site_other", mariadb=True)
        machine.sh("mkdir -p /srv/site_bad; touch /srv/site_bad/x; chmod 777 /srv/wp")
        # Without the database: WordPress writes its own notes there whenever it starts.
        look = f"find {good} -type f ! -path '*/wp-content/database/*' | sort | xargs sha512sum | sha512sum"
        before = machine.sh(look)
        wanted = {"path": good, "options": {"blogname": "changed"}}
        cases: list[tuple[dict[str, Any], str]] = [
            (
                {"path": "/srv/site_bad"},
                "/srv/site_bad: WordPress is not installed here; a new site needs url, admin, database",
            ),
            ({"path": other, "user": "root"}, "YIKES! It looks like you're running this as root"),
            ({"path": other, "user": "nobodyhere"}, "there is no user nobodyhere"),
            ({"path": other, "user": "-x"}, "'-x' is no name of a user"),
            ({"path": other, "plugins": [{"name": "unheard-of"}]}, f"{other}: plugins.unheard-of: wordpress.org: "),
            (
                {"path": other, "plugins": [{"name": "tidy", "version": "7.7"}]},
                "plugins.tidy: wordpress.org: there is no version 7.7",
            ),
            ({"path": other, "plugins": [{"name": "--exec=x"}]}, "is no name of a folder in wp-content"),
            (
                {"path": other, "plugins": [{"name": "x", "source": "/srv/missing.zip"}]},
                "/srv/missing.zip: No such file",
            ),
            (
                {"path": other, "core": {"version": "6.0"}},
                f"core: {WORDPRESS} is there; WordPress cannot go back to 6.0",
            ),
            (
                {"path": other, "themes": [{"name": "twentytwentyfive", "state": "absent"}]},
                "the active theme cannot be removed",
            ),
            ({"path": good}, f"{good}: is given twice"),
            ({"path": other, "languages": ["../x"]}, "is no locale"),
        ]
        tasks = [task(wanted, bad) for bad, _words in cases]
        for (bad, words), found in zip(cases, results(machine.play(tasks, "-v")), strict=True):
            assert found["failed"] and words in found["msg"], (bad, found)
        machine.sh("systemctl stop mariadb")
        try:
            machine.sh(f"cp -rp {good} /srv/site_broken; sed -i '2i $x = ;' /srv/site_broken/wp-config.php")
            down, broken = results(
                machine.play([task(wanted, {"path": other}), task(wanted, {"path": "/srv/site_broken"})], "-v")
            )
        finally:
            machine.sh("systemctl start mariadb")
        assert down["failed"] and f"{other}: Error establishing a database connection" in down["msg"], down
        assert broken["failed"] and "/srv/site_broken/wp-config.php:2: syntax error" in broken["msg"], broken
        assert ask(machine, good, "option get blogname") == ["site_good"]
        assert machine.sh(look) == before

    both(machines, work)


def results_vvv(output: str) -> list[dict[str, Any]]:
    """As results(), of a play with -vvv, which spreads them over lines."""
    decoder = json.JSONDecoder()
    found = []
    for chunk in output.split("\nTASK [")[1:]:
        start = chunk.index(" => {")
        data, _end = decoder.raw_decode(chunk[start + 4 :])
        found.append({**data, "failed": "fatal: [" in chunk[:start]})
    return found
