# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines as the daemons of Debian 12 and 13 wrote them."""

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._policy_log import lines
from ansible_collections.postmeister.host.plugins.module_utils._policy_log.lines import (
    Arrived,
    Greylist,
    Refused,
    Scanned,
)

RCPT = "NOQUEUE: reject: RCPT from client.test[198.51.100.90]: "
TAIL = "; from=<dave@client.test> to=<alice@example.test> proto=ESMTP helo=<client.test>"


@pytest.mark.parametrize(
    ("reply", "rule", "zone", "code"),
    [
        (
            "554 5.7.1 Service unavailable; Client host [198.51.100.69] blocked using mortal.test; listed for tests",
            "reject_rbl_client",
            "mortal.test",
            "554",
        ),
        (
            "554 5.7.1 Service unavailable; Client host [2001:db8:51::91] blocked using dnsbl.test; listed for tests",
            "reject_rbl_client",
            "dnsbl.test",
            "554",
        ),
        (
            "554 5.7.1 Service unavailable; Client host [mail.spammer.test] blocked using dbl.test; listed for tests",
            "reject_rhsbl_client",
            "dbl.test",
            "554",
        ),
        (
            "554 5.7.1 Service unavailable; Unverified Client host [mail.spammer.test] blocked using "
            "dbl.test; listed for tests",
            "reject_rhsbl_reverse_client",
            "dbl.test",
            "554",
        ),
        (
            "554 5.7.1 Service unavailable; Sender address [dave@spammer.test] blocked using dbl.test; "
            "listed for tests",
            "reject_rhsbl_sender",
            "dbl.test",
            "554",
        ),
        (
            "554 5.7.1 Service unavailable; Helo command [mail.spammer.test] blocked using dbl.test; listed for tests",
            "reject_rhsbl_helo",
            "dbl.test",
            "554",
        ),
        (
            "450 4.2.0 <alice@example.test>: Recipient address rejected: Greylisted, please try again later",
            "greylisting",
            "",
            "450",
        ),
        (
            "550 5.1.1 <nobody@example.test>: Recipient address rejected: User unknown in virtual mailbox table",
            "reject_unlisted_recipient",
            "",
            "550",
        ),
        (
            "550 5.7.1 Client host rejected: cannot find your reverse hostname, [198.51.100.66]",
            "reject_unknown_reverse_client_hostname",
            "",
            "550",
        ),
        (
            "550 5.1.8 <dave@nothing.test>: Sender address rejected: Domain not found",
            "reject_unknown_sender_domain",
            "",
            "550",
        ),
        (
            "450 4.1.8 <dave@bogus.test>: Sender address rejected: Domain not found",
            "reject_unknown_sender_domain",
            "",
            "450",
        ),
        (
            "550 5.7.27 <dave@nullmx.test>: Sender address rejected: Domain nullmx.test does not accept mail (nullMX)",
            "reject_unknown_sender_domain",
            "",
            "550",
        ),
        (
            "504 5.5.2 <dave>: Sender address rejected: need fully-qualified address",
            "reject_non_fqdn_sender",
            "",
            "504",
        ),
        (
            "504 5.5.2 <laptop>: Helo command rejected: need fully-qualified hostname",
            "reject_non_fqdn_helo_hostname",
            "",
            "504",
        ),
        ("501 5.5.2 <a_b..test>: Helo command rejected: Invalid name", "reject_invalid_helo_hostname", "", "501"),
        ("554 5.7.1 <x@elsewhere.test>: Relay access denied", "reject_unauth_destination", "", "554"),
        ("454 4.7.1 <x@elsewhere.test>: Relay access denied", "reject_unauth_destination", "", "454"),
        (
            "530 5.7.0 <client.test[198.51.100.90]>: Client host rejected: Authentication required",
            "login required",
            "",
            "530",
        ),
        (
            "550 5.7.1 <a@b.test>: Sender address rejected: Not today, a@b.test",
            "Sender address rejected: Not today, …",
            "",
            "550",
        ),
    ],
)
def test_rules(reply, rule, zone, code):
    expected = Refused(rule, zone, code, False, "198.51.100.90", "dave@client.test", "alice@example.test")
    assert lines.parse("postfix/smtpd", RCPT + reply + TAIL) == expected
    tried = lines.parse("postfix/smtpd", RCPT.replace("reject:", "reject_warning:") + reply + TAIL)
    assert tried == Refused(rule, zone, code, True, "198.51.100.90", "dave@client.test", "alice@example.test")


def test_entry():
    entry = (
        "1795306507.557968 mx.example.test postfix/smtpd[6995]: NOQUEUE: reject: RCPT from "
        "unknown[2001:db8:51::66]: 550 5.7.1 "
        "Client host rejected: cannot find your reverse hostname, [2001:db8:51::66]; from=<> to=<alice@example.test> "
        "proto=ESMTP helo=<client.test>\n"
    )
    assert lines.read(entry) == (
        1795306507.557968,
        Refused(
            "reject_unknown_reverse_client_hostname", "", "550", False, "2001:db8:51::66", "", "alice@example.test"
        ),
    )


