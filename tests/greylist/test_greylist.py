# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Greylisting on both releases: who waits, who does not, and what happens when postgrey does not answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import DELAY, SITE, Host, Hosts

ALICE, BOB, HELPDESK = "alice@example.test", "bob@example.test", "helpdesk@example.test"
STRANGER = "198.18.1.1"
WAIT = "450 4.2.0 <{}>: Recipient address rejected: Greylisted, please try again later"
#: what an operator might get wrong, and what he is told
BAD = {
    "postgrey_delay": ("-5m", "postgrey_delay: '-5m' is not longer than nothing"),
    "postgrey_retry_window": ("90m", "postgrey_retry_window: '90m' is not a number of whole hours"),
    "postgrey_lifetime": ("35", "postgrey_lifetime: '35' is no duration; 300s, 5m, 48h and 35d are"),
    "postgrey_ipv4_prefix": (33, "postgrey_ipv4_prefix: 33 is no number from 8 to 32"),
    "postgrey_address": ("198.51.100.25", "postgrey_address: '198.51.100.25' is not this machine's own"),
    "postgrey_exempt_clients": (
        ["198.51.100.0/24", "198.51.100.300", "198.51.100.7/24", "10.1", "/a b/"],
        "postgrey_exempt_clients[1]: '198.51.100.300' is no address and no network",
        "postgrey_exempt_clients[2]: '198.51.100.7/24' has host bits set; 198.51.100.0/24 is the network",
        "postgrey_exempt_clients[3]: '10.1' is no address and no network",
        "postgrey_exempt_clients[4]: '/a b/' begins with a slash and is no regular expression",
    ),
    "postgrey_exempt_recipients": (
        [ALICE, "alice@@example.test", "*@"],
        "postgrey_exempt_recipients[1]: 'alice@@example.test' is no address",
        "postgrey_exempt_recipients[2]: '*@' would exempt everybody",
    ),
    "postgrey_domains": (["localhost"], "postgrey_domains[0]: 'localhost' is no domain"),
}


def told(host: Host, source: str, sender: str, recipient: str) -> str:
    """The answer to one recipient, as the log has it."""
    code, words = host.write(source, sender, recipient).answers[0]
    return f"{code} {words}"


def both(hosts: Hosts, *options: str, **variables: object) -> None:
    """Run site.yml on both machines side by side."""
    with ThreadPoolExecutor(2) as pool:
        for run in pool.map(lambda each: each.play(SITE, *options, **variables), hosts.by_release.values()):
            run.good()


def settle(host: Host, since: float, more: float = 0.5) -> None:
    """Until a triplet that was first seen then has waited long enough."""
    time.sleep(max(0.0, since + DELAY + more - time.monotonic()))


def test_check_mode_on_a_bare_host_promises_and_touches_nothing(hosts: Hosts, host: Host) -> None:
    run, left = hosts.checked[host.release], hosts.before[host.release]
    assert run.rc == 0, run.output[-3000:]
    assert run.stats["changed"] > 0
    assert "+198.18.9.0/24" in run.output
    assert "no packages found" in left
    assert "postmeister" not in left.replace("'/var/lib/postmeister'", "")


