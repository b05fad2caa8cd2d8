# SPDX-License-Identifier: GPL-3.0-or-later

"""How strict port 25 is: clients with addresses of their own, each with the code and the rule's words that it gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate, make_msgid

import pytest
from clients import Box, message, new_subject, search_imap, talk, until
from conftest import CANARY, HOSTS, Site, Story, lab
from test_repair import changed
from zones import forget, put

OK = "250 2.1.5 Ok"
ADDRESS = {"ipv4": "198.51.100.{}", "ipv6": "2001:db8:51::{}"}
# The lists' names are in the lab's inventory, what they list and how they fare in molecule/lab/pmlab/zones.py.
WHY = "listed for tests"


QUIET = "/run/systemd/system/postmeister-dnsbl.timer.d"


@pytest.fixture(scope="module", autouse=True)
def no_timer(story: Story, boxes: dict[str, Box]) -> Iterator[None]:
    """The lists are tested when a test says so, and not when ten minutes are over."""
    for name in HOSTS:
        # The control: without this it would come within a quarter of an hour.
        until_then = '$(date -d "$(systemctl show -P NextElapseUSecRealtime postmeister-dnsbl.timer)" +%s)'
        assert int(boxes[name].sh(f"echo $(({until_then} - $(date +%s)))")) <= 900
        drop_in = f"printf '[Timer]\\nOnCalendar=\\nOnBootSec=10d\\n' > {QUIET}/lab.conf"
        boxes[name].sh(f"mkdir -p {QUIET} && {drop_in} && systemctl daemon-reload")
        # One that began before ends before the first test.
        run_timer(boxes[name])
    yield
    for name in HOSTS:
        boxes[name].sh(f"rm -r {QUIET} && systemctl daemon-reload")


@pytest.fixture
def client(boxes: dict[str, Box]) -> Box:
    return boxes["client"]


def answer(
    mx: Box,
    client: Box,
    number: int = 90,
    family: str = "ipv4",
    *,
    sender: str = "dave@client.test",
    helo: str = "client.test",
    recipient: str = "",
) -> str:
    """What a client with this address is told at RCPT."""
    lines = [f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient or f'alice@{mx.domain}'}>"]
    source = ADDRESS[family].format(number)
    return talk(getattr(mx, family), 25, lines, at=client, source=source, helo=helo)[0][-1]


def blocked(what: str, by: str) -> str:
    return f"554 5.7.1 Service unavailable; {what} blocked using {by}; {WHY}"


def in_service(box: Box, zone: str) -> bool:
    return f'"{zone}." always_nxdomain' not in box.sh("cat /var/lib/unbound/dnsbl.conf")


def run_timer(box: Box) -> str:
    """The timer's service, by hand; what it said."""
    start = box.sh("date +%s.%N").strip()
    box.run("systemctl", "start", "postmeister-dnsbl.service")
    return box.journal("postmeister-dnsbl", since=f"@{start}")


# --- lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_listed_client_is_refused_with_the_list_s_name_and_reason(mx: Box, client: Box, family: str) -> None:
    address = ADDRESS[family].format(91)
    assert answer(mx, client, 91, family) == blocked(f"Client host [{address}]", "dnsbl.test")
    # The control: the same mail from the same machine, by an address that is on no list
    assert answer(mx, client, 90, family) == OK


def test_a_listed_domain_is_refused_wherever_it_shows(mx: Box, client: Box) -> None:
    told = {
        "sender": answer(mx, client, sender="dave@spammer.test"),
        "helo": answer(mx, client, helo="mail.spammer.test"),
        "reverse name": answer(mx, client, 68),
        "sender, abused": answer(mx, client, sender="dave@abused.test"),
    }
    assert told == {
        "sender": blocked("Sender address [dave@spammer.test]", "dbl.test"),
        "helo": blocked("Helo command [mail.spammer.test]", "dbl.test"),
        "reverse name": blocked("Unverified Client host [mail.spammer.test]", "dbl.test"),
        # 127.0.1.102, a good domain that was abused, is no reason to refuse: the filter leaves it out.
        "sender, abused": OK,
    }


def test_delisting_mail_arrives_and_unknown_recipients_come_first(mx: Box, client: Box) -> None:
    told = {name: answer(mx, client, 91, recipient=f"{name}@{mx.domain}") for name in ("postmaster", "abuse", "nobody")}
    unknown = f"550 5.1.1 <nobody@{mx.domain}>: Recipient address rejected: User unknown in virtual mailbox table"
    assert told == {"postmaster": OK, "abuse": OK, "nobody": unknown}
    assert answer(mx, client, 91, recipient="postmaster") == OK


