# SPDX-License-Identifier: GPL-3.0-or-later

"""What strangers ask a mail host for and do not get: each refusal with its code and words, beside what does pass."""

from __future__ import annotations

import re
import smtplib
import socket
import time
from email.utils import formatdate, make_msgid

import pytest
from clients import Box, auth, idle, new_subject, parse, search_imap, talk, trusting, until
from speak import dial

STRANGER = "MAIL FROM:<dave@client.test>"
OK_RECIPIENT = "250 2.1.5 Ok"
LOGIN_FIRST = r"530 5\.7\.0 <\S+>: Client host rejected: Authentication required"
NO_MAILBOX = "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table"
NO_NAME = "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual alias table"

# Somebody outside, in every spelling that some mail server once followed.
OUTSIDE = [
    *["<carol@remote.test>", "carol@remote.test", "<carol@REMOTE.TEST>", "<carol@remote.test.>", "<@remote.test>"],
    *["<carol@[198.51.100.80]>", "<carol@[IPv6:2001:db8:51::80]>", "<carol@mail.remote.test>", "<carol@nodomain>"],
    *["<carol%remote.test@OWN>", "<carol%remote.test@HOST>", "<carol%remote.test@[ADDRESS]>", "<carol%remote.test>"],
    *["<carol%remote.test@localhost>", "<carol%remote.test%OWN@HOST>", '<"carol%remote.test"@OWN>'],
    *["<remote.test!carol@OWN>", "<remote.test!carol@HOST>", "<remote.test!carol>", '<"remote.test!carol"@OWN>'],
    *['<"carol@remote.test"@OWN>', '<"carol@remote.test"@HOST>', '<"carol@remote.test">', "<OWN!carol@remote.test>"],
    *["<carol@remote.test@OWN>", "<carol@remote.test@HOST>", "<carol@remote.test@[ADDRESS]>", "<@remote.test@OWN>"],
    *["<@OWN:carol@remote.test>", "<@HOST:carol@remote.test>", "<@OWN,@HOST:carol@remote.test>", "<dave@client.test>"],
]
# Looks alike, and is nobody here.
NOBODY = {
    "<@remote.test:carol@OWN>": NO_MAILBOX.format("carol@OWN"),
    "<SRS0=HHHH=TT=remote.test=carol@OWN>": NO_MAILBOX.format("SRS0=HHHH=TT=remote.test=carol@OWN"),
    "<SRS0=HHHH=TT=remote.test=carol@HOST>": NO_NAME.format("SRS0=HHHH=TT=remote.test=carol@HOST"),
    "<carol=remote.test@HOST>": NO_NAME.format("carol=remote.test@HOST"),
    "<carol>": NO_NAME.format("carol"),
    "<carol@localhost>": "550 5.1.1 <carol@localhost>: Recipient address rejected: this host has no local mailboxes",
}


# A client at the link-local address of the host itself, as a neighbour on the wire has one
NEIGHBOUR = """
import smtplib, socket
with open("/proc/net/if_inet6") as file:
    found = next(line.split() for line in file if line.startswith("fe80"))
address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found[0])) + "%" + found[-1]
client = smtplib.SMTP(address, 25, local_hostname="neighbour.test", timeout=60)
client.ehlo()
print(client.docmd("MAIL", "FROM:<>")[0], client.docmd("RCPT", "TO:<postmaster@OWN>"))
"""


def answers(mx: Box, *lines: str, port: int = 25, tls: bool = True) -> list[str]:
    return talk(mx.ipv4, port, list(lines), tls=tls)[0]


def battery(mx: Box, address: str) -> dict[str, str]:
    """Recipients and what port 25 says to each."""

    def named(text: str) -> str:
        return text.replace("OWN", mx.domain).replace("HOST", mx.fqdn).replace("ADDRESS", address)

    def shown(path: str) -> str:
        return re.sub(r"^@[^:]*:", "", path.strip("<>").replace('"', ""))

    found = {path: f"554 5.7.1 <{shown(path)}>: Relay access denied" for path in map(named, OUTSIDE)}
    if mx.name == "mx12":
        # A catch-all takes what it is asked for, but for these.
        for path in (
            "<carol%remote.test@{}>",
            "<remote.test!carol@{}>",
            '<"carol@remote.test"@{}>',
            "<carol@remote.test@{}>",
        ):
            path = path.format("second12.test")
            found[path] = f"554 5.7.1 <{shown(path)}>: Relay access denied"
    return {**found, **{named(path): named(answer) for path, answer in NOBODY.items()}}


