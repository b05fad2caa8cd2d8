# SPDX-License-Identifier: GPL-3.0-or-later

"""Who guesses passwords in the mini-internet; the rest of it, and all protocols, are in tests/bans."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from clients import Box, until

GUESSER = "198.51.100.72"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 10, (sys.argv[3], 0))"
# Five at once: one after the other, Dovecot lets each wait longer. The ban may come before the last answer.
GUESS = """
import smtplib, ssl, sys, threading
address, source, login = sys.argv[1:4]
patience = float(sys.argv[4])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

def guess():
    try:
        with smtplib.SMTP_SSL(address, 465, timeout=patience, source_address=(source, 0), context=context) as link:
            link.ehlo()
            link.user, link.password = login, "not-hers"
            link.auth("PLAIN", link.auth_plain)
            print("let in")
    except (OSError, smtplib.SMTPException):
        pass

for thread in [threading.Thread(target=guess) for turn in range(5)]:
    thread.start()
"""


def reaches(client: Box, mx: Box, port: int, source: str) -> bool:
    program = f"python3 -c '{CONNECT}' {mx.ipv4} {port} {source} 2>/dev/null && echo yes || true"
    return client.sh(program).strip() == "yes"


def wrong_passwords(mx: Box, source: str) -> int:
    """How many Dovecot told of."""
    return sum(
        source in line and "assword mismatch" in line for line in mx.journal("dovecot", since="-1d").splitlines()
    )


def test_five_wrong_passwords_ban_the_address(mx: Box, boxes: dict[str, Box]) -> None:
    client, operator = boxes["client"], boxes["client"].ipv4
    before, login = wrong_passwords(mx, operator), f"alice@{mx.domain}"
    # Who is banned meanwhile waits for answers that never come.
    patience = {GUESSER: "10", operator: "60"}
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda who: client.run("python3", "-c", GUESS, mx.ipv4, who, login, patience[who]), patience)
    assert list(said) == ["", ""]
    until(lambda: not reaches(client, mx, 993, GUESSER), 60, "the ban")
    assert not reaches(client, mx, 465, GUESSER)
    assert reaches(client, mx, 25, GUESSER)
    # The control: an operator's network, from which as many wrong passwords came
    until(lambda: wrong_passwords(mx, operator) == before + 5, 60, "five wrong passwords of the operator")
    assert reaches(client, mx, 993, operator)
    mx.sh(f"fail2ban-client set mail unbanip {GUESSER}")
    until(lambda: reaches(client, mx, 993, GUESSER), 60, "the end of the ban")
