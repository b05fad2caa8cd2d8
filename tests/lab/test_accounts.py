# SPDX-License-Identifier: GPL-3.0-or-later

"""Who logs in, who sends as whom, whose mail is whose, and what has an end: quotas and the limit of an account."""

from __future__ import annotations

import imaplib
import json
import poplib
import re
import smtplib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate, make_msgid

import pytest
from clients import (
    Box,
    at_remote,
    auth,
    domain_of,
    from_remote,
    idle,
    message,
    new_subject,
    parse,
    read_imap,
    search_imap,
    submit,
    talk,
    trusting,
    until,
    verdicts,
)

OK_RECIPIENT = "250 2.1.5 Ok"
QUEUED = "250 2.0.0 Ok: queued"
Account = tuple[str, str]


@pytest.fixture
def mx12(story: object, boxes: dict[str, Box]) -> Box:
    """The host with a catch-all, a quota, a forward and a disabled mailbox."""
    return boxes["mx12"]


def full_message(sender: str, recipient: str, subject: str, body: str = "Hello.") -> str:
    """As a mail program writes it, so that no filter finds fault with it."""
    return message(sender, recipient, subject, body, Date=formatdate(), Message_ID=make_msgid(domain="client.test"))


def anywhere(mx: Box, account: Account, subject: str) -> list[bytes]:
    """All messages with this in their subject, wherever the filter put them."""
    return [raw for folder in ("INBOX", "Junk") for raw in search_imap(mx.ipv4, *account, subject, folder)]


# --- logins --------------------------------------------------------------------------------------------------------

LOGIN_OK = ["OK", "OK", "235 2.7.0 Authentication successful", "235 2.7.0 Authentication successful"]
LOGIN_REFUSED = ["[AUTHENTICATIONFAILED] Authentication failed.", "-ERR [AUTH] Authentication failed."]
LOGIN_REFUSED += ["535 5.7.8 Error: authentication failed: (reason unavailable)"] * 2


def imap_login(mx: Box, login: str, password: str) -> str:
    try:
        with imaplib.IMAP4_SSL(mx.ipv4, ssl_context=trusting(), timeout=60) as client:
            return str(client.login(login, password)[0])
    except imaplib.IMAP4.error as error:
        return str(error.args[0].decode())


def pop3_login(mx: Box, login: str, password: str) -> str:
    client = poplib.POP3_SSL(mx.ipv4, context=trusting(), timeout=60)
    try:
        client.user(login)
        return client.pass_(password)[1:3].decode()
    except poplib.error_proto as error:
        return str(error.args[0].decode())
    finally:
        client.close()


def smtp_login(port: int) -> Callable[[Box, str, str], str]:
    return lambda mx, login, password: talk(mx.ipv4, port, [auth(login, password)])[0][0]


def logins(mx: Box, *accounts: Account) -> list[list[str]]:
    """What IMAP, POP3 and both submission ports say to each login; all at once, as each refusal takes its time."""
    ways = [imap_login, pop3_login, smtp_login(465), smtp_login(587)]
    with ThreadPoolExecutor(16) as pool:
        answers = [[pool.submit(way, mx, *account) for way in ways] for account in accounts]
        return [[answer.result() for answer in row] for row in answers]


def test_a_login_needs_its_own_password(mx: Box, accounts: dict[str, Account], others: dict[str, Account]) -> None:
    (login, password), other = accounts[mx.name], others[mx.name]
    wrong = [(login, other[1]), (f"nobody@{mx.domain}", password), (login.partition("@")[0], password)]
    right = [(login, password), (login.upper(), password), other]
    assert logins(mx, *wrong) == [LOGIN_REFUSED] * len(wrong)
    assert logins(mx, *right) == [LOGIN_OK] * len(right)


def test_a_disabled_mailbox_has_no_login_and_gets_its_mail(mx12: Box, accounts: dict[str, Account]) -> None:
    # The inventory gives both the same password.
    gone, small = f"gone@{mx12.domain}", f"small@{mx12.domain}"
    password = accounts["mx12"][1]
    assert logins(mx12, (gone, password)) == [LOGIN_REFUSED]
    assert logins(mx12, (small, password)) == [LOGIN_OK]
    subject = new_subject()
    text = full_message("dave@client.test", gone, subject)
    told = talk(mx12.ipv4, 25, ["MAIL FROM:<dave@client.test>", f"RCPT TO:<{gone}>", "DATA", text])[0]
    assert told[-1].startswith(QUEUED)
    search = ["doveadm", "fetch", "-u", gone, "mailbox", "header", "subject", subject]
    until(lambda: mx12.run(*search), 60, f"{subject} in {gone}")


