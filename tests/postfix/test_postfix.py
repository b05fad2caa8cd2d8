# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Postfix accepts, refuses and changes, seen on the wire of a host that the role alone has set up."""

from __future__ import annotations

import base64
import contextlib
import json
import smtplib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Host, trust_anything

STRANGER = "carl@remote.test"
ALICE = "alice@example.test"
HASH = "{BLF-CRYPT}$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"


def test_an_ordinary_day_leaves_no_warning(host: Host) -> None:
    """First of all tests: the others provoke warnings."""
    assert host.sh("for what in -n -M -P; do postconf $what 2>&1 >/dev/null; done") == ""
    host.client().sendmail(STRANGER, [ALICE, "both@example.test"], "Subject: in\r\n\r\n")
    for port in (465, 587):
        host.client(port, ALICE).sendmail(ALICE, [STRANGER, "bob@example.test"], "Subject: out\r\n\r\n")
    host.sh("echo x | sendmail root")
    assert len(host.got(7)) == 7
    assert host.until(host.rests)
    log = host.sh(f"journalctl --sync; journalctl --no-pager --output=cat --since=@{host.since} SYSLOG_FACILITY=2")
    assert "status=sent" in log
    assert [
        line for line in log.splitlines() if any(word in line for word in ("warning:", "error:", "fatal:", "panic:"))
    ] == []


@pytest.mark.parametrize(
    ("recipient", "code", "words"),
    [
        # ours
        (ALICE, 250, ""),
        ("ALICE@Example.TEST", 250, ""),
        ("alice+tag@example.test", 250, ""),
        ("sales@example.test", 250, ""),
        ("anything@catchall.test", 250, ""),
        ("carol@catchall.test", 250, ""),
        ("postmaster@example.test", 250, ""),
        ("postmaster", 250, ""),
        ("Postmaster", 250, ""),
        ("root@mail.example.test", 250, ""),
        ("abuse@mail.example.test", 250, ""),
        ("postmaster@[{address}]", 250, ""),
        # nobody's
        ("nobody@example.test", 550, "5.1.1"),
        ("www-data@mail.example.test", 550, "5.1.1"),
        ("www-data@localhost", 550, "5.1.1"),
        ("nobody@[{address}]", 550, "5.1.1"),
        ("bob", 550, "5.1.1"),
        ("SRS0=AAAA=BB=remote.test=bob@mail.example.test", 550, "5.1.1"),
        ("full@example.test", 552, "5.2.2"),
        # relaying
        (STRANGER, 554, "5.7.1"),
        ("x%remote.test@example.test", 554, "5.7.1"),
        ("x%remote.test@mail.example.test", 554, "5.7.1"),
        ("x%remote.test@localhost", 554, "5.7.1"),
        ("x%remote.test", 554, "5.7.1"),
        ("remote.test!x@example.test", 554, "5.7.1"),
        ("remote.test!x", 554, "5.7.1"),
        ('"x@remote.test"@example.test', 554, "5.7.1"),
        ('"x@remote.test"', 554, "5.7.1"),
        ("@example.test:x@remote.test", 554, "5.7.1"),
        ("x@remote.test@example.test", 55, ""),
        ("x@[198.51.100.1]", 554, "5.7.1"),
        ("x@[IPv6:2001:db8::1]", 554, "5.7.1"),
    ],
)
def test_recipients_on_port_25(host: Host, recipient: str, code: int, words: str) -> None:
    found, text = host.asked(host.client(), STRANGER, recipient.replace("{address}", host.address))
    assert str(found).startswith(str(code)), text
    assert words in text


@pytest.mark.parametrize(
    ("sender", "recipient", "code"),
    [
        ("a@nx.test", ALICE, 550),
        ("a@fail.test", ALICE, 450),
        ("a", ALICE, 504),
        ("", ALICE, 250),
        # the unknown recipient comes first, and postmaster is reachable by everybody
        ("a@nx.test", "nobody@example.test", 550),
        ("a@nx.test", "postmaster@example.test", 250),
    ],
)
def test_senders_on_port_25(host: Host, sender: str, recipient: str, code: int) -> None:
    assert host.asked(host.client(), sender, recipient)[0] == code


