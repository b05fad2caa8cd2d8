# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user sees when running the playbook: on a bare host, twice, with mistakes, and with secrets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from clients import Box
from conftest import CANARY, HOSTS, Run, Site, Story

# Lengths that no ordinary word reaches: private keys, bcrypt hashes, SHA512-CRYPT hashes.
SECRETS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}|\$6\$[^ ]{40}")


def leaks(text: str, tsig: str) -> list[str]:
    found = [match.group() for pattern in (CANARY, SECRETS) for match in pattern.finditer(text)]
    return found + ([tsig] if tsig in text else [])


def test_check_mode_succeeds_on_a_bare_host_and_changes_nothing(story: Story, boxes: dict[str, Box]) -> None:
    assert story.check.rc == 0, story.check.failed_because()
    for name in HOSTS:
        assert story.check.stats[name]["changed"] > 5
        assert story.after_check[name] == story.before_check[name]
    assert story.zones_after_check == story.zones_before_check


def test_the_second_run_changes_nothing(story: Story) -> None:
    assert story.second.rc == 0, story.second.failed_because()
    assert {name: story.second.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0), changed_tasks(
        story.second
    )


def changed_tasks(run: Run) -> list[str]:
    task, found = "", []
    for line in run.output.splitlines():
        if line.startswith("TASK ["):
            task = line
        elif line.startswith("changed: ["):
            found.append(f"{task} {line[:60]}")
    return found


def test_no_output_shows_a_secret(story: Story, tsig: str) -> None:
    for run in (story.check, story.first, story.second):
        assert leaks(run.output, tsig) == []


def test_no_secret_lies_open_on_the_host(mx: Box, tsig: str, accounts: dict[str, tuple[str, str]]) -> None:
    password = accounts[mx.name][1]
    pattern = "\\|".join([tsig, password, "BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY", "BEGIN RSA PRIVATE KEY"])
    assert mx.sh(f"journalctl --no-pager -o cat | grep -c -- '{pattern}' || true").strip() == "0"
    # Each process but the one that searches
    lines = mx.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
    assert password not in lines
    assert tsig not in lines
    loose = mx.sh(
        "find / -xdev \\( -path /usr -o -path /proc -o -path /sys -o -path /var/cache -o -path /var/lib/dpkg \\) -prune"
        " -o"
        " -type f \\( -perm /0027 -o -perm /0020 \\) -print0"
        f" | xargs -0 -r grep -l -- '{pattern}' 2>/dev/null || true"
    ).split()
    assert loose == []
    # The control: the search finds what is there.
    assert "/mail.pem" in mx.sh("grep -rl -- 'PRIVATE KEY' /etc/ssl/postmeister")


BAD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("hostname", {"mailserver_hostname": "mx"}, ["mailserver_hostname", "'mx'", "no dot"]),
    (
        "ipv6",
        {"mailserver_ipv6": "198.51.100.25"},
        ["mailserver_ipv6", "'198.51.100.25'", "IPv4 address where an IPv6"],
    ),
    (
        "duplicate",
        {"mailserver_mailboxes": [{"address": "alice@example.test", "password": "canary-dup-Aa1Bb2Cc"}] * 2},
        ["mailserver_mailboxes[1]", "alice@example.test", "twice"],
    ),
    (
        "unknown-domain",
        {"mailserver_mailboxes": [{"address": "eve@other.test", "password": "canary-unk-Aa1Bb2Cc"}]},
        ["mailserver_mailboxes[0]", "eve@other.test"],
    ),
    (
        "weak-hash",
        {"mailserver_mailboxes": [{"address": "alice@example.test", "password_hash": "{PLAIN}canary-weak-Aa1Bb2Cc"}]},
        ["mailserver_mailboxes[0]", "alice@example.test", "PLAIN"],
    ),
    (
        "alias-loop",
        {
            "mailserver_aliases": [
                {"address": "a@example.test", "destinations": ["b@example.test"]},
                {"address": "b@example.test", "destinations": ["a@example.test"]},
            ]
        },
        ["mailserver_aliases[", "loop"],
    ),
    (
        "selector",
        {"mailserver_dkim_selectors": [{"selector": "no_good", "type": "rsa"}]},
        ["mailserver_dkim_selectors[0]", "'no_good'"],
    ),
    (
        "restriction",
        {"mailserver_policy": {"rules": {"reject_unkown_client_hostname": "warn"}}},
        ["mailserver_policy.rules.reject_unkown_client_hostname", "reject_unknown_client_hostname"],
    ),
    (
        "list-filter",
        {"mailserver_policy": {"lists": {"dnsbl.test": {"replies": "127.0.0.[2..300]"}}}},
        ["mailserver_policy.lists[dnsbl.test].replies", "'127.0.0.[2..300]'", "no range between 0 and 255"],
    ),
    (
        "list-without-filter",
        {"mailserver_policy": {"lists": {"dnsbl.test": {"checks": ["client"]}}}},
        ["mailserver_policy.lists[dnsbl.test].replies", "is not set"],
    ),
    (
        "list-source",
        {"mailserver_list_sources": {"keyed.test": "canary-dqs-Aa1Bb2Cc dqs.test"}},
        ["mailserver_list_sources[keyed.test]", "is no name in DNS"],
    ),
    # Not bad input, but what the operator chose for lists that fail
    (
        "failing-lists",
        {"mailserver_policy": {"failing_lists": "fail", "lists": {"always.test": {"replies": "127.0.0.2"}}}},
        ["lists that failed their test", "always.test: it lists what must never be listed"],
    ),
    ("dns-unreachable", {"mailserver_dns_server": "198.51.100.250"}, ["198.51.100.250"]),
    ("dns-key", {"mailserver_dns_key_secret": "Y2FuYXJ5LWtleS1hYmNkZWZnaA=="}, ["example.test", "key"]),
]


@pytest.mark.parametrize(("extra", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_stops_before_the_host_is_touched(
    story: Story, site: Site, boxes: dict[str, Box], tsig: str, extra: dict[str, Any], words: list[str]
) -> None:
    before = state_of(boxes["mx"])
    run = site.play("-l", "mx", "-vvv", extra=extra)
    assert run.rc != 0
    for word in words:
        assert word in run.output, run.failed_because()
    assert run.stats["mx"]["changed"] == 0
    assert state_of(boxes["mx"]) == before
    assert leaks(run.output.replace(json.dumps(extra), ""), tsig) == []


def state_of(box: Box) -> str:
    return box.sh(
        # Every ten minutes the test of the DNS lists says what it found.
        "find /etc /var/lib/postmeister /usr/local -xdev -type f ! -name lock ! -name '*.lock' ! -name .lock"
        " ! -path /var/lib/postmeister/dnsbl/status.json"
        " -printf '%p %s %m %T@\\n' | sort | sha256sum"
    )