FOLDERS = {name: rf"\{name}" for name in ("Drafts", "Sent", "Junk", "Trash", "Archive")}


def test_mail_programs_find_the_folders_by_their_use(mx: Box, accounts: dict[str, Account]) -> None:
    with imaplib.IMAP4_SSL(mx.ipv4, ssl_context=trusting(), timeout=60) as client:
        client.login(*accounts[mx.name])
        # RFC 6154: the use stands among the flags.
        listed = [item.decode() for item in client.list()[1] if isinstance(item, bytes)]
        subscribed = [item.decode() for item in client.lsub()[1] if isinstance(item, bytes)]
    names = {line.split()[-1].strip('"'): line.partition(")")[0] for line in listed}
    assert {name: use in names.get(name, "") for name, use in FOLDERS.items()} == dict.fromkeys(FOLDERS, True), listed
    assert FOLDERS.keys() <= {line.split()[-1].strip('"') for line in subscribed}, subscribed


# --- senders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [465, 587])
def test_the_envelope_names_a_sender_that_the_login_owns(mx: Box, accounts: dict[str, Account], port: int) -> None:
    login, password = accounts[mx.name]
    theirs = ["carol@remote.test", f"nobody@{mx.domain}", f"alice@{mx.fqdn}", f"root@{mx.fqdn}", "root"]
    theirs += ["bob@example.test", "alice@second12.test", "small@example12.test"]
    mine = [login, login.upper(), f"alice+tag@{mx.domain}", f"postmaster@{mx.domain}", f"Abuse@{mx.domain}"]
    # Without a domain it is the first one's.
    mine += ["alice"]
    # An answer to a request for a receipt has the sender <> (RFC 8098); its From is looked at all the same, see below.
    mine += ["", *(["info@example.test"] if mx.name == "mx" else [])]

    def asked(senders: list[str]) -> dict[str, str]:
        rounds = [[f"MAIL FROM:<{sender}>", "RCPT TO:<carol@remote.test>", "RSET"] for sender in senders]
        told = talk(mx.ipv4, port, [auth(login, password), *(line for lines in rounds for line in lines)])[0]
        return dict(zip(senders, told[2::3]))

    refusal = "553 5.7.1 <{}>: Sender address rejected: not owned by user {}"
    assert asked(theirs) == {sender: refusal.format(sender, login) for sender in theirs}
    assert asked(mine) == dict.fromkeys(mine, OK_RECIPIENT)


NOT_OWNED = "554 5.7.1 Sender address rejected: <{}> in {} is not owned by user ALICE"
BOB = "bob@DOMAIN"
# What a message says about its author, and what the host says about that.
AUTHORS_REFUSED = {
    f"From: {BOB}": NOT_OWNED.format(BOB, "From"),
    f"FROM: {BOB}": NOT_OWNED.format(BOB, "From"),
    f"From:\r\n {BOB}": NOT_OWNED.format(BOB, "From"),
    f'From: "ALICE" <{BOB}>': NOT_OWNED.format(BOB, "From"),
    f"From: (<ALICE>) {BOB}": NOT_OWNED.format(BOB, "From"),
    f"From: ALICE, {BOB}": NOT_OWNED.format(BOB, "From"),
    f"From: <{BOB}>, <ALICE>": NOT_OWNED.format(BOB, "From"),
    f"From: {BOB}\r\nSender: ALICE": NOT_OWNED.format(BOB, "From"),
    f"From: ALICE\r\nSender: {BOB}": NOT_OWNED.format(BOB, "Sender"),
    "From: carol@remote.test": NOT_OWNED.format("carol@remote.test", "From"),
    "From: OTHER": NOT_OWNED.format("OTHER", "From"),
    "From: root@HOST": NOT_OWNED.format("root@HOST", "From"),
    "From: bob": NOT_OWNED.format(BOB, "From"),
    f"From: ALICE\r\nFrom: {BOB}": "554 5.7.1 Sender address rejected: 2 From headers, there must be one",
    f"From: {BOB}\r\nFrom: ALICE": "554 5.7.1 Sender address rejected: 2 From headers, there must be one",
    "From: ALICE\r\nFrom: ALICE": "554 5.7.1 Sender address rejected: 2 From headers, there must be one",
    f"From: ALICE\nFrom: {BOB}": "554 5.7.1 Sender address rejected: 2 From headers, there must be one",
    "From: undisclosed:;": "554 5.7.1 Sender address rejected: no address in From",
    "From: ALICE\r\nSender:": "554 5.7.1 Sender address rejected: no address in Sender",
}
AUTHORS_TAKEN = ["From: ALICE", "From: alice+tag@DOMAIN", "FROM: =?utf-8?q?B=C3=B6b?= <alicE@DOMAIN>"]
AUTHORS_TAKEN += ["From: postmaster@DOMAIN", "From: ALICE\r\nSender: abuse@DOMAIN"]
AUTHORS_TAKEN += ["From: ALICE, hostmaster@DOMAIN\r\nSender: ALICE"]


