# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Lines of Postfix (3.7 to 3.10), postgrey 1.37 and rspamd, read one at a time.

A reply does not name the restriction that gave it. Each restriction has words of its own, though (smtpd_check.c), and
RULES maps these to the name that stands in main.cf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Union

#: `journalctl --output=short-unix`: seconds, host, program, words
ENTRY = re.compile(r"(\d+\.\d+) \S+ ([^\s\[:]+)(?:\[\d+\])?: (.*)", re.DOTALL)
#: smtpd and cleanup: queue ID or NOQUEUE, what was done, at which command, name[address]
REFUSED = re.compile(r"(\w+): (reject|reject_warning|milter-reject): (\S+) from (\S*)\[([^\]]*)\](?::\d+)?: (.*)")
REPLY = re.compile(r"(?:(\d{3}) )?(?:([245]\.\d{1,3}\.\d{1,3}) )?(.*)")
ENVELOPE = re.compile(r"from=<(.*?)>(?: to=<(.*?)>)? proto=")
ARRIVED = re.compile(r"(\w+): client=(\S*)\[([^\]]*)\](?::\d+)?(.*)")
POSTGREY = re.compile(
    r"(?:\w+: )?action=(greylist|pass), reason=(.*?)(?:, delay=(\d+))?(?:, client_name=[^,]*)?, client_address=([^,]*)"
    r"(?:, sender=(.*?))?, recipient=(.*)"
)
RSPAMD = re.compile(r"rspamd_task_write_log: .*?, ip: ([^,]*), .*?, \(\w+: [FT] \(([a-z ]+)\): \[")
RSPAMD_GREYLIST = re.compile(r"\bGREYLIST\(-?[\d.]+\)\{(\w+)")
BLOCKED = re.compile(r"Service unavailable; (?P<what>[A-Za-z ]+?) \[(?P<item>[^\]]*)\] blocked using (?P<list>[^\s;]+)")
ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
#: words of a reply → the restriction, with the address or name in front of them taken off
RULES = tuple(
    (re.compile(words), rule)
    for words, rule in (
        (r"Recipient address rejected: .*[Gg]reylist", "greylisting"),
        (
            r"Recipient address rejected: (?:User unknown|Address lookup failed|undeliverable)",
            "reject_unlisted_recipient",
        ),
        (r"Recipient address rejected: need fully-qualified", "reject_non_fqdn_recipient"),
        (r"Recipient address rejected: .*(?:Domain not found|Malformed DNS|nullMX)", "reject_unknown_recipient_domain"),
        (r"Recipient address rejected: (?:Mailbox is full|Quota|Message is too large)", "quota"),
        (r"Recipient address rejected: .*SPF", "SPF"),
        (r"Sender address rejected: need fully-qualified", "reject_non_fqdn_sender"),
        (
            r"Sender address rejected: .*(?:Domain not found|Malformed DNS|Host not found|does not accept mail)",
            "reject_unknown_sender_domain",
        ),
        (r"Sender address rejected: (?:not owned by|not logged in)", "reject_sender_login_mismatch"),
        (r"Sender address rejected: (?:User unknown|undeliverable)", "reject_unlisted_sender"),
        (r"Client host rejected: cannot find your reverse hostname", "reject_unknown_reverse_client_hostname"),
        (r"Client host rejected: cannot find your hostname", "reject_unknown_client_hostname"),
        (r"Helo command rejected: need fully-qualified", "reject_non_fqdn_helo_hostname"),
        (r"Helo command rejected: [Ii]nvalid", "reject_invalid_helo_hostname"),
        (
            r"Helo command rejected: .*(?:Host not found|Malformed DNS|does not accept mail)",
            "reject_unknown_helo_hostname",
        ),
        (r"Relay access denied", "reject_unauth_destination"),
        (r"Data command rejected: (?:Improper use|Multi-recipient bounce)", "reject_unauth_pipelining"),
        (r"Client host rejected: Authentication required", "login required"),
        (r"Client host rejected: Access denied", "access denied (client)"),
        (r"Helo command rejected: Access denied", "access denied (HELO)"),
        (r"Sender address rejected: Access denied", "access denied (sender)"),
        (r"Recipient address rejected: Access denied", "access denied (recipient)"),
        (r"Server configuration (?:error|problem)", "server configuration error"),
        (r"Message size exceeds", "message_size_limit"),
        (r"(?:Temporary lookup failure|.*: Temporary lookup failure)", "temporary lookup failure"),
        (r"TLS (?:is )?required|Must issue a STARTTLS", "TLS required"),
    )
)
BLOCKED_RULES = {
    "Helo command": "reject_rhsbl_helo",
    "Sender address": "reject_rhsbl_sender",
    "Recipient address": "reject_rhsbl_recipient",
    "Unverified Client host": "reject_rhsbl_reverse_client",
}


