# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rules of port 25 cost: lists, names, greylist."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from figures import Result, figure
from lab import DOMAIN, HOST, IPV4, BenchError, inside
from plays import finished

ROUNDS, MESSAGES, SIZE = 7, 40, 4096
#: seconds that the lab's greylist lets a first try wait
DELAY = 5
CLIENT, OPEN_PORT = "client", 2525
#: the last rule that speaks of recipients only
END = "reject_non_fqdn_recipient"
#: In the lab the greylist asks only for mail to such sub-addresses; here it is to do all its work, so none is exempt.
TO = f"bob+greybench@{DOMAIN[HOST]}"
FROM = "dave@client.test"


@contextmanager
def open_port(rules: str) -> Iterator[None]:
    """A second port beside 25, which is like it but for its rules."""
    files = "/etc/postfix/master.cf"
    before = inside(HOST, f"sha256sum {files}")
    inside(
        HOST,
        f"cp -a {files} /root/bench-master.cf\n"
        f"cat >>{files} <<'END'\n"
        f"{OPEN_PORT} inet n - n - - smtpd\n"
        f"  -o {{ smtpd_recipient_restrictions={rules} }}\n"
        "END\npostfix reload",
    )
    try:
        yield
    finally:
        inside(HOST, f"mv /root/bench-master.cf {files} && postfix reload")
        if inside(HOST, f"sha256sum {files}") != before:
            raise BenchError(f"{files} is not what it was")


def send(port: int, messages: int = MESSAGES) -> str:
    """The command of a stranger who sends so many, one after the other, a connection for each."""
    return f"smtp-source -m {messages} -l {SIZE} -f {FROM} -t {TO} {IPV4[HOST]}:{port}"


def seconds(port: int) -> float:
    """Time that the messages take."""
    started = time.monotonic()
    inside(CLIENT, send(port))
    return time.monotonic() - started


def known_to_greylist() -> int:
    """How many of the messages postgrey let pass because it knew sender and recipient."""
    log = "journalctl --sync; journalctl --quiet --output=cat --unit=postgrey"
    return int(inside(HOST, f"{log} | grep -F 'reason=triplet found' | grep -c -F 'recipient={TO}' || true"))


@figure("ratio", "≤ 1.3")
def policy_overhead_ratio() -> Result:
    """Time per message of a stranger with all checks, against the same without any."""
    finished(HOST)
    rules = inside(HOST, "postconf -h smtpd_recipient_restrictions")
    for rule in ("reject_rbl_client", "reject_rhsbl_sender", "reject_unknown_reverse_client_hostname", "greylist"):
        if rule not in rules:
            raise BenchError(f"{rule} is not among the rules: {rules}")
    # Who may receive is asked on both ports; who may send, on this one alone.
    about_recipients, found_end, _about_senders = rules.partition(END)
    if not found_end:
        raise BenchError(f"{END} is not among the rules: {rules}")
    # The first try waits for the greylist, as the host's delay says; all others are of a sender it knows.
    inside(CLIENT, f"{send(25, 1)} || true; sleep {DELAY + 1}; {send(25, 1)}")
    before = known_to_greylist()
    with open_port(" ".join((about_recipients + found_end).split())):
        for port in (25, OPEN_PORT):
            seconds(port)
        # In turns, so that both meet the same load of the machine.
        found = [(seconds(25), seconds(OPEN_PORT)) for _turn in range(ROUNDS)]
    if known_to_greylist() - before < (ROUNDS + 1) * MESSAGES:
        raise BenchError("the greylist was not asked about each message")
    inside(HOST, f"doveadm expunge -u bob@{DOMAIN[HOST]} mailbox '*' all")
    checked, unchecked = (statistics.median(column) / MESSAGES * 1000 for column in zip(*found))
    ratio = statistics.median(one / other for one, other in found)
    detail = f"{checked:.1f} ms a message with all checks, {unchecked:.1f} without; {ROUNDS} turns of {MESSAGES} each"
    return Result(round(ratio, 2), detail)