@pytest.mark.parametrize("port", [465, 587])
def test_the_message_names_an_author_that_the_login_owns(
    mx: Box, accounts: dict[str, Account], others: dict[str, Account], port: int
) -> None:
    login, password = accounts[mx.name]
    names = {"ALICE": login, "DOMAIN": mx.domain, "HOST": mx.fqdn, "OTHER": others[mx.name][0]}

    def named(text: str) -> str:
        return re.sub("ALICE|DOMAIN|HOST|OTHER", lambda match: names[match[0]], text)

    subject = new_subject()
    rounds = []
    for number, header in enumerate([*AUTHORS_REFUSED, *AUTHORS_TAKEN]):
        # The envelope's sender <> is nobody's, and changes nothing.
        sender = login if number % 2 else ""
        text = named(f"{header}\r\nTo: ALICE\r\nSubject: {subject} {number}\r\n\r\nHello.")
        rounds.append([f"MAIL FROM:<{sender}>", f"RCPT TO:<{login}>", "DATA", text])
    # Few at a time: after ten errors Postfix answers slowly.
    groups = [rounds[start : start + 6] for start in range(0, len(rounds), 6)]
    sessions = [[auth(login, password), *(line for lines in group for line in lines)] for group in groups]
    answers = [answer for session in talk(mx.ipv4, port, *sessions) for answer in session[4::4]]
    told = [answer.partition(" as ")[0] for answer in answers]
    expected = {**AUTHORS_REFUSED, **dict.fromkeys(AUTHORS_TAKEN, QUEUED)}
    assert dict(zip(expected, told)) == {header: named(answer) for header, answer in expected.items()}
    until(lambda: idle(mx, login), 180, "all delivered")
    assert len(search_imap(mx.ipv4, login, password, subject)) == len(AUTHORS_TAKEN)


@pytest.mark.parametrize("port", [465, 587])
def test_the_owner_of_a_catch_all_sends_as_whom_he_likes(mx12: Box, others: dict[str, Account], port: int) -> None:
    login, password = others["mx12"]
    mine = [login, "whoever@second12.test", "Who.Ever+tag@SECOND12.TEST"]
    # Somebody else has these, here or in another domain.
    theirs = ["postmaster@second12.test", "alice@example12.test", "whoever@example12.test", "whoever@mx.second12.test"]
    envelopes = [[f"MAIL FROM:<{name}>", f"RCPT TO:<{login}>", "RSET"] for name in (*mine, *theirs)]
    told = talk(mx12.ipv4, port, [auth(login, password), *(line for lines in envelopes for line in lines)])[0]
    refused = [f"553 5.7.1 <{name}>: Sender address rejected: not owned by user {login}" for name in theirs]
    assert told[2::3] == [OK_RECIPIENT] * len(mine) + refused
    start = [f"MAIL FROM:<{login}>", f"RCPT TO:<{login}>", "DATA"]
    messages = [[*start, f"From: {name}\r\n\r\nHello."] for name in (*mine, *theirs)]
    told = talk(mx12.ipv4, port, [auth(login, password), *(line for lines in messages for line in lines)])[0]
    refused = [f"554 5.7.1 Sender address rejected: <{name}> in From is not owned by user {login}" for name in theirs]
    assert [answer.partition(" as ")[0] for answer in told[4::4]] == [QUEUED] * len(mine) + refused


# --- recipients ----------------------------------------------------------------------------------------------------


