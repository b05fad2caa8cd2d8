# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Scheduled tasks of WordPress sites, on the host: look, compare, bring it to what is wanted."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pwd
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .. import _files
from .._command import CommandError, run
from . import cron_php, cron_run, cron_tell
from .cron import (
    LIBRARY,
    SITES,
    STATE,
    SYSTEMD,
    Refused,
    Site,
    after_upkeep,
    all_files_of,
    common_files,
    describe,
    edit_crontab,
    site_files,
)

ERRORS = (Refused, CommandError, _files.FileError, OSError)
UPDATES = "wp-updates.timer"
CRON = "cron.service"
CRONTABS = "/var/spool/cron/crontabs"
#: below STATE while a run is at work: the sites that it found. One that is cut short leaves it, and the next run does
#: again what does not show in files
NOTE = ".at-work"
#: units or paths in one call of systemctl
BATCH = 100


@dataclass
class Plan:
    """What is to be done."""

    files: list[_files.File] = field(default_factory=list)
    #: timers to start anew because their times changed, to start, and to end
    restart: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    #: by user: the crontab before and after
    crontabs: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: folders of state to make (path and user) and to remove
    folders: list[tuple[str, str]] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    #: the sites that were found, with their settings
    former: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: the run before was cut short
    again: bool = False

    @property
    def changed(self) -> bool:
        parts = (self.files, self.restart, self.start, self.stop, self.crontabs, self.folders, self.remove)
        return self.again or any(parts)

    def diff(self) -> list[dict[str, str]]:
        """Ansible's diff: a part for each file and crontab, one for the timers."""
        parts = [_file_diff(file) for file in self.files]
        for user, (before, after) in self.crontabs.items():
            name = f"crontab of {user}"
            parts.append({"before_header": name, "after_header": name, "before": before, "after": after})
        if self.start or self.stop:
            before, after = ("".join(f"{unit}\n" for unit in units) for units in (self.stop, self.start))
            parts.append({"before_header": "timers", "after_header": "timers", "before": before, "after": after})
        return parts


def _file_diff(file: _files.File) -> dict[str, str]:
    found = _files.look(file.path)
    before, after = found.content if found else None, file.content
    if file.path.startswith(f"{LIBRARY}/"):
        # The collection's own programs: their text is of no interest to somebody who reviews his sites.
        before, after = b"[another version]\n" if before else None, b"[this version]\n" if after else None
    return {
        "before_header": file.path,
        "after_header": file.path,
        "before": (before or b"").decode(errors="replace"),
        "after": (after or b"").decode(errors="replace"),
    }


def known() -> dict[str, dict[str, Any]]:
    """The sites that an earlier run left on the host, by name, with their settings."""
    result: dict[str, dict[str, Any]] = {}
    for name in sorted(os.listdir(SITES)) if os.path.isdir(SITES) else []:
        if name.endswith(".json"):
            result[name[: -len(".json")]] = _read(os.path.join(SITES, name))
    return result


def _read(path: str) -> dict[str, Any]:
    found = _files.look(path)
    try:
        content = json.loads((found.content if found else None) or b"{}")
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}


def missing(site: Site) -> list[str]:
    """What the host lacks for a site, in words; raises Refused where it would run as root."""
    result = []
    try:
        entry = pwd.getpwnam(site.user)
    except KeyError:
        result.append(f"there is no user {site.user}")
    else:
        if entry.pw_uid == 0:
            raise Refused(f"{site.name}: {site.user} is root by another name: give the user that the site belongs to")
    if not all(os.path.isfile(os.path.join(site.path, name)) for name in ("wp-load.php", "wp-cron.php")):
        result.append(f"there is no WordPress in {site.path}")
    elif not has_config(site.path):
        result.append(f"there is no wp-config.php in {site.path}")
    needs_wp = site.upkeep.any or site.command == "wp"
    if needs_wp and not os.access(site.wp, os.X_OK):
        result.append(f"there is no WP-CLI at {site.wp} (role wp_cli installs it)")
    if not shutil.which(site.php):
        result.append(f"there is no {site.php}")
    if site.scheduler == "crontab" and not shutil.which("crontab"):
        result.append("there is no crontab (package cron)")
    return result


def has_config(path: str) -> bool:
    """Whether WordPress would find a wp-config.php: beside it, or one folder up where no other WordPress lies."""
    above = os.path.dirname(path)
    return os.path.isfile(f"{path}/wp-config.php") or (
        os.path.isfile(f"{above}/wp-config.php") and not os.path.isfile(f"{above}/wp-settings.php")
    )


def network_by_plain_line(site: Site) -> bool:
    """Whether a network is to be served by a plain line of a crontab, which reaches its first site only."""
    if site.scheduler != "crontab" or site.guard:
        return False
    for folder in (site.path, os.path.dirname(site.path)):
        found = _files.look(f"{folder}/wp-config.php")
        if found:
            return bool(re.search(rb"""(?m)^\s*define\(\s*['"]MULTISITE['"]\s*,\s*true""", found.content or b""))
    return False


