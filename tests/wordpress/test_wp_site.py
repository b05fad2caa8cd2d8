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
from pmlab.wordpress import BROWSER, HERE, WORDPRESS, WordPressMachine, both, core_archive, results
from wordpress_org import NAMES, ROOT, WordPressOrg, plugin, theme, translation

CORE = "/srv/wordpress.zip"
SQLITE = "/srv/wordpress-sqlite.zip"
MANY = 20  # script/bench has 50
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
    """A wordpress.org of each machine's own with a plugin, a theme and a language; archives of WordPress."""
    pem = certificate()

    def set_up(machine: WordPressMachine) -> WordPressOrg:
        machine.put("/srv/wp", LOGGED, 0o755)
        machine.put(CORE, trusting(core_archive(), pem))
        machine.put(SQLITE, trusting(core_archive(sqlite=True), pem))
        made = WordPressOrg(machine)
        made.start(pem)
        made.extension("plugin", "tidy", {version: plugin("tidy", version) for version in ("1.0", "1.1", "2.0")})
        made.extension("theme", "plain", {version: theme("plain", version) for version in ("1.0", "1.1")})
        made.offer("plugin/wide.1.0.zip", plugin("wide", "1.0"))
        for name, date in (("core-old", "2024-01-01"), ("core-new", "2025-01-01")):
            made.offer(f"translation/{name}.zip", translation("de_DE", date))
        made.offer("translation/tidy-new.zip", translation("tidy-de_DE", "2025-01-01"))
        machine.put("/srv/local.zip", plugin("local", "3.0"))
        machine.put("/srv/local-4.zip", plugin("local", "4.0"))
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


def test_new_site_is_downloaded(machines: Machines, org: dict[int, WordPressOrg]) -> None:
    """At a version, from wordpress.org, as WP-CLI does it; a download whose sum is wrong leaves nothing behind."""
    path = "/var/www/site_far"
    wanted = {
        "path": path,
        "url": "http://far.test",
        "admin": {"name": "alice", "password": "x", "email": "alice@example.test"},
        "database": {"name": "site_far", "user": "site_far", "password": "far"},
        "core": {"version": WORDPRESS},
    }

    def work(machine: WordPressMachine) -> None:
        account = "create user site_far@localhost identified by 'far'; grant all on site_far.* to site_far@localhost"
        machine.sh("mariadb", stdin=account)
        archive = f"{ROOT}/wordpress-{WORDPRESS}.tar.gz"
        without = " ".join(f"--exclude='*.{suffix}'" for suffix in BROWSER.split())
        machine.sh(f"tar -C {HERE} {without} -cf - wordpress | gzip -1 > {archive}; echo 0 > {archive}.md5")
        (wrong,) = results(machine.play([task(wanted)], "-v"))
        assert wrong["failed"] and "md5 hash for download" in wrong["msg"], wrong
        assert "No such file" in machine.sh(f"ls -d {path}", check=False)
        machine.sh(f"printf %s $(md5sum < {archive} | cut -c 1-32) > {archive}.md5")
        first, again = results(machine.play([task(wanted), task(wanted)], "-v").good())
        assert (first["failed"], first["changed"], again["changed"]) == (False, True, False), (first, again)
        assert ask(machine, path, "core version", "option get siteurl") == [WORDPRESS, "http://far.test"]
        assert machine.sh(f"find {path} ! -user www-data") == ""

    both(machines, work)


def debian_core(machine: WordPressMachine) -> str:
    """Debian's own WordPress, 6.1 or 6.8, as wordpress.org would have packed it."""
    machine.sh(
        # Kept there for later runs; a mirror may have its moods.
        "cd /var/cache/apt/archives; for turn in 1 2 3 4 5; do ls wordpress_*.deb >/dev/null 2>&1 && break\n"
        "apt-get -q -o Acquire::Retries=3 download wordpress || sleep 10; done\n"
        "set -e; dpkg-deb -x wordpress_*.deb /srv/old; cd /srv\n"
        # Links to other packages, of which nothing here needs one, lead nowhere.
        "mkdir core; cp -rL old/usr/share/wordpress/. core 2>/dev/null || true\n"
        f"rm -rf core/wp-config.php core/wp-content; cp -r {HERE}/wordpress/wp-content core/"
    )
    return "/srv/core"