def test_each_address_has_the_mailbox_that_the_inventory_says(
    mx: Box, accounts: dict[str, Account], others: dict[str, Account]
) -> None:
    alice, other = accounts[mx.name], others[mx.name]
    host = [f"{name}@{mx.fqdn}" for name in ("root", "postmaster", "abuse", "MAILER-DAEMON")]
    roles = [f"{name}@{mx.domain}" for name in ("postmaster", "abuse", "hostmaster", "webmaster", "security", "noc")]
    first = [alice[0], alice[0].upper(), f"Alice+Tag@{mx.domain}", f'"alice"@{mx.domain}', *roles, *host]
    first += ["postmaster", f"postmaster@[{mx.ipv4}]", f"Postmaster+tag@{mx.domain}"]
    table = {
        "mx": {
            **{name: {other[0]} for name in (other[0], "BOB+x@EXAMPLE.test")},
            "info@example.test": {alice[0], other[0]},
        },
        "mx12": {
            **{name: {other[0]} for name in (other[0], "ALICE@Second12.test", "alice+x@second12.test")},
            **{name: {other[0]} for name in ("whoever@second12.test", "Who.Ever+x@second12.test")},
            **{name: {alice[0]} for name in ("postmaster@second12.test", "Abuse@second12.test")},
        },
    }
    expected = {**{name: {alice[0]} for name in first}, **table[mx.name]}
    subject = new_subject()
    sessions = []
    for number, name in enumerate(expected):
        text = full_message("dave@client.test", "friends@client.test", f"{subject} {number}.")
        sessions.append(["MAIL FROM:<dave@client.test>", f"RCPT TO:<{name}>", "DATA", text])
    assert [told[-1].partition(" as ")[0] for told in talk(mx.ipv4, 25, *sessions)] == [QUEUED] * len(expected)
    until(lambda: idle(mx, alice[0]) and idle(mx, other[0]), 180, "all delivered")
    found: dict[str, set[str]] = {name: set() for name in expected}
    for account in (alice, other):
        for raw in anywhere(mx, account, subject):
            number = int(str(parse(raw)["Subject"]).split()[1].rstrip("."))
            found[list(expected)[number]].add(account[0])
    assert found == expected


def test_the_machines_own_mail_is_delivered_and_proven(mx: Box, remote: Box, accounts: dict[str, Account]) -> None:
    subject = new_subject()
    # As cron sends it: whoever it is for, the inventory's postmaster reads it.
    for account in ("root", "www-data"):
        mx.run("sendmail", "-i", account, stdin=f"Subject: {subject} {account}\n\nA job said something.\n")
    until(lambda: len(search_imap(mx.ipv4, *accounts[mx.name], subject)) == 2, 60, "mail for root and for www-data")
    mx.run("sendmail", "-i", f"{subject}@remote.test", stdin=f"Subject: {subject}\n\nHello.\n")
    arrived = until(lambda: at_remote(remote, subject, subject), 60, f"{subject} at the other provider")
    assert f"root@{mx.fqdn}" in str(parse(arrived)["From"])
    assert_proven(arrived, mx.fqdn)
    # A bounce: what the other provider refuses comes back to where it seemed to come from.
    author = f"{subject}-back@remote.test"
    mx.run("sendmail", "-i", "-f", author, f"nobody-{subject}@remote.test", stdin=f"Subject: {subject}\n\nHello.\n")
    bounce = until(lambda: at_remote(remote, f"{subject}-back", subject), 60, "the bounce")
    # pipe(8) of the other provider writes this for <>.
    assert return_path(bounce) == "MAILER-DAEMON"
    assert f"MAILER-DAEMON@{mx.fqdn}" in str(parse(bounce)["From"])
    assert_proven(bounce, mx.fqdn)


def test_a_vacation_answer_is_proven(mx: Box, remote: Box, accounts: dict[str, Account]) -> None:
    login, subject = accounts[mx.name][0], new_subject()
    script = f'require ["vacation"]; vacation :subject "{subject} away" "Gone fishing.";'
    mx.run("doveadm", "sieve", "put", "-u", login, "-a", subject, stdin=script)
    try:
        sender = f"{subject}@remote.test"
        from_remote(remote, sender, login, full_message(sender, login, subject))
        answer = until(lambda: at_remote(remote, subject, f"{subject} away"), 60, "the answer")
    finally:
        mx.run("doveadm", "sieve", "deactivate", "-u", login)
        mx.run("doveadm", "sieve", "delete", "-u", login, subject)
    assert return_path(answer) == "MAILER-DAEMON"
    assert_proven(answer, mx.domain)


