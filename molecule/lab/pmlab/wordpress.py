# SPDX-License-Identifier: GPL-3.0-or-later

"""WordPress on a bare Debian of a test's own: real WP-CLI, WordPress and SQLite plugin, out of one npm package.

None of them is a Debian or PyPI package; the npm package wp-studio brings all three as their makers publish them.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

from .machine import Machine, Run
from .settings import CACHE, LabError

PACKAGE, VERSION = "wp-studio", "1.22.0"
INTEGRITY = "boMtahkhgWDKKyNTBA1uTK5ghnAmxXhDY6KeQCO9FmcI3/o+YOSq8JwYW5ZYnxHCxH14Jf/mD6CJTBvTWl2Ytw=="
#: what it holds, by the names that the tests use
MEMBERS = {
    "wp-cli.phar": "wp-cli/wp-cli.phar",
    "wordpress": "latest/wordpress",
    "languages": "latest/languages",
    "sqlite-database-integration": "sqlite-database-integration",
}
WP_CLI = "2.12.0"
WORDPRESS = "7.1.1"
#: where a machine sees them, read-only
HERE = "/srv/wp-files"
#: what a browser needs and PHP does not: a site without them is a fifth of the size
BROWSER = "js map png jpg webp svg gif woff woff2 ttf eot"

#: PHP keeps what it compiled: each start of WordPress takes a third. A file that is younger than two seconds it
#: does not keep (file_update_protection), so what a test has just changed counts. What one user compiled is no other
#: user's to read, and so are the folders; those above the sites and above wp are for all.
CODE = """install -d -m 1777 /var/cache/php-code
for folder in /etc/php/*/cli/conf.d
do
    cat >$folder/98-lab.ini <<END
opcache.enable_cli=1
opcache.file_cache=/var/cache/php-code
opcache.file_cache_only=1
opcache.validate_timestamps=1
opcache.revalidate_freq=0
opcache.file_update_protection=2
END
done
cd /var/cache/php-code
echo '<?php' >first.php
touch -d '1 hour ago' first.php
php first.php
made=$(ls -d */ | tr -d /)
mkdir -p $made/var/www "${made}phar:///usr/local/bin"
chmod -R 1777 .
runuser -u www-data -- wp --info >/dev/null
"""

Answer = TypeVar("Answer")


def files() -> Path:
    """The folder with everything of MEMBERS; made once in the cache."""
    folder = CACHE / "wordpress" / f"{PACKAGE}-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    scratch = folder.with_suffix(".new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    argv = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", f"--cache={scratch}/npm"]
    archive = scratch / f"{PACKAGE}-{VERSION}.tgz"
    for turn in range(4):
        time.sleep(10 * turn)
        try:
            done = subprocess.run(argv, cwd=scratch, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise LabError(f"npm is not installed: {PACKAGE} cannot be had") from None
        if done.returncode == 0 and archive.is_file():
            break
    else:
        raise LabError(f"{' '.join(argv)}: {(done.stderr + done.stdout).strip()[-500:]}")
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise LabError(f"{archive.name}: SHA-512 {found}, not {INTEGRITY}")
    top = "package/dist/cli/wp-files"
    members = [f"{top}/{name}" for name in MEMBERS.values()]
    subprocess.run(["tar", "-xzf", archive.name, "--no-same-owner", *members], cwd=scratch, check=True)
    made = scratch / "made"
    made.mkdir()
    for name, path in MEMBERS.items():
        (scratch / top / path).rename(made / name)
    made.chmod(0o755)
    made.rename(folder)
    shutil.rmtree(scratch)


class WordPressMachine(Machine):
    """A Machine that sees files() below HERE. prepare() gives it PHP and wp; site() makes a site within a second."""

    def __init__(self, release: int, purpose: str = "wp", *options: str) -> None:
        # The tests give it an address of their wordpress.org.
        super().__init__(release, purpose, f"--volume={files()}:{HERE}:ro", "--cap-add=NET_ADMIN", *options)
        self.has_database = False

    def prepare(self, database: bool = False) -> None:
        """Debian's PHP, with MariaDB (running) where database is set, and WP-CLI as /usr/local/bin/wp."""
        # What the role wp_cli installs, and SQLite for the sites that use it.
        packages = "php-cli php-curl php-mbstring php-mysql php-xml php-zip php-sqlite3"
        self.install(packages + " mariadb-server" * database)
        self.sh(f"install -m 0755 {HERE}/wp-cli.phar /usr/local/bin/wp\n{CODE}")
        if database:
            self.sh("systemctl start mariadb")
        self.has_database = database

    def install(self, packages: str) -> None:
        """Debian packages, without their recommendations. A mirror that fails is asked again."""
        apt = "apt-get -qq -o Acquire::Retries=3"
        self.sh(
            "export DEBIAN_FRONTEND=noninteractive; for turn in 1 2 3 4; do\n"
            f"{apt} update && {apt} install -y --no-install-recommends {packages} >/dev/null && exit 0\n"
            "sleep 10; done; exit 1"
        )

    def site(self, name: str, mariadb: bool = False, user: str = "www-data", core: str = f"{HERE}/wordpress") -> str:
        """A site of its own user with an administrator, admin; returns its folder. Its address is http://NAME.test."""
        path = f"/var/www/{name}"
        exclude = " ".join(f"--exclude='*.{suffix}'" for suffix in BROWSER.split())
        self.sh(
            f"set -e; id {user} >/dev/null 2>&1 || useradd --system --create-home {user}\n"
            f"mkdir -p {path}; tar -C {core} {exclude} -c . | tar -C {path} -x\n"
            f"cp -r {HERE}/sqlite-database-integration {path}/wp-content/plugins/\n"
            f"chown -R {user}: {path}; chmod 755 {path}"
        )
        if mariadb:
            self.sh(
                f"mariadb -e \"create database {name}; create user {name}@localhost identified by 'pw-{name}';"
                f' grant all on {name}.* to {name}@localhost"'
            )
        else:
            content = f"{path}/wp-content"
            self.sh(
                "sed -e 's#{SQLITE_IMPLEMENTATION_FOLDER_PATH}#" + f"{content}/plugins/sqlite-database-integration#' "
                "-e 's#{SQLITE_PLUGIN}#sqlite-database-integration/load.php#' "
                f"{HERE}/sqlite-database-integration/db.copy > {content}/db.php; chown {user}: {content}/db.php"
            )
        self.wp(
            path, f"config create --dbname={name} --dbuser={name} --dbpass=pw-{name} --skip-check --quiet", user=user
        )
        self.sh(f"chmod 640 {path}/wp-config.php")
        self.wp(
            path,
            f"core install --url=http://{name}.test --title={name} --admin_user=admin --admin_password=admin-{name}"
            " --admin_email=admin@example.test --skip-email --quiet",
            user=user,
        )
        return path

    def wp(self, path: str, arguments: str, user: str = "www-data", check: bool = True) -> str:
        """What wp prints for a site, as its user."""
        return self.sh(f"cd / && runuser -u {user} -- wp --path={path} {arguments}", check=check)