def new_releases(service: WordPressOrg, old: str) -> None:
    """wordpress.org has the newest WordPress and one of the old branch, plugin 2.0, theme 1.1, newer translations."""
    download = f"https://wordpress.org/wordpress-{WORDPRESS}.zip"
    service.machine.sh(f"cp {CORE} {ROOT}/wordpress-{WORDPRESS}.zip")
    release = {
        "response": "upgrade",
        "download": download,
        "locale": "en_US",
        "packages": {"full": download},
        "current": WORDPRESS,
        "version": WORDPRESS,
        "php_version": "7.4",
        "mysql_version": "5.5",
    }
    branch = {**release, "response": "autoupdate", "current": f"{old}.9", "version": f"{old}.9"}
    at = "https://downloads.wordpress.org"

    def offered(kind: str, slug: str, name: str) -> dict[str, str]:
        told = {"type": kind, "slug": slug, "language": "de_DE", "version": WORDPRESS, "updated": "2025-01-01 00:00:00"}
        return {**told, "package": f"{at}/translation/{name}.zip", "autoupdate": ""}

    words = [offered("core", "default", "core-new")]
    service.answer("core/version-check/1.7", {"offers": [release, branch], "translations": words})
    tidy = {"slug": "tidy", "plugin": "tidy/tidy.php", "new_version": "2.0", "package": f"{at}/plugin/tidy.2.0.zip"}
    words = [offered("plugin", "tidy", "tidy-new")]
    answer = {"plugins": {"tidy/tidy.php": tidy}, "no_update": {}, "translations": words}
    service.answer("plugins/update-check/1.1", answer)
    plain = {"theme": "plain", "new_version": "1.1", "url": at, "package": f"{at}/theme/plain.1.1.zip"}
    service.answer("themes/update-check/1.1", {"themes": {"plain": plain}, "no_update": {}, "translations": []})
    german = {**offered("core", "default", "core-old"), "english_name": "German", "native_name": "Deutsch"}
    german |= {"iso": {"1": "de"}, "strings": {"continue": "Weiter"}}
    service.answer("translations/core/1.0", {"translations": [german]})