def test_a_list_with_a_key_works_and_the_key_stays_secret(mx: Box, client: Box) -> None:
    said = answer(mx, client, 73)
    assert said == blocked("Client host [198.51.100.73]", "keyed.test")
    key = "canary-dqs-[a-z0-9]*"
    assert CANARY.findall(said) == []
    assert mx.sh(f"journalctl --no-pager -o cat | grep -c -e '{key}' || true").strip() == "0"
    found = mx.sh(f"grep -rlsI -e '{key}' /etc /var/lib /run /usr/local || true").split()
    assert found == ["/etc/unbound/aliases/keyed.test"]
    assert mx.sh(f"stat -c '%a %U %G' {found[0]}").strip() == "640 root unbound"


def test_a_list_s_new_source_is_tested_before_it_counts(site: Site, boxes: dict[str, Box]) -> None:
    """Nothing else changes, so the run must not take the rest of the host for settled."""
    mx = boxes["mx"]
    assert in_service(mx, "keyed.test")
    steps = {"Configure Unbound, the host's only resolver", "Test the DNS lists, now and every ten minutes"}
    # Names that do not exist: the list lists nothing, not even what it must.
    run = site.play("-v", "-l", "mx", extra={"mailserver_list_sources": {"keyed.test": "no-list.remote.test"}})
    assert run.rc == 0 and steps <= changed(run, "mx"), run.failed_because()
    assert "list out of service: keyed.test" in run.output and not in_service(mx, "keyed.test")
    back = site.play("-v", "-l", "mx")
    assert steps <= changed(back, "mx") and in_service(mx, "keyed.test"), back.failed_because()


def test_lists_that_failed_their_test_are_not_used(mx: Box, client: Box) -> None:
    configured = mx.sh("postconf -h smtpd_recipient_restrictions")
    for zone, state in (("always.test", "everything"), ("refusing.test", "refused")):
        # Postfix asks, the list answers the rest of the world, and this host hears nothing.
        assert f"reject_rbl_client {zone}=" in configured
        name = f"90.100.51.198.{zone}"
        assert client.sh(f"dig +short {name}").startswith("127.")
        assert mx.sh(f"getent ahosts {name} || echo none").strip() == "none"
        assert f'"state": "{state}"' in mx.sh(f"grep -A 6 '\"{zone}\"' /var/lib/postmeister/dnsbl/status.json")
    assert answer(mx, client) == OK


def test_the_operator_s_error_code_rejects_nothing_even_in_service(mx: Box, client: Box) -> None:
    start = mx.sh("date +%s").strip()
    mx.sh("sed -i '/refusing.test/d' /var/lib/unbound/dnsbl.conf")
    forget(mx)
    try:
        assert mx.sh("getent ahostsv4 90.100.51.198.refusing.test").split()[0] == "127.255.255.254"
        assert answer(mx, client) == OK
        log = mx.journal("postfix@-", "postfix", since=f"@{start}")
        assert "reject_warning: RCPT from client.test[198.51.100.90]" in log
        assert "blocked using refusing.test" in log
    finally:
        said = run_timer(mx)
    assert "refusing.test is out of service: it refuses to answer this resolver" in said
    assert not in_service(mx, "refusing.test")


def test_a_list_whose_servers_are_gone_is_noticed(mx: Box) -> None:
    """By the code that the timer runs, on a list that none of the others has to wait for."""
    script = """
from dnsbl._policy import health, lists
item = lists.BlockList.parse({"zone": "silent.test", "replies": "127.0.0.2", "checks": ["client"]})
print(*health.look([item])["silent.test"])
"""
    found = mx.run("env", "PYTHONPATH=/usr/local/lib/postmeister", "PYTHONDONTWRITEBYTECODE=1", "python3", "-c", script)
    assert found.startswith("silent no answer for ")


# --- a list that dies -------------------------------------------------------------------------------------------


@contextmanager
def sold(hosts: list[Box]) -> Iterator[None]:
    """The list's domain was sold: its entries are gone, and every name has an address."""
    lines = lab("zone", "mortal.test").splitlines()
    names = {line.split()[0] for line in lines if " A " in line or " TXT " in line}
    try:
        for name in names:
            for kind in ("A", "TXT"):
                put(f"{name}.mortal.test", kind, [])
        put("*.mortal.test", "A", ["127.0.0.2"])
        yield
    finally:
        lab("zone", "mortal.test", "--reset")
        for box in hosts:
            forget(box)


