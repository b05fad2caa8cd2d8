# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._policy_log import count
from ansible_collections.postmeister.host.plugins.module_utils._policy_log.lines import (
    Arrived,
    Greylist,
    Refused,
    Scanned,
)

DAY = 1795305600  # 2026-11-22, midnight in UTC
ALICE = "alice@example.test"


def refused(
    rule="reject_rbl_client",
    zone="dnsbl.test",
    code="554",
    warning=False,
    client="198.51.100.9",
    sender="x@y.test",
    queued=False,
):
    return Refused(rule, zone, code, warning, client, sender, ALICE, queued)


def grey(reason, delay=None, passed=False, client="198.51.100.9", sender="x@y.test"):
    return Greylist("postgrey", passed, reason, delay, client, sender, ALICE)


def counted(*events, start=DAY, end=DAY + 86400):
    report = count.Report(start, end)
    for offset, event in events:
        report.add(DAY + offset, event)
    return report.as_dict()


def test_rules():
    made = counted(
        (0, refused()),
        (1, refused()),
        (2, refused(client="198.51.100.10", sender="")),
        (3, refused(warning=True, zone="new.test")),
        (4, refused(rule="reject_unknown_sender_domain", zone="", code="450")),
        (5, refused(rule="greylisting", zone="", code="450")),
    )
    assert {kind: made[kind] for kind in ("rejected", "deferred", "greylisted", "warned")} == {
        "rejected": 3,
        "deferred": 1,
        "greylisted": 1,
        "warned": 1,
    }
    assert made["rules"][0] == {
        "rule": "reject_rbl_client",
        "list": "dnsbl.test",
        "warning": False,
        "count": 3,
        "temporary": 0,
        "mails": 2,
        "clients": 2,
        "codes": {"554": 3},
        "sender_domains": ["y.test", "<>"],
    }
    assert made["lists"] == [
        {"list": "dnsbl.test", "rejected": 3, "warned": 0},
        {"list": "new.test", "rejected": 0, "warned": 1},
    ]


def test_refused_at_its_end_is_not_taken_in():
    made = counted(
        (0, Arrived("198.51.100.9")),
        (1, Arrived("198.51.100.9")),
        (2, refused("rspamd: Spam", "", "5.7.1", queued=True)),
    )
    assert (made["accepted"], made["rejected"]) == (1, 1)
    assert made["series"][0]["accepted"] == 1


def test_greylist():
    made = counted(
        (0, grey("new")),
        (10, grey("early retry")),
        # another address of the same pool
        (400, grey("triplet found", 400, True, client="198.51.100.77")),
        (500, grey("triplet found", None, True)),
        (600, grey("new", client="203.0.113.9", sender="bot@y.test")),
        (700, grey("client whitelist", None, True, sender="big@provider.test")),
        (800, grey("triplet found", 90000, True, sender="slow@y.test")),
    )["greylist"]
    assert made["delays"] == [
        {"seconds": 300, "count": 0},
        {"seconds": 600, "count": 1},
        {"seconds": 1800, "count": 0},
        {"seconds": 3600, "count": 0},
        {"seconds": 14400, "count": 0},
        {"seconds": 86400, "count": 0},
        {"seconds": 0, "count": 1},
    ]
    del made["delays"]
    assert made == {
        "by": ["postgrey"],
        "new": 2,
        "early_retries": 1,
        "passed_after_retry": 2,
        "known": 1,
        "exempt": {"client whitelist": 1},
        "not_back": 1,
    }


def test_rspamd():
    made = counted(
        (0, Scanned("soft reject", "greylisted")), (400, Scanned("add header", "pass")), (500, Scanned("no action", ""))
    )
    assert made["verdicts"] == {"soft reject": 1, "add header": 1, "no action": 1}
    assert (made["greylist"]["by"], made["greylist"]["new"], made["greylist"]["passed_after_retry"]) == (
        ["rspamd"],
        1,
        1,
    )


@pytest.mark.parametrize(
    ("seconds", "bucket", "bars"),
    [(3600, 600, 6), (86400, 3600, 24), (7 * 86400, 21600, 28), (30 * 86400, 86400, 30), (365 * 86400, 604800, 53)],
)
def test_series(seconds, bucket, bars):
    made = counted((10, Arrived("198.51.100.9")), end=DAY + seconds)
    assert made["bucket"] == bucket
    assert abs(len(made["series"]) - bars) <= 1
    assert sum(step["accepted"] for step in made["series"]) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", DAY - 5400),
        ("7d", DAY - 604800),
        ("now", DAY),
        ("2026-11-01", DAY - 21 * 86400),
        ("2026-11-21T22:00:00Z", DAY - 7200),
        ("2026-11-21 23:00:00+01:00", DAY - 7200),
    ],
)
def test_moment(text, seconds):
    assert count.moment("since", text, DAY) == seconds


@pytest.mark.parametrize(
    ("since", "before", "words"),
    [
        ("yesterday", "now", "since: 'yesterday' is neither"),
        ("24h", "soon", "before: 'soon' is neither"),
        ("1h", "2h", "since: 1h is not before 2h"),
        ("2027-01-01", "now", "since: 2027-01-01 is not before now"),
    ],
)
def test_no_period(since, before, words):
    with pytest.raises(count.PeriodError, match=words):
        count.period(since, before, DAY)
