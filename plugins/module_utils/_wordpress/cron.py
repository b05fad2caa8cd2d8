# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Scheduled tasks of WordPress sites: from a site's options to the files, timers and lines of crontabs it needs.

Nothing here touches the host.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from .._plan import PlanError, by_key

SYSTEMD = "/etc/systemd/system"
LIBRARY = "/usr/local/lib/postmeister/wordpress"
SITES = "/etc/postmeister/wordpress"
STATE = "/var/lib/wp-cron"
MARKS = "/run/wp-cron"
HEADER = "# Written by postmeister.host.wp_cron; changes are overwritten.\n"
#: what a user's crontab says above a line of ours
MARKER = "# postmeister.host.wp_cron: "
#: seconds over which the daily upkeep of all sites is spread
UPKEEP_SPREAD = 3600
#: divisors of an hour: the minutes of a timer and of a crontab repeat every hour
INTERVALS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)


class Refused(Exception):
    """What was asked for cannot be right; the message names the item, the value and the reason."""


@dataclass(frozen=True)
class Upkeep:
    """The daily chores of a site."""

    transients: str = "expired"  # or all, none
    spam: bool = False
    checksums: bool = True
    updates: bool = True

    @property
    def any(self) -> bool:
        return self.transients != "none" or self.spam or self.checksums or self.updates


@dataclass(frozen=True)
class Site:
    """A site and how its tasks run. interval is in minutes, timeout in seconds, time of day as HH:MM."""

    name: str
    path: str
    user: str = "www-data"
    url: str = ""
    scheduler: str = "timer"  # or crontab, none
    command: str = "php"  # or wp
    interval: int = 1
    timeout: int = 600
    guard: bool = False
    upkeep: Upkeep = Upkeep()
    upkeep_time: str = "03:00"
    php: str = "php"
    wp: str = "/usr/local/bin/wp"

    @property
    def offset(self) -> int:
        """Second of the interval at which its tasks start: ever the same, and spread over all sites."""
        return _spread(self.name, self.interval * 60)

    @property
    def timers(self) -> list[str]:
        names = [f"wp-cron@{self.name}.timer"] if self.scheduler == "timer" else []
        return names + ([f"wp-upkeep@{self.name}.timer"] if self.upkeep.any else [])

    @property
    def guarded(self) -> bool:
        """Whether our program runs its tasks, and not a plain line of a crontab."""
        return self.scheduler == "timer" or (self.scheduler == "crontab" and self.guard)