def test_updates(machines: Machines, org: dict[int, WordPressOrg]) -> None:
    """Debian's WordPress and a network: core and database, plugins, themes, languages, step by step.

    What is not asked for stays as it is.
    """
    path, net = "/var/www/site_old", "/var/www/sitenet"

    def both_sites(old: dict[str, Any], network: dict[str, Any]) -> list[dict[str, Any]]:
        return [task({"path": path, **old}, {"path": net, **network})] * 2

    states = [
        both_sites(
            {
                "plugins": [
                    {"name": "tidy", "state": "active", "version": "1.0"},
                    {"name": "local", "source": "/srv/local.zip"},
                    {"name": "hello", "state": "active"},
                ],
                "themes": [
                    {"name": "plain", "state": "active", "version": "1.0"},
                    {"name": "twentytwentyfour", "state": "absent"},
                ],
                "languages": ["de_DE"],
                "options": {"sidebars": {"a": [1, 2]}, "users_can_register": True},
            },
            {
                "plugins": [
                    {
                        "name": "wide",
                        "state": "network",
                        "source": "https://downloads.wordpress.org/plugin/wide.1.0.zip",
                    },
                    {"name": "hello", "state": "active"},
                ]
            },
        ),
        both_sites(
            {
                "core": {"version": "latest"},
                "plugins": [
                    {"name": "tidy", "state": "inactive", "version": "1.1"},
                    {"name": "local", "version": "4.0", "source": "/srv/local-4.zip"},
                    {"name": "hello", "state": "absent"},
                ],
                "options": {"sidebars": {"a": [2]}, "users_can_register": False},
            },
            {"plugins": [{"name": "wide", "state": "inactive"}, {"name": "hello", "state": "network"}]},
        ),
        both_sites(
            {"update_plugins": True, "update_translations": True, "core": {"version": WORDPRESS}},
            {"plugins": [{"name": "wide", "state": "network"}]},
        ),
        both_sites(
            {"update_themes": True, "plugins": [{"name": "tidy", "version": "1.1"}]},
            {"plugins": [{"name": "wide", "state": "absent"}]},
        ),
    ]

    def work(machine: WordPressMachine) -> None:
        service = org[machine.release]
        machine.site("site_old", mariadb=True, core=debian_core(machine))
        machine.site("sitenet", mariadb=True)
        machine.wp(net, "core multisite-convert --title=Net")
        machine.wp(net, "site create --slug=one")
        for site in (path, net):
            service.trust(site)
        old = ask(machine, path, "core version")[0]
        new_releases(service, old)
        languages = f"{path}/wp-content/languages"
        for name in ("tidy-de_DE.po", "tidy-de_DE.mo"):
            with zipfile.ZipFile(io.BytesIO(translation("tidy-de_DE", "2024-01-01"))) as archive:
                machine.put(f"{languages}/plugins/{name}", archive.read(name))
        machine.sh(f"chown -R www-data: {languages}")

        def listed(kind: str, site: str = path, url: str = "") -> dict[str, tuple[str, str]]:
            said = ask(machine, site, f"{kind} list --fields=name,status,version --format=json {url}")[0]
            return {one["name"]: (one["status"], one["version"]) for one in json.loads(said)}

        def run(number: int, check: bool = False) -> tuple[list[str], list[str]]:
            if check:
                (dry,) = results(machine.play(states[number][:1], "-v", "--diff", "--check").good())
            first, again = results(machine.play(states[number], "-v", "--diff").good())
            assert not first["failed"], first["msg"]
            assert not again["failed"] and not again["changed"], again
            changed, network = (one["changed"] for one in first["sites"])
            assert not check or [one["changed"] for one in dry["sites"]] == [changed, network], dry
            return changed, network

        before = {kind: listed(kind) for kind in ("plugin", "theme")}
        changed, network = run(0)
        assert changed == [
            *("language de_DE", "option sidebars", "option users_can_register"),
            *("plugin hello", "plugin local", "plugin tidy", "theme plain", "theme twentytwentyfour"),
        ]
        assert network == ["plugin hello", "plugin wide"]
        # Nothing else: neither WordPress nor what wordpress.org has newer.
        assert ask(machine, path, "core version")[0] == old
        now = listed("plugin")
        assert now.pop("tidy") == ("active", "1.0") and now.pop("local") == ("inactive", "3.0")
        assert now.pop("hello")[0] == "active"
        assert now == {name: state for name, state in before["plugin"].items() if name != "hello"}
        assert listed("theme").pop("plain") == ("active", "1.0")
        sub_site = listed("plugin", net, "--url=http://sitenet.test/one/")
        assert (sub_site["wide"][0], sub_site["hello"][0]) == ("active-network", "inactive")

        changed, network = run(1, check=True)
        assert [word for word in changed if word != "database"] == [
            *("core", "option sidebars", "option users_can_register", "plugin hello", "plugin local", "plugin tidy"),
        ]
        assert network == ["plugin hello", "plugin wide"]
        seen = ask(machine, path, "core version", "core update-db --dry-run", "option get sidebars --format=json")
        assert (seen[0], seen[2]) == (WORDPRESS, '{"a":[2]}') and "already at latest db version" in seen[1], seen
        now = listed("plugin")
        assert (now["tidy"], now["local"], "hello" in now) == (("inactive", "1.1"), ("inactive", "4.0"), False)
        sub_site = listed("plugin", net, "--url=http://sitenet.test/one/")
        assert (sub_site["wide"][0], sub_site["hello"][0]) == ("inactive", "active-network")

        changed, network = run(2)
        assert changed == ["plugin tidy", "translation core default de_DE", "translation plugin tidy de_DE"]
        assert network == ["plugin wide"]
        dates = machine.sh(f"grep -h Revision {languages}/de_DE.po {languages}/plugins/tidy-de_DE.po")
        assert dates.count("2025-01-01") == 2, dates
        assert listed("plugin")["tidy"] == ("inactive", "2.0") and listed("theme")["plain"] == ("active", "1.0")

        # Removed by hand, while WordPress still remembers that there was an update for it.
        stale = {"response": {"tidy/tidy.php": {"slug": "tidy", "plugin": "tidy/tidy.php", "new_version": "2.0"}}}
        machine.sh(f"rm -r {path}/wp-content/plugins/tidy")
        stale_code = f'set_site_transient("update_plugins", json_decode(base64_decode("{encoded(stale)}")));'
        machine.wp(path, f"eval '{stale_code}'")
        changed, network = run(3)
        assert (changed, network) == (["plugin tidy", "theme plain"], ["plugin wide"])
        assert listed("plugin")["tidy"] == ("inactive", "1.1") and listed("theme")["plain"] == ("active", "1.1")
        assert "wide" not in listed("plugin", net)

    both(machines, work)


