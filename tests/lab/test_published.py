# SPDX-License-Identifier: GPL-3.0-or-later

"""What the zones hold, by signed answers, and whom a domain belongs to while it comes, moves in, and goes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.reversename
import pytest
from clients import Box, message, new_subject, parse, search_imap, talk, trusting, until
from conftest import Run, Site, Story
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from test_controls import arrived, new_recipient, send, waiting
from zones import ask, exists, forget, put, replaced, served


@dataclass(frozen=True)
class Published:
    """What the inventory asks for: domains with their DMARC policy, and what is offered."""

    domains: dict[str, str]
    managesieve: bool


INVENTORY = {
    "mx": Published({"example.test": "quarantine"}, managesieve=False),
    "mx12": Published({"example12.test": "quarantine", "second12.test": "reject"}, managesieve=True),
}
SELECTORS = {"rsa1": "rsa", "ed1": "ed25519"}
SERVICES = {
    "submissions": "0 1 465",
    "submission": "10 1 587",
    "imaps": "0 1 993",
    "pop3s": "20 1 995",
    "imap": "",
    "pop3": "",
}


def names(mx: Box) -> list[str]:
    """The domains of a host, and its own name."""
    return [*INVENTORY[mx.name].domains, mx.fqdn]


def texts(name: str) -> list[str]:
    """The TXT records there, their strings joined as receivers do (RFC 7208 §3.3)."""
    return ["".join(re.findall(r'"([^"]*)"', value)) for value in ask(name, "TXT")]


# --- records ----------------------------------------------------------------------------------------------------


def test_mail_goes_to_the_host_and_nowhere_else(mx: Box) -> None:
    for domain in INVENTORY[mx.name].domains:
        assert ask(domain, "MX") == [f"10 {mx.fqdn}."], domain
    assert (ask(mx.fqdn, "A"), ask(mx.fqdn, "AAAA")) == ([mx.ipv4], [mx.ipv6])


def test_names_and_addresses_confirm_each_other(mx: Box) -> None:
    for address in (mx.ipv4, mx.ipv6):
        assert ask(dns.reversename.from_address(address).to_text(), "PTR") == [f"{mx.fqdn}."]


def test_spf_names_the_exact_addresses(mx: Box, boxes: dict[str, Box]) -> None:
    wanted = f"v=spf1 ip4:{mx.ipv4} ip6:{mx.ipv6} -all"
    for name in names(mx):
        assert texts(name) == [wanted], name
    # pyspf, an evaluator of others: our addresses may, the next one may not.
    script = "import spf; print(*[spf.check2(i=i, s=s, h=s)[0] for s in {} for i in {}])"
    asked = script.format([f"a@{name}" for name in names(mx)], [mx.ipv4, mx.ipv6, boxes["client"].ipv4])
    assert boxes["client"].run("python3", "-c", asked).split() == ["pass", "pass", "fail"] * len(names(mx))


def public_key(mx: Box, name: str, selector: str) -> str:
    """The public half of the private key on the host, by openssl alone, as a DKIM record has it."""
    path = f"/etc/postmeister/dkim/{name}/{selector}.key"
    if SELECTORS[selector] == "rsa":
        return mx.sh(f"openssl pkey -in {path} -pubout -outform DER | base64 -w0")
    # The file holds the seed and more; before the seed DER has 16 bytes that are always the same (RFC 8410 §7).
    der = r"printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'"
    seed = f"base64 -d {path} | head -c 32"
    return mx.sh(f"({der}; {seed}) | openssl pkey -inform DER -pubout -outform DER | tail -c 32 | base64 -w0")


def test_dkim_records_are_the_hosts_keys(mx: Box) -> None:
    for name in names(mx):
        for selector, kind in SELECTORS.items():
            wanted = f"v=DKIM1; k={kind}; p={public_key(mx, name, selector)}"
            assert texts(f"{selector}._domainkey.{name}") == [wanted], f"{selector} {name}"
        # Two keys, not the same one twice; and the name between is no NXDOMAIN, which internet.nl looks for.
        assert len({public_key(mx, name, selector) for selector in SELECTORS}) == 2
        assert exists(f"_domainkey.{name}")
        assert not exists(f"_nodomainkey.{name}")


def test_long_texts_are_split(mx: Box) -> None:
    for name in names(mx):
        rrset = served(f"rsa1._domainkey.{name}", "TXT")
        assert rrset is not None
        lengths = [len(string) for string in rrset[0].strings]
        assert sum(lengths) > 255
        assert max(lengths) <= 255, lengths


def test_dmarc_is_that_of_rfc_9989(mx: Box, boxes: dict[str, Box]) -> None:
    policies = {**INVENTORY[mx.name].domains, mx.fqdn: "reject"}
    found = {name: texts(f"_dmarc.{name}") for name in policies}
    assert found == {name: [f"v=DMARC1; p={policy}"] for name, policy in policies.items()}
    for name, policy in policies.items():
        assert f"Domain policy: {policy}\n" in boxes["client"].run("opendmarc-check", name)


def test_only_our_authority_may_issue_for_the_host(mx: Box) -> None:
    assert ask(mx.fqdn, "CAA") == ['0 issue "ca.test"', '0 issuewild ";"']
    # The rest of the domain is not ours to say.
    for domain in INVENTORY[mx.name].domains:
        assert ask(domain, "CAA") == [], domain


def test_clients_find_what_is_offered_and_see_what_is_not(mx: Box) -> None:
    services = {**SERVICES, "sieve": "0 1 4190" if INVENTORY[mx.name].managesieve else ""}
    for domain in INVENTORY[mx.name].domains:
        found = {service: ask(f"_{service}._tcp.{domain}", "SRV") for service in services}
        assert found == {
            service: [f"{where} {mx.fqdn}." if where else "0 0 0 ."] for service, where in services.items()
        }


# --- DANE -------------------------------------------------------------------------------------------------------


def served_certificate(mx: Box) -> x509.Certificate:
    with smtplib.SMTP(mx.ipv4, 25, local_hostname="gateway.test", timeout=60) as client:
        client.starttls(context=trusting())
        assert isinstance(client.sock, ssl.SSLSocket)
        return x509.load_der_x509_certificate(client.sock.getpeercert(binary_form=True) or b"")


def test_the_keys_of_now_and_of_later_are_published(mx: Box) -> None:
    key = served_certificate(mx).public_key()
    now = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    path = f"/etc/ssl/postmeister/{mx.fqdn}/next.key"
    later = hashlib.sha256(
        base64.b64decode(mx.sh(f"openssl pkey -in {path} -pubout -outform DER | base64"))
    ).hexdigest()
    assert now != later
    assert ask(f"_25._tcp.{mx.fqdn}", "TLSA") == sorted(f"3 1 1 {digest}" for digest in (now, later))


def test_ldns_dane_agrees(mx: Box, boxes: dict[str, Box]) -> None:
    client = boxes["client"]
    pem = served_certificate(mx).public_bytes(Encoding.PEM).decode()
    verify = (
        "cat > /tmp/served.pem; ldns-dane -c /tmp/served.pem -n -T verify {} 25; echo status $?; rm /tmp/served.pem"
    )

    def verified(name: str) -> bool:
        said = client.run("sh", "-c", verify.format(name), stdin=pem)
        assert re.search(r"status [01]$", said.strip()), said
        return "dane-validated successfully" in said and said.strip().endswith("status 0")

    assert verified(mx.fqdn)
    # The control: another host's records do not fit this certificate.
    assert not verified("mail.remote.test")


# --- a domain comes, moves in, and goes ---------------------------------------------------------------------------

FOREIGN = {
    ("second.test", "MX"): ["5 mail.elsewhere.test."],
    ("second.test", "TXT"): ['"v=spf1 include:elsewhere.test -all"', '"google-site-verification=abc"'],
    ("_dmarc.second.test", "TXT"): ['"v=DMARC1; p=none"'],
}
VERIFICATION = "google-site-verification=abc"
MAILBOXES = [
    {"address": "alice@example.test", "password": "{{ vault_alice }}", "quota": "5G"},
    {"address": "bob@example.test", "password": "{{ vault_bob }}"},
]
# Alice of the other domain is somebody else.
OTHER = {"address": "alice@second.test", "password": "{{ vault_bob }}"}


def zone() -> dict[tuple[str, str], list[str]]:
    """What second.test holds at the names that matter here."""
    owners = [("second.test", "MX"), ("second.test", "TXT"), ("_dmarc.second.test", "TXT")]
    owners += [(f"{selector}._domainkey.second.test", "TXT") for selector in SELECTORS]
    owners += [(f"_{service}._tcp.second.test", "SRV") for service in SERVICES]
    return {key: found for key in owners if (found := ask(*key))}


def serial() -> str:
    found = served("second.test", "SOA")
    return str(found)


@dataclass(frozen=True)
class Second:
    """second.test on mx."""

    site: Site
    mx: Box

    def play(self, state: str, *mailboxes: dict[str, Any], **further: Any) -> Run:
        domains = [{"name": "example.test"}, {"name": "second.test", "state": state}]
        extra = {"mailserver_domains": domains, "mailserver_mailboxes": [*MAILBOXES, *mailboxes], **further}
        return self.site.play("-l", "mx", "--diff", extra=extra)

    def rcpt(self, recipient: str) -> str:
        commands = ["EHLO gateway.test", "MAIL FROM:<dave@client.test>", f"RCPT TO:<{recipient}>", "QUIT"]
        return talk(self.mx.ipv4, 25, commands, tls=False)[0][2]

    def mail(self) -> list[str]:
        """The other Alice's mail on the host's disk."""
        return self.mx.sh("find /var/vmail/second.test/alice -type f -path '*/new/*' 2>/dev/null || true").split()


@pytest.fixture(scope="module")
def second(story: Story, site: Site, boxes: dict[str, Box]) -> Iterator[Second]:
    mx = boxes["mx"]
    for (name, rrtype), values in FOREIGN.items():
        put(name, rrtype, values)
    yield Second(site, mx)
    for name, rrtype in {**FOREIGN, **zone()}:
        put(name, rrtype, [])
    if "second.test" in mx.sh("cat /etc/postmeister/directory/directory.json"):  # a test above failed
        site.play("-l", "mx", extra={"mailserver_purge_limit": 100})
    mx.sh("rm -rf /var/vmail/second.test /etc/postmeister/dkim/second.test")


def without(pointer: str, second: Second) -> None:
    put(pointer, "PTR", [])
    # It may remember the record, as everybody may.
    second.mx.run("unbound-control", "flush_zone", "ip6.arpa")


@pytest.fixture(scope="module")
def pointer(second: Second) -> Iterator[str]:
    """The name of mx' IPv6 address in the reverse tree, whose PTR record another test takes away."""
    name = dns.reversename.from_address(second.mx.ipv6).to_text()
    yield name
    put(name, "PTR", [f"{second.mx.fqdn}."], 60)