def test_who_comes_back_is_let_in_and_a_bot_never_is(hosts: Hosts, host: Host) -> None:
    # and who comes back too early; on a busy machine another one, who is not too late for that
    for name in ("early", "hasty", "rash"):
        sessions = host.sessions(2, STRANGER, f"{name}@stranger.test", ALICE)
        if sum(session.seconds for session in sessions) < DELAY - 1:
            break
    for session in sessions:
        assert session.answers == [(450, WAIT.format(ALICE).partition(" ")[2])]
    assert told(host, STRANGER, "news@stranger.test", ALICE) == WAIT.format(ALICE)
    assert told(host, "198.18.2.1", "bot@stranger.test", ALICE) == WAIT.format(ALICE)
    assert told(host, "2001:db8:55::1", "six@stranger.test", ALICE) == WAIT.format(ALICE)
    began = time.monotonic()
    settle(host, began)
    # from another address of the network, /24 and /64
    assert host.write("198.18.1.2", "news@stranger.test", ALICE, subject="came back").codes == [250, 250]
    assert host.write("2001:db8:55::2", "six@stranger.test", ALICE, subject="came back by IPv6").codes == [250, 250]
    # the same sender for another recipient, or from another network, is unknown
    assert host.write(STRANGER, "news@stranger.test", BOB).codes == [450]
    assert host.write("2001:db8:56::1", "six@stranger.test", ALICE).codes == [450]
    (message,) = host.delivered("came back by IPv6")
    (message,) = host.delivered("came back\r")
    assert message["to"] == [ALICE]
    assert "X-Greylist: delayed " in message["text"]
    assert "bot@stranger.test" not in host.sh("cat /run/peers/got/*.json")


def test_nobody_waits_for_a_code(host: Host) -> None:
    for recipient in ("login+bank@example.test", "Login+Shop@example.test", HELPDESK, "helpdesk+tag@example.test"):
        sender = f"code-{recipient.partition('@')[0]}@stranger.test"
        assert host.write("198.18.2.1", sender, recipient).codes == [250, 250]
    # the sub-addresses are spared, and not the address
    assert host.write("198.18.2.1", "code@stranger.test", "login@example.test").codes == [450]
    # one message, two recipients: each for himself
    assert host.write("198.18.2.1", "two@stranger.test", HELPDESK, BOB).codes == [250, 450, 250]


def test_exempt_clients_do_not_wait(host: Host) -> None:
    assert host.write("198.18.9.9", "any@stranger.test", BOB).codes == [250, 250]
    # by its confirmed reverse name; the same sender from elsewhere waits
    assert host.write("198.18.10.1", "teller@bank.test", BOB).codes == [250, 250]
    assert host.write("198.18.2.1", "teller@bank.test", BOB).codes == [450]


def test_postmaster_and_abuse_do_not_wait(host: Host) -> None:
    assert host.write("198.18.2.1", "who@stranger.test", "postmaster@example.test").codes == [250, 250]


def test_a_big_provider_is_not_delayed_whatever_address_it_uses(host: Host) -> None:
    # The first question starts the program that answers it; a busy machine may take longer for that than Postfix waits.
    host.write("198.18.71.1", "first@big.test", ALICE)
    for source in ("198.18.71.1", "198.18.72.1", "2001:db8:71::1"):
        assert host.write(source, "noreply@big.test", ALICE).codes == [250, 250]
    # one below it with a record of its own; two recipients of one message
    assert host.write("198.18.72.1", "code@mail.big.test", ALICE, BOB).codes == [250, 250, 250]


def test_the_address_alone_does_not_suffice(host: Host) -> None:
    # from an address that big.test does not send from
    assert told(host, "198.18.2.1", "forged@big.test", ALICE) == WAIT.format(ALICE)
    # SPF passes, and the domain is not on the list
    assert host.write("198.18.3.1", "me@honest.test", ALICE).codes == [450]
    # a name that only looks like one below it
    assert host.write("198.18.71.1", "x@notbig.test", ALICE).codes[0] in (450, 550)


def test_the_lists_change_and_what_is_known_stays_known(hosts: Hosts, host: Host) -> None:
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [450]
    assert host.write(STRANGER, "patient@stranger.test", BOB).codes == [450]
    began = time.monotonic()
    settle(host, began)
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]
    lists = {"delay": f"{DELAY}s", "exempt_clients": ["198.18.9.0/24", "198.18.2.0/24"]}
    # a list: the running daemon reads it
    (result,) = host.modules({"postgrey": lists})
    assert (result["action"], result["files"]) == (
        "reloaded",
        ["/etc/postgrey/whitelist_recipients.local", "/etc/postgrey/whitelist_clients.local"],
    )
    assert host.write("198.18.2.1", "now@stranger.test", ALICE).codes == [250, 250]
    assert host.write("198.18.3.1", "code@stranger.test", HELPDESK).codes == [450]
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]
    # an option: restarted
    (result,) = host.modules({"postgrey": {**lists, "lifetime": "60d"}})
    assert (result["action"], result["restart_reason"]) == ("restarted", "/etc/default/postgrey")
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]
    # who was told to come again before all this may do so now
    assert host.write(STRANGER, "patient@stranger.test", BOB).codes == [250, 250]
    assert host.write("198.18.3.1", "unknown@stranger.test", ALICE).codes == [450]


