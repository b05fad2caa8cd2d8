# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user sees when running the playbook: on a bare host, twice, with mistakes, and with secrets."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from clients import Box
from conftest import CACHE, CANARY, HOSTS, Run, Site, Story

PATTERNS = "/run/canaries"
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


def test_all_of_it_comes_from_the_installed_artifact(story: Story, site: Site) -> None:
    for run in (story.check, story.first, story.second):
        paths = re.findall(r"^task path: (\S+)$", run.output, re.MULTILINE)
        assert len(paths) > 20
        assert [path for path in paths if not path.startswith(f"{site.collections}/")] == []


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


def test_until_the_first_run_came_to_its_end_nothing_was_refused_for_good(story: Story, mx: Box) -> None:
    assert re.search(r"^[ +]*soft_bounce = yes$", story.first.output, re.MULTILINE)
    assert mx.run("postconf", "-h", "soft_bounce").strip() == "no"


def secrets_of(box: Box) -> list[str]:
    """What only a host itself knows: a line of each private key (DKIM, TLS, ACME account) and each password's hash."""
    keys = box.sh(
        "for key in $(find /etc/postmeister/dkim /etc/ssl/postmeister /var/lib/postmeister/acme -type f"
        " \\( -name '*.key' -o -name mail.pem -o -name account_key.pem \\)); do"
        " grep -v -e ----- $key | head -n 1; done; cat /etc/postsrsd.secret 2>/dev/null || true"
    ).split()
    hashes = box.sh("grep -o '[$][^:]*' /etc/postmeister/directory/dovecot-users").split()
    # DKIM: two kinds for each domain and the host; the certificate's, the next one's and the account's
    assert len(keys) >= 7 and len(hashes) >= 2 and min(map(len, [*keys, *hashes])) > 20
    return [*keys, *hashes]


def test_no_output_shows_a_secret(story: Story, boxes: dict[str, Box], tsig: str) -> None:
    kept = [secret for name in HOSTS for secret in secrets_of(boxes[name])]
    for run in (story.check, story.first, story.second):
        assert leaks(run.output, tsig) == []
        assert [secret for secret in kept if secret in run.output] == []


def test_no_secret_lies_open_on_the_host(
    mx: Box, accounts: dict[str, tuple[str, str]], others: dict[str, tuple[str, str]]
) -> None:
    given = [accounts[mx.name][1], others[mx.name][1]]
    given.append((CACHE / "lab" / "tsig" / f"{mx.domain}.secret").read_text().strip())
    headers = [f"BEGIN {kind}PRIVATE KEY" for kind in ("", "EC ", "RSA ")]
    # Below /run, where nothing is looked for
    patterns = "\n".join([*given, *headers, *secrets_of(mx), ""])
    mx.run("sh", "-c", f"umask 077; cat > {PATTERNS}", stdin=patterns)
    grep = f"grep -F -f {PATTERNS}"
    assert mx.sh(f"journalctl --sync; journalctl --no-pager -o cat | {grep} -c || true").strip() == "0"
    assert mx.sh(f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | {grep} -c || true").strip() == "0"
    search = f"-print0 | xargs -0 -r {grep} -l 2>/dev/null || true"
    apart = "\\( -path /usr -o -path /proc -o -path /sys -o -path /var/cache -o -path /var/lib/dpkg \\) -prune"
    assert mx.sh(f"find / -xdev {apart} -o -type f -perm /0027 {search}").split() == []
    # The control: what is there is found, where it belongs.
    found = mx.sh(f"find /etc /var/lib/postmeister -type f {search}")
    for name in ("/mail.pem", "/next.key", "/rsa1.key", "/ed1.key", "/account_key.pem", "/dovecot-users"):
        assert name in found, name
    mx.sh(f"rm {PATTERNS}")


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
    (
        "certificate-of-another",
        {
            "mailserver_tls_method": "files",
            "mailserver_tls_certificate": "{{ lookup('file', lab_state ~ '/tls/mail.remote.test.pem') }}",
            "mailserver_tls_private_key": "{{ lookup('file', lab_state ~ '/tls/mail.remote.test.key') }}",
        },
        ["mailserver_tls_certificate", "mail.remote.test", "not for mx.example.test"],
    ),
    (
        "certificate-without-its-key",
        {
            "mailserver_tls_method": "files",
            "mailserver_tls_certificate": "/etc/ssl/postmeister/mx.example.test/mail.pem",
            "mailserver_tls_private_key": "/etc/ssl/postmeister/mx.example.test/next.key",
        },
        ["mailserver_tls_private_key", "next.key does not belong to the certificate in /etc/ssl/postmeister"],
    ),
    # Their owners would find empty mailboxes.
    ("mail-format", {"mailserver_mail_format": "mbox"}, ["holds mail in the format maildir", "/var/vmail/"]),
    ("dns-unreachable", {"mailserver_dns_server": "198.51.100.250"}, ["198.51.100.250"]),
    ("dns-key", {"mailserver_dns_key_secret": "Y2FuYXJ5LWtleS1hYmNkZWZnaA=="}, ["example.test", "key"]),
]


@dataclass(frozen=True)
class Mistaken:
    """What the runs with mistakes said, and the host's files before the first and after the last."""

    before: str
    runs: dict[str, Run]
    after: str


@pytest.fixture(scope="module")
def mistaken(story: Story, site: Site, boxes: dict[str, Box]) -> Mistaken:
    """A run with each mistake, several at a time, as none of them may come as far as to change anything."""
    before = state_of(boxes["mx"])
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda case: site.play("-l", "mx", "-vvv", extra=case[1]), BAD))
    return Mistaken(before, dict(zip((case[0] for case in BAD), runs)), state_of(boxes["mx"]))


@pytest.mark.parametrize(("name", "extra", "words"), BAD, ids=[case[0] for case in BAD])
def test_bad_input_stops_before_the_host_is_touched(
    mistaken: Mistaken, tsig: str, name: str, extra: dict[str, Any], words: list[str]
) -> None:
    run = mistaken.runs[name]
    assert run.rc != 0
    for word in words:
        assert word in run.output, run.failed_because()
    assert run.stats["mx"]["changed"] == 0
    assert leaks(run.output.replace(json.dumps(extra), ""), tsig) == []


def test_no_mistake_left_a_trace(mistaken: Mistaken) -> None:
    assert mistaken.after == mistaken.before


def state_of(box: Box) -> str:
    return box.sh(
        # Every ten minutes the test of the DNS lists says what it found.
        "find /etc /var/lib/postmeister /usr/local -xdev -type f ! -name lock ! -name '*.lock' ! -name .lock"
        " ! -path /var/lib/postmeister/dnsbl/status.json"
        " -printf '%p %s %m %T@\\n' | sort | sha256sum"
    )