def test_a_staged_domain_takes_mail_and_publishes_nothing(
    second: Second, accounts: dict[str, tuple[str, str]], others: dict[str, tuple[str, str]], pointer: str
) -> None:
    before = serial()
    # For the test below, which needs a run
    without(pointer, second)
    run = second.play("staged", OTHER)
    assert run.rc == 0, run.failed_because()
    assert serial() == before
    subject = new_subject()
    with smtplib.SMTP(second.mx.ipv4, 25, local_hostname="gateway.test", timeout=60) as client:
        client.sendmail("dave@client.test", OTHER["address"], message("dave@client.test", OTHER["address"], subject))
    until(second.mail, 60, "mail for the other Alice")
    # The same local part in two domains: two mailboxes, two passwords.
    password = others["mx"][1]
    assert len(search_imap(second.mx.ipv4, OTHER["address"], password, subject)) == 1
    assert search_imap(second.mx.ipv4, *accounts["mx"], subject) == []


def test_without_a_ptr_record_mail_leaves_over_ipv4_only(
    second: Second, remote: Box, accounts: dict[str, tuple[str, str]], pointer: str
) -> None:
    if ask(pointer, "PTR"):  # this test alone
        without(pointer, second)
        assert second.play("staged", OTHER).rc == 0
    assert second.mx.run("postconf", "-h", "outgoing_protocols").strip() == "ipv4"
    # A receiver with addresses of both kinds, and the control: over which one it would be by chance.
    subject, recipient = new_subject(), new_recipient()
    send(second.mx, accounts, recipient, subject)
    received = " ".join(str(parse(arrived(remote, recipient, subject)).get_all("Received", [])[0]).split())
    assert f"[{second.mx.ipv4}]" in received, received
    # One with IPv6 only has to wait for the record.
    with replaced("mail.remote.test", "A"):
        forget(second.mx)
        subject, recipient = new_subject(), new_recipient()
        send(second.mx, accounts, recipient, subject)
        until(lambda: waiting(second.mx, recipient), 60, f"mail for {recipient} in the queue")
    forget(second.mx)
    second.mx.run("postqueue", "-f")
    assert arrived(remote, recipient, subject)
    # It still arrives over both.
    assert talk(second.mx.ipv6, 25, ["EHLO gateway.test", "QUIT"], tls=False)[0][0].startswith("250")
    # The runs below find it again.
    put(pointer, "PTR", [f"{second.mx.fqdn}."], 60)


