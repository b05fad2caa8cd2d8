# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Asks postgrey a question every minute, and tells root when it stops answering and when it answers again.

Runs on the mail host as it is, as a file of its own: nothing but the standard library. Postfix lets mail pass while
postgrey is silent, so nobody would notice. One that hangs is restarted; one that somebody stopped is not.
"""

# A program, not part of a module.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

#: below this name nobody has a host; the first is exempt in postgrey's list of clients
OWN = "postgrey.invalid"
NAME = f"watch.{OWN}"
DEFAULTS = "/etc/default/postgrey"
STATE = "/var/lib/postmeister/greylist/watch.json"
SERVICE = "postgrey.service"
#: seconds: for one answer; for a daemon that may be at its nightly cleaning; for one that was started to listen
PATIENCE, BUSY, START = 5.0, 15.0, 15.0
RESTARTED = "It was restarted."
PASSES = "Until it answers, mail is accepted without a wait; none is lost.\n"


def where(defaults: str) -> tuple[str, int]:
    """Address and port that postgrey was told to listen on."""
    match = re.search(r"--inet=(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(\d+)", defaults)
    return (match[1] or match[2], int(match[3])) if match else ("127.0.0.1", 10023)


def ask(address: str, port: int, timeout: float = PATIENCE, **attributes: str) -> str:
    """postgrey's answer to a policy request (Postfix, SMTPD_POLICY_README), like DUNNO; OSError where there is none."""
    request = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "client_address": "127.0.0.1",
        "client_name": NAME,
        "sender": f"sender@{OWN}",
        "recipient": f"recipient@{OWN}",
        "etrn_domain": "",
        **attributes,
    }
    with socket.create_connection((address, port), timeout=timeout) as link:
        link.sendall("".join(f"{name}={value}\n" for name, value in request.items()).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            part = link.recv(4096)
            if not part:
                raise ConnectionResetError(0, "the connection was closed without an answer")
            answer += part
    return answer.decode(errors="replace").strip().partition("=")[2]


def problem(address: str, port: int, wait: float = 0.0) -> str:
    """Why postgrey is of no use, after so many seconds of trying; '' as soon as it is."""
    deadline = time.monotonic() + wait
    while True:
        try:
            answer = ask(address, port, max(PATIENCE, deadline - time.monotonic()))
            found = "" if answer.startswith("DUNNO") else f"it answers {answer!r}"
        except OSError as exc:
            found = str(exc.strerror or exc)
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.2)


def systemctl(*argv: str) -> str:
    """What systemctl prints."""
    done = subprocess.run(["systemctl", *argv], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()


def mend(address: str, port: int) -> tuple[str, str]:
    """Restart a daemon that hangs. Returns what is wrong now ('' for nothing) and what was done."""
    state = systemctl("show", "--property=ActiveState", "--value", SERVICE)
    if state == "inactive":
        return f"{SERVICE} is stopped", "Nothing was done, as that may be on purpose."
    if not problem(address, port, BUSY):
        return "", "It was busy."
    # SIGKILL, as what hangs does not listen to anything else; its database is made for that.
    systemctl("kill", "--signal=KILL", SERVICE)
    systemctl("restart", SERVICE)
    return problem(address, port, START), RESTARTED


def tell(subject: str, text: str) -> None:
    """A mail to root, where there is a program for it; the journal has it in any case."""
    print(f"{subject}\n{text}", file=sys.stderr)
    if os.path.exists("/usr/sbin/sendmail"):
        mail = f"To: root\nSubject: {socket.gethostname()}: {subject}\n\n{text}"
        subprocess.run(["/usr/sbin/sendmail", "-i", "root"], input=mail, text=True, timeout=60, check=False)


def known() -> bool:
    """Whether root was told that postgrey is of no use."""
    try:
        with open(STATE, encoding="utf-8") as handle:
            return bool(json.load(handle)["told"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember(told: bool) -> None:
    """For the next run."""
    with open(f"{STATE}.new", "w", encoding="utf-8") as handle:
        json.dump({"told": told}, handle)
    os.replace(f"{STATE}.new", STATE)


def main() -> int:
    """One look; the exit status is 1 while postgrey is of no use."""
    try:
        with open(DEFAULTS, encoding="utf-8") as handle:
            address, port = where(handle.read())
    except OSError:
        address, port = where("")
    told, reason, now, done = known(), problem(address, port), "", ""
    if reason:
        now, done = mend(address, port)
    text = f"The reason: {reason}. {done}\n"
    if now and not told:
        tell("postgrey does not answer", f"{text}{now}. {PASSES}")
    elif told and not now:
        tell("postgrey answers again", "First tries wait again.\n")
    elif not now and done == RESTARTED:
        tell("postgrey did not answer and was restarted", text)
    if bool(now) != told:
        remember(bool(now))
    return 1 if now else 0


if __name__ == "__main__":
    sys.exit(main())