@pytest.mark.parametrize(
    "words",
    [
        "NOQUEUE: reject: CONNECT from unknown[198.51.100.66]: 554 5.7.1 <unknown[198.51.100.66]>: "
        "Client host rejected: Access "
        "denied; proto=SMTP",
        "NOQUEUE: reject: DATA from unknown[198.51.100.66]: 503 5.5.0 <DATA>: Data command "
        "rejected: Improper use of SMTP command "
        "pipelining; from=<x@y.test> proto=SMTP helo=<x>",
        "NOQUEUE: reject: ETRN from unknown[198.51.100.66]: 554 5.7.1 <example.test>: Etrn command rejected: Access "
        "denied; proto=ESMTP helo=<client.test>",
    ],
)
def test_envelope_may_be_missing(words):
    event = lines.parse("postfix/smtpd", words)
    assert isinstance(event, Refused)
    assert (event.client, event.recipient) == ("198.51.100.66", "")
    assert "proto" not in event.rule


@pytest.mark.parametrize(
    ("program", "words", "event"),
    [
        ("postfix/smtpd", "4jX8jq34BXzSwPp: client=client.test[198.51.100.90]", Arrived("198.51.100.90")),
        ("postfix/smtpd", "4jX8jq34BXzSwPp: client=unknown[2001:db8:51::66]", Arrived("2001:db8:51::66")),
        # the host's own, a login's, and one that was refused before it had an ID
        ("postfix/smtpd", "4jX8jq34BXzSwPp: client=localhost[127.0.0.1]", None),
        (
            "postfix/submissions/smtpd",
            "4jX8jq34BXzSwPp: client=unknown[198.51.100.90], sasl_method=PLAIN, sasl_username=alice@example.test",
            None,
        ),
        ("postfix/smtpd", "NOQUEUE: client=client.test[198.51.100.90]", None),
        ("postfix/smtpd", "connect from client.test[198.51.100.90]", None),
        (
            "postfix/submission/smtpd",
            "NOQUEUE: reject: RCPT from localhost[127.0.0.1]: 530 5.7.0 <localhost[127.0.0.1]>: Client host rejected: "
            "Authentication required; from=<> to=<postmaster@mail.example.test> proto=ESMTP helo=<mail.example.test>",
            None,
        ),
        (
            "postfix/cleanup",
            "4jX8jq34BXzSwPp: milter-reject: END-OF-MESSAGE from client.test[198.51.100.90]: 5.7.1 "
            "Spam message rejected; "
            "from=<dave@client.test> to=<alice@example.test> proto=ESMTP helo=<client.test>",
            Refused(
                "rspamd: Spam message rejected",
                "",
                "5.7.1",
                False,
                "198.51.100.90",
                "dave@client.test",
                "alice@example.test",
                True,
            ),
        ),
        (
            "postfix/cleanup",
            "4jX8jq34BXzSwPp: milter-reject: END-OF-MESSAGE from client.test[198.51.100.90]: 4.7.1 Try again later; "
            "from=<dave@client.test> to=<alice@example.test> proto=ESMTP helo=<client.test>",
            Refused("greylisting", "", "4.7.1", False, "198.51.100.90", "dave@client.test", "alice@example.test", True),
        ),
        (
            "postgrey",
            "action=greylist, reason=new, client_name=unknown, client_address=198.18.3.1, sender=back@stranger.test, "
            "recipient=alice@example.test",
            Greylist("postgrey", False, "new", None, "198.18.3.1", "back@stranger.test", "alice@example.test"),
        ),
        (
            "postgrey",
            "4jX8jq34BXzSwPp: action=greylist, reason=early-retry (57s missing), client_name=unknown, "
            "client_address=198.18.3.1, recipient=alice@example.test",
            Greylist("postgrey", False, "early retry", None, "198.18.3.1", "", "alice@example.test"),
        ),
        (
            "postgrey",
            "action=pass, reason=triplet found, delay=353, client_name=unknown, client_address=198.18.3.1, "
            "sender=back@stranger.test, recipient=alice@example.test",
            Greylist("postgrey", True, "triplet found", 353, "198.18.3.1", "back@stranger.test", "alice@example.test"),
        ),
        (
            "postgrey",
            "action=pass, reason=client whitelist, client_name=watch.postgrey.invalid, client_address=127.0.0.1, "
            "sender=sender@postgrey.invalid, recipient=recipient@postgrey.invalid",
            None,
        ),
        ("postgrey", "cleaning up old logs...", None),
        (
            "rspamd",
            "(rspamd_proxy) <7ec153>; proxy; rspamd_task_write_log: id: <1@client.test>, qid: <4jX8jq34BXzSwPp>, ip: "
            "198.51.100.90, from: <dave@client.test>, (default: F (add header): [7.10/15.00] "
            "[ARC_NA(0.00){},GREYLIST(0.00)"
            "{pass;body;}]), len: 223, time: 206.372ms, dns req: 6, digest: <ec19>, rcpts: <alice@example.test>",
            Scanned("add header", "pass"),
        ),
        (
            "rspamd",
            "#7188(rspamd_proxy) <c5bf7e>; proxy; rspamd_task_write_log: id: <probe.1@mx.test>, qid: "
            "<probe>, ip: 127.0.0.1, "
            "from: <postmaster@example.test>, (default: F (no action): [-0.10/15.00] [ARC_NA(0.00){}]), len: 229",
            None,
        ),
        ("somebody", "NOQUEUE: reject: RCPT from x[198.51.100.9]: 550 5.7.1 no; from=<> to=<a@b> proto=SMTP", None),
    ],
)
def test_lines(program, words, event):
    assert lines.parse(program, words) == event


@pytest.mark.parametrize("entry", ["", "-- Boot 1234 --", "    a line that goes on", "1795306507.5 mx kernel: hello"])
def test_other_entries(entry):
    assert lines.read(entry) is None