def test_the_site_comes_back_and_a_second_run_changes_nothing(hosts: Hosts) -> None:
    both(hosts)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda host: host.play(SITE).good(), hosts.by_release.values()))
    assert [run.stats["changed"] for run in runs] == [0, 0]
    for host in hosts.by_release.values():
        assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]


def test_sizes_and_who_waits(host: Host) -> None:
    assert host.write("198.18.3.1", "waiting@stranger.test", BOB).codes == [450]
    (found,) = host.modules({"postgrey_info": {}})
    assert found["answers"] and not found["problem"]
    assert found["times"] == {"delay": DELAY, "retry_window": 48 * 3600, "lifetime": 35 * 86400}
    sizes = found["sizes"]
    assert (sizes["exempt_clients"], sizes["exempt_recipients"]) == (3, 2)
    assert sizes["triplets"] == sizes["accepted"] + sizes["waiting"] + sizes["expired"]
    assert sizes["accepted"] >= 4 and sizes["waiting"] == len(found["waiting"]) >= 5
    assert sizes["clients"] >= 1 and sizes["trusted_clients"] == 0
    (entry,) = [each for each in found["waiting"] if each["sender"] == "waiting@stranger.test"]
    assert (entry["client"], entry["recipient"]) == ("198.18.3.0", BOB)
    assert entry["first_try"] == entry["last_try"] == entry["accepted_from"] - DELAY
    assert not [each for each in found["waiting"] if each["sender"] == "known@stranger.test"]


def passes(host: Host, source: str, name: str, recipient: str, subject: str) -> None:
    """A mail is let in at once, within ten seconds; a busy machine has a second chance with another sender."""
    session = host.write(source, name, recipient, subject=subject)
    if session.codes == [250, 250] and session.seconds >= 10:
        session = host.write(source, f"again-{name}", recipient, subject=subject)
    assert session.codes == [250, 250] and session.seconds < 10, session
    assert host.delivered(subject)


def test_mail_passes_while_postgrey_is_stopped_and_root_is_told(host: Host) -> None:
    with host.unwatched():
        host.sh("systemctl stop postgrey.service")
        passes(host, "198.18.3.1", "stopped@stranger.test", ALICE, "postgrey is stopped")
        # as the timer does every minute; root is told once
        assert "failed" in host.sh("systemctl start postmeister-greylist.service", check=False)
        host.sh("systemctl start postmeister-greylist.service", check=False)
        (message,) = host.delivered("mail.example.test: postgrey does not answer")
        assert message["to"] == ["admin@example.test"]
        assert "postgrey.service is stopped" in message["text"]
        assert "mail is accepted without a wait" in message["text"]
        assert host.sh("systemctl is-active postgrey.service", check=False).strip() == "inactive"
        # The look itself waits for a daemon that is about to listen.
        host.sh("systemctl start postgrey.service; systemctl start postmeister-greylist.service")
        assert host.delivered("mail.example.test: postgrey answers again")
        assert len(host.delivered("mail.example.test: postgrey does not answer")) == 1
    assert host.write("198.18.3.1", "back-again@stranger.test", ALICE).codes == [450]


def test_mail_passes_while_postgrey_hangs_and_it_is_restarted(hosts: Hosts) -> None:
    # side by side, as much of it is waiting
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(hang, hosts.by_release.values()))


