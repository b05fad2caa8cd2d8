# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes the verdicts of test_mail.py worth something: with one thing broken the same mail fails, or waits."""

from __future__ import annotations

import json
import re
import smtplib
import time
import uuid
from collections.abc import Callable

import pytest
from clients import (
    Box,
    at_remote,
    domain_of,
    from_remote,
    idle,
    message,
    new_subject,
    parse,
    read_imap,
    search_imap,
    submit,
    until,
    verdicts,
)
from zones import forget, replaced, served

Accounts = dict[str, tuple[str, str]]
WRONG = "3 1 1 " + "00" * 32


def new_recipient() -> str:
    """A mailbox at the other provider of its own, so that queues and Maildirs can be counted."""
    return f"c{uuid.uuid4().hex[:12]}@remote.test"


def send(mx: Box, accounts: Accounts, recipient: str, subject: str) -> None:
    login, password = accounts[mx.name]
    submit(mx.ipv4, 465, login, password, login, recipient, message(login, recipient, subject))


def arrived(remote: Box, recipient: str, subject: str) -> str:
    mailbox = recipient.partition("@")[0]
    return until(lambda: at_remote(remote, mailbox, subject), 60, f"{subject} in the mailbox {mailbox}")


def from_a_stranger(address: str, sender: str, recipient: str, text: str) -> None:
    """From this machine: a client whose name and address fit each other, and who may send for no domain of the lab."""
    with smtplib.SMTP(address, 25, local_hostname="gateway.test", timeout=60) as client:
        client.sendmail(sender, [recipient], text.encode())


def waiting(box: Box, recipient: str) -> dict[str, str] | None:
    """The queue's entry of deferred mail for this recipient: queue_id and delay_reason."""
    for line in box.run("postqueue", "-j").splitlines():
        entry = json.loads(line)
        for item in entry["recipients"]:
            if item["address"] == recipient and "delay_reason" in item:
                return {"queue_id": entry["queue_id"], "delay_reason": item["delay_reason"]}
    return None


def log_since(box: Box, moment: str) -> str:
    return box.journal("postfix@-", "postfix", since=f"@{moment}")


def moment(box: Box) -> str:
    return box.run("date", "+%s.%N").strip()


def forgotten() -> None:
    """Wait until the other provider looks at DNS anew: its resolver and its OpenDKIM's remember for a second each."""
    time.sleep(2.5)


# --- what the other provider finds ------------------------------------------------------------------------------


def test_a_signature_under_another_key_fails(mx: Box, remote: Box, accounts: Accounts) -> None:
    domain, subject, recipient = domain_of(accounts[mx.name][0]), new_subject(), new_recipient()
    names = [f"{selector}._domainkey.{domain}" for selector in ("rsa1", "ed1")]
    # The keys of the host's own name are keys of the right kind, and not those that signed.
    others = [served(f"{selector}._domainkey.{mx.fqdn}", "TXT") for selector in ("rsa1", "ed1")]
    (rsa, ed25519) = (str(found[0]) for found in others if found)
    with replaced(names[0], "TXT", rsa), replaced(names[1], "TXT", ed25519):
        forgotten()
        send(mx, accounts, recipient, subject)
        found = verdicts(arrived(remote, recipient, subject), "remote.test")
    forgotten()
    assert found.count("dkim=fail") == 2, found
    assert "dkim=pass" not in found, found
    assert "spf=pass" in found, found


def test_mail_from_elsewhere_in_our_name_fails(mx: Box, remote: Box, accounts: Accounts) -> None:
    login, subject, recipient = accounts[mx.name][0], new_subject(), new_recipient()
    from_a_stranger(remote.ipv4, login, recipient, message(login, recipient, subject))
    found = verdicts(arrived(remote, recipient, subject), "remote.test")
    assert {"spf=fail", "dmarc=fail"} <= set(found), found
    assert not {"spf=pass", "dkim=pass", "dmarc=pass"} & set(found), found


def test_an_altered_body_breaks_both_signatures(mx: Box, remote: Box, accounts: Accounts) -> None:
    login, subject, recipient = accounts[mx.name][0], new_subject(), new_recipient()
    send(mx, accounts, recipient, subject)
    raw = arrived(remote, recipient, subject)
    # As it left us: what the other provider wrote above our signatures is none of it.
    signed = raw[raw.index("DKIM-Signature:") :].replace("\r\n", "\n").replace("\n", "\r\n")
    for change, verdict in ((("Hello.", "Hello."), "dkim=pass"), (("Hello.", "Hallo."), "dkim=fail")):
        text, again = signed.replace(*change), new_recipient()
        from_a_stranger(remote.ipv4, login, again, text)
        found = verdicts(arrived(remote, again, subject), "remote.test")
        assert [item for item in found if item.startswith("dkim=")] == [verdict, verdict], found
        assert f"dmarc={verdict[5:]}" in found, found


# --- what we find -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["another", "our own"])
def test_forged_mail_to_us_is_marked(mx: Box, accounts: Accounts, whose: str) -> None:
    login, password = accounts[mx.name]
    sender, subject = "carol@remote.test" if whose == "another" else f"bob@{domain_of(login)}", new_subject()
    forged = f"{mx.fqdn}; spf=pass smtp.mailfrom={sender}; dkim=pass header.d={domain_of(sender)}; dmarc=pass"
    text = message(sender, login, subject, Authentication_Results=forged)
    from_a_stranger(mx.ipv4, sender, login, text)
    raw = until(lambda: read_imap(mx.ipv4, login, password, subject, "Junk"), 60, f"{subject} in Junk")
    found = verdicts(raw, mx.fqdn)
    assert {"spf=fail", "dmarc=fail"} <= set(found), found
    assert not {"spf=pass", "dkim=pass", "dmarc=pass"} & set(found), found
    ours = [value for value in parse(raw).get_all("Authentication-Results", []) if str(value).startswith(mx.fqdn)]
    assert len(ours) == 1, ours
    assert parse(raw)["X-Spam"] == "Yes"
    assert read_imap(mx.ipv4, login, password, subject) is None