def test_a_neighbour_is_not_taken_for_the_host(mx: Box) -> None:
    """rspamd holds link-local clients for local, whatever it is told: forged mail would be signed as ours."""
    said = mx.run("python3", "-c", NEIGHBOUR.replace("OWN", mx.domain))
    assert re.match(r"250 \(554, b'5\.7\.1 .*link-local", said), said


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("source", ["gateway", "client"])
@pytest.mark.parametrize("port", [25, 465, 587])
def test_nobody_relays_without_a_login(
    mx: Box, boxes: dict[str, Box], accounts: dict[str, tuple[str, str]], port: int, source: str, family: str
) -> None:
    address = getattr(mx, family)
    expected = battery(mx, mx.ipv4)
    paths = list(expected)
    alice = f"<alice@{mx.domain}>"
    senders = [
        STRANGER,
        "MAIL FROM:<>",
        f"MAIL FROM:{alice}",
        "MAIL FROM:<carol@remote.test>",
        f"MAIL FROM:<root@{mx.fqdn}>",
    ]
    # Few at a time: after ten errors Postfix answers slowly.
    groups = [paths[start : start + 8] for start in range(0, len(paths), 8)]
    sessions = [
        [senders[number % len(senders)], *(f"RCPT TO:{path}" for path in group)] for number, group in enumerate(groups)
    ]
    sessions += [[sender, "RCPT TO:<carol@remote.test>"] for sender in senders]
    controls = [
        [STRANGER, f"RCPT TO:{alice}"],
        [auth(*accounts[mx.name]), f"MAIL FROM:{alice}", "RCPT TO:<carol@remote.test>"],
    ]
    told = talk(address, port, *sessions, *controls, at=boxes["client"] if source == "client" else None)
    got = dict(
        zip([*paths, *(f"{sender} to carol" for sender in senders)], [one for group in told[:-2] for one in group[1:]])
    )
    if port == 25:
        relay = "554 5.7.1 <carol@remote.test>: Relay access denied"
        assert got == {**expected, **{f"{sender} to carol": relay for sender in senders}}
        assert told[-2][1] == OK_RECIPIENT
        assert told[-1][0] == "503 5.5.1 Error: authentication not enabled"
    else:
        assert {path: answer for path, answer in got.items() if not re.fullmatch(LOGIN_FIRST, answer)} == {}
        assert re.fullmatch(LOGIN_FIRST, told[-2][1])
        assert [told[-1][0], told[-1][2]] == ["235 2.7.0 Authentication successful", OK_RECIPIENT]


@pytest.mark.parametrize("port", [465, 587])
def test_postmaster_without_a_domain_is_no_way_in(mx: Box, port: int) -> None:
    # Postfix lets it pass before all rules; it ends at DATA.
    told = answers(mx, STRANGER, "RCPT TO:<postmaster>", "DATA", port=port)
    assert told[1] == OK_RECIPIENT
    assert re.fullmatch(LOGIN_FIRST, told[2])


def test_commands_that_tell_or_trust_too_much_are_off(mx: Box) -> None:
    asked = [
        f"VRFY alice@{mx.domain}",
        "EXPN postmaster",
        f"ETRN {mx.domain}",
        "XCLIENT ADDR=127.0.0.1",
        "XFORWARD ADDR=127.0.0.1",
    ]
    assert answers(mx, *asked, "NOOP") == [
        "502 5.5.1 VRFY command is disabled",
        "500 5.5.2 Error: command not recognized",
        f"554 5.7.1 <{mx.domain}>: Etrn command rejected: Access denied",
        "550 5.7.0 Error: insufficient authorization",
        "550 5.7.0 Error: insufficient authorization",
        "250 2.0.0 Ok",
    ]
    for port in (465, 587):
        told = answers(mx, *asked[:2], *asked[3:], "NOOP", port=port)
        assert [answer[:3] for answer in told] == ["502", "500", "550", "550", "250"]


