# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory of mailboxes: many at once against one by one, and a hundred thousand. Hashes are given."""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
from dataclasses import dataclass
from functools import cache

from answers import PASSWORD, ask, logs_in
from figures import Result, figure
from lab import DOMAIN, HOST, BenchError, inside
from plays import finished, median, ping, play, scratch

MANY, LOOPED, HUGE = 1_000, 100, 100_000
USERS = "/etc/postmeister/directory/dovecot-users"
#: in the place of the host's Python: runs it, and writes down the memory that it took at most
METER, PEAKS = "/root/metered-python", "/root/peaks"
METER_TEXT = f"""#!/usr/bin/python3
import resource, subprocess, sys
status = subprocess.call(["/usr/bin/python3", *sys.argv[1:]])
with open("{PEAKS}", "a") as file:
    file.write(f"{{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}}\\n")
sys.exit(status)
"""


def address(number: int) -> str:
    """Of a mailbox made here."""
    return f"u{number:06}@{DOMAIN[HOST]}"


def edges(count: int) -> list[str]:
    """First, middle, last."""
    return [address(number) for number in (0, count // 2, count - 1)]


@cache
def mailboxes(count: int) -> list[dict[str, str]]:
    """First, middle and last with a known password; the others with hashes that nobody knows the password of."""
    argv = ["openssl", "passwd", "-6", "-stdin"]
    known = subprocess.run(argv, input=PASSWORD, capture_output=True, text=True, check=True).stdout.strip()
    letters = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    boxes = []
    for number in range(count):
        text = "".join(letters[byte & 63] for byte in secrets.token_bytes(53))
        boxes.append({"address": address(number), "password_hash": f"{{BLF-CRYPT}}$2y$10${text}"})
    for number in (0, count // 2, count - 1):
        boxes[number]["password_hash"] = f"{{SHA512-CRYPT}}{known}"
    return boxes


def written(name: str, content: object) -> str:
    """A JSON file."""
    path = scratch("directory") / name
    path.write_text(json.dumps(content))
    return str(path)


def empty(looped: int = 0) -> None:
    """Back to the inventory's mailboxes."""
    extra = written("looped.json", {"bench_mailboxes": mailboxes(MANY)[:looped]})
    play("directory_empty", "--limit", HOST, "--extra-vars", f"@{extra}")


@cache
def bulk() -> float:
    """Seconds of a play with one mail_directory of a thousand mailboxes in a variable; the median of three."""
    variables = written("bulk.json", {"bench_mailboxes": mailboxes(MANY)})

    def once() -> float:
        empty()
        seconds = play("directory_bulk", "--limit", HOST, "--extra-vars", f"@{variables}").seconds
        ask(HOST, edges(MANY))
        return seconds

    return median(3, once)


@figure("ratio", "≥ 150")
def directory_bulk_vs_loop() -> Result:
    """A play with a loop of 1,000 mail_user (100 measured and scaled) ÷ a play with one mail_directory of 1,000."""
    finished(HOST)
    at_once = bulk()
    empty()
    variables = written("loop.json", {"bench_mailboxes": mailboxes(MANY)[:LOOPED]})
    loop = play("directory_loop", "--limit", HOST, "--extra-vars", f"@{variables}").seconds
    ask(HOST, [address(0)])
    empty(LOOPED)
    start = ping()
    # What a play takes to start is not multiplied.
    whole = start + (loop - start) * MANY / LOOPED
    return Result(round(whole / at_once), f"{loop:.1f} s for {LOOPED}, so {whole:.0f} s for {MANY:,} ÷ {at_once:.2f} s")


@figure("ratio", "≤ 1.5")
def directory_bulk_vs_ping() -> Result:
    """A play with one mail_directory of 1,000 from a JSON file ÷ a play with one ping."""
    finished(HOST)
    source = written("many.json", {"mailboxes": mailboxes(MANY)})
    bulks, pings = [], [ping()]
    for _turn in range(5):
        empty()
        pings.append(ping())
        bulks.append(play("directory_src", "--limit", HOST, "--extra-vars", f"bench_src={source}").seconds)
        ask(HOST, edges(MANY))
    empty()
    many, one = statistics.median(bulks), statistics.median(pings)
    return Result(round(many / one, 2), f"{many:.2f} s ÷ {one:.2f} s, medians of five")


@dataclass(frozen=True)
class Huge:
    """Seconds of both runs; the largest process on the host and on the controller."""

    first: float
    second: float
    host_mb: float
    controller_mb: float


@cache
def huge() -> Huge:
    """A hundred thousand mailboxes; then the same again, after one line on the host was damaged."""
    finished(HOST)
    empty()
    source = written("huge.json", {"mailboxes": mailboxes(HUGE)})
    inside(HOST, f"cat > {METER}; chmod 755 {METER}; rm -f {PEAKS}", METER_TEXT)
    variables = {"bench_src": source, "ansible_python_interpreter": METER}
    options = ["--limit", HOST, "--extra-vars", json.dumps(variables)]
    first = play("directory_src", *options)
    ask(HOST, edges(HUGE))
    middle = address(HUGE // 2)
    before = inside(HOST, f"sha256sum {USERS}")
    inside(HOST, f"sed -i '/^{middle}:/s/SHA512-CRYPT/PLAIN/' {USERS}")
    if inside(HOST, f"sha256sum {USERS}") == before or logs_in(HOST, middle, PASSWORD):
        raise BenchError(f"{middle}: the damage does nothing")
    second = play("directory_src", *options)
    ask(HOST, edges(HUGE))
    if inside(HOST, f"sha256sum {USERS}") != before or not second.changed:
        raise BenchError(f"{USERS}: the damaged line did not come back")
    peaks = [int(line) / 1024 for line in inside(HOST, f"cat {PEAKS}").split()]
    empty()
    inside(HOST, f"rm -f {METER} {PEAKS}")
    return Huge(first.seconds, second.seconds, max(peaks), max(first.peak_mb, second.peak_mb))


@figure("s", "≤ 5")
def directory_100k_first_s() -> Result:
    """A play that makes 100,000 mailboxes from a JSON file."""
    return Result(round(huge().first, 2), f"{HUGE:,} mailboxes; first, middle and last answer")


@figure("s", "≤ 2.5")
def directory_100k_unchanged_s() -> Result:
    """The same file again, after one line on the host was damaged."""
    return Result(round(huge().second, 2), "the damaged line came back, first, middle and last answer")


@figure("MB", "≤ 400")
def directory_100k_peak_mb() -> Result:
    """Memory of the largest process of these two runs."""
    found = huge()
    detail = f"host {found.host_mb:.0f} MB, controller {found.controller_mb:.0f} MB"
    return Result(round(max(found.host_mb, found.controller_mb)), detail)