# --- DANE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "unused"), [("ipv4", "AAAA"), ("ipv6", "A")])
def test_mail_leaves_from_the_inventorys_address_and_over_verified_tls(
    mx: Box, remote: Box, accounts: Accounts, family: str, unused: str
) -> None:
    subject, recipient, start = new_subject(), new_recipient(), moment(mx)
    with replaced("mail.remote.test", unused):
        forget(mx)
        send(mx, accounts, recipient, subject)
        raw = arrived(remote, recipient, subject)
    forget(mx)
    source, target = getattr(mx, family), getattr(remote, family)
    received = " ".join(str(parse(raw).get_all("Received", [])[0]).split())
    shown = f"IPv6:{source}" if family == "ipv6" else source
    assert received.startswith(f"from {mx.fqdn} ({mx.fqdn} [{shown}])"), received
    log = log_since(mx, start)
    assert f"Verified TLS connection established to mail.remote.test[{target}]:25: TLSv1.3" in log, log


def deferred_and_delivered(
    sender: Box, recipient: str, broken: str, deliver: Callable[[], None], count: Callable[[], int]
) -> str:
    """Mail with a wrong TLSA record at the receiver waits, and comes once when the record is right; why it waited."""
    with replaced(broken, "TLSA", WRONG):
        forget(sender)
        deliver()
        found = until(lambda: waiting(sender, recipient), 60, f"mail for {recipient} in {sender.name}'s queue")
        assert count() == 0
    forget(sender)

    def delivered() -> bool:
        # Asked while Postfix and the resolver start again (forget), the queue may be asked in vain.
        sender.run("postqueue", "-f")
        return count() > 0

    until(delivered, 60, f"mail for {recipient} after the repair")
    until(lambda: idle(sender, recipient), 60, f"nothing for {recipient} in the queue")
    assert count() == 1
    return found["delay_reason"]


def test_our_sender_waits_while_the_others_certificate_does_not_fit(mx: Box, remote: Box, accounts: Accounts) -> None:
    subject, recipient, start = new_subject(), new_recipient(), moment(mx)
    folder = f"/srv/mail/{recipient.partition('@')[0]}/new"
    reason = deferred_and_delivered(
        mx,
        recipient,
        "_25._tcp.mail.remote.test",
        lambda: send(mx, accounts, recipient, subject),
        lambda: len(remote.sh(f"ls {folder} 2>/dev/null", check=False).split()),
    )
    assert "Server certificate not verified" in reason, reason
    assert re.search(f"to=<{recipient}>.*status=deferred", log_since(mx, start))


def test_the_other_provider_waits_while_our_record_does_not_fit(mx: Box, remote: Box, accounts: Accounts) -> None:
    login, password = accounts[mx.name]
    subject = new_subject()
    # An address of its own, which leads to Alice.
    recipient = f"{login.replace('@', f'+{uuid.uuid4().hex[:12]}@')}"
    reason = deferred_and_delivered(
        remote,
        recipient,
        f"_25._tcp.{mx.fqdn}",
        lambda: from_remote(remote, "carol@remote.test", recipient, message("carol@remote.test", recipient, subject)),
        lambda: len(search_imap(mx.ipv4, login, password, subject)),
    )
    assert "Server certificate not verified" in reason, reason


def test_without_tlsa_records_mail_leaves_over_tls_that_nobody_verified(
    mx: Box, remote: Box, accounts: Accounts
) -> None:
    subject, recipient, start = new_subject(), new_recipient(), moment(mx)
    with replaced("_25._tcp.mail.remote.test", "TLSA"):
        forget(mx)
        send(mx, accounts, recipient, subject)
        assert arrived(remote, recipient, subject)
        log = log_since(mx, start)
    forget(mx)
    assert "Untrusted TLS connection established to mail.remote.test[" in log, log
    assert "Verified TLS connection established to mail.remote.test[" not in log, log


def test_a_domain_without_dnssec_and_tls_gets_its_mail(mx: Box, boxes: dict[str, Box], accounts: Accounts) -> None:
    """Its server offers no TLS at all, and its address is the domain's (RFC 5321 §5.1)."""
    client, subject = boxes["client"], new_subject()
    recipient = f"{uuid.uuid4().hex[:12]}@insecure.test"
    # systemd may keep the name of an earlier one for a while.
    unit = f"sink-{subject}"
    client.sh(
        f"install -d -o nobody /tmp/sink && systemd-run --quiet --collect --unit={unit}"
        f" smtp-sink -u nobody -d /tmp/sink/ {client.ipv4}:25 10"
    )
    try:
        send(mx, accounts, recipient, subject)
        until(lambda: client.sh(f"grep -lr {subject} /tmp/sink", check=False), 60, f"{subject} at insecure.test")
        until(lambda: idle(mx, recipient), 60, "an empty queue")
    finally:
        client.sh(f"systemctl stop {unit}; rm -rf /tmp/sink", check=False)


def test_a_domain_whose_dnssec_is_broken_gets_none(mx: Box, accounts: Accounts) -> None:
    recipient = f"{uuid.uuid4().hex[:12]}@bogus.test"
    send(mx, accounts, recipient, new_subject())
    found = until(lambda: waiting(mx, recipient), 60, f"mail for {recipient} in the queue")
    mx.run("postsuper", "-d", found["queue_id"])
    assert "Host or domain name not found" in found["delay_reason"], found