def hang(host: Host) -> None:
    # The timer would end the hang before all was seen.
    with host.unwatched():
        host.sh("systemctl kill --signal=STOP postgrey.service")
        passes(host, "198.18.3.1", "hangs@stranger.test", ALICE, "postgrey hangs")
        # and while, on top of that, the name servers of a sender do not answer
        passes(host, "198.18.71.1", "x@slow.test", BOB, "all hang")
        host.sh("systemctl start postmeister-greylist.service")
        (message,) = host.delivered("mail.example.test: postgrey did not answer and was restarted")
        assert message["to"] == ["admin@example.test"]
    assert host.write("198.18.3.1", "hung@stranger.test", ALICE).codes == [450]
    # what it knew before it was killed
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]
    # Nobody was told of a faulty configuration, by Postfix' own account. The control: it tells there of each 450.
    refused = host.sh(
        "journalctl --sync; journalctl --quiet --output=cat --facility=mail | grep -F 'NOQUEUE: reject: ' || true"
    )
    assert ": 450 4.2.0 <" in refused
    assert ": 451 4.3.5 <" not in refused


def test_a_faulty_expression_is_refused_in_postgreys_own_words(host: Host) -> None:
    before = host.sh("systemctl show -p MainPID postgrey.service; cat /etc/postgrey/*")
    task = {"postmeister.host.postgrey": {"exempt_recipients": ["/(a/"]}}
    run = host.play([task])
    assert run.rc != 0
    assert "Unmatched ( in regex" in run.output and "the check of the new files failed" in run.output
    assert host.sh("systemctl show -p MainPID postgrey.service; cat /etc/postgrey/*") == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {name: given for name, (given, *_words) in BAD.items()},
            [words for _given, *expected in BAD.values() for words in expected],
        ),
        (
            {"postgrey_delay": "2d", "postgrey_retry_window": "48h", "postgrey_lifetime": "2d"},
            [
                "postgrey_delay: 2d and postgrey_retry_window 48h overlap",
                "postgrey_retry_window: 48h and postgrey_lifetime 2d overlap",
            ],
        ),
        ({"postfix_never_delay": ["big..test"]}, ["postfix_never_delay[0]: 'big..test' is no domain"]),
    ],
)
def test_bad_values_are_refused_before_anything_changes(
    hosts: Hosts, values: dict[str, object], words: list[str]
) -> None:
    host = hosts.by_release[13]
    # What was written here since the tests began; below /var/lib daemons and timers write by themselves.
    folders = "/etc /usr/local /var/lib/postmeister /var/lib/dpkg"
    state = f"find {folders} -newer /root/zone.json -type f | sort | xargs sha256sum"
    before = host.sh(state)
    run = host.play(SITE, **values)
    assert run.rc != 0 and run.stats["changed"] == 0
    assert [line for line in words if line not in run.output] == [], run.output[-3000:]
    assert host.sh(state) == before


def test_domains_opt_in_and_off_is_off(host: Host) -> None:
    host.modules({"postgrey": {"delay": f"{DELAY}s", "domains": ["other.test"]}})
    assert host.write("198.18.3.1", "optin@stranger.test", ALICE).codes == [250, 250]
    assert host.write("198.18.3.1", "optin@stranger.test", "alice@other.test").codes == [450]
    off = {"postgrey": {"state": "stopped"}}
    first, again = host.modules(off, off)
    assert (first["changed"], first["stopped"]) == (True, ["postgrey.service", "postmeister-greylist.timer"])
    assert not again["changed"]
    words = host.sh("systemctl is-enabled postgrey.service postmeister-greylist.timer", check=False).split()
    assert words == ["disabled", "disabled"]
    (back,) = host.modules({"postgrey": {"delay": f"{DELAY}s"}})
    assert (back["changed"], back["action"]) == (True, "started")
    assert host.write(STRANGER, "known@stranger.test", ALICE).codes == [250, 250]
    assert host.write("198.18.3.1", "back@stranger.test", ALICE).codes == [450]
