# SPDX-License-Identifier: GPL-3.0-or-later

"""Spam is refused or lands in Junk, users teach the filter by moving mail, and mail waits while the filter is down."""

from __future__ import annotations

import imaplib
import smtplib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from clients import (
    Box,
    at_remote,
    from_remote,
    idle,
    message,
    new_subject,
    parse,
    read_imap,
    search_imap,
    submit,
    trusting,
    until,
    verdicts,
)
from conftest import HOSTS, Story

Accounts = dict[str, tuple[str, str]]
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
#: what filters on the way said of spam: 9 points; 6 mark, 15 refuse
SPAMMY = {"X_Forefront_Antispam_Report": "SFV:SPM", "X_Spam": "Yes"}

SOCKETS = {"rspamd": "/run/rspamd/milter.sock", "redis-server": "/run/redis/redis-server.sock"}
#: Port 25 says so at the first recipient, the others at the login: they do not let anybody begin.
WAIT = {25: 451, 465: 454, 587: 454}


def refusal(send: Callable[[], object]) -> tuple[int, str]:
    """The answer that refuses what send() sends; it must refuse."""
    with pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused)) as caught:
        send()
    error = caught.value
    code: int
    words: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        ((code, words),) = error.recipients.values()
    else:
        assert isinstance(error, smtplib.SMTPResponseException)
        code, words = error.smtp_code, error.smtp_error
    return code, words.decode() if isinstance(words, bytes) else words


def from_a_stranger(address: str, recipient: str, text: str) -> None:
    with smtplib.SMTP(address, 25, local_hostname="gateway.test", timeout=120) as client:
        client.sendmail("dave@client.test", [recipient], text.encode())


def logged_in(mx: Box, accounts: Accounts, port: int, recipient: str, subject: str, body: str = "Hello.") -> None:
    login, password = accounts[mx.name]
    submit(mx.ipv4, port, login, password, login, recipient, message(login, recipient, subject, body))


def outside() -> tuple[str, str]:
    """A mailbox of its own at the other provider: its address and its name."""
    name = f"s{uuid.uuid4().hex[:12]}"
    return f"{name}@remote.test", name


# --- verdicts ---------------------------------------------------------------------------------------------------


def test_certain_spam_is_refused_at_the_door(mx: Box, accounts: Accounts) -> None:
    login = accounts[mx.name][0]
    words = f"5.7.1 Refused as spam; write to postmaster@{mx.fqdn} if it is not"
    # Whatever a mail can leave out is missing, too.
    bare = message("dave@client.test", "", "", **SPAMMY).replace("To: \r\nSubject: \r\n", "")
    assert refusal(lambda: from_a_stranger(mx.ipv4, login, bare)) == (554, words)
    gtube = message("dave@client.test", login, new_subject(), GTUBE)
    assert refusal(lambda: from_a_stranger(mx.ipv4, login, gtube)) == (554, "5.7.1 Gtube pattern")
    # Also that of somebody who stole a password.
    stolen = refusal(lambda: logged_in(mx, accounts, 465, outside()[0], new_subject(), GTUBE))
    assert stolen == (554, "5.7.1 Gtube pattern")


@pytest.mark.parametrize(
    ("fields", "folder"),
    [({}, "INBOX"), (SPAMMY, "Junk"), ({"X_Spam": "Yes"}, "INBOX")],
    ids=["good", "over the junk score", "a mark that the sender set"],
)
def test_spam_lands_in_junk(mx: Box, remote: Box, accounts: Accounts, fields: dict[str, str], folder: str) -> None:
    login, password = accounts[mx.name]
    subject = new_subject()
    from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, subject, **fields))
    raw = until(lambda: read_imap(mx.ipv4, login, password, subject, folder), 60, f"{subject} in {folder}")
    assert (parse(raw)["X-Spam"] == "Yes") == (folder == "Junk")
    assert "dmarc=pass" in verdicts(raw, mx.fqdn)


# --- training ---------------------------------------------------------------------------------------------------


def learned(mx: Box) -> tuple[int, int]:
    """How many mails the filter was taught as spam, and as good. `rspamc stat` shows what was true a minute ago."""
    redis = "redis-cli -s /run/redis/redis-server.sock"
    spam, ham = mx.sh(f"{redis} HGET RS learns_spam; {redis} HGET RS learns_ham").split("\n")[:2]
    return int(spam or 0), int(ham or 0)


def move(mx: Box, account: tuple[str, str], subject: str, source: str, target: str) -> None:
    """As a mail program does; the answer comes when the filter has learned."""
    with imaplib.IMAP4_SSL(mx.ipv4, ssl_context=trusting(), timeout=60) as client:
        client.login(*account)
        assert client.select(source)[0] == "OK"
        (number,) = client.uid("SEARCH", "HEADER", "Subject", subject)[1][0].split()
        assert client.uid("MOVE", number.decode(), target)[0] == "OK"