@dataclass(frozen=True)
class Refused:
    """A command or message that was answered with 4xx or 5xx, or would have been but for warn_if_reject."""

    rule: str
    #: the DNS list, '' where there is none
    zone: str
    #: '554', or the enhanced code '5.7.1' where a milter gave no other
    code: str
    warning: bool
    client: str
    sender: str
    recipient: str
    #: a message that Postfix had begun to take in
    queued: bool = False

    @property
    def temporary(self) -> bool:
        return self.code.startswith("4")


@dataclass(frozen=True)
class Arrived:
    """A message that a stranger handed over."""

    client: str


@dataclass(frozen=True)
class Greylist:
    """What a greylist decided; reason as postgrey words it, delay in seconds where a first retry passed."""

    by: str
    passed: bool
    reason: str
    delay: int | None
    client: str
    sender: str
    recipient: str


@dataclass(frozen=True)
class Scanned:
    """rspamd's verdict on a message, in its words: no action, add header, reject …"""

    verdict: str
    greylist: str


Event = Union[Refused, Arrived, Greylist, Scanned]


def read(entry: str) -> tuple[float, Event] | None:
    """Read a line of `journalctl --output=short-unix`; None for one that tells nothing of this."""
    match = ENTRY.match(entry)
    if not match:
        return None
    event = parse(match[2], match[3].rstrip("\n"))
    return (float(match[1]), event) if event else None


def parse(program: str, words: str) -> Event | None:
    """Read what a program logged."""
    if program.endswith(("/smtpd", "/cleanup")):
        return _postfix(program, words)
    if program == "postgrey":
        return _postgrey(words)
    if program == "rspamd":
        return _rspamd(words)
    return None


def _postfix(program: str, words: str) -> Event | None:
    match = REFUSED.match(words)
    if match:
        queue_id, kind, _command, _name, client, rest = match.groups()
        if _own(client):
            return None
        # Without a sender the envelope begins with the protocol
        said, *tail = re.split(r"; (?=from=<|proto=)", rest, maxsplit=1)
        envelope = ENVELOPE.match("".join(tail))
        reply = REPLY.match(said)
        code, enhanced, text = reply.groups() if reply else ("", "", said)
        rule, zone = (_milter_rule(text), "") if kind == "milter-reject" else rule_of(text)
        return Refused(
            rule=rule,
            zone=zone,
            code=code or enhanced or "",
            warning=kind == "reject_warning",
            client=client,
            sender=envelope[1] if envelope else "",
            recipient=(envelope[2] or "") if envelope else "",
            queued=queue_id != "NOQUEUE" and program.endswith("/cleanup"),
        )
    match = ARRIVED.match(words) if program.endswith("/smtpd") else None
    if match and match[1] != "NOQUEUE" and "sasl_method=" not in match[4] and not _own(match[3]):
        return Arrived(match[3])
    return None


def _own(address: str) -> bool:
    """The host itself: its own mail, and the probes of those who watch it."""
    return address.startswith("127.") or address in ("::1", "")


def _milter_rule(text: str) -> str:
    # rspamd's greylist asks to come back with these words
    return "greylisting" if text.startswith("Try again later") else f"rspamd: {_plain(text)}"


def _plain(text: str) -> str:
    """A reply without what differs from message to message."""
    return re.sub(r"[\w.+-]+@[\w.-]+|\d+(?:\.\d+)*", "…", text).strip(" .;")[:60]


def rule_of(text: str) -> tuple[str, str]:
    """Name the restriction that gives this reply, and the DNS list; an unknown reply is its own name."""
    # <address>: or <name[address]>: comes first, whatever the stage
    bare = re.sub(r"^<[^>]*>: ", "", text)
    match = BLOCKED.search(bare)
    if match:
        what, zone = match["what"], match["list"].rstrip(".")
        if what in BLOCKED_RULES:
            return BLOCKED_RULES[what], zone
        return ("reject_rbl_client" if ADDRESS.fullmatch(match["item"]) else "reject_rhsbl_client"), zone
    for words, rule in RULES:
        if words.match(bare):
            return rule, ""
    return _plain(re.sub(r"<[^>]*>|\[[^\]]*\]", "…", bare)) or "without words", ""


def _postgrey(words: str) -> Event | None:
    match = POSTGREY.match(words)
    if not match:
        return None
    action, reason, delay, client, sender, recipient = match.groups()
    if _own(client):
        return None
    if reason.startswith("early-retry"):
        reason = "early retry"
    return Greylist(
        by="postgrey",
        passed=action == "pass",
        reason=reason,
        delay=None if delay is None else int(delay),
        client=client,
        sender=sender or "",
        recipient=recipient,
    )


def _rspamd(words: str) -> Event | None:
    match = RSPAMD.search(words)
    if not match or _own(match[1]):
        return None
    greylist = RSPAMD_GREYLIST.search(words)
    return Scanned(match[2], greylist[1] if greylist else "")