def test_records_of_others_stop_the_run_before_anything_is_touched(second: Second) -> None:
    before = serial()
    run = second.play("active", OTHER)
    assert run.rc != 0
    assert run.stats["mx"]["changed"] == 0
    assert serial() == before
    # By name, as a diff, and with what helps.
    for words in (
        "MX second.test.",
        "TXT second.test.",
        "TXT _dmarc.second.test.",
        "5 mail.elsewhere.test.",
        "include:elsewhere.test",
        "takeover",
    ):
        assert words in run.output, run.failed_because()


def test_they_are_taken_over_when_asked_for_and_a_verification_stays(second: Second) -> None:
    run = second.play("active", OTHER, mailserver_dns_takeover=True)
    assert run.rc == 0, run.failed_because()
    # With the PTR record that is there again
    assert second.mx.run("postconf", "-h", "outgoing_protocols").strip() == "all"
    # The domain's keys were in DNS before anything was signed with them.
    before = run.output.partition(": Set up Dovecot, Redis, rspamd, Postfix and the bans]")[0]
    assert all(f"{selector}._domainkey.second.test" in before for selector in SELECTORS), run.failed_because()
    found = zone()
    assert found["second.test", "MX"] == [f"10 {second.mx.fqdn}."]
    spf = f"v=spf1 ip4:{second.mx.ipv4} ip6:{second.mx.ipv6} -all"
    assert sorted(texts("second.test")) == sorted([VERIFICATION, spf])
    assert texts("_dmarc.second.test") == ["v=DMARC1; p=quarantine"]
    assert len(found) == 5 + len(SERVICES)


