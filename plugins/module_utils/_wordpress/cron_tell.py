# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Tell the operator once that a unit of a WordPress site fails, once that it works again, and what could be updated.

wp_cron writes the source of this file to the host, where systemd starts it as root (OnFailure=, OnSuccess=, a timer).
It runs nothing of a site. What one minute brings goes into one mail: a database that is down breaks all sites at once.

    tell.py failed UNIT TO WAIT    remember that UNIT failed; TO is an address, WAIT the seconds to collect
    tell.py works UNIT TO WAIT     UNIT, which failed, works again
    tell.py updates TO             mail what the sites' upkeep found, when it differs from the last mail

Marks are files named like the unit: new/ failed and not told, told/ told, back/ works again and not told. The first
holds the id of the run that failed.
"""

# A program of its own on the host, without Ansible around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

MARKS = "/run/wp-cron"
STATE = "/var/lib/wp-cron"
TOLD = os.path.join(STATE, ".updates-told")
SENDMAIL = "/usr/sbin/sendmail"
LINES = 40


def mark(kind: str, unit: str) -> str:
    return os.path.join(MARKS, kind, unit)


def touch(path: str, text: str = "") -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "w", encoding="ascii") as handle:
        handle.write(text)


def listed(kind: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(MARKS, kind)))
    except FileNotFoundError:
        return []


def remember(verb: str, unit: str) -> bool:
    """Leave the mark; False when there is nothing to tell."""
    if verb == "failed":
        if os.path.exists(mark("told", unit)) or os.path.exists(mark("new", unit)):
            return False
        # systemd.exec(5), Environment Variables Set or Propagated by the Service Manager
        touch(mark("new", unit), os.environ.get("MONITOR_INVOCATION_ID", ""))
        return True
    if os.path.exists(mark("told", unit)):
        touch(mark("back", unit))
        os.unlink(mark("told", unit))
        return True
    if os.path.exists(mark("new", unit)):
        touch(mark("back", unit))
    # Who made that mark tells of both.
    return False


def collect(to: str, wait: float) -> None:
    """Tell what is marked, with all that the next seconds bring. While another process collects, leave it to that."""
    while listed("new") or listed("back"):
        handle = os.open(os.path.join(MARKS, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it looks again after it let go of the lock
            time.sleep(wait)
            failed, back = listed("new"), listed("back")
            if failed or back:
                mail(to, *message(failed, back))
            for unit in back:
                os.unlink(mark("back", unit))
            for unit in failed:
                if unit in back:
                    os.unlink(mark("new", unit))
                else:
                    touch(mark("told", unit))
                    os.unlink(mark("new", unit))
        finally:
            os.close(handle)


def message(failed: Sequence[str], back: Sequence[str]) -> tuple[str, str]:
    """Subject and text."""
    parts = []
    for unit in failed:
        now = "failed, and works again" if unit in back else "fails"
        parts.append(f"{unit} {now}:\n\n{words(unit)}")
    works = [unit for unit in back if unit not in failed]
    if works:
        parts.append("These work again:\n\n" + "\n".join(works))
    subject = f"{len(failed or works)} WordPress units {'fail' if failed else 'work again'}"
    if len(failed) + len(works) == 1:
        subject = f"{(failed or works)[0]} {'fails' if failed else 'works again'}"
    return subject, "\n\n".join(parts) + "\n"


def words(unit: str) -> str:
    """The last lines that the failed run itself wrote, or else those of the unit."""
    with open(mark("new", unit), encoding="ascii") as handle:
        run = handle.read().strip()
    which = f"_SYSTEMD_INVOCATION_ID={run}" if run else f"--unit={unit}"
    argv = ["journalctl", which, f"--lines={LINES}", "--no-pager", "--output=short-iso"]
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.decode(errors="replace").strip()


def mail(to: str, subject: str, text: str) -> None:
    """By sendmail where there is one; in any case a line in the journal."""
    print(f"<4>{subject}", flush=True)
    if not to or not os.access(SENDMAIL, os.X_OK):
        return
    host = socket.gethostname()
    letter = (
        f"To: {to}\nSubject: {host}: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{text}"
    )
    done = subprocess.run([SENDMAIL, "-i", "--", to], input=letter.encode(errors="replace"), check=False)
    if done.returncode:
        print(f"<3>{SENDMAIL}: exit status {done.returncode}, the mail to {to} is lost", flush=True)


def updates(to: str) -> None:
    """The list of all sites, when there is something in it and it is not the one of the last mail."""
    parts = []
    for name in sorted(os.listdir(STATE)) if os.path.isdir(STATE) else []:
        text = updates_of(os.path.join(STATE, name, "updates"))
        if text:
            parts.append(f"{name}\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    report = "\n".join(parts)
    try:
        with open(TOLD, encoding="utf-8") as handle:
            told = handle.read()
    except FileNotFoundError:
        told = ""
    if report == told:
        return
    if report:
        mail(to, f"updates for {len(parts)} WordPress site{'s' * (len(parts) > 1)}", report)
    with open(f"{TOLD}.new", "w", encoding="utf-8") as handle:
        handle.write(report)
    os.replace(f"{TOLD}.new", TOLD)


def updates_of(path: str) -> str:
    """What a site's upkeep wrote. That folder is the site's own, so nothing in it is trusted."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with contextlib.closing(os.fdopen(handle, "rb")) as file:
        text = file.read(64 * 1024).decode(errors="replace")
    return "".join(sign for sign in text if sign == "\n" or sign.isprintable())


def main() -> int:
    argv = sys.argv[1:]
    if len(argv) == 2 and argv[0] == "updates":
        updates(argv[1])
    elif len(argv) == 4 and argv[0] in ("failed", "works") and "/" not in argv[1]:
        if remember(argv[0], argv[1]):
            collect(argv[2], float(argv[3]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