def _spread(name: str, width: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % width


# --- options in -----------------------------------------------------------------------------------------------------


def sites_from(entries: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> tuple[dict[str, Site], list[str]]:
    """Make the wanted sites, by name, and the names of those to remove.

    An option that an entry does not have is taken from defaults. Raises Refused.
    """
    named: list[tuple[str, Mapping[str, Any]]] = []
    for index, entry in enumerate(entries):
        path = _path(f"sites[{index}].path", entry["path"])
        name = entry.get("name") or os.path.basename(path)
        # A systemd instance and a file's name.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
            raise Refused(
                f"sites[{index}].name: {name!r} of {path} is no name for a timer: letters, digits, '.', '_' and '-'"
            )
        named.append((name, {**entry, "path": path}))
    try:
        chosen = by_key(named, lambda pair: pair[0], "sites")
        by_key(named, lambda pair: str(pair[1]["path"]), "sites")
    except PlanError as exc:
        raise Refused(
            f"{exc}; give each site its own path, and a name where the last parts of two paths agree"
        ) from exc
    wanted = {
        name: _site(f"sites[{named.index(pair)}]", name, pair[1], defaults)
        for name, pair in chosen.items()
        if pair[1].get("state") != "absent"
    }
    return wanted, [name for name in chosen if name not in wanted]


def _site(where: str, name: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> Site:
    def given(option: str) -> Any:
        value = entry.get(option)
        return defaults[option] if value is None else value

    interval, timeout, time = given("interval"), given("timeout"), given("upkeep_time")
    if interval not in INTERVALS:
        raise Refused(f"{where}.interval: {interval} minutes do not divide an hour: {', '.join(map(str, INTERVALS))}")
    if not 10 <= timeout <= 86400:
        raise Refused(f"{where}.timeout: {timeout} is not between 10 and 86400 seconds")
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", time):
        raise Refused(f"{where}.upkeep_time: {time!r} is not a time of day like 03:00")
    if given("user") in ("root", "0"):
        raise Refused(
            f"{where}.user: the tasks of {entry['path']} are PHP code of the site; as root it could do anything to the "
            "host: give the user that the site belongs to"
        )
    return Site(
        name=name,
        path=str(entry["path"]),
        user=_word(f"{where}.user", given("user")),
        url=_url(f"{where}.url", entry.get("url") or ""),
        scheduler=given("scheduler"),
        command=given("command"),
        interval=interval,
        timeout=timeout,
        guard=given("crontab_guard"),
        upkeep=Upkeep(
            given("upkeep_transients"), given("upkeep_spam"), given("upkeep_checksums"), given("upkeep_updates")
        ),
        upkeep_time=time,
        php=_word("php", defaults["php"]),
        wp=_path("wp_cli", defaults["wp_cli"]),
    )


def _path(where: str, path: str) -> str:
    trimmed = path.rstrip("/")
    if not trimmed.startswith("/") or os.path.normpath(trimmed) != trimmed or not trimmed.isprintable():
        raise Refused(f"{where}: {path!r} is not a plain absolute path")
    return trimmed


def _word(where: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./@+$-]*", value):
        raise Refused(f"{where}: {value!r} holds signs that have no place there")
    return value


def _url(where: str, url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc)):
        raise Refused(f"{where}: {url!r} is not an address like https://example.org/")
    return url


# --- what the host gets ---------------------------------------------------------------------------------------------


def settings(site: Site) -> str:
    """What the programs on the host have to know of a site; they and wp_cron_info read it."""
    return (
        json.dumps(
            {
                "name": site.name,
                "path": site.path,
                "user": site.user,
                "url": site.url,
                "scheduler": site.scheduler,
                "guard": site.guarded,
                "command": site.command,
                "interval": site.interval,
                "timeout": site.timeout,
                "offset": site.offset,
                "php": site.php,
                "wp": site.wp,
                "upkeep": {
                    "transients": "" if site.upkeep.transients == "none" else site.upkeep.transients,
                    "spam": site.upkeep.spam,
                    "checksums": site.upkeep.checksums,
                    "updates": site.upkeep.updates,
                },
            },
            indent=1,
        )
        + "\n"
    )


def on_calendar(site: Site) -> str:
    """When its tasks start, as in systemd.time(7)."""
    minute, second = divmod(site.offset, 60)
    every = {1: "*", 60: str(minute)}.get(site.interval, f"{minute}/{site.interval}")
    return f"*:{every}:{second:02d}"


def upkeep_calendar(site: Site) -> str:
    hours, minutes = map(int, site.upkeep_time.split(":"))
    second = (hours * 3600 + minutes * 60 + _spread(site.name, UPKEEP_SPREAD)) % 86400
    return f"*-*-* {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def site_files(site: Site) -> dict[str, str]:
    """The files of a site, path and content."""
    files = {f"{SITES}/{site.name}.json": settings(site)}
    # The program ends what hangs; should it hang itself, systemd does. A network runs for an hour, then its last tasks.
    limits = f"TimeoutStartSec={3600 + 2 * site.timeout}\n"
    whose = f"{HEADER}[Service]\nUser={site.user}\n"
    if site.scheduler == "timer":
        files[f"{SYSTEMD}/wp-cron@{site.name}.service.d/site.conf"] = whose + limits
        files[f"{SYSTEMD}/wp-cron@{site.name}.timer.d/site.conf"] = f"{HEADER}[Timer]\nOnCalendar={on_calendar(site)}\n"
    if site.upkeep.any:
        files[f"{SYSTEMD}/wp-upkeep@{site.name}.service.d/site.conf"] = whose
        files[f"{SYSTEMD}/wp-upkeep@{site.name}.timer.d/site.conf"] = (
            f"{HEADER}[Timer]\nOnCalendar={upkeep_calendar(site)}\n"
        )
    return files


def all_files_of(name: str) -> list[str]:
    """Every file that a site of that name may have."""
    units = ("wp-cron@{}.service", "wp-cron@{}.timer", "wp-upkeep@{}.service", "wp-upkeep@{}.timer")
    return [f"{SITES}/{name}.json", *(f"{SYSTEMD}/{unit.format(name)}.d/site.conf" for unit in units)]


def common_files(mail_to: str, wait: int, updates_at: str) -> dict[str, str]:
    """The units that all sites share. mail_to: who is told, '' for nobody; wait: seconds that one mail collects."""
    tell = f"/usr/bin/python3 -I {LIBRARY}/tell.py"
    run = f"/usr/bin/python3 -I {LIBRARY}/run.py"
    to = mail_to.replace("%", "%%")
    files = {
        "wp-cron@.service": f"""{HEADER}[Unit]
Description=Scheduled tasks of the WordPress site %i
After=network-online.target nss-lookup.target mariadb.service mysql.service
OnFailure=wp-failed@%n.service
OnSuccess=wp-works@%n.service

[Service]
Type=oneshot
ExecStart={run} cron %i
StateDirectory=wp-cron/%i
StateDirectoryMode=0700
SyslogIdentifier=%p@%i
# systemd's own two lines for each start would be most of the journal.
SyslogLevel=notice
LogLevelMax=notice
# Visitors first.
Nice=5
""",
        "wp-cron@.timer": f"""{HEADER}[Unit]
Description=Scheduled tasks of the WordPress site %i

[Timer]
AccuracySec=1s

[Install]
WantedBy=timers.target
""",
        "wp-upkeep@.service": f"""{HEADER}[Unit]
Description=Upkeep of the WordPress site %i
Wants=network-online.target
After=network-online.target nss-lookup.target mariadb.service mysql.service
OnFailure=wp-failed@%n.service
OnSuccess=wp-works@%n.service

[Service]
Type=oneshot
ExecStart={run} upkeep %i
TimeoutStartSec=6h
StateDirectory=wp-cron/%i
StateDirectoryMode=0700
SyslogIdentifier=%p@%i
SyslogLevel=notice
LogLevelMax=notice
Nice=10
""",
        "wp-upkeep@.timer": f"""{HEADER}[Unit]
Description=Upkeep of the WordPress site %i

[Timer]
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
""",
        "wp-failed@.service": f"""{HEADER}[Unit]
Description=Tell that %i fails
# Once per outage: wp-works@ takes the mark away.
ConditionPathExists=!{MARKS}/told/%i

[Service]
Type=oneshot
ExecStart={tell} failed %i "{to}" {wait}
TimeoutStartSec={wait + 300}
LogLevelMax=notice
""",
        "wp-works@.service": f"""{HEADER}[Unit]
Description=Tell that %i works again
ConditionPathExists=|{MARKS}/told/%i
ConditionPathExists=|{MARKS}/new/%i

[Service]
Type=oneshot
ExecStart={tell} works %i "{to}" {wait}
TimeoutStartSec={wait + 300}
LogLevelMax=notice
""",
        "wp-updates.service": f"""{HEADER}[Unit]
Description=Tell of updates for WordPress sites

[Service]
Type=oneshot
ExecStart={tell} updates "{to}"
LogLevelMax=notice
""",
        "wp-updates.timer": f"""{HEADER}[Unit]
Description=Tell of updates for WordPress sites

[Timer]
OnCalendar=*-*-* {updates_at}:00
Persistent=true

[Install]
WantedBy=timers.target
""",
    }
    return {f"{SYSTEMD}/{name}": text for name, text in files.items()}


def after_upkeep(sites: Iterable[Site]) -> str:
    """When the updates are told: two hours after the first site's upkeep began, when all had theirs."""
    hours, minutes = map(int, min((site.upkeep_time for site in sites if site.upkeep.any), default="03:00").split(":"))
    return f"{(hours + 2) % 24:02d}:{minutes:02d}"


# --- crontabs -------------------------------------------------------------------------------------------------------


def crontab_job(site: Site) -> str:
    """What cron is to run, as it stands in the line (a percent sign would end it there)."""
    path = shlex.quote(f"{site.path}/wp-cron.php")
    if site.guard:
        job = f"/usr/bin/python3 -I {LIBRARY}/run.py crontab {site.name}"
    elif site.command == "wp":
        job = f"{shlex.quote(site.wp)} --path={shlex.quote(site.path)} cron event run --due-now --quiet"
    else:
        job = f"{site.php} {path}"
    return job.replace("%", "\\%")


def crontab_line(site: Site) -> str:
    every = "*/1" if site.interval == 1 else "0" if site.interval == 60 else f"*/{site.interval}"
    return f"{every} * * * * {crontab_job(site)}"


def edit_crontab(text: str, wanted: Sequence[Site], former: Mapping[str, str]) -> str:
    """A user's crontab with the lines of the wanted sites, and without those of other former ones.

    former: paths of the sites that an earlier run may have put there, by name. Every line that is not ours stays where
    it is: a crontab's variables count for the lines below them.
    """
    lines = text.splitlines()
    sites = {site.name: site for site in wanted}
    marked = {f"{MARKER}{name}": name for name in [*sites, *former]}
    marks = {number: marked[line] for number, line in enumerate(lines) if line in marked}
    jobs = _our_jobs(lines, marks, wanted, former)
    # A site's line stays where its first job is, without one at its mark.
    places: dict[str, int] = {}
    for number, name in [*sorted(jobs.items()), *marks.items()]:
        places.setdefault(name, number)
    result: list[str] = []
    for number, line in enumerate(lines):
        name = jobs.get(number) or marks.get(number, "")
        if not name:
            result.append(line)
        elif name in sites and places[name] == number:
            result += _marked_line(sites[name])
    for site in wanted:
        if site.name not in places:
            result += _marked_line(site)
    return "".join(f"{line}\n" for line in result)


def _marked_line(site: Site) -> list[str]:
    return [f"{MARKER}{site.name}", crontab_line(site)]


def _our_jobs(
    lines: Sequence[str], marks: Mapping[int, str], wanted: Sequence[Site], former: Mapping[str, str]
) -> dict[int, str]:
    """Numbers of the lines that are our jobs, with the names of their sites.

    Ours is what runs the very same command; where none is below a mark, the first there that runs the tasks of its
    site in another way: somebody changed it.
    """
    same = {crontab_job(site): site.name for site in wanted}
    result = {number: same[job] for number, job in enumerate(map(_job_of, lines)) if job in same}
    paths = {name: [path] for name, path in former.items()}
    for site in wanted:
        paths.setdefault(site.name, []).append(site.path)
    words = [_words(line) for line in lines]
    for mark, name in marks.items():
        below = [number for number in range(mark + 1, len(lines)) if _runs(words[number], name, paths[name])]
        if below:
            result.setdefault(min(below, key=lambda number: number not in result), name)
    return result


def _runs(words: Sequence[str], name: str, paths: Iterable[str]) -> bool:
    """Whether a command runs what is due of a site in one of our ways, whatever else it says."""
    return (f"{LIBRARY}/run.py", "crontab", name) in zip(words, words[1:], words[2:]) or any(
        f"{path}/wp-cron.php" in words or {f"--path={path}", "event", "run", "--due-now"} <= set(words)
        for path in paths
    )


def _words(line: str) -> list[str]:
    """The words of the command of a line of a crontab."""
    lexer = shlex.shlex(_job_of(line).replace("\\%", "%"), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # a quote without its end: not our writing
        return []


def _job_of(line: str) -> str:
    """The command of a line of a crontab; '' for comments and variables."""
    match = re.fullmatch(r"\s*(?:@[a-z]+|[0-9*]\S*(?:\s+\S+){4})\s+(\S.*?)\s*", line)
    return match.group(1) if match else ""


# --- what wp_cron_info tells ----------------------------------------------------------------------------------------


def describe(name: str, settings: Mapping[str, Any], told: Mapping[str, Any], next_run: int | None) -> dict[str, Any]:
    """One site: settings as wp_cron left them, told as its program answered (see cron_run.show)."""
    last, answer = told.get("last") or {}, told.get("events") or {}
    overdue = []
    for site in answer.get("sites", ()):
        for event in site["due"]:
            seconds = answer["time"] - event["time"]
            overdue.append({"url": site["url"], "hook": event["hook"], "count": event["count"], "seconds": seconds})
    overdue.sort(key=lambda event: -event["seconds"])
    return {
        "name": name,
        **{key: settings.get(key) for key in ("path", "user", "scheduler")},
        "last_run": _moment(last.get("began")),
        "last_seconds": last.get("seconds"),
        "last_failed": last.get("failed", []),
        "next_run": _moment(next_run),
        "network": bool(answer.get("network")),
        "events": sum(site["events"] for site in answer.get("sites", ())),
        "overdue": overdue,
        "overdue_seconds": overdue[0]["seconds"] if overdue else 0,
        "maintenance": bool(answer.get("maintenance")),
        "error": told.get("error") or "",
    }


def _moment(seconds: int | None) -> str | None:
    """Seconds of the epoch as 2026-01-31T12:00:00Z."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
