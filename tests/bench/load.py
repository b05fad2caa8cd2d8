# SPDX-License-Identifier: GPL-3.0-or-later

"""What a finished mail host takes and gives: memory when idle, messages per second."""

from __future__ import annotations

import json
import time

from figures import Result, figure
from lab import DOMAIN, HOST, BenchError, inside
from plays import finished

SERVICES = ("postfix", "dovecot", "rspamd", "redis", "unbound")
# Resident memory by unit: all of each process, and what no other process can share with it.
MEMORY = """
import json, pathlib, re
found = {}
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        groups, status = (folder / "cgroup").read_text(), (folder / "status").read_text()
    except OSError:
        continue
    unit = re.search(r"system\\.slice/(?:system-)?([a-z]+)[^/]*\\.(?:service|slice)", groups)
    if unit and "VmRSS" in status:
        sums = found.setdefault(unit[1], [0, 0])
        for index, key in enumerate(("VmRSS", "RssAnon")):
            sums[index] += int(re.search(rf"^{key}:\\s+([0-9]+)", status, re.MULTILINE)[1])
print(json.dumps(found))
"""
MESSAGES, SESSIONS, SIZE = 500, 10, 4096


@figure("MB", "report")
def idle_rss_mb() -> Result:
    """Resident memory of all mail services together, idle: the sum over their processes."""
    finished(HOST)
    deadline = time.monotonic() + 180
    # Postfix keeps its processes for 100 s after the last connection (postconf(5), max_idle).
    while inside(HOST, "pgrep -c -x 'smtpd|cleanup|lmtp' || true").strip() != "0" and time.monotonic() < deadline:
        time.sleep(2)
    units: dict[str, list[int]] = json.loads(inside(HOST, f"python3 - <<'END'\n{MEMORY}\nEND"))
    missing = [name for name in SERVICES if name not in units]
    if missing:
        raise BenchError(f"not running: {', '.join(missing)}")
    resident, private = (sum(units[name][index] for name in SERVICES) / 1024 for index in (0, 1))
    parts = ", ".join(f"{name} {units[name][0] / 1024:.0f}" for name in SERVICES)
    return Result(round(resident), f"{parts}; pages that none shares: {private:.0f}")


@figure("1/s", "report")
def messages_per_s() -> Result:
    """smtp-source on the host into a mailbox there: each message is scanned, signed with both keys and delivered."""
    finished(HOST)
    sender, recipient = f"alice@{DOMAIN[HOST]}", f"bob@{DOMAIN[HOST]}"
    inside(HOST, f"doveadm expunge -u {recipient} mailbox '*' all")
    send = f"smtp-source -s {SESSIONS} -m {MESSAGES} -l {SIZE} -f {sender} -t {recipient} 127.0.0.1:25"
    started = time.monotonic()
    inside(HOST, send)
    sent = time.monotonic() - started
    while count(recipient) < MESSAGES:
        if time.monotonic() - started > 600:
            queue = inside(HOST, "postqueue -p | tail -n 5")
            raise BenchError(f"{count(recipient)} of {MESSAGES} messages arrived: {queue}")
        time.sleep(0.2)
    seconds = time.monotonic() - started
    newest = inside(HOST, f"doveadm fetch -u {recipient} hdr mailbox INBOX {MESSAGES}")
    signatures = newest.lower().count("\ndkim-signature:")
    if signatures != 2:
        raise BenchError(f"a message carries {signatures} signatures of 2: {newest[-600:]}")
    inside(HOST, f"doveadm expunge -u {recipient} mailbox '*' all")
    detail = f"{MESSAGES} of {SIZE} bytes, {SESSIONS} at a time; accepted in {sent:.1f} s, delivered in {seconds:.1f} s"
    return Result(round(MESSAGES / seconds, 1), detail)


def count(mailbox: str) -> int:
    """Messages in the inbox."""
    return int(inside(HOST, f"doveadm -f flow mailbox status -u {mailbox} messages INBOX").rpartition("=")[2])