@pytest.mark.parametrize(
    ("helo", "recipient", "code"),
    [("bad", ALICE, 504), ("bad", "abuse@example.test", 250), ("[127.0.0.1]", ALICE, 250)],
)
def test_helo(host: Host, helo: str, recipient: str, code: int) -> None:
    assert host.asked(host.client(helo=helo), STRANGER, recipient)[0] == code


def test_port_25_offers_what_strangers_need(host: Host) -> None:
    client = host.client()
    assert "starttls" in client.esmtp_features
    assert not {"auth", "vrfy", "etrn", "smtputf8"} & {*client.esmtp_features}
    assert client.docmd("VRFY", ALICE)[0] == 502
    assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] in (502, 503)
    assert smtplib.SMTP(host.address, 25).docmd("MAIL", "FROM:<>")[0] == 503


def test_port_587_without_tls_is_a_dead_end(host: Host) -> None:
    client = host.client(587, tls=False)
    assert "auth" not in client.esmtp_features
    assert client.docmd("MAIL", f"FROM:<{ALICE}>")[0] == 530
    assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 530


@pytest.mark.parametrize("port", [465, 587])
def test_submission_without_login_is_refused(host: Host, port: int) -> None:
    client = host.client(port)
    for sender, recipient in ((STRANGER, ALICE), (STRANGER, "x@remote.test"), ("", ALICE), ("", "x@remote.test")):
        code, text = host.asked(client, sender, recipient)
        assert (code, text[:5]) == (530, "5.7.0")
    # Postfix accepts this recipient before all rules
    client.docmd("MAIL", "FROM:<>")
    assert client.docmd("RCPT", "TO:<postmaster>")[0] == 250
    assert client.docmd("DATA")[0] == 530
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        host.client(port).login(ALICE, "wrong")
    assert caught.value.smtp_code == 535


@pytest.mark.parametrize("port", [465, 587])
@pytest.mark.parametrize(
    ("login", "sender", "code"),
    [
        (ALICE, ALICE, 250),
        (ALICE, "ALICE@Example.test", 250),
        (ALICE, "alice+tag@example.test", 250),
        (ALICE, "sales@example.test", 250),
        (ALICE, "alice", 250),
        (ALICE, "bob@example.test", 553),
        (ALICE, "alice@other.test", 553),
        (ALICE, "root@mail.example.test", 553),
        (ALICE, "ceo@elsewhere.test", 553),
        ("bob@example.test", "whatever@catchall.test", 250),
        (ALICE, "whatever@catchall.test", 553),
    ],
)
def test_a_login_sends_as_itself(host: Host, port: int, login: str, sender: str, code: int) -> None:
    found, text = host.asked(host.client(port, login), sender, "x@remote.test")
    assert found == code, text


@pytest.mark.parametrize("port", [465, 587])
def test_submission_completes_mail_and_hides_the_client(host: Host, port: int) -> None:
    client = host.client(port, ALICE)
    client.sendmail(ALICE, [STRANGER], "From: alice\r\nSubject: short\r\n\r\nhello\r\n")
    [mail] = host.got(1)
    head, _sep, body = mail["text"].partition("\r\n\r\n")
    assert body == "hello\r\n"
    assert "\r\nFrom: alice@example.test\r\n" in head
    assert "\r\nDate: " in head
    assert "\r\nMessage-Id: <" in head
    assert head.startswith("Received: by mail.example.test (Postfix) with ESMTPSA id ")
    here = client.sock.getsockname()[0] if client.sock else ""
    assert here
    assert here not in head
    assert "client.remote.test" not in head
    assert "TLS" not in head
    # and it left from the address that the role was given
    assert mail["peer"] == host.address


