# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Run what is due on one WordPress site, or look after it; as the site's own user.

wp_cron writes the source of this file to the host, where timers and crontabs start it. So it uses nothing but Python's
standard library.

    run.py cron NAME      what systemd starts every minute; output goes to the journal
    run.py crontab NAME   the same from a crontab: output goes to the journal by syslog, and to cron once per outage
    run.py upkeep NAME    transients, spam, checksums, updates
    run.py show NAME      nothing is run: prints the events and the last run, as JSON

Exit status: 0 all is well (also when another run is still at work), 1 something failed, 2 refused.
"""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function,ansible-bad-import-from

from __future__ import annotations

import contextlib
import fcntl
import html
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import syslog
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

SITES = "/etc/postmeister/wordpress"
STATE = "/var/lib/wp-cron"
LIBRARY = os.path.dirname(os.path.abspath(__file__))
#: seconds that reading the events may take
PATIENCE = 60
#: sites of a network that run side by side
SLOTS = 4
#: while a site of a network hangs: seconds between two looks for work elsewhere, and until the last of them
ROUND, LAST_ROUND = 60, 3600
#: comments in one call of WP-CLI: far from the limits of an argument list
BATCH = 500
#: characters of output that are kept of one program
OUTPUT = 64 * 1024

Say = Callable[[str], None]


class Failure(Exception):
    """Something on the site did not work; the message is for the operator."""


def load(name: str) -> dict[str, Any]:
    """The settings of a site, as wp_cron wrote them."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise Failure(f"{name!r} is no name of a site")
    try:
        with open(os.path.join(SITES, f"{name}.json"), encoding="utf-8") as handle:
            return dict(json.load(handle))
    except FileNotFoundError:
        raise Failure(f"there is no site {name} in {SITES}") from None


@contextlib.contextmanager
def lock(folder: str, wait: float = 0.0) -> Iterator[bool]:
    """Hold the site's lock; gives False when another run holds it and did not end within the wait (seconds)."""
    handle = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + wait
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.5)
        yield True
    finally:
        os.close(handle)


def plain(output: str) -> str:
    """Output as text: pages in HTML without their tags, no empty lines."""
    if re.search(r"<(?:!doctype|html|body)\b", output, re.IGNORECASE):
        output = re.sub(r"(?is)<(style|script|title)\b.*?</\1>", "", output)
        output = html.unescape(re.sub(r"<[^>]*>", "\n", output))
    return "\n".join(line.strip() for line in output.splitlines() if line.strip())