def constants(entries: Sequence[Mapping[str, Any]], sites: dict[str, Site]) -> list[dict[str, Any]]:
    """What wp_config is to be given. A site that loses its timer and is not there any more needs nothing."""
    served = {site.path for site in sites.values() if site.scheduler != "none"}
    gone = [entry["path"].rstrip("/") for entry in entries if entry.get("state") == "absent"]
    return [
        *(
            {"path": site.path, "constants": {"DISABLE_WP_CRON": True}}
            for site in sites.values()
            if site.path in served
        ),
        *({"path": path, "absent": ["DISABLE_WP_CRON"]} for path in gone if has_config(path)),
    ]


def plan(sites: dict[str, Site], gone: Iterable[str], purge: bool, mail_to: str, wait: int) -> Plan:
    """Compare the host with the wanted sites. Other sites of earlier runs stay, unless purge is set."""
    note = os.path.join(STATE, NOTE)
    # What that run found counts: its files may be gone, or be others by now, while the lines of crontabs are not.
    former = {**known(), **_read(note)}
    leaving = {name for name in gone if name in former}
    if purge:
        leaving |= {name for name in former if name not in sites}
    staying = {name for name in former if name not in sites and name not in leaving}
    result = Plan(former=former, again=os.path.exists(note))
    wanted = {file.path: file for name in leaving for file in map(_absent, all_files_of(name))}
    for site in sites.values():
        wanted.update({path: _absent(path) for path in all_files_of(site.name)})
        wanted.update({path: _present(path, text) for path, text in site_files(site).items()})
    wanted.update(_common(sites, staying, mail_to, wait))
    result.files = [file for file in wanted.values() if not _files.equal(file, _files.look(file.path))]
    _plan_timers(result, sites, leaving, bool(sites or staying))
    _plan_crontabs(result, sites, leaving, former)
    for site in sites.values():
        folder = os.path.join(STATE, site.name)
        # systemd makes those of timers.
        if site.scheduler == "crontab" and site.guard and not _belongs(folder, site.user):
            result.folders.append((folder, site.user))
    result.remove = [
        folder for folder in (os.path.join(STATE, name) for name in sorted(leaving)) if os.path.isdir(folder)
    ]
    return result


def _belongs(folder: str, user: str) -> bool:
    try:
        return os.stat(folder).st_uid == _files.uid_of(user)
    except (OSError, _files.FileError):
        return False


def _absent(path: str) -> _files.File:
    return _files.File(path, None)


def _present(path: str, text: str) -> _files.File:
    return _files.File(path, text.encode())


def _common(sites: dict[str, Site], staying: set[str], mail_to: str, wait: int) -> dict[str, _files.File]:
    """Programs and units of all sites; they go with the last one."""
    texts = {
        f"{LIBRARY}/run.py": inspect.getsource(cron_run),
        f"{LIBRARY}/tell.py": inspect.getsource(cron_tell),
        f"{LIBRARY}/guard.php": cron_php.GUARD,
        f"{LIBRARY}/events.php": cron_php.EVENTS,
        f"{LIBRARY}/updates.php": cron_php.UPDATES,
        **common_files(mail_to, wait, after_upkeep(sites.values())),
    }
    if sites:
        return {path: _present(path, text) for path, text in texts.items()}
    return {} if staying else {path: _absent(path) for path in texts}


def _plan_timers(result: Plan, sites: dict[str, Site], leaving: set[str], any_left: bool) -> None:
    wanted = [timer for site in sites.values() for timer in site.timers]
    every = [f"wp-{kind}@{name}.timer" for name in [*sites, *sorted(leaving)] for kind in ("cron", "upkeep")]
    if sites:
        wanted.append(UPDATES)
    found = _enabled_timers()
    state = _active(wanted)
    touched = {file.path for file in result.files}
    for timer in wanted:
        template = re.sub(r"@.*\.", "@.", timer)
        if timer not in found or not state.get(timer):
            result.start.append(timer)
        elif result.again or {f"{SYSTEMD}/{timer}.d/site.conf", f"{SYSTEMD}/{template}"} & touched:
            result.restart.append(timer)
    result.stop = [timer for timer in every if timer in found and timer not in wanted]
    if not any_left and UPDATES in found:
        result.stop.append(UPDATES)
    # Installed by the role without being started.
    if any(site.scheduler == "crontab" for site in sites.values()) and not _active([CRON]).get(CRON):
        result.start.append(CRON)


def _enabled_timers() -> set[str]:
    folder = f"{SYSTEMD}/timers.target.wants"
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def _active(timers: Sequence[str]) -> dict[str, bool]:
    """Which of them run; none where systemd does not."""
    result: dict[str, bool] = {}
    for part in _parts(timers):
        try:
            done = run(["systemctl", "is-active", *part], check=False)
        except CommandError:
            return {}
        result.update(zip(part, (line == "active" for line in done.out.split())))
    return result