def both(machines: dict[int, WordPressMachine], work: Callable[[WordPressMachine], Answer]) -> dict[int, Answer]:
    """Do the same on every machine at once; the first that fails is raised, with its release in a note."""

    def one(machine: WordPressMachine) -> Answer:
        try:
            return work(machine)
        except BaseException as problem:
            problem.args = (f"Debian {machine.release}: {problem}",)
            raise

    with ThreadPoolExecutor(len(machines)) as pool:
        running = {release: pool.submit(one, machine) for release, machine in machines.items()}
    return {release: future.result() for release, future in running.items()}


@contextmanager
def ready(*releases: int) -> Iterator[dict[int, WordPressMachine]]:
    """Machines with PHP, WP-CLI and MariaDB, set up side by side."""
    made = {release: WordPressMachine(release) for release in releases}

    def set_up(machine: WordPressMachine) -> None:
        machine.start()
        machine.prepare(database=True)

    try:
        both(made, set_up)
        yield made
    finally:
        both(made, WordPressMachine.remove)


def far_hour() -> str:
    """A time of day, of machines on UTC, that does not come while a test is at work: HH:MM."""
    return (datetime.now(timezone.utc) + timedelta(hours=12)).strftime("%H:00")


def results(run: Run) -> list[dict[str, Any]]:
    """What the tasks of a play with -v returned, in their order; "failed" says whether a task failed."""
    pattern = r"^(ok|changed|fatal): \[\S+\](?:: FAILED!)? => (\{.*\})$"
    found = re.finditer(pattern, run.output, re.MULTILINE)
    return [{**json.loads(match[2]), "failed": match[1] == "fatal"} for match in found]


def core_archive(sqlite: bool = False) -> Path:
    """WordPress as wordpress.org packs it, less what only a browser needs; with sqlite it needs no database server."""
    top = files()
    path = top.parent / f"wordpress-{WORDPRESS}{'-sqlite' * sqlite}.zip"
    with (top.parent / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not path.exists():
            _pack(top, path, sqlite)
    return path


def _pack(top: Path, path: Path, sqlite: bool) -> None:
    new = path.with_suffix(".new")
    trees = {"wordpress": top / "wordpress"}
    plugin = top / "sqlite-database-integration"
    if sqlite:
        trees[f"wordpress/wp-content/plugins/{plugin.name}"] = plugin
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, tree in trees.items():
            for file in sorted(tree.rglob("*")):
                if file.is_file() and file.suffix[1:] not in BROWSER.split():
                    # Not before 1980, which a zip archive cannot say.
                    info = zipfile.ZipInfo(f"{name}/{file.relative_to(tree)}", (2025, 1, 1, 0, 0, 0))
                    archive.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)
        if sqlite:
            dropin = (plugin / "db.copy").read_text().replace("{SQLITE_PLUGIN}", f"{plugin.name}/load.php")
            archive.writestr("wordpress/wp-content/db.php", dropin)
    new.rename(path)