def test_a_list_that_dies_in_service_stops_rejecting_and_comes_back(
    story: Story, site: Site, boxes: dict[str, Box], client: Box, accounts: dict[str, tuple[str, str]]
) -> None:
    hosts = [boxes[name] for name in HOSTS]
    for box in hosts:
        assert answer(box, client, 69) == blocked("Client host [198.51.100.69]", "mortal.test")
        assert answer(box, client) == OK
    configuration = [box.sh("sha256sum /etc/postfix/* 2>/dev/null || true") for box in hosts]
    with sold(hosts):
        for box in hosts:
            forget(box)
            # Now it rejects the world.
            assert answer(box, client).startswith("554 5.7.1 Service unavailable; Client host [198.51.100.90] blocked")
            said = run_timer(box)
            assert "mortal.test is out of service: it lists what must never be listed" in said
            assert [answer(box, client), answer(box, client, 69), answer(box, client, 69, "ipv6")] == [OK] * 3
            # The others go on.
            assert answer(box, client, 91) == blocked("Client host [198.51.100.91]", "dnsbl.test")
        again = site.play()
        assert {name: again.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0), again.failed_because()
        assert "list out of service: mortal.test: it lists what must never be listed" in again.output
        # A restart of the resolver does not bring it back.
        boxes["mx"].run("systemctl", "restart", "unbound")
        assert answer(boxes["mx"], client) == OK
    for box in hosts:
        assert answer(box, client, 69) == OK
        assert "mortal.test passed its test and is in service again" in run_timer(box)
        assert answer(box, client, 69) == blocked("Client host [198.51.100.69]", "mortal.test")
    for box in hosts:
        until(lambda box=box: told_root(box, accounts), 60, f"{box.name}: mail to root, both times")
    assert configuration == [box.sh("sha256sum /etc/postfix/* 2>/dev/null || true") for box in hosts]


def told_root(box: Box, accounts: dict[str, tuple[str, str]]) -> bool:
    found = b"".join(search_imap(box.ipv4, *accounts[box.name], "mortal.test"))
    return b"mortal.test is out of service: it lists" in found and b"mortal.test passed its test" in found


# --- names ------------------------------------------------------------------------------------------------------


def test_names_that_do_not_exist(mx: Box, client: Box) -> None:
    no_name = "550 5.7.1 Client host rejected: cannot find your reverse hostname, [{}]"
    domain = "<{0}@{1}>: Sender address rejected: {2}"
    told = {
        "no reverse name": answer(mx, client, 66),
        "no reverse name, IPv6": answer(mx, client, 66, "ipv6"),
        "neither MX nor address": answer(mx, client, sender="dave@nothing.test"),
        "no such domain": answer(mx, client, sender="dave@nowhere.test"),
        "null MX": answer(mx, client, sender="dave@nullmx.test"),
        # A fault of DNS may be over later.
        "bogus": answer(mx, client, sender="dave@bogus.test"),
        "HELO without a dot": answer(mx, client, helo="laptop"),
        "HELO that is none": answer(mx, client, helo="a_b..test"),
        "sender without a domain": answer(mx, client, sender="dave"),
        # Its name leads elsewhere: many good hosts are like that, so the preset asks only for a name.
        "unconfirmed": answer(mx, client, 67),
    }
    assert told == {
        "no reverse name": no_name.format("198.51.100.66"),
        "no reverse name, IPv6": no_name.format("2001:db8:51::66"),
        "neither MX nor address": "550 5.1.8 " + domain.format("dave", "nothing.test", "Domain not found"),
        "no such domain": "550 5.1.8 " + domain.format("dave", "nowhere.test", "Domain not found"),
        "null MX": "550 5.7.27 "
        + domain.format("dave", "nullmx.test", "Domain nullmx.test does not accept mail (nullMX)"),
        "bogus": "450 4.1.8 " + domain.format("dave", "bogus.test", "Domain not found"),
        "HELO without a dot": "504 5.5.2 <laptop>: Helo command rejected: need fully-qualified hostname",
        "HELO that is none": "501 5.5.2 <a_b..test>: Helo command rejected: Invalid name",
        "sender without a domain": "504 5.5.2 <dave>: Sender address rejected: need fully-qualified address",
        "unconfirmed": OK,
    }


# --- greylist ---------------------------------------------------------------------------------------------------

# Only mail to sub-addresses that begin with grey meets the greylist of the lab, see its inventory.
LATER = "450 4.2.0 <{}>: Recipient address rejected: Greylisted, please try again later"


def tagged(mx: Box, tag: str = "") -> str:
    """A recipient of its own, so that nobody wrote to it before."""
    return f"alice+grey{tag or new_subject()[5:]}@{mx.domain}"


def delivered(mx: Box, accounts: dict[str, tuple[str, str]], subject: str) -> int:
    return len(search_imap(mx.ipv4, *accounts[mx.name], subject))


