# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page's structure; how it looks was seen in a browser."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._policy_log import count, page, table
from ansible_collections.postmeister.host.plugins.module_utils._policy_log.lines import Arrived, Greylist, Refused

DAY = 1795305600
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "wbr"}


def report(rule="reject_rbl_client"):
    made = count.Report(DAY, DAY + 86400)
    for hour in range(20):
        made.add(DAY + hour * 3600, Arrived("198.51.100.1"))
    made.add(DAY + 10, Refused(rule, "dnsbl.test", "554", False, "198.51.100.9", f"x@{EVIL}", "alice@example.test"))
    made.add(DAY + 20, Refused("reject_rhsbl_helo", "new.test", "554", True, "198.51.100.9", "x@y.test", "a@b.test"))
    made.add(DAY + 30, Refused("greylisting", "", "450", False, "198.51.100.9", "x@y.test", "a@b.test"))
    made.add(DAY + 30, Greylist("postgrey", False, "new", None, "198.51.100.9", "x@y.test", "a@b.test"))
    made.add(DAY + 400, Greylist("postgrey", True, "triplet found", 370, "198.51.100.9", "x@y.test", "a@b.test"))
    return {**made.as_dict(), "journal_begins": "2026-11-01T00:00:00Z"}


class Reader(HTMLParser):
    """Elements with their attributes, open elements, and each table as rows of text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.tables = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if set(self.open) & {"td", "th"}:
            self.tables[-1][-1][-1] += data

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def shown():
    return Reader(page.page({"mx.example.test": report(EVIL), "mx2.example.test": report()}))


def test_is_whole_and_needs_nothing_else(shown):
    assert shown.open == []
    tags = {tag for tag, _attrs in shown.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    for _tag, attrs in shown.elements:
        assert attrs.get("href", "#").startswith("#")
        assert "src" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
    text = page.page({"mx": report()})
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_readers_that_see_nothing_find_it_all_in_tables(shown):
    drawings = shown.of("svg")
    assert drawings
    assert all(attrs.get("aria-hidden") == "true" or attrs.get("aria-label") for attrs in drawings)
    assert all(attrs.get("scope") in ("col", "row") for attrs in shown.of("th"))
    assert len([attrs for attrs in drawings if attrs.get("role") == "img"]) == 2
    assert shown.of("html") == [{"lang": "en"}]
    assert {attrs.get("name") for attrs in shown.of("meta")} >= {"viewport"}


def test_numbers(shown):
    overview = shown.tables[0]
    assert overview[1:] == [
        ["mx.example.test", "20", "1", "0", "1", "1"],
        ["mx2.example.test", "20", "1", "0", "1", "1"],
    ]
    over_time = shown.tables[1]
    assert over_time[0] == ["From (UTC)", "taken in", "greylisted", "rejected"]
    assert over_time[1] == ["22 Nov 00:00", "1", "1", "1"]
    assert len(over_time) == 21


def test_foreign_text_stays_text(shown):
    assert any(EVIL in cell for rows in shown.tables for row in rows for cell in row)


def test_nothing_happened():
    empty = {**count.Report(DAY, DAY + 3600).as_dict(), "journal_begins": "2026-11-22T00:30:00Z"}
    text = page.page({"mx": empty})
    assert Reader(text).open == []
    assert "Nothing was taken in or refused." in text
    assert "The journal begins at 2026-11-22 00:30 only." in text
    assert table.table({"mx": empty}) == [
        "mx: 2026-11-22 00:00 to 2026-11-22 01:00 UTC",
        "The journal begins at 2026-11-22 00:30 only.",
        "0 taken in, 0 greylisted, 0 deferred, 0 rejected, 0 on trial",
    ]


def test_terminal():
    assert table.table({"mx.example.test": report()}) == [
        "mx.example.test: 2026-11-22 00:00 to 2026-11-23 00:00 UTC",
        "20 taken in, 1 greylisted, 0 deferred, 1 rejected, 1 on trial",
        "",
        "rule               list        effect    count  mails  clients  codes",
        "greylisting                    deferred      1      1        1  450",
        "reject_rbl_client  dnsbl.test  rejected      1      1        1  554",
        "reject_rhsbl_helo  new.test    on trial      1      1        1  554",
        "",
        "list        rejected  on trial",
        "dnsbl.test         1         0",
        "new.test           0         1",
        "",
        "greylist (postgrey)                 count",
        "first attempts                          1",
        "attempts before the delay was over      0",
        "came back and passed                    1",
        "did not come back so far                0",
        "known already                           0",
    ]


@pytest.mark.parametrize(
    ("value", "result"), [(0, 2), (1, 2), (3, 4), (5, 10), (10, 10), (11, 20), (41, 100), (401, 1000)]
)
def test_nice(value, result):
    assert page.nice(value) == result