def _plan_crontabs(result: Plan, sites: dict[str, Site], leaving: set[str], former: dict[str, dict[str, Any]]) -> None:
    mine = [site for site in sites.values() if site.scheduler == "crontab"]
    # Also where a site's tasks ran before: another user, or a timer now.
    concerned = {
        name: old
        for name, old in former.items()
        if old.get("scheduler") == "crontab" and {"user", "path"} <= set(old) and (name in sites or name in leaving)
    }
    paths = {name: old["path"] for name, old in concerned.items()}
    users = {site.user for site in mine} | {old["user"] for old in concerned.values()}
    for user in sorted(users):
        wanted = [site for site in mine if site.user == user]
        text = _crontab(user)
        edited = edit_crontab(text, wanted, paths)
        if edited != text:
            result.crontabs[user] = (text, edited)


def _crontab(user: str) -> str:
    try:
        done = run(["crontab", "-u", user, "-l"], check=False)
    except CommandError:
        return ""
    if done.rc != 0 and "no crontab for" not in done.err:
        # A user who is not there yet has none.
        if "unknown" in done.err:
            return ""
        raise CommandError(f"crontab -u {user} -l: exit status {done.rc}\n{done.words}")
    return done.out


def _parts(words: Sequence[str]) -> list[list[str]]:
    return [list(words[start : start + BATCH]) for start in range(0, len(words), BATCH)]


def apply(todo: Plan) -> None:
    """Do it. What starts comes last, what ends first: no timer ever starts half of a change."""
    if not todo.changed:
        return
    note = os.path.join(STATE, NOTE)
    _files.make_folders(STATE)
    _files.write([_files.File(note, json.dumps(todo.former).encode(), 0o600)])
    for part in _parts(todo.stop):
        run(["systemctl", "disable", "--now", "--quiet", *part])
        # A failure of a site that is looked after no more is of no interest.
        run(["systemctl", "reset-failed", *(timer.replace(".timer", ".service") for timer in part)], check=False)
    for folder in dict.fromkeys(os.path.dirname(file.path) for file in todo.files if file.content is not None):
        _files.make_folders(folder)
    _files.write(todo.files)
    for file in todo.files:
        folder = os.path.dirname(file.path)
        if file.content is None and folder.endswith(".d") and os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
    for folder, user in todo.folders:
        _files.make_folders(os.path.dirname(folder))
        # What another user left there is not his any more.
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder, 0o700)
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    if todo.again or any(file.path.startswith(SYSTEMD) for file in todo.files):
        run(["systemctl", "daemon-reload"])
    for user, (_before, after) in todo.crontabs.items():
        run(["crontab", "-u", user, *(["-"] if after else ["-r"])], stdin=after or None)
    for part in _parts(todo.start):
        run(["systemctl", "enable", "--now", "--quiet", *part])
    for part in _parts(todo.restart):
        run(["systemctl", "restart", *part])
    if todo.crontabs:
        poke(CRONTABS)
    for folder in todo.remove:
        shutil.rmtree(folder)
    _files.write([_absent(note)])


def poke(folder: str) -> None:
    """Have cron notice changed crontabs.

    It compares the whole seconds of the folder's time: a crontab that is written in the second in which cron read them
    all, as at its start, would never run.
    """
    time.sleep(1.1)
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder)


# --- reading --------------------------------------------------------------------------------------------------------


def info(names: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of each site; a site that does not answer says why in its error."""
    former = known()
    unknown = [name for name in names if name not in former]
    if unknown:
        raise Refused(f"names: no site {', '.join(unknown)} in {SITES}; there are {', '.join(former) or 'none'}")
    chosen = {name: former[name] for name in names or former}
    times = _next_elapse([f"wp-cron@{name}.timer" for name, old in chosen.items() if old.get("scheduler") == "timer"])
    with ThreadPoolExecutor(4) as pool:
        told = dict(zip(chosen, pool.map(_show, chosen, chosen.values())))
    return [
        describe(name, settings, told[name], times.get(f"wp-cron@{name}.timer")) for name, settings in chosen.items()
    ]


def _show(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    # As the site's user, who may read its files and whose folder of state it is.
    argv = [
        "runuser",
        "-u",
        settings.get("user", ""),
        "--",
        "/usr/bin/python3",
        "-I",
        f"{LIBRARY}/run.py",
        "show",
        name,
    ]
    try:
        answer: dict[str, Any] = json.loads(run(argv, timeout=120).out)
        return answer
    except (CommandError, ValueError) as exc:
        return {"last": {}, "events": {}, "error": str(exc)}


def _next_elapse(timers: Sequence[str]) -> dict[str, int]:
    """Seconds of the epoch at which each timer starts its service next; those that wait for it to end have none."""
    result: dict[str, int] = {}
    for part in _parts(timers):
        argv = ["systemctl", "show", "--property=Id,NextElapseUSecRealtime", *part]
        try:
            done = run(argv, check=False, env={"TZ": "UTC"})
        except CommandError:
            return {}
        for block in done.out.split("\n\n"):
            words = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            # Sun 2026-11-22 00:05:11 UTC
            match = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", words.get("NextElapseUSecRealtime", ""))
            if match:
                moment = datetime.strptime(match.group(0), "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
                result[words["Id"]] = int(moment.timestamp())
    return result