class Child:
    """A program with a limit of time, whose output is kept in a file without a name."""

    def __init__(self, argv: Sequence[str], site: Mapping[str, Any], url: str, limit: float, mark: str = "") -> None:
        self.url, self.limit = url, limit
        self.started = time.monotonic()
        self.ended_by_us = False
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this object)
        environment = {
            **os.environ,
            "POSTMEISTER_URL": url,
            "POSTMEISTER_MARK": mark,
            "WP_CLI_CACHE_DIR": os.path.join(STATE, site["name"], "cache"),
            "WP_CLI_DISABLE_AUTO_CHECK_UPDATE": "1",
            "LC_ALL": "C.UTF-8",
        }
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            cwd=site["path"],
            env=environment,
            # A group of its own: what a task starts ends with it.
            start_new_session=True,
        )

    def done(self) -> bool:
        """Whether it ended. Past its limit it is told to, and five seconds later made to."""
        if self._process.poll() is not None:
            return True
        late = time.monotonic() - self.started - self.limit
        if late > 0:
            self.end(signal.SIGKILL if late > 5 else signal.SIGTERM)
        return False

    def end(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of it."""
        self.ended_by_us = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait(self) -> Child:
        """Until it ended."""
        while not self.done():
            time.sleep(0.02)
        return self

    @property
    def output(self) -> str:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - OUTPUT))
        return self._file.read().decode(errors="backslashreplace")

    @property
    def problem(self) -> str:
        """Why it failed; '' when it did not."""
        if self.ended_by_us:
            return f"ended after {self.limit:g} s"
        code = self._process.returncode
        return "" if code == 0 else f"ended by signal {-code}" if code < 0 else f"exit status {code}"


def events(site: Mapping[str, Any]) -> dict[str, Any]:
    """What events.php says of a site; raises Failure with WordPress's own words when its database is not there."""
    mark = secrets.token_hex(8)
    argv = [site["php"], os.path.join(LIBRARY, "events.php"), site["path"]]
    child = Child(argv, site, site.get("url") or "", PATIENCE, mark).wait()
    before, found, answer = child.output.partition(mark)
    if not found:
        words = plain(before) or child.problem or "no answer"
        raise Failure(f"{site['path']}: {words}")
    # Something may still be printed at the end.
    decoded: dict[str, Any] = json.JSONDecoder().raw_decode(answer)[0]
    if decoded.get("error"):
        raise Failure(f"{site['path']}: the database says: {decoded['error']}")
    return decoded


def due_urls(answer: Mapping[str, Any]) -> list[str]:
    """Addresses of the sites of an answer that have something to do, longest waiting first.

    One without any event is new: WordPress schedules its own when it starts, which no visitor may ever make it do.
    """
    waiting = [
        (min((event["time"] for event in site["due"]), default=answer["time"]), site["url"])
        for site in answer["sites"]
        if site["due"] or not site["events"]
    ]
    return [url for _time, url in sorted(waiting)]


def cron_argv(site: Mapping[str, Any], url: str) -> list[str]:
    if site["command"] == "wp":
        return [*wp_argv(site, url), "cron", "event", "run", "--due-now"]
    guard = os.path.join(LIBRARY, "guard.php")
    return [site["php"], "-d", f"auto_prepend_file={guard}", os.path.join(site["path"], "wp-cron.php")]


def wp_argv(site: Mapping[str, Any], url: str = "") -> list[str]:
    # The PHP that was asked for, whatever the first line of wp says.
    php = [site["php"]] if site["php"] != "php" else []
    return [*php, site["wp"], "--no-color", f"--path={site['path']}", *([f"--url={url}"] if url else [])]


def run_due(site: Mapping[str, Any], say: Say) -> list[str]:
    """Run what is due, on each site of a network, and return what failed.

    A network's sites run side by side, so one that hangs does not keep the others: while it does, this looks again
    every minute what has become due elsewhere.
    """
    began = looked = time.monotonic()
    answer = events(site)
    if answer.get("maintenance"):
        say("an update of WordPress is under way, its tasks wait")
        return []
    network = answer["network"]
    waiting = due_urls(answer)
    running: list[Child] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < SLOTS:
                url = waiting.pop(0)
                running.append(Child(cron_argv(site, url), site, url, site["timeout"]))
            time.sleep(0.02)
            for child in [child for child in running if child.done()]:
                running.remove(child)
                where = f"{child.url}: " if network else ""
                for line in plain(child.output).splitlines():
                    say(f"{where}{line}")
                if child.problem:
                    failed.append(f"{where}the scheduled tasks failed: {child.problem}")
            now = time.monotonic()
            if network and running and not waiting and now - looked >= ROUND and now - began < LAST_ROUND:
                looked = now
                busy = {child.url for child in running}
                # A database that is away just now must not cost those that run: the next run says so.
                with contextlib.suppress(Failure, OSError, ValueError):
                    waiting = [url for url in due_urls(events(site)) if url not in busy]
    finally:
        for child in running:
            child.end()
    return failed


# --- upkeep ---------------------------------------------------------------------------------------------------------


def wp(site: Mapping[str, Any], *words: str, url: str = "", mark: str = "") -> str:
    """What WP-CLI prints; raises Failure with its words unless it ended well."""
    child = Child([*wp_argv(site, url), *words], site, url, site["timeout"], mark).wait()
    if child.problem:
        shown = " ".join(words[:4])
        raise Failure(f"{url or site['path']}: wp {shown}: {child.problem}\n{plain(child.output)}".rstrip())
    return child.output


def delete_transients(site: Mapping[str, Any], urls: Sequence[str], say: Say) -> None:
    """Transients of each site, then those that a network shares (on a single site they lie beside the others)."""
    which = f"--{site['upkeep']['transients']}"
    quiet = ("--skip-plugins", "--skip-themes")
    with contextlib.ExitStack() as stack:
        # All of them: also WordPress's own lock, which must not vanish under a run.
        if which == "--all" and not stack.enter_context(lock(os.path.join(STATE, site["name"]), site["timeout"])):
            raise Failure(f"{site['path']}: a run of its tasks did not end, the transients stay")
        for url in urls:
            say(f"{url}: {plain(wp(site, 'transient', 'delete', which, *quiet, url=url))}")
        say(f"{site['path']}: {plain(wp(site, 'transient', 'delete', which, '--network', *quiet))} (site transients)")


def delete_spam(site: Mapping[str, Any], urls: Sequence[str], say: Say) -> None:
    """Comments marked as spam, for good, so many at a time that the list always fits an argument list."""
    for url in urls:
        listed = wp(site, "comment", "list", "--status=spam", "--format=ids", url=url).split()
        ids = [word for word in listed if word.isdigit()]
        for start in range(0, len(ids), BATCH):
            wp(site, "comment", "delete", *ids[start : start + BATCH], "--force", "--quiet", url=url)
        say(f"{url}: {len(ids)} spam comments deleted")


def verify_checksums(site: Mapping[str, Any], urls: Sequence[str], say: Say) -> None:
    """A network has one core: once is enough."""
    say(f"{site['path']}: {plain(wp(site, 'core', 'verify-checksums'))}")


def find_updates(site: Mapping[str, Any], urls: Sequence[str], say: Say) -> None:
    """Write what could be updated to the site's folder of state, one line each; the sites of a network share it all."""
    mark = secrets.token_hex(8)
    output = wp(site, "eval-file", os.path.join(LIBRARY, "updates.php"), url=urls[0], mark=mark)
    _before, found, answer = output.partition(mark)
    if not found:
        raise Failure(f"{site['path']}: no answer about updates\n{plain(output)}".rstrip())
    lines = [str(line) for line in json.JSONDecoder().raw_decode(answer)[0]]
    write(os.path.join(STATE, site["name"], "updates"), "".join(f"{line}\n" for line in lines))
    say(f"{site['path']}: updates: {', '.join(lines) or 'none'}")


CHORES = (
    ("transients", delete_transients),
    ("spam", delete_spam),
    ("checksums", verify_checksums),
    ("updates", find_updates),
)


def upkeep(site: Mapping[str, Any], say: Say) -> list[str]:
    """Do the chores that are switched on; one that fails does not keep the others."""
    answer = events(site)
    if answer.get("maintenance"):
        raise Failure(f"{site['path']}: an update of WordPress is under way")
    urls = [entry["url"] for entry in answer["sites"]]
    failed = []
    for name, chore in CHORES:
        if site["upkeep"].get(name):
            try:
                chore(site, urls, say)
            except (Failure, OSError, ValueError) as exc:
                failed.append(str(exc))
    return failed


# --- the program ------------------------------------------------------------------------------------------------------


def write(path: str, text: str) -> None:
    """Replace a file of the site's folder of state."""
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        handle.write(text)
    os.replace(f"{path}.new", path)


def former(folder: str) -> dict[str, Any]:
    """What the last run left."""
    try:
        with open(os.path.join(folder, "last.json"), encoding="utf-8") as handle:
            return dict(json.load(handle))
    except (OSError, ValueError):
        return {}


def cron(site: Mapping[str, Any], say: Say) -> list[str]:
    """One run under the lock; leaves when it was and how it went."""
    folder = os.path.join(STATE, site["name"])
    with lock(folder) as held:
        if not held:
            say("another run is still at work")
            return []
        began = time.time()
        try:
            failed = run_due(site, say)
        except (Failure, OSError, ValueError) as exc:
            failed = [str(exc)]
        left = {"began": int(began), "seconds": round(time.time() - began, 1), "failed": failed}
        write(os.path.join(folder, "last.json"), json.dumps(left))
        return failed


def crontab(site: Mapping[str, Any], say: Say) -> list[str]:
    """A run that cron starts: at the site's own second, and heard of by mail once per outage."""
    time.sleep(site["offset"] % 60)
    syslog.openlog(f"wp-cron@{site['name']}")
    was_broken = bool(former(os.path.join(STATE, site["name"])).get("failed"))
    failed = cron(site, lambda line: syslog.syslog(syslog.LOG_NOTICE, line))
    for line in "\n".join(failed).splitlines():
        syslog.syslog(syslog.LOG_ERR, line)
    if was_broken != bool(failed):
        return failed or ["the scheduled tasks work again"]
    return []


def show(site: Mapping[str, Any], say: Say) -> list[str]:
    """What wp_cron_info asks for."""
    answer: dict[str, Any] = {"last": former(os.path.join(STATE, site["name"])), "events": {}, "error": ""}
    try:
        answer["events"] = events(site)
    except (Failure, OSError, ValueError) as exc:
        answer["error"] = str(exc)
    say(json.dumps(answer))
    return []


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    verbs: dict[str, Callable[[Mapping[str, Any], Say], list[str]]] = {
        "cron": cron,
        "crontab": crontab,
        "upkeep": upkeep,
        "show": show,
    }
    if len(words) != 2 or words[0] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    if os.geteuid() == 0:
        print("refused: this runs PHP code of the site, which as root could do anything to the host", file=sys.stderr)
        return 2
    # Ended by systemd: what runs is ended too, and its output is still told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        failed = verbs[words[0]](load(words[1]), lambda line: print(line, flush=True))
    except (Failure, OSError, ValueError) as exc:
        failed = [str(exc)]
    # The journal takes the priority from the line's start.
    priority = "<3>" if "JOURNAL_STREAM" in os.environ else ""
    for line in "\n".join(failed).splitlines():
        print(f"{priority}{line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