def test_what_was_published_is_remembered_though_a_server_is_late(
    second: Second, boxes: dict[str, Box], tmp_path: Path
) -> None:
    late = boxes["client"].ipv4  # no name server
    given = {
        **{
            f"mail_dns_{name}": f"{{{{ mailserver_dns_{name} }}}}"
            for name in ("provider", "server", "key_name", "key_secret")
        },
        "mail_dns_records": [{"name": "late.second.test", "type": "TXT", "values": ["late"]}],
        "mail_dns_withdraw": False,
        "mail_dns_wait": 1,
        "mail_dns_wait_servers": [late],
    }
    role = {"ansible.builtin.import_role": {"name": "postmeister.host.mail_dns"}, "vars": given}
    play = tmp_path / "late.yml"
    play.write_text(json.dumps([{"hosts": "mx", "gather_facts": False, "become": True, "tasks": [role]}]))
    run = second.site.play("-l", "mx", playbook=str(play))
    assert run.rc != 0 and late in run.output, run.failed_because()
    assert "late.second.test" in second.mx.sh("cat /etc/ansible/facts.d/postmeister_dns.fact")
    # So the run below withdraws it.
    assert ask("late.second.test", "TXT") == ['"late"']


def test_of_an_absent_domain_the_mail_on_disk_stays(second: Second) -> None:
    mail = second.mail()
    assert mail
    # Only left out, it may be a line that got lost: a whole domain is more than a purge lets go.
    run = second.site.play("-l", "mx")
    assert run.rc != 0
    assert "second.test" in run.output and "purge_limit" in run.output, run.failed_because()
    assert ask("second.test", "MX")
    run = second.play("absent")
    assert run.rc == 0, run.failed_because()
    assert zone() == {("second.test", "TXT"): [f'"{VERIFICATION}"']}
    assert ask("late.second.test", "TXT") == []
    assert not second.mx.run("doveadm", "user", "-f", "home", OTHER["address"], check=False)
    # trivial-rewrite(8), which knows whose a domain is, looks every ten seconds whether its tables changed.
    until(lambda: second.rcpt(OTHER["address"]).startswith("554 5.7.1"), 30, second.rcpt(OTHER["address"]))
    assert "second.test" not in second.mx.sh("grep -rl second.test /etc/postmeister/directory /etc/rspamd || true")
    assert second.mail() == mail


def test_afterwards_the_host_is_as_the_inventory_says(second: Second) -> None:
    run = second.site.play("-l", "mx", "--diff")
    assert run.rc == 0, run.failed_because()
    assert run.stats["mx"]["changed"] == 0, run.failed_because()
