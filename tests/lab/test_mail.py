# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail both ways between our hosts and the other provider, judged by the receiver."""

from __future__ import annotations

import pytest
from clients import (
    Box,
    at_remote,
    domain_of,
    from_remote,
    message,
    new_subject,
    parse,
    read_imap,
    read_pop3,
    submit,
    until,
    verdicts,
)


@pytest.mark.parametrize("port", [465, 587])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_other_provider_accepts_what_alice_sends(
    mx: Box, remote: Box, accounts: dict[str, tuple[str, str]], port: int, family: str
) -> None:
    login, password = accounts[mx.name]
    subject = new_subject()
    text = message(login, "carol@remote.test", subject)
    submit(getattr(mx, family), port, login, password, login, "carol@remote.test", text)
    arrived = until(lambda: at_remote(remote, "carol", subject), 60, f"{subject} in carol's Maildir")
    found = verdicts(arrived, "remote.test")
    assert found.count("dkim=pass") >= 2, found
    assert "spf=pass" in found, found
    assert "dmarc=pass" in found, found
    assert "fail" not in " ".join(found), found


def test_alice_reads_what_the_other_provider_sends(mx: Box, remote: Box, accounts: dict[str, tuple[str, str]]) -> None:
    login, password = accounts[mx.name]
    subject = new_subject()
    from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, subject))
    raw = until(lambda: read_imap(mx.ipv4, login, password, subject), 60, f"{subject} in Alice's INBOX")
    found = verdicts(raw, mx.fqdn)
    assert {"spf=pass", "dkim=pass", "dmarc=pass"} <= set(found), found
    assert subject.encode() in (read_pop3(mx.ipv6, login, password, subject) or b"")
    # The other provider looked up our TLSA record and held the certificate against it.
    assert f"Verified TLS connection established to {mx.fqdn}" in remote.journal("postfix@-", "postfix")


def test_the_client_stays_private_and_what_it_left_out_is_added(
    mx: Box, remote: Box, accounts: dict[str, tuple[str, str]]
) -> None:
    login, password = accounts[mx.name]
    subject = new_subject()
    text = f"Subject: {subject}\r\nFrom: {login}\r\n\r\nHello.\r\n"
    submit(mx.ipv4, 465, login, password, login, "carol@remote.test", text)
    arrived = parse(until(lambda: at_remote(remote, "carol", subject), 60, subject))
    assert arrived["Date"] and domain_of(str(arrived["Message-ID"]).strip("<>"))
    assert "198.51.100.1]" not in arrived.as_string()
    assert "laptop.invalid" not in arrived.as_string()