def return_path(raw: str) -> str:
    return str(parse(raw)["Return-Path"]).strip("<>")


def assert_proven(raw: str, domain: str) -> None:
    found = verdicts(raw, "remote.test")
    assert sorted(found) == ["dkim=pass", "dkim=pass", "dmarc=pass", "spf=pass"], found
    assert f"header.from={domain}" in raw and f"header.d={domain}" in raw


# --- quota ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(mx12: Box, accounts: dict[str, Account]) -> Iterator[Account]:
    """A mailbox of 100 KiB, empty before and after."""
    login = f"small@{mx12.domain}"
    empty = ["doveadm", "expunge", "-u", login, "mailbox", "*", "all"]
    mx12.run(*empty)
    yield login, accounts["mx12"][1]
    mx12.run(*empty)
    mx12.run("postqueue", "-f")


def delay_reasons(box: Box, recipient: str) -> list[str]:
    queued = [json.loads(line) for line in box.run("postqueue", "-j").splitlines()]
    return [one.get("delay_reason", "") for mail in queued for one in mail["recipients"] if one["address"] == recipient]


def test_a_full_mailbox(mx12: Box, remote: Box, small: Account) -> None:
    subject = new_subject()
    sender, recipient, alias = f"{subject}@remote.test", small[0], f"tiny@{mx12.domain}"
    big = "\r\n".join(["0123456789" * 6] * 1000)

    def asked(name: str, size: int) -> str:
        return talk(mx12.ipv4, 25, [f"MAIL FROM:<dave@client.test> SIZE={size}", f"RCPT TO:<{name}>"])[0][1]

    refused = f"552 5.2.2 <{recipient}>: Recipient address rejected: Mailbox is full"
    assert asked(recipient, 60000) == OK_RECIPIENT
    assert asked(recipient, 200000) == f"552 5.2.3 <{recipient}>: Recipient address rejected: Message is too large"
    from_remote(remote, sender, recipient, full_message(sender, recipient, f"{subject} one", big))
    until(lambda: read_imap(mx12.ipv4, *small, f"{subject} one"), 60, "a message that fits")
    assert asked(recipient, 60000) == refused
    assert asked(f"SMALL+tag@{mx12.domain}", 60000) == refused.replace(recipient, f"SMALL+tag@{mx12.domain}")
    assert asked(recipient, 10000) == OK_RECIPIENT
    # The sender learns at once, and from his own provider, that the next one does not fit.
    from_remote(remote, sender, recipient, full_message(sender, recipient, f"{subject} two", big))
    bounce = until(lambda: at_remote(remote, subject, f"{subject} two"), 60, "a bounce by the other provider")
    assert "552 5.2.2" in bounce and "Mailbox is full" in bounce
    # What comes through an alias waits here and is not sent back.
    assert asked(alias, 60000) == OK_RECIPIENT
    from_remote(remote, sender, alias, full_message(sender, alias, f"{subject} three", big))
    reasons = until(lambda: [text for text in delay_reasons(mx12, recipient) if text], 60, "the reason to wait")
    assert all(re.search(r"said: 4\d\d 4\.2\.2 ", text) for text in reasons), reasons
    mx12.run("doveadm", "expunge", "-u", recipient, "mailbox", "*", "all")
    mx12.run("postqueue", "-f")
    until(lambda: read_imap(mx12.ipv4, *small, f"{subject} three"), 60, "what waited")
    assert not at_remote(remote, subject, f"{subject} three")


