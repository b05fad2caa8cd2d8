# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""postgrey's database, read while postgrey goes on writing it.

A second process must not open a Berkeley DB environment that another one writes: killed at the wrong moment it leaves
a lock behind that postgrey waits for. And the files alone lack what is still in memory. So the tables are copied
first, then the log, and the copy is recovered from the log (Berkeley DB, "Hot backup"): that is the state of the last
transaction that had ended.
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._command import run

FOLDER = "/var/lib/postgrey"
TRIPLETS, CLIENTS = "postgrey.db", "postgrey_clients.db"
#: prints table, value and key of each record; postgrey's own language has the library
SCRIPT = r"""
use strict; use warnings; use BerkeleyDB;
my $env = BerkeleyDB::Env->new(-Home => $ARGV[0],
    -Flags => DB_CREATE|DB_RECOVER_FATAL|DB_INIT_TXN|DB_INIT_MPOOL|DB_INIT_LOG) or die "$BerkeleyDB::Error\n";
for my $name (@ARGV[1 .. $#ARGV]) {
    my $table = BerkeleyDB::Btree->new(-Filename => $name, -Flags => DB_RDONLY, -Env => $env)
        or die "$name: $BerkeleyDB::Error\n";
    my ($key, $value, $cursor) = ("", "", $table->db_cursor());
    while ($cursor->c_get($key, $value, DB_NEXT) == 0) { print "$name\t$value\t$key\n" }
}
"""


@dataclass(frozen=True)
class Triplet:
    """Client network, sender and recipient; first and last try in seconds of the epoch."""

    client: str
    sender: str
    recipient: str
    first: int
    last: int


@dataclass(frozen=True)
class Content:
    """What the database holds. clients: address → number of deliveries that counted, and the last one's time."""

    triplets: tuple[Triplet, ...]
    clients: Mapping[str, tuple[int, int]]
    size: int


def read(folder: str = FOLDER) -> Content:
    """The database; an empty one where there is none. Raises CommandError, OSError."""
    for turn in (1, 2, 3):
        with tempfile.TemporaryDirectory(prefix="postgrey-", dir="/var/tmp") as copy:
            try:
                tables, size = _copy(folder, copy)
            except FileNotFoundError:
                # postgrey removes old logs once an hour
                if turn == 3:
                    raise
                continue
            if not tables:
                break
            text = run(["perl", "-e", SCRIPT, copy, *tables], timeout=300).out
            return parse(text, size)
    return Content((), {}, 0)


def _copy(folder: str, target: str) -> tuple[list[str], int]:
    tables = [name for name in (TRIPLETS, CLIENTS) if os.path.exists(os.path.join(folder, name))]
    size = 0
    # The order matters: the log has to reach further than the tables.
    for path in [os.path.join(folder, name) for name in tables] + sorted(glob.glob(os.path.join(folder, "log.*"))):
        shutil.copyfile(path, os.path.join(target, os.path.basename(path)))
        size += os.path.getsize(path)
    return tables, size


def parse(text: str, size: int = 0) -> Content:
    """Records as the script prints them; one that makes no sense is left out, as postgrey itself does."""
    triplets: list[Triplet] = []
    clients: dict[str, tuple[int, int]] = {}
    for table, value, key in _records(text):
        numbers = value.split(",")[:2]
        if len(numbers) < 2 or not all(number.isdigit() for number in numbers):
            continue
        one, two = int(numbers[0]), int(numbers[1])
        if table == CLIENTS:
            clients[key] = (one, two)
        elif key.count("/") >= 2:
            triplets.append(_triplet(key, one, two))
    return Content(tuple(triplets), clients, size)


def _records(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        fields = line.split("\t", 2)
        if len(fields) == 3:
            yield fields[0], fields[1], fields[2]


def _triplet(key: str, first: int, last: int) -> Triplet:
    """`network/sender/recipient`: local parts may hold slashes, networks and domains not."""
    client, _slash, rest = key.partition("/")
    with contextlib.suppress(ValueError):  # postgrey writes 2001:db8:0:0:0:0:0:0
        client = str(ipaddress.ip_address(client))
    if rest.startswith("/"):  # the empty sender of bounces
        return Triplet(client, "", rest[1:], first, last)
    local, _at, tail = rest.partition("@")
    name, slash, recipient = tail.partition("/")
    if not slash:  # a sender without a domain
        local, _slash, recipient = rest.partition("/")
        return Triplet(client, local, recipient, first, last)
    return Triplet(client, f"{local}@{name}", recipient, first, last)


def describe(content: Content, times: tuple[int, int, int], threshold: int, now: int) -> dict[str, Any]:
    """Return values of postgrey_info.

    times: delay, retry window, lifetime in seconds. threshold: deliveries after which a client is trusted, 0 for never.
    """
    delay, window, lifetime = times
    sizes = {"triplets": len(content.triplets), "accepted": 0, "waiting": 0, "expired": 0}
    waiting: list[dict[str, Any]] = []
    for entry in content.triplets:
        if entry.last - entry.first >= delay:
            sizes["accepted" if now - entry.last <= lifetime else "expired"] += 1
        elif now - entry.first <= window:
            sizes["waiting"] += 1
            waiting.append(
                {
                    "client": entry.client,
                    "sender": entry.sender,
                    "recipient": entry.recipient,
                    "first_try": entry.first,
                    "last_try": entry.last,
                    "accepted_from": entry.first + delay,
                }
            )
        else:
            sizes["expired"] += 1
    trusted = sum(1 for count, _last in content.clients.values() if threshold and count >= threshold)
    sizes.update(clients=len(content.clients), trusted_clients=trusted, bytes=content.size)
    return {"sizes": sizes, "waiting": sorted(waiting, key=lambda item: (item["first_try"], item["recipient"]))}
