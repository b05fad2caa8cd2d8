# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Sites of WordPress on this host: asked and changed with WP-CLI, each as its own user, several at a time.

All sites are looked at before the first is changed; for a site that is as wanted WordPress starts once.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .._command import CommandError, Result, run
from .._plan import Plan
from . import config, site
from .site import SiteError, Step, Wanted
from .site_php import ANSWER, ASK, DATABASE, MARK

Answer = TypeVar("Answer")
#: seconds: one question, and one change (a download among them)
PATIENCE, LONG = 120.0, 900.0
_TELLING = re.compile(r"Error:|Warning:|(PHP )?(Parse|Fatal) error:")
QUIET = ("--skip-plugins", "--skip-themes")


class NotInstalled(Exception):
    """WordPress' files and configuration are there, its tables are not."""


@dataclass
class Site:
    """One site and what became of it."""

    wanted: Wanted
    account: pwd.struct_passwd
    wp: str
    answer: dict[str, Any] | None = None  # None: not installed
    plan: Plan[str, str] = field(default_factory=Plan)

    @property
    def path(self) -> str:
        return self.wanted.path

    # --- running ------------------------------------------------------------------------------------------------

    def command(self, *argv: str) -> list[str]:
        """argv of a program as the site's user, in a folder and with a home that are his."""
        here = ["env", "-C", "/", f"HOME={self.account.pw_dir}", "WP_CLI_DISABLE_AUTO_CHECK_UPDATE=1", *argv]
        if os.geteuid() == self.account.pw_uid:
            return here
        return ["runuser", "-u", self.account.pw_name, "--", *here]

    def wp_cli(self, argv: Iterable[str], stdin: str = "", timeout: float = LONG) -> Result:
        """A command of WP-CLI, whatever its exit status."""
        url = [f"--url={self.wanted.given['url']}"] if self.wanted.given.get("url") else []
        return run(
            self.command(self.wp, f"--path={self.path}", *url, "--no-color", *argv), stdin, timeout=timeout, check=False
        )

    def do(self, step: Step) -> None:
        """A command that must succeed; raises SiteError with WP-CLI's own words."""
        result = self.wp_cli(step.argv, step.stdin)
        if result.rc:
            shown = " ".join(step.argv)
            raise SiteError(f"{self.path}: wp {shown if len(shown) < 200 else f'{shown[:200]}…'}: {words(result)}")

    def program(self, text: str, job: dict[str, Any], *options: str, timeout: float = LONG) -> dict[str, Any]:
        """Run a PHP program inside WP-CLI; raises SiteError, and NotInstalled for a site without tables."""
        code = base64.b64encode(json.dumps(job).encode()).decode()
        whole = text + ANSWER.replace("{job}", code).replace("{mark}", MARK)
        result = self.wp_cli(["eval-file", "-", *options], whole, timeout)
        lines = [line for line in result.out.splitlines() if line.startswith(MARK)]
        if result.rc == 0 and lines:
            answer: dict[str, Any] = json.loads(lines[-1][len(MARK) :])
            return answer
        if "is not installed" in result.err:
            raise NotInstalled
        raise SiteError(f"{self.path}: {words(result, silent=False)}")

    # --- looking ------------------------------------------------------------------------------------------------

    @property
    def has_core(self) -> bool:
        return os.path.isfile(os.path.join(self.path, "wp-includes", "version.php"))

    @property
    def has_config(self) -> bool:
        """Whether there is a wp-config.php where WordPress itself looks for it."""
        with contextlib.suppress(config.ConfigError):
            return bool(config.locate(self.path))
        return False

    def look(self) -> None:
        """Ask the site and compute its plan; raises SiteError."""
        if self.has_core and self.has_config:
            try:
                self.answer = self.program(ASK, self.wanted.question(), *QUIET, timeout=PATIENCE)
            except NotInstalled:
                self.look_new()
                return
            except SiteError:
                # WP-CLI says of a wp-config.php that is broken, or not to be read, neither its name nor the line.
                path = config.locate(self.path)
                if run(self.command("test", "-r", path), check=False).rc:
                    raise SiteError(f"{self.path}: {path}: user {self.account.pw_name} may not read it") from None
                config.check("php", path, path)
                raise
            self.plan = site.plan(self.wanted, self.answer)
            self.sources()
            return
        self.look_new()

    def look_new(self) -> None:
        """The same for a site that is not installed."""
        site.can_install(self.wanted)
        self.plan = site.new_plan(self.wanted)
        if not self.has_core:
            if os.path.isdir(self.path) and os.listdir(self.path):
                raise SiteError(f"{self.path}: neither empty nor WordPress")
            if not self.wanted.version and not self.wanted.source:
                raise SiteError(f"{self.path}: a new site needs core.version or core.source")
        self.sources()
        if not self.has_config and not self.own_database:
            self.database(create=False)

    def sources(self) -> None:
        """The archives of this host that the plan needs are there; raises SiteError."""
        needed = [self.wanted.source] if {"core", "site"} & {*self.plan.create, *self.plan.change} else []
        for kind, items in (("plugin", self.wanted.plugins), ("theme", self.wanted.themes)):
            touched = {*self.plan.create, *self.plan.change}
            needed += [one.source for one in items if f"{kind} {one.name}" in touched]
        for source in needed:
            if os.path.isabs(source):
                members(source)

    @property
    def own_database(self) -> bool:
        """Whether WordPress comes with another database than MySQL (wp-content/db.php)."""
        if self.has_core:
            return os.path.isfile(os.path.join(self.path, "wp-content", "db.php"))
        return bool(self.wanted.source) and any(
            name.endswith("wp-content/db.php") for name in members(self.wanted.source)
        )

    def database(self, create: bool) -> None:
        """Whether the database answers; with create it is there afterwards. Raises SiteError."""
        answer = self.program(DATABASE, {**self.wanted.given["database"], "create": create}, "--skip-wordpress")
        if answer.get("error"):
            raise SiteError(f"{self.path}: database: {answer['error']}")

    # --- changing -----------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Bring the site to its plan, and see that it is there; raises SiteError."""
        if self.answer is None:
            self.install()
            self.answer = self.program(ASK, self.wanted.question(), *QUIET)
        todo = site.plan(self.wanted, self.answer)
        for step in site.steps(self.wanted, todo, self.answer):
            self.do(step)
        if any(key.startswith("option ") for key in (*todo.create, *todo.change)):
            self.program(ASK, self.wanted.question(set_options=True))
        if todo.changed:
            self.verify()

    def verify(self) -> None:
        """Ask again: a command that says nothing of its failure is found here."""
        answer = self.program(ASK, {**self.wanted.question(), "refresh": False}, *QUIET)
        rest = site.plan(self.wanted, answer, asked=False)
        if rest.changed:
            left = [f"{key}: {old} instead of {new}" for key, (old, new) in rest.change.items()]
            left += [f"{key}: still not there" for key in rest.create] + [f"{key}: still there" for key in rest.delete]
            raise SiteError(f"{self.path}: after all commands went well: {'; '.join(left)}")
        self.answer = answer

    def install(self) -> None:
        """Files, configuration, tables, administrator: whatever of it is missing."""
        if not self.has_core:
            self.fetch()
        if not self.has_config:
            self.do(site.create_config(self.wanted))
            os.chmod(os.path.join(self.path, "wp-config.php"), 0o640)
        if not self.own_database:
            self.database(create=True)
        self.do(site.install(self.wanted))

    def fetch(self) -> None:
        """WordPress' own files: out of an archive, or from wordpress.org by WP-CLI, which checks their sum."""
        made = not os.path.isdir(self.path)
        if self.wanted.source:
            unpack(self.wanted.source, self.path, self.account)
            return
        if made:
            os.makedirs(self.path)
            os.chmod(self.path, 0o755)  # noqa: S103 (a web server reads it)
            os.chown(self.path, self.account.pw_uid, self.account.pw_gid)
        argv = ["core", "download"] + ([f"--version={self.wanted.exact}"] if self.wanted.exact else [])
        locale = (self.wanted.given.get("core") or {}).get("locale")
        try:
            self.do(Step((*argv, *([f"--locale={locale}"] if locale else []))))
        except SiteError:
            if made:
                shutil.rmtree(self.path, ignore_errors=True)
            raise


