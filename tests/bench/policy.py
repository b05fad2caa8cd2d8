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
CLIENT, OPEN_PORT = "client", 2525
#: the last rule that speaks of recipients only
END = "reject_non_fqdn_recipient"


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


def seconds(port: int) -> float:
    """Time that a stranger needs for the messages, one after the other, a connection for each."""
    send = f"smtp-source -m {MESSAGES} -l {SIZE} -f dave@client.test -t bob@{DOMAIN[HOST]} {IPV4[HOST]}:{port}"
    started = time.monotonic()
    inside(CLIENT, send)
    return time.monotonic() - started


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
    with open_port(" ".join((about_recipients + found_end).split())):
        for port in (25, OPEN_PORT):
            seconds(port)
        # In turns, so that both meet the same load of the machine.
        found = [(seconds(25), seconds(OPEN_PORT)) for _turn in range(ROUNDS)]
    inside(HOST, f"doveadm expunge -u bob@{DOMAIN[HOST]} mailbox '*' all")
    checked, unchecked = (statistics.median(column) / MESSAGES * 1000 for column in zip(*found))
    ratio = statistics.median(one / other for one, other in found)
    detail = f"{checked:.1f} ms a message with all checks, {unchecked:.1f} without; {ROUNDS} turns of {MESSAGES} each"
    return Result(round(ratio, 2), detail)
