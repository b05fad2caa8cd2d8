# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate is renewed at night, without a playbook run: new sessions see it, open ones go on, DANE holds."""

from __future__ import annotations

import hashlib
import imaplib
import smtplib
import ssl
from collections.abc import Iterator

import pytest
from clients import Box, from_remote, message, new_subject, search_imap, trusting, until
from conftest import HOSTS, Site, Story
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from zones import ask, forget

Accounts = dict[str, tuple[str, str]]
UNIT = "postmeister-certificate.service"
PORTS = (25, 465, 587, 993, 995)


def certificate(address: str, port: int) -> bytes:
    """What a new session is shown, as DER."""
    if port in (25, 587):
        with smtplib.SMTP(address, port, local_hostname="gateway.test", timeout=60) as client:
            client.starttls(context=trusting())
            assert isinstance(client.sock, ssl.SSLSocket)
            return client.sock.getpeercert(binary_form=True) or b""
    pem = ssl.get_server_certificate((address, port), timeout=60)
    return ssl.PEM_cert_to_DER_cert(pem)


def tlsa(der: bytes) -> str:
    key = x509.load_der_x509_certificate(der).public_key()
    return "3 1 1 " + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def settings(mx: Box) -> str:
    return f"/etc/ssl/postmeister/{mx.fqdn}/settings.json"


@pytest.fixture(scope="module")
def due(story: Story, boxes: dict[str, Box]) -> Iterator[None]:
    """Both hosts take their certificates for due, and the published next keys for old enough."""
    change = r's/"renew_before": [0-9]*/"renew_before": 3000/; s/"next_key_age": [0-9]*/"next_key_age": 0/'
    for mx in map(boxes.__getitem__, HOSTS):
        mx.sh(f"cp -p {settings(mx)} {settings(mx)}.kept && sed -i '{change}' {settings(mx)}")
        # A day later its resolver would have seen what the last run published.
        forget(mx)
    yield
    for mx in map(boxes.__getitem__, HOSTS):
        mx.sh(f"mv -f {settings(mx)}.kept {settings(mx)} 2>/dev/null || true")


def test_a_renewal_needs_no_playbook_and_ends_no_session(due: None, mx: Box, remote: Box, accounts: Accounts) -> None:
    login, password = accounts[mx.name]
    former = certificate(mx.ipv4, 993)
    published = ask(f"_25._tcp.{mx.fqdn}", "TLSA")
    assert {certificate(mx.ipv4, port) for port in PORTS} == {former}
    with imaplib.IMAP4_SSL(mx.ipv4, ssl_context=trusting(), timeout=120) as session:
        session.login(login, password)
        session.select("INBOX", readonly=True)
        session.send(b"i1 IDLE\r\n")
        assert session.readline().startswith(b"+")
        mx.run("systemctl", "start", UNIT)
        # The session of before still has the certificate of before, and hears of new mail.
        subject = new_subject()
        text = message("carol@remote.test", login, subject)
        from_remote(remote, "carol@remote.test", login, text)
        until(lambda: session.readline().endswith(b" EXISTS\r\n"), 180, "news of new mail in the open session")
        assert isinstance(session.sock, ssl.SSLSocket)
        assert session.sock.getpeercert(binary_form=True) == former
        session.send(b"DONE\r\n")
        until(lambda: session.readline().startswith(b"i1 OK"), 60, "the end of IDLE")
        assert session.noop()[0] == "OK"
    assert len(search_imap(mx.ipv4, login, password, subject)) == 1
    # Every port shows one new certificate, with the key that waited in DNS.
    seen = {port: certificate(mx.ipv4, port) for port in PORTS}
    assert len(set(seen.values())) == 1, seen
    assert seen[25] != former
    assert tlsa(seen[25]) != tlsa(former)
    assert sorted([tlsa(seen[25]), tlsa(former)]) == published
    assert ask(f"_25._tcp.{mx.fqdn}", "TLSA") == published
    # And the other provider trusts it.
    start, again = remote.run("date", "+%s.%N").strip(), new_subject()
    forget(remote)
    from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, again))
    until(lambda: search_imap(mx.ipv4, login, password, again), 180, f"{again} in the mailbox")
    log = remote.journal("postfix@-", "postfix", since=f"@{start}")
    assert f"Verified TLS connection established to {mx.fqdn}[" in log, log


def test_a_key_that_is_not_in_dns_is_not_taken(due: None, mx: Box) -> None:
    """The key after the next was just made, and nobody could trust it."""
    former = certificate(mx.ipv4, 993)
    mx.run("systemctl", "start", UNIT)
    seen = certificate(mx.ipv4, 993)
    assert seen != former
    assert tlsa(seen) == tlsa(former)


def test_the_next_run_publishes_it(due: None, site: Site, boxes: dict[str, Box]) -> None:
    hosts = [boxes[name] for name in HOSTS]
    for mx in hosts:
        # Takes the next key where it is published already, and makes another.
        mx.run("systemctl", "start", UNIT)
        mx.sh(f"mv {settings(mx)}.kept {settings(mx)}")
    before = {mx.name: ask(f"_25._tcp.{mx.fqdn}", "TLSA") for mx in hosts}
    run = site.play()
    assert run.rc == 0, run.failed_because()
    for mx in hosts:
        after = ask(f"_25._tcp.{mx.fqdn}", "TLSA")
        # The former key goes, that of the certificate stays, and a new one is there in time.
        assert len(after) == 2
        assert set(after) & set(before[mx.name]) == {tlsa(certificate(mx.ipv4, 25))}