def words(result: Result, silent: bool = True) -> str:
    """What went wrong, without PHP's notices. silent: not from standard output, where WP-CLI repeats passwords."""
    text = result.err if silent or result.err.strip() else result.out
    notice = re.compile(
        r"(Warning|Notice|Deprecated): .* on line \d+$|^Warning: Failed to create directory .*/\.wp-cli/"
    )
    lines = [line for line in text.splitlines() if line.strip() and not notice.search(line)]
    start = next((number for number, line in enumerate(lines) if _TELLING.match(line)), None)
    told = [line for line in text.splitlines() if line.strip()][-8:] if start is None else lines[start:]
    return "\n".join(told).removeprefix("Error: ") or f"exit status {result.rc}"


def members(source: str) -> list[str]:
    """Names in an archive of WordPress; raises SiteError."""
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return archive.namelist()
        with tarfile.open(source) as archive:
            return archive.getnames()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as exc:
        raise SiteError(f"{source}: {getattr(exc, 'strerror', None) or exc}") from exc


def unpack(source: str, path: str, account: pwd.struct_passwd) -> None:
    """Unpack an archive of WordPress to path, which is empty or not there, as the user's own; raises SiteError.

    It happens in a folder that only root may enter, and is renamed when all of it is there.
    """
    staging = f"{path}.postmeister-new"
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(staging, 0o700)
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                archive.extractall(staging)
        else:
            run(["tar", "--no-same-owner", "-C", staging, "-xf", source], timeout=LONG)
        top = os.path.join(staging, "wordpress")
        if not os.path.isfile(os.path.join(top, "wp-includes", "version.php")):
            raise SiteError(f"{source}: no wordpress/wp-includes/version.php in it")
        for folder, _folders, files in os.walk(top):
            os.chmod(folder, 0o755)  # noqa: S103 (a web server reads it)
            os.chown(folder, account.pw_uid, account.pw_gid)
            for name in files:
                full = os.path.join(folder, name)
                os.chown(full, account.pw_uid, account.pw_gid, follow_symlinks=False)
                if not os.path.islink(full):
                    os.chmod(full, 0o644)
        if os.path.isdir(path):
            os.rmdir(path)
        os.rename(top, path)
    except (OSError, zipfile.BadZipFile, CommandError) as exc:
        raise SiteError(f"{path}: {source}: {getattr(exc, 'strerror', None) or exc}") from exc
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def account_of(wanted: Wanted) -> pwd.struct_passwd:
    """The site's user; root is refused. Raises SiteError."""
    try:
        account = pwd.getpwnam(wanted.user)
    except KeyError:
        raise SiteError(f"{wanted.path}: there is no user {wanted.user}") from None
    if account.pw_uid == 0:
        raise SiteError(f"{wanted.path}: user {wanted.user}: {site.ROOT}")
    if os.geteuid() not in (0, account.pw_uid):
        raise SiteError(f"{wanted.path}: only root and {wanted.user} can run WP-CLI as {wanted.user}")
    return account


def each(sites: list[Site], work: Callable[[Site], None]) -> None:
    """Do it for every site, as many at a time as there are processors; raises one SiteError with all that failed."""

    def one(which: Site) -> str:
        try:
            work(which)
        except NotInstalled:
            return f"{which.path}: WordPress is not installed"
        except (SiteError, config.ConfigError, CommandError, OSError) as exc:
            return str(exc) if str(exc).startswith(which.path) else f"{which.path}: {exc}"
        return ""

    with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, len(sites)))) as pool:
        troubles = [trouble for trouble in pool.map(one, sites) if trouble]
    if troubles:
        raise SiteError("\n".join(troubles))