def test_moving_mail_teaches_the_filter(mx: Box, remote: Box, accounts: Accounts) -> None:
    account, subject = accounts[mx.name], new_subject()
    login, password = account
    words = " ".join(f"word{uuid.uuid4().hex[:8]}" for _turn in range(20))
    from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, subject, words))
    until(lambda: read_imap(mx.ipv4, login, password, subject), 60, f"{subject} in INBOX")
    taught = [learned(mx)]
    for source, target in (("INBOX", "Junk"), ("Junk", "INBOX"), ("INBOX", "Junk"), ("Junk", "Trash")):
        move(mx, account, subject, source, target)
        taught.append(learned(mx))
    spam, ham = taught[0]
    assert taught[1] == (spam + 1, ham)
    # A mail is one or the other: what it was taught as before is forgotten.
    assert taught[2] == (spam, ham + 1)
    assert taught[3] == (spam + 1, ham)
    assert taught[4] == taught[3]


# --- while something is down ------------------------------------------------------------------------------------


@contextmanager
def without(mx: Box, unit: str, how: str) -> Iterator[None]:
    """A service that is stopped, or one that hangs: it listens and does not answer."""
    if how == "stopped":
        mx.run("systemctl", "stop", unit)
    else:
        mx.run("systemctl", "kill", "--signal=STOP", unit)
    try:
        yield
    finally:
        mx.run("systemctl", "kill", "--signal=CONT", unit, check=False)
        mx.run("systemctl", "start", unit)
        until(lambda: SOCKETS[unit] in mx.run("ss", "-Hlx"), 120, f"{unit} listening")


def at_the_other_provider(remote: Box, mailbox: str, subject: str) -> list[str]:
    """The verdicts on mail of ours, which must have come once."""
    raw = until(lambda: at_remote(remote, mailbox, subject), 180, f"{subject} at the other provider")
    assert len(remote.sh(f"ls /srv/mail/{mailbox}/new").split()) == 1
    return verdicts(raw, "remote.test")


def signed(found: list[str]) -> bool:
    return found.count("dkim=pass") == 2 and "dmarc=pass" in found and "fail" not in " ".join(found)


def waits(mx: Box, accounts: Accounts, port: int) -> int:
    """The code with which a port puts off mail."""
    login = accounts[mx.name][0]
    if port == 25:
        return refusal(lambda: from_a_stranger(mx.ipv4, login, message("dave@client.test", login, new_subject())))[0]
    return refusal(lambda: logged_in(mx, accounts, port, outside()[0], new_subject()))[0]


def test_while_the_filter_is_stopped_mail_waits(mx: Box, remote: Box, accounts: Accounts) -> None:
    login, password = accounts[mx.name]
    inward, root, (cron, cron_mailbox) = new_subject(), new_subject(), outside()
    # A recipient of its own, so that the other provider's queue can be watched.
    tagged = login.replace("@", f"+{cron_mailbox}@")

    def from_root(subject: str, recipient: str) -> None:
        text = f"From: root\nTo: {recipient}\nSubject: {subject}\n\nHello.\n"
        mx.run("sendmail", "-f", "root", recipient, stdin=text)

    with without(mx, "rspamd", "stopped"):
        assert {port: waits(mx, accounts, port) for port in WAIT} == WAIT
        from_root(root, cron)
        from_remote(remote, "carol@remote.test", tagged, message("carol@remote.test", tagged, inward))
        line = until(lambda: put_off(remote, tagged), 60, "mail in the other provider's queue")
        # It wants TLS (DANE), and STARTTLS is refused already.
        assert "refused to start TLS: 454 4.3.0 Try again later" in line, line
    remote.run("postqueue", "-f")
    until(lambda: search_imap(mx.ipv4, login, password, inward), 180, f"{inward} in the mailbox")
    until(lambda: idle(remote, tagged), 60, "an empty queue of the other provider")
    assert len(search_imap(mx.ipv4, login, password, inward)) == 1
    # Mail of the machine itself lay where sendmail(1) puts it, and goes with the next one.
    from_root(new_subject(), login)
    assert signed(at_the_other_provider(remote, cron_mailbox, root))


def put_off(remote: Box, recipient: str) -> str | None:
    """What our host said to the other provider."""
    log = remote.journal("postfix@-", "postfix", since="-1h")
    return next((line for line in log.splitlines() if f"to=<{recipient}>" in line and "status=deferred" in line), None)


def test_while_the_filter_hangs_mail_waits(story: Story, boxes: dict[str, Box], accounts: Accounts) -> None:
    """Postfix gives up after half a minute; all ports of both hosts at once, because it takes so long."""

    def watched(name: str) -> dict[int, int]:
        with without(boxes[name], "rspamd", "hanging"), ThreadPoolExecutor(len(WAIT)) as pool:
            return dict(zip(WAIT, pool.map(lambda port: waits(boxes[name], accounts, port), WAIT)))

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        assert list(pool.map(watched, HOSTS)) == [WAIT] * len(HOSTS)


@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_without_redis_mail_flows_and_is_signed(mx: Box, remote: Box, accounts: Accounts, how: str) -> None:
    login, password = accounts[mx.name]
    inward, outward = new_subject(), new_subject()
    address, mailbox = outside()
    with without(mx, "redis-server", how):
        logged_in(mx, accounts, 465, address, outward)
        assert signed(at_the_other_provider(remote, mailbox, outward))
        from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, inward))
        raw = until(lambda: read_imap(mx.ipv4, login, password, inward), 180, f"{inward} in INBOX")
        assert {"spf=pass", "dkim=pass", "dmarc=pass"} <= set(verdicts(raw, mx.fqdn))