def test_port_25_changes_nothing(host: Host) -> None:
    text = "From: carl\r\nTo: undisclosed\r\nX-Long: <a@b>\r\n\r\nhello\r\n"
    host.client().sendmail(STRANGER, ["alice+tag@example.test"], text)
    [mail] = host.got(1)
    assert mail["text"].endswith(f"\r\n{text}")
    assert mail["text"].startswith("Received: from client.remote.test (")
    assert (mail["from"], mail["to"]) == (STRANGER, ["alice+tag@example.test"])


def test_forwarded_mail_gets_a_sender_of_this_host_and_delivered_mail_keeps_its_own(host: Host) -> None:
    host.client().sendmail(STRANGER, ["both@example.test"], "From: carl@remote.test\r\n\r\nhello\r\n")
    mails = {mail["kind"]: mail for mail in host.got(2)}
    assert (mails["lmtp"]["from"], mails["lmtp"]["to"]) == (STRANGER, ["bob@example.test"])
    rewritten = mails["smtp"]["from"]
    assert rewritten.startswith("SRS0=")
    assert rewritten.endswith("=remote.test=carl@mail.example.test")
    assert "\r\nFrom: carl@remote.test\r\n" in mails["smtp"]["text"]
    assert mails["smtp"]["peer"] == host.address
    host.clear()
    client = host.client()
    assert host.asked(client, "", rewritten)[0] == 250
    assert host.asked(client, "", rewritten.lower())[0] == 250
    assert host.asked(client, "", rewritten.replace("carl", "carla"))[0] == 550
    client.sendmail("", [rewritten], "Subject: bounce\r\n\r\n")
    [bounce] = host.got(1)
    assert (bounce["from"], bounce["to"]) == ("", [STRANGER])


def test_mail_of_own_users_keeps_its_sender(host: Host) -> None:
    client = host.client(465, ALICE)
    senders = [ALICE, "alice+tag@example.test", "sales@example.test"]
    for sender in senders:
        client.sendmail(sender, [STRANGER, "fwd@example.test"], f"From: {ALICE}\r\n\r\nhello\r\n")
    mails = host.got(3)
    assert [mail["kind"] for mail in mails] == ["smtp"] * 3
    assert sorted(mail["from"] for mail in mails) == sorted(senders)


def test_a_new_user_is_known_without_a_reload(host: Host) -> None:
    dave = "dave@example.test"
    assert host.asked(host.client(), STRANGER, dave)[0] == 550
    host.client(465, ALICE).sendmail(ALICE, [STRANGER], "Subject: so that all daemons run\r\n\r\n")
    assert host.got(1)[0]["from"] == ALICE
    host.site("--tags", "directory", more=[{"address": dave, "password_hash": HASH}]).good()
    host.clear()
    assert host.asked(host.client(), STRANGER, dave)[0] == 250
    # trivial-rewrite(8), which chooses the way of outgoing mail, looks at its tables every 10 seconds.
    deadline = time.monotonic() + 60
    while True:
        host.client(465, dave).sendmail(dave, [STRANGER], "Subject: new\r\n\r\n")
        sender = host.got(1)[0]["from"]
        if sender == dave or time.monotonic() > deadline:
            break
        host.clear()
        time.sleep(0.5)
    assert sender == dave


def test_without_postsrsd_only_forwarded_mail_waits(host: Host) -> None:
    host.sh("systemctl stop postsrsd")
    try:
        client = host.client()
        assert host.asked(client, "", "SRS0=AAAA=BB=remote.test=bob@mail.example.test")[0] == 451
        client.sendmail(STRANGER, ["both@example.test"], "Subject: wait\r\n\r\n")
        assert [mail["to"] for mail in host.got(1)] == [["bob@example.test"]]
        assert [mail["to"] for mail in host.got(2, patience=3)] == [["bob@example.test"]]
    finally:
        host.sh("systemctl start postsrsd")
    # It needs a moment before it answers.
    assert host.until(lambda: not host.sh("postqueue -f") and len(host.got(2, patience=2)) == 2)