def test_a_full_mailbox_behind_a_catch_all(mx12: Box, remote: Box, others: dict[str, Account]) -> None:
    """The service that knows quotas sees the address that was written to, and nobody has it."""
    account, subject = others["mx12"], new_subject()
    login, sender = account[0], f"{subject}@remote.test"
    stray = f"{subject}@{domain_of(login)}"

    def asked(name: str) -> str:
        return talk(mx12.ipv4, 25, ["MAIL FROM:<dave@client.test> SIZE=60000", f"RCPT TO:<{name}>"])[0][1]

    row = mx12.sh(f"doveadm -f tab quota get -u {login} | grep STORAGE").split("\t")
    free = int(row[3]) - int(row[2])
    filler = full_message(sender, login, f"{subject} filler", "0123456789abcdef" * 64 * (free - 20))
    with imaplib.IMAP4_SSL(mx12.ipv4, ssl_context=trusting(), timeout=60) as client:
        client.login(*account)
        assert client.append("INBOX", "", "", filler.encode())[0] == "OK"
    try:
        assert asked(login) == f"552 5.2.2 <{login}>: Recipient address rejected: Mailbox is full"
        assert asked(stray) == OK_RECIPIENT
        big = "\r\n".join(["0123456789" * 6] * 1000)
        from_remote(remote, sender, stray, full_message(sender, stray, f"{subject} stray", big))
        reasons = until(lambda: [text for text in delay_reasons(mx12, login) if text], 60, "the reason to wait")
        assert all(re.search(r"said: 4\d\d 4\.2\.2 ", text) for text in reasons), reasons
    finally:
        mx12.run("doveadm", "expunge", "-u", login, "mailbox", "INBOX", "header", "subject", f"{subject} filler")
    mx12.run("postqueue", "-f")
    until(lambda: read_imap(mx12.ipv4, *account, f"{subject} stray"), 60, "what waited")
    assert not at_remote(remote, subject, f"{subject} stray")


# --- limit ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def rested(mx: Box, others: dict[str, Account]) -> Iterator[Callable[[], str]]:
    """What makes an account look as if it had been quiet for hours, before, after and when called."""

    def forget() -> str:
        key = f"postmeister:recipients:{others[mx.name][0]}"
        return mx.run("redis-cli", "-s", "/run/redis/redis-server.sock", "DEL", key)

    forget()
    yield forget
    forget()


def test_what_a_stolen_password_can_send(
    mx: Box, accounts: dict[str, Account], others: dict[str, Account], rested: Callable[[], str]
) -> None:
    account = others[mx.name]
    login = account[0]
    user, _at, domain = login.partition("@")
    subject = new_subject()

    def send(port: int, recipients: list[str], subject: str) -> str:
        try:
            submit(mx.ipv4, port, *account, login, recipients, full_message(login, "friends@client.test", subject))
        except smtplib.SMTPDataError as error:
            assert isinstance(error.smtp_error, bytes)
            return f"{error.smtp_code} {error.smtp_error.decode()}"
        return "sent"

    # 200 at once, whichever the port.
    many = [f"{user}+{number}@{domain}" for number in range(99)]
    assert [send(port, many, f"{subject} many") for port in (465, 587)] == ["sent", "sent"]
    answers = [send(port, [login], f"{subject} one") for port in (465, 587)]
    assert answers == ["sent", "sent"]
    # A few more may have become due while the test ran: one a minute.
    limit = f"451 4.7.1 Ratelimit: {login} has reached the limit of 200 recipients, 60 an hour; try again later"
    two = [login, f"{user}+x@{domain}"]
    answers = [send((465, 587)[number % 2], two, f"{subject} more {number}.") for number in range(5)]
    assert answers[-2:] == [limit, limit]
    assert set(answers) <= {limit, "sent"}
    # Others send, and everybody's mail arrives.
    alice = accounts[mx.name]
    submit(mx.ipv4, 465, *alice, alice[0], login, full_message(alice[0], login, f"{subject} alice"))
    until(lambda: read_imap(mx.ipv4, *account, f"{subject} alice"), 60, "mail of another login")
    until(lambda: len(search_imap(mx.ipv4, *account, f"{subject} many")) == 198, 180, "all that was taken, on arrival")
    assert not anywhere(mx, account, f"{subject} more 4.")
    # The mail program keeps what was refused, and sends it later.
    rested()
    assert send(465, [login], f"{subject} more 4.") == "sent"
    until(lambda: read_imap(mx.ipv4, *account, f"{subject} more 4."), 60, "what had to wait")
    # And not too many in one message.
    recipients = [f"RCPT TO:<{user}+{number}@{domain}>" for number in range(101)]
    told = talk(mx.ipv4, 465, [auth(*account), f"MAIL FROM:<{login}>", *recipients])[0]
    assert told[-2:] == [OK_RECIPIENT, "452 4.5.3 Error: too many recipients"]
    mx.run("doveadm", "expunge", "-u", login, "mailbox", "INBOX", "header", "subject", subject)


# --- forwarding ----------------------------------------------------------------------------------------------------


