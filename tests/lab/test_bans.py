# SPDX-License-Identifier: GPL-3.0-or-later

"""Who guesses passwords in the mini-internet; the rest of it, and all protocols, are in tests/bans."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from clients import Box, auth, talk, until

GUESSER = "198.51.100.72"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3, (sys.argv[3], 0))"


def reaches(client: Box, mx: Box, port: int, source: str) -> bool:
    program = f"python3 -c '{CONNECT}' {mx.ipv4} {port} {source} 2>/dev/null && echo yes || true"
    return client.sh(program).strip() == "yes"


def guess(client: Box, mx: Box, source: str) -> list[str]:
    """Five wrong passwords at once: one after the other, Dovecot lets each wait longer."""
    wrong = auth(f"alice@{mx.domain}", "not-hers")
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(talk, mx.ipv4, 465, [wrong], at=client, source=source) for _turn in range(5)]
        return [turn.result()[0][0][:3] for turn in asked]


def test_five_wrong_passwords_ban_the_address(mx: Box, boxes: dict[str, Box]) -> None:
    client, operator = boxes["client"], boxes["client"].ipv4
    assert guess(client, mx, GUESSER) == ["535"] * 5
    # The control: an operator's network, from which more than five wrong passwords come
    assert guess(client, mx, operator) == ["535"] * 5
    until(lambda: not reaches(client, mx, 993, GUESSER), 30, "the ban")
    assert not reaches(client, mx, 465, GUESSER)
    assert reaches(client, mx, 25, GUESSER)
    assert reaches(client, mx, 993, operator)
    mx.sh(f"fail2ban-client set mail unbanip {GUESSER}")
    until(lambda: reaches(client, mx, 993, GUESSER), 30, "the end of the ban")