def encoded(value: object) -> str:
    """JSON that needs no quoting."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_many_sites(machines: Machines, org: dict[int, WordPressOrg]) -> None:
    """Many sites in one call, two new, three to change; then nothing is to do, with one start of WordPress for each."""
    new = {
        "admin": {"name": "alice", "password": "x y", "email": "alice@example.test"},
        "database": {"name": "none", "user": "none"},
        "core": {"source": SQLITE},
        "plugins": [{"name": "akismet"}],
        "options": {"blogname": "Many"},
    }
    machine = machines[13]
    wanted = [{"path": f"/var/www/site_{number:02}", "url": f"http://s{number}.test", **new} for number in range(MANY)]
    made = results(machine.play([task(wanted[0])], "-v").good())[0]
    assert made["changed"] and not made["failed"], made
    # Copies of the first, whose databases are their own
    machine.sh(
        f"set -e; cd /var/www; for number in $(seq -f %02g 1 {MANY - 3}); do\n"
        "cp -al site_00 site_$number; rm -r site_$number/wp-content/database\n"
        "cp -rp site_00/wp-content/database site_$number/wp-content/; done"
    )
    for number in (1, 2, 3):
        wanted[number]["options"] = {"blogname": f"Site {number}"}
    first = results(machine.play([task(*wanted)], "-v").good())[0]
    assert first["changed"] and not first["failed"], first.get("msg")
    changed = {index: site["changed"] for index, site in enumerate(first["sites"]) if site["changed"]}
    assert list(changed) == [1, 2, 3, MANY - 2, MANY - 1], changed
    assert all(changed[number] == ["option blogname"] for number in (1, 2, 3)), changed
    machine.sh(": > /tmp/wp.log; chmod 666 /tmp/wp.log")
    again = results(machine.play([task(*wanted)], "-v").good())[0]
    assert (again["changed"], again["failed"], len(again["sites"])) == (False, False, MANY), again
    assert len(machine.read("/tmp/wp.log").splitlines()) == MANY
    for number, name in ((0, "Many"), (3, "Site 3"), (4, "Many"), (MANY - 1, "Many")):
        assert ask(machine, wanted[number]["path"], "option get blogname") == [name]


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
            machine.sh(
                f"cp -rp {good} /srv/site_broken; cp -rp {good} /srv/site_unread\n"
                "sed -i '2i $x = ;' /srv/site_broken/wp-config.php; chown root: /srv/site_unread/wp-config.php"
            )
            paths = (other, "/srv/site_broken", "/srv/site_unread")
            down, broken, unread = results(machine.play([task(wanted, {"path": path}) for path in paths], "-v"))
        finally:
            machine.sh("systemctl start mariadb")
        assert down["failed"] and f"{other}: Error establishing a database connection" in down["msg"], down
        assert broken["failed"] and "/srv/site_broken/wp-config.php:2: syntax error" in broken["msg"], broken
        words = "/srv/site_unread/wp-config.php: user www-data may not read it"
        assert unread["failed"] and words in unread["msg"], unread
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