def test_forwarded_mail_leaves_with_a_sender_of_this_host(mx12: Box, remote: Box) -> None:
    subject = new_subject()
    sender, away = f"{subject}@remote.test", f"away@{mx12.domain}"
    from_remote(remote, sender, away, full_message(sender, away, subject))
    arrived = until(lambda: at_remote(remote, "carol", subject), 60, f"{subject} in carol's Maildir")
    rewritten = return_path(arrived)
    assert re.fullmatch(rf"SRS0=[^=]+=[^=]+=remote\.test={subject}@{re.escape(mx12.fqdn)}", rewritten)
    # SPF holds for this host, the author's signature came through; without rewriting, SPF of remote.test would fail.
    assert sorted(verdicts(arrived, "remote.test")) == ["dkim=pass", "dmarc=pass", "spf=pass"]
    assert f"smtp.mailfrom={mx12.fqdn}" in arrived
    # A bounce finds its way back; an address that this host did not write does not.
    bounce = f"Subject: {subject} bounce\n\nCarol has moved.\n"
    remote.run("sendmail", "-i", "-f", "<>", rewritten, stdin=bounce)
    until(lambda: at_remote(remote, subject, f"{subject} bounce"), 60, "the bounce at the first sender")
    forged = rewritten.replace(subject, "carol")
    unknown = "Recipient address rejected: User unknown in virtual alias table"
    told = talk(mx12.ipv4, 25, ["MAIL FROM:<>", f"RCPT TO:<{forged}>", f"RCPT TO:<{rewritten}>"])[0]
    assert told[1:] == [f"550 5.1.1 <{forged}>: {unknown}", OK_RECIPIENT]


def test_the_sender_of_forwarded_mail_learns_that_it_was_refused(mx12: Box, remote: Box) -> None:
    subject = new_subject()
    sender, lost = f"{subject}@remote.test", f"lost@{mx12.domain}"
    from_remote(remote, sender, lost, full_message(sender, lost, subject))
    bounce = until(lambda: at_remote(remote, subject, subject), 60, "the bounce at the first sender")
    assert f"MAILER-DAEMON@{mx12.fqdn}" in str(parse(bounce)["From"])
    assert "nobody@remote.test" in bounce
    assert_proven(bounce, mx12.fqdn)


def test_own_users_mail_is_forwarded_as_it_is(mx12: Box, remote: Box, accounts: dict[str, Account]) -> None:
    subject = new_subject()
    login, password = accounts["mx12"]
    away = f"away@{mx12.domain}"
    submit(mx12.ipv4, 465, login, password, login, away, full_message(login, away, subject))
    arrived = until(lambda: at_remote(remote, "carol", subject), 60, f"{subject} in carol's Maildir")
    assert return_path(arrived) == login
    assert_proven(arrived, domain_of(login))


FORGERIES = {
    # Who the envelope and the message say it is from; SPF of this host would speak for either.
    ("alice@example12.test", "alice@example12.test"),
    ("dave@client.test", "alice@example12.test"),
    ("dave@client.test", "root@mx.example12.test"),
    ("", "alice@example12.test"),
}


def test_a_forged_mail_does_not_leave_as_ours(mx12: Box, boxes: dict[str, Box], accounts: dict[str, Account]) -> None:
    login = accounts["mx12"]
    subject = new_subject()
    to = {name: f"{name}@{mx12.domain}" for name in ("away", "Away+tag", "alice")}

    def sent(envelope: str, author: str, recipient: str) -> str:
        lines = [f"MAIL FROM:<{envelope}>", f"RCPT TO:<{recipient}>", "DATA", full_message(author, recipient, subject)]
        return talk(mx12.ipv4, 25, lines, at=boxes["client"])[0][-1].partition(" as ")[0]

    for envelope, author in sorted(FORGERIES):
        for name in ("away", "Away+tag"):
            refusal = f"554 5.7.1 Refused: <{to[name]}> is forwarded, and this mail looks like spam or a forgery"
            assert sent(envelope, author, to[name]) == refusal, (envelope, author)
        # Here it can be marked, and is.
        assert sent(envelope, author, to["alice"]) == QUEUED
    until(lambda: len(search_imap(mx12.ipv4, *login, subject, "Junk")) == len(FORGERIES), 60, "forged mail in Junk")
    # The control: a stranger who does not lie is forwarded.
    assert sent("dave@client.test", "dave@client.test", to["Away+tag"]) == QUEUED
    until(lambda: at_remote(boxes["remote"], "carol", subject), 60, "an honest mail at the other provider")