def sends(mx: Box, client: Box, recipient: str, subject: str) -> str:
    """A whole message from a stranger; the last answer."""
    text = message(
        "dave@client.test", recipient, subject, Date=formatdate(), Message_ID=make_msgid(domain="client.test")
    )
    lines = ["MAIL FROM:<dave@client.test>", f"RCPT TO:<{recipient}>", "DATA", text]
    return talk(mx.ipv4, 25, lines, at=client, source="198.51.100.90")[0][-1]


def test_who_comes_back_is_let_in_and_a_bot_is_not(mx: Box, client: Box, accounts: dict[str, tuple[str, str]]) -> None:
    subject, recipient, of_bot = new_subject(), tagged(mx), tagged(mx)
    assert answer(mx, client, recipient=recipient) == LATER.format(recipient)
    bot = talk(mx.ipv4, 25, ["MAIL FROM:<dave@client.test>", f"RCPT TO:<{of_bot}>", "DATA"], at=client)[0]
    assert bot[1:] == [LATER.format(of_bot), "554 5.5.1 Error: no valid recipients"]
    until(lambda: answer(mx, client, recipient=recipient) == OK, 60, "the end of the delay")
    assert sends(mx, client, recipient, subject).startswith("250 2.0.0 Ok: queued as")
    until(lambda: delivered(mx, accounts, subject), 60, "the mail of the one who came back")
    # Who does not come back leaves nothing but the refusal, and never gets past it.
    told = [line for line in mx.journal("postfix@-", "postfix").splitlines() if of_bot in line]
    assert told and not [line for line in told if "status=sent" in line]


def test_a_code_does_not_wait(mx: Box, client: Box, accounts: dict[str, tuple[str, str]]) -> None:
    subject = new_subject()
    assert sends(mx, client, tagged(mx, "code"), subject).startswith("250 2.0.0 Ok: queued as")
    until(lambda: delivered(mx, accounts, subject), 60, "the code")


def test_a_big_provider_is_not_delayed_whatever_address_it_uses(mx: Box, client: Box) -> None:
    names = {(number, family): tagged(mx) for number in (70, 71) for family in ADDRESS}
    sender = f"{new_subject()}@big.test"
    told = {key: answer(mx, client, *key, sender=sender, recipient=name) for key, name in names.items()}
    assert told == dict.fromkeys(names, OK)
    # The control: its name alone, which anybody can write
    forged = tagged(mx)
    assert answer(mx, client, 90, sender=sender, recipient=forged) == LATER.format(forged)


@pytest.mark.parametrize("how", ["stop", "kill --signal=STOP"], ids=["stopped", "hanging"])
def test_without_postgrey_mail_arrives(mx: Box, client: Box, accounts: dict[str, tuple[str, str]], how: str) -> None:
    mx.sh(f"systemctl stop postmeister-greylist.timer postmeister-greylist.service; systemctl {how} postgrey")
    try:
        # On a busy machine a second one may be quicker.
        for _turn in range(2):
            subject, began = new_subject(), time.monotonic()
            said = sends(mx, client, tagged(mx), subject)
            if time.monotonic() < began + 10:
                break
        assert said.startswith("250 2.0.0 Ok: queued as")
        assert time.monotonic() < began + 10
        until(lambda: delivered(mx, accounts, subject), 60, "the mail")
    finally:
        mx.sh("systemctl kill --signal=CONT postgrey; systemctl start postgrey postmeister-greylist.timer")
    # The control: with it, strangers wait.
    until(lambda: answer(mx, client, recipient=tagged(mx)).startswith("450 4.2.0 "), 60, "the greylist")


def test_a_greylist_that_cannot_be_meant_is_refused_first(story: Story, site: Site) -> None:
    """The rest of what is refused is in test_runs.py and in tests/greylist."""
    wrong = {
        "postgrey_delay": "-5m",
        "postgrey_exempt_clients": ["198.51.100.0/24", "198.51.100.300"],
        "mailserver_never_delay": ["big..test"],
    }
    run = site.play(extra=wrong)
    assert run.rc != 0
    assert {name: run.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0)
    for words in (
        "postgrey_delay: '-5m' is not longer than nothing",
        "postgrey_exempt_clients[1]: '198.51.100.300' is no address and no network",
        "mailserver_never_delay[0]: 'big..test' is no domain",
    ):
        assert words in run.output, run.failed_because()


def test_the_lists_come_before_the_greylist(mx: Box, client: Box) -> None:
    assert answer(mx, client, 91, recipient=tagged(mx)) == blocked("Client host [198.51.100.91]", "dnsbl.test")