def test_mail_of_the_machine_arrives(host: Host) -> None:
    for script in (
        "sendmail root",
        "su -s /bin/sh www-data -c 'sendmail www-data'",
        "sendmail backup@localhost",
        "sendmail carl@remote.test",
    ):
        host.sh(f"printf 'Subject: cron\\n\\nx\\n' | {script}")
    mails = host.got(4)
    assert [mail["to"] for mail in mails if mail["kind"] == "lmtp"] == [["admin@example.test"]] * 3
    assert [mail["from"] for mail in mails if mail["kind"] == "smtp"] == ["root@mail.example.test"]


def test_without_the_quota_service_mail_is_taken(host: Host) -> None:
    # smtpd(8) keeps its connection: new ones are needed
    host.sh("mv /run/peers/quota /run/peers/away; postfix reload")
    try:
        assert host.until(lambda: host.asked(host.client(), STRANGER, "full@example.test")[0] == 250)
    finally:
        host.sh("mv /run/peers/away /run/peers/quota")
    assert host.asked(host.client(), STRANGER, "full@example.test")[0] == 552


@contextlib.contextmanager
def by_hand(host: Host, setting: str) -> Iterator[None]:
    """With another setting for a moment."""
    host.sh(f"cp -p /etc/postfix/main.cf /etc/postfix/kept; postconf -e '{setting}'; postfix reload")
    try:
        yield
    finally:
        host.sh("mv /etc/postfix/kept /etc/postfix/main.cf; postfix reload")


def reasons(host: Host) -> list[str]:
    """Why mail waits."""
    queued = [json.loads(line) for line in host.sh("postqueue -j").splitlines()]
    return [why for mail in queued for one in mail["recipients"] if (why := one.get("delay_reason"))]


def test_mail_never_leaves_from_another_address(host: Host) -> None:
    """The host lost the address that SPF names: Postfix would take any other, with a warning."""
    with by_hand(host, "smtp_bind_address = 203.0.113.9"):
        host.client(465, ALICE).sendmail(ALICE, [STRANGER], "Subject: wait\r\n\r\n")
        assert host.until(lambda: reasons(host) != [])
        assert host.got(0) == []
    assert host.until(lambda: not host.sh("postqueue -f") and len(host.got(1, patience=2)) == 1)


def test_a_sender_is_told_that_his_mail_waits(host: Host) -> None:
    lifetimes = "postconf -h maximal_queue_lifetime bounce_queue_lifetime delay_warning_time"
    assert host.sh(lifetimes).split() == ["5d", "1d", "4h"]
    with by_hand(host, "delay_warning_time = 1s"):
        host.client(465, ALICE).sendmail(ALICE, ["x@fail.test"], "Subject: wait\r\n\r\n")
        assert host.until(lambda: reasons(host) != [])
        assert host.until(lambda: not host.sh("postqueue -f") and host.got(1, patience=2) != [])
        [warning] = host.got(1)
    assert (warning["from"], warning["to"]) == ("", [ALICE])
    assert "still being retried" in warning["text"]
    assert reasons(host) != []


ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\n\r.\n\r",
    b"\r\r\n.\r\r\n",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\n",  # the proper end, and talking ahead after it
]


class Raw:
    """A client that sends bytes as they are."""

    def __init__(self, host: Host, port: int, login: str) -> None:
        self.sock = socket.create_connection((host.address, port), 60)
        if port == 465:
            self.sock = trust_anything().wrap_socket(self.sock)
        self.answer()
        self.command("EHLO client.remote.test")
        if port == 587:
            self.command("STARTTLS")
            self.sock = trust_anything().wrap_socket(self.sock)
            self.command("EHLO client.remote.test")
        if login:
            token = base64.b64encode(f"\0{login}\0secret".encode()).decode()
            assert self.command(f"AUTH PLAIN {token}").startswith(b"235")

    def answer(self) -> bytes:
        text = b""
        while not text.endswith(b"\n") or text.rstrip().rsplit(b"\n", maxsplit=1)[-1][3:4] == b"-":
            part = self.sock.recv(4096)
            if not part:
                break
            text += part
        return text

    def command(self, line: str) -> bytes:
        self.sock.sendall(line.encode() + b"\r\n")
        return self.answer()

    def finish(self, payload: bytes, end: bytes) -> None:
        """Send all at once, read what comes, end whatever is still open, go."""
        with contextlib.suppress(OSError):
            self.sock.sendall(payload)
            self.sock.settimeout(0.7)
            with contextlib.suppress(TimeoutError):
                while self.sock.recv(4096):
                    pass
            self.sock.sendall(end)
            self.sock.settimeout(5)
            self.sock.recv(4096)
        self.sock.close()