def test_no_password_travels_without_tls(mx: Box, accounts: dict[str, tuple[str, str]]) -> None:
    login = auth(*accounts[mx.name])
    starttls_first = "530 5.7.0 Must issue a STARTTLS command first"
    told = answers(mx, "EHLO client.test", login, STRANGER, f"RCPT TO:<alice@{mx.domain}>", port=587, tls=False)
    assert "STARTTLS" in told[0] and "AUTH" not in told[0]
    assert told[1:] == [starttls_first] * 3
    # Port 25 has no logins at all, before and after STARTTLS.
    with dial(mx.ipv4, 25) as client:
        assert not client.has_extn("auth")
        client.starttls(context=trusting())
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd(login) == (503, b"5.5.1 Error: authentication not enabled")
    for port in (465, 587):
        told = answers(mx, "EHLO client.test", login, port=port)
        assert "AUTH PLAIN LOGIN" in told[0]
        assert told[1] == "235 2.7.0 Authentication successful"
    for address in (mx.ipv4, mx.ipv6):
        for port in (110, 143):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, port), 60)
        for port in (993, 995):
            socket.create_connection((address, port), 60).close()


def test_managesieve_takes_no_password_without_tls(mx: Box) -> None:
    if mx.name == "mx":
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((mx.ipv4, 4190), 60)
        return
    with socket.create_connection((mx.ipv4, 4190), 60) as connection, connection.makefile("rwb", buffering=0) as stream:
        greeting = list(iter(stream.readline, b'OK "mx.example12.test ready."\r\n'))
        assert b'"SASL" ""\r\n' in greeting and b'"STARTTLS"\r\n' in greeting
        stream.write(b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n')
        assert stream.readline() == b'NO (ENCRYPT-NEEDED) "Authentication not allowed until SSL/TLS is enabled."\r\n'


def test_unknown_recipients(mx: Box) -> None:
    nobody, alice = f"nobody@{mx.domain}", f"alice@{mx.domain}"
    told = answers(
        mx,
        STRANGER,
        f"RCPT TO:<{nobody}>",
        f"RCPT TO:<nobody+tag@{mx.domain}>",
        f"RCPT TO:<www-data@{mx.fqdn}>",
        f"RCPT TO:<{alice}>",
    )
    assert told[1:] == [
        NO_MAILBOX.format(nobody),
        NO_MAILBOX.format(f"nobody+tag@{mx.domain}"),
        NO_NAME.format(f"www-data@{mx.fqdn}"),
        OK_RECIPIENT,
    ]
    told = answers(mx, STRANGER, "RCPT TO:<whoever@second12.test>")
    assert told[1] == (OK_RECIPIENT if mx.name == "mx12" else "554 5.7.1 <whoever@second12.test>: Relay access denied")


def test_who_a_stranger_says_to_be(mx: Box) -> None:
    alice, postmaster, abuse = (f"RCPT TO:<{name}@{mx.domain}>" for name in ("alice", "postmaster", "abuse"))
    with smtplib.SMTP(mx.ipv4, 25, timeout=60) as client:
        assert client.docmd(STRANGER) == (503, b"5.5.1 Error: send HELO/EHLO first")
    reasons = {
        ("HELO nodots", STRANGER): "504 5.5.2 <nodots>: Helo command rejected: need fully-qualified hostname",
        ("HELO -.test", STRANGER): "501 5.5.2 <-.test>: Helo command rejected: Invalid name",
        ("NOOP", "MAIL FROM:<dave>"): "504 5.5.2 <dave>: Sender address rejected: need fully-qualified address",
        (
            "NOOP",
            "MAIL FROM:<dave@gone.remote.test>",
        ): "550 5.1.8 <dave@gone.remote.test>: Sender address rejected: Domain not found",
        # A DNS fault is none of the sender's: later.
        (
            "NOOP",
            "MAIL FROM:<dave@bogus.test>",
        ): "450 4.1.8 <dave@bogus.test>: Sender address rejected: Domain not found",
        ("NOOP", STRANGER): OK_RECIPIENT,
        ("NOOP", "MAIL FROM:<>"): OK_RECIPIENT,
    }
    told = talk(mx.ipv4, 25, *([*before, alice, postmaster, abuse] for before in reasons))
    assert dict(zip(reasons, [session[2] for session in told])) == reasons
    # Whoever is refused can ask why.
    assert [session[3:] for session in told] == [[OK_RECIPIENT, OK_RECIPIENT]] * len(told)


def test_too_large_messages(mx: Box, accounts: dict[str, tuple[str, str]]) -> None:
    login, password = accounts[mx.name]
    limit, alice = 52428800, f"<{login}>"
    for port, first in ((25, "NOOP"), (465, auth(login, password)), (587, auth(login, password))):
        told = answers(
            mx,
            first,
            f"MAIL FROM:{alice} SIZE={limit + 1}",
            f"MAIL FROM:{alice} SIZE={limit}",
            f"RCPT TO:{alice}",
            port=port,
        )
        assert told[1:] == ["552 5.3.4 Message size exceeds fixed limit", "250 2.1.0 Ok", OK_RECIPIENT]


def burst(mx: Box, *parts: bytes) -> list[bytes]:
    """Each part sent at once, when the answer to the one before has come; all answers until the server hangs up."""
    lines: list[bytes] = []
    with socket.create_connection((mx.ipv4, 25), 60) as connection, connection.makefile("rwb", buffering=0) as stream:
        for part in parts:
            stream.write(part)
            while True:
                line = stream.readline()
                lines.append(line.strip())
                if line[3:4] != b"-":
                    break
        lines += [line.strip() for line in stream]
    return lines


def test_nobody_talks_ahead_of_his_turn(mx: Box) -> None:
    alice = mx.domain.encode()
    mail = b"MAIL FROM:<dave@client.test>\r\nRCPT TO:<alice@%s>\r\n" % alice
    data = b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
    broken = b"554 5.5.0 Error: SMTP protocol synchronization"
    assert burst(mx, b"EHLO client.test\r\n" + mail + data)[-1:] == [broken]
    assert burst(mx, b"", b"HELO client.test\r\n", mail)[-1:] == [broken]
    assert burst(mx, b"", b"EHLO client.test\r\n", mail + data)[-3:] == [b"250 2.1.0 Ok", b"250 2.1.5 Ok", broken]
    # What RFC 2920 allows is allowed.
    told = burst(mx, b"", b"EHLO client.test\r\n", mail + b"RSET\r\nQUIT\r\n")
    assert told[-4:] == [b"250 2.1.0 Ok", b"250 2.1.5 Ok", b"250 2.0.0 Ok", b"221 2.0.0 Bye"]


# Ends of a message that some server takes for one; only <CR><LF>.<CR><LF> is.
SHAM_ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r.\n", b"\n.\r", b"\n\n.\r\n"]
SHAM_ENDS += [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n"]
TRUE_END = b"\r\n.\r\n"


def smuggle(client: smtplib.SMTP, end: bytes, account: tuple[str, str], subject: str, chunked: bool) -> list[bytes]:
    """A message whose text holds a second one, in one write; what the server answers until the NOOP behind all that."""
    sender, recipient = account
    mail, rcpt = f"MAIL FROM:<{sender}>\r\n", f"RCPT TO:<{recipient}>\r\n"
    start = f"Date: {formatdate()}\r\nMessage-ID: {make_msgid()}\r\nFrom: {sender}\r\nTo: {recipient}\r\n"
    start += f"Subject: {subject}"
    hidden = f"{mail}{rcpt}DATA\r\n{start} inner\r\n\r\ninner\r\n"
    text = f"{start} outer\r\n\r\nouter".encode() + end + hidden.encode()
    client.send(mail)
    assert client.getreply()[0] == 250
    client.send(rcpt)
    assert client.getreply()[0] == 250
    if chunked:
        client.send(b"BDAT %d LAST\r\n" % len(text) + text)
    else:
        assert client.docmd("DATA")[0] == 354
        client.send(text + b".\r\n")
    answers = [b"%d %s" % client.getreply()]
    # Each one more is an answer to the hidden message.
    try:
        client.send("NOOP\r\n")
        while (last := b"%d %s" % client.getreply()) != b"250 2.0.0 Ok":
            answers.append(last)
    except (smtplib.SMTPServerDisconnected, OSError):
        answers.append(b"hung up")
    return answers


def smuggle_all(mx: Box, port: int, login: tuple[str, str], recipient: str, subject: str) -> int:
    """Every sham end by DATA; some by BDAT, where no end means anything; how many messages were taken."""
    attempts = [(end, False) for end in SHAM_ENDS] + [(end, True) for end in (*SHAM_ENDS[:2], TRUE_END)]
    account = ("dave@client.test" if port == 25 else login[0], recipient)
    with dial(mx.ipv4, port) as client:
        if port != 25:
            client.login(*login)
        for end, chunked in attempts:
            answers = smuggle(client, end, account, subject, chunked)
            assert len(answers) == 1 and answers[0].startswith(b"250 2.0.0 Ok: "), (end, chunked, answers)
    # The control: behind a true end the server sees the second message (and a client that talks ahead of its turn).
    client = dial(mx.ipv4, port)
    if port != 25:
        client.login(*login)
    assert len(smuggle(client, TRUE_END, account, subject, False)) > 1
    client.close()
    return len(attempts) + 1


def assert_never_two(messages: list[bytes], subject: str, count: int) -> None:
    """As many messages as were sent, each but the control's with the hidden one in its text."""
    assert [str(parse(raw)["Subject"]) for raw in messages] == [f"{subject} outer"] * count
    assert sum(f"Subject: {subject} inner".encode() in raw for raw in messages) == count - 1


@pytest.mark.parametrize("port", [25, 465, 587])
def test_no_second_message_comes_in_with_the_first(mx: Box, others: dict[str, tuple[str, str]], port: int) -> None:
    login = others[mx.name]
    subject = new_subject()
    count = smuggle_all(mx, port, login, login[0], subject)
    until(lambda: idle(mx, login[0]), 180, "all delivered")
    # Wherever the filter put them.
    found = [raw for folder in ("INBOX", "Junk") for raw in search_imap(mx.ipv4, *login, subject, folder)]
    assert_never_two(found, subject, count)


def test_no_second_message_goes_out_with_the_first(mx: Box, remote: Box, others: dict[str, tuple[str, str]]) -> None:
    subject = new_subject()
    recipient = f"{subject}@remote.test"
    count = smuggle_all(mx, 465, others[mx.name], recipient, subject)

    def delivered() -> bool:
        # So many at once can end the provider's OpenDKIM, which puts them off for minutes.
        mx.run("postqueue", "-f")
        time.sleep(2)
        return idle(mx, recipient) and idle(remote, recipient)

    until(delivered, 180, "all delivered")
    arrived = [remote.run("cat", path).encode() for path in remote.sh(f"ls /srv/mail/{subject}/new/*").split()]
    assert_never_two(arrived, subject, count)


def test_nothing_else_listens(mx: Box) -> None:
    everywhere = {25, 465, 587, 993, 995} | ({4190} if mx.name == "mx12" else set())
    expected = {("tcp", address, port) for address in ("0.0.0.0", "[::]") for port in everywhere}
    expected |= {(protocol, address, 53) for protocol in ("tcp", "udp") for address in ("127.0.0.1", "[::1]")}
    # postgrey
    expected.add(("tcp", "127.0.0.1", 10023))
    if mx.name == "mx12":
        # Forwarded mail: postsrsd, and the way back into Postfix.
        expected |= {("tcp", "127.0.0.1", port) for port in (10001, 10002, 10026)}
    # A resolver's question leaves from a port of its own, open for a moment: what listens is there each time.
    found = set.intersection(*(listening(mx) for _turn in range(3)))
    assert found == expected


def listening(mx: Box) -> set[tuple[str, str, int]]:
    """Protocol, address and port of all sockets that wait for others."""
    found = set()
    for line in mx.run("ss", "-Hltun").splitlines():
        protocol, _state, _received, _sent, local, _peer = line.split()[:6]
        address, _colon, port = local.rpartition(":")
        found.add((protocol, address.replace("*", "[::]"), int(port)))
    return found