@pytest.mark.parametrize("port", [25, 465, 587])
def test_no_second_message_in_the_first(host: Host, port: int) -> None:
    login = "" if port == 25 else ALICE
    sender = login or STRANGER
    hidden = f"MAIL FROM:<{sender}>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: hidden\r\n\r\n\r\n.\r\n".encode()
    chunk = b"Subject: first\r\n\r\nx\n.\n" + hidden
    tries = [("DATA", b"Subject: first\r\n\r\nx" + end + hidden, b"\r\n.\r\n") for end in ENDS]
    tries.append(("", b"BDAT %d LAST\r\n" % len(chunk) + chunk, b""))

    def attempt(given: tuple[str, bytes, bytes]) -> None:
        verb, payload, end = given
        raw = Raw(host, port, login)
        raw.command(f"MAIL FROM:<{sender}>")
        raw.command(f"RCPT TO:<{ALICE}>")
        if verb:
            raw.command(verb)
        raw.finish(payload, end)

    # Most of the time each waits for answers that do not come.
    with ThreadPoolExecutor(len(tries)) as pool:
        list(pool.map(attempt, tries))
    # Two messages that are sent as two do arrive: the mail before them has arrived by then, too.
    client = host.client(port, login)
    for recipient in (ALICE, "bob@example.test"):
        client.sendmail(sender, [recipient], "Subject: control\r\n\r\n")
    assert host.until(lambda: host.rests() and sum("Subject: control" in mail["text"] for mail in host.got(2)) == 2)
    mails = host.got(2)
    controls = sorted(mail["to"] for mail in mails if "Subject: control" in mail["text"])
    assert controls == [[ALICE], ["bob@example.test"]]
    others = [mail for mail in mails if "Subject: control" not in mail["text"]]
    assert all(mail["to"] == [ALICE] for mail in others)
    assert len(others) <= len(ENDS) + 1
    assert all("Subject: first" in mail["text"] for mail in others)


def test_the_signature_in_key_exchange_is_never_sha1(host: Host) -> None:
    for algorithms, accepted in (("ECDSA+SHA1", False), ("ECDSA+SHA224", False), ("ECDSA+SHA256", True)):
        output = host.sh(
            "echo QUIT | openssl s_client -connect 127.0.0.1:25 -starttls smtp -tls1_2 -cipher ALL:@SECLEVEL=0 "
            f"-sigalgs {algorithms} 2>&1",
            check=False,
        )
        assert "CONNECTED" in output
        assert ("Cipher is ECDHE" in output) is accepted, algorithms


def test_a_dead_milter_lets_nothing_through_and_the_change_is_undone(host: Host) -> None:
    run = host.site(postfix_milters=["/run/none.sock"])
    assert run.rc != 0
    assert "451 4.7.1" in run.output
    assert "former files are back" in run.output
    assert host.asked(host.client(), STRANGER, ALICE)[0] == 250


def test_until_a_first_run_came_to_its_end_nothing_is_refused_for_good(host: Host) -> None:
    host.site(postfix_soft_bounce=True).good()
    assert host.asked(host.client(), STRANGER, "nobody@example.test")[0] == 450
    assert host.asked(host.client(), STRANGER, "x@remote.test")[0] == 454
    host.site().good()
    assert host.asked(host.client(), STRANGER, "nobody@example.test")[0] == 550


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert host.site("--check", "--diff").good().stats["changed"] == 0
