# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._dns import publish
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError

HOST = "mail.example.test"
KEY = {
    "domain": "example.test",
    "selector": "s1",
    "type": "rsa",
    "path": "/etc/x",
    "name": "s1._domainkey.example.test",
    "record": "v=DKIM1; k=rsa; p=AAAA",
    "fingerprint": "SHA256:00",
}
SITE: dict[str, Any] = {
    "hostname": HOST,
    "ipv4": "198.51.100.25",
    "ipv6": "2001:db8:51::25",
    "domains": [{"name": "example.test", "state": "active"}],
}


def at(raw: dict[str, Any], name: str, rrtype: str, phase: str = "") -> list[str]:
    """Values at one name and type, in one phase or in all."""
    phases = publish.derive(raw)
    records = [record for key in ([phase] if phase else publish.PHASES) for record in phases[key]]
    return [
        value
        for record in records
        if record["name"].rstrip(".") == name and record["type"] == rrtype
        for value in record["values"]
    ]


def test_phases() -> None:
    raw = {**SITE, "dkim": [KEY], "tlsa": ["3 1 1 " + "ab" * 32], "caa": ["letsencrypt.org"]}
    types = {phase: {record["type"] for record in records} for phase, records in publish.derive(raw).items()}
    assert types == {
        "addresses": {"A", "AAAA", "CAA"},
        "tlsa": {"TLSA"},
        "dkim": {"TXT"},
        "mail": {"TXT", "SRV"},
        "mx": {"MX"},
    }


def test_nothing_of_a_staged_or_absent_domain() -> None:
    domains = [{"name": "example.test", "state": "staged"}, {"name": "gone.test", "state": "absent"}]
    phases = publish.derive({**SITE, "domains": domains, "dkim": [KEY], "tls_rpt": "tls@example.test"})
    names = {record["name"].rstrip(".") for records in phases.values() for record in records}
    assert names == {HOST, f"_dmarc.{HOST}"}
    assert phases["mx"] == []


def test_host_has_spf_dmarc_and_its_own_keys() -> None:
    key = {**KEY, "domain": HOST, "name": f"s1._domainkey.{HOST}"}
    raw = {**SITE, "dkim": [key], "dmarc_policy": "none", "spf": []}
    assert at(raw, HOST, "TXT") == ["v=spf1 ip4:198.51.100.25 ip6:2001:db8:51::25 -all"]
    assert at(raw, f"_dmarc.{HOST}", "TXT") == ["v=DMARC1; p=reject"]
    assert at(raw, f"s1._domainkey.{HOST}", "TXT") == [KEY["record"]]


def test_host_that_is_a_domain_is_published_once() -> None:
    raw = {**SITE, "domains": [HOST], "dmarc_policy": "quarantine"}
    assert at(raw, HOST, "TXT") == ["v=spf1 ip4:198.51.100.25 ip6:2001:db8:51::25 -all"]
    assert at(raw, f"_dmarc.{HOST}", "TXT") == ["v=DMARC1; p=quarantine"]
    assert at(raw, HOST, "MX") == [f"10 {HOST}."]


@pytest.mark.parametrize(
    ("site", "domain", "result"),
    [
        ({}, {}, "v=spf1 ip4:198.51.100.25 ip6:2001:db8:51::25 -all"),
        ({"ipv6": ""}, {}, "v=spf1 ip4:198.51.100.25 -all"),
        ({"ipv4": [], "ipv6": "2001:DB8:0:0::1"}, {}, "v=spf1 ip6:2001:db8::1 -all"),
        (
            {"spf": ["ip4:198.51.100.0/28"], "ipv6": ""},
            {"spf": ["include:_spf.example.net", "~mx"]},
            "v=spf1 ip4:198.51.100.25 ip4:198.51.100.0/28 include:_spf.example.net ~mx -all",
        ),
        ({"ipv6": "", "spf": ["a:%{i}.x.example/24//64"]}, {}, "v=spf1 ip4:198.51.100.25 a:%{i}.x.example/24//64 -all"),
        ({"ipv6": "", "spf": ["include:a.b"] * 10}, {}, "v=spf1 ip4:198.51.100.25 include:a.b -all"),
    ],
)
def test_spf(site: dict[str, Any], domain: dict[str, Any], result: str) -> None:
    raw = {**SITE, **site, "domains": [{"name": "example.test", **domain}]}
    assert at(raw, "example.test", "TXT") == [result]


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("+all", "ends in -all already"),
        ("~all", "ends in -all already"),
        ("ptr", "RFC 7208 5.5"),
        ("ptr:example.test", "RFC 7208 5.5"),
        ("redirect=_spf.example.net", "use include:"),
        ("ip4:2001:db8::1", "IPv4 network is due"),
        ("ip6:198.51.100.1", "IPv6 network is due"),
        ("ip4:198.51.100.1/24", "has host bits set"),
        ("includes:example.net", "no mechanism"),
        ("include:", "no mechanism"),
        ("mx a", "no mechanism"),
        ("", "no mechanism"),
        ("v=spf1", "no mechanism"),
    ],
)
def test_spf_terms_that_are_refused(term: str, words: str) -> None:
    for raw in ({**SITE, "spf": [term]}, {**SITE, "domains": [{"name": "example.test", "spf": [term]}]}):
        with pytest.raises(DnsError) as caught:
            publish.derive(raw)
        assert words in str(caught.value)
        assert repr(term) in str(caught.value)


def test_spf_limits() -> None:
    """RFC 7208 4.6.4: ten terms that need a query; addresses need none. 3.4: an answer of 512 octets."""
    mechanisms = ["mx", "a", "exists:a.b", *(f"include:{number}.b" for number in range(7))]
    publish.derive({**SITE, "spf": [*mechanisms, "ip4:198.51.100.1", "ip6:2001:db8::1"]})
    with pytest.raises(DnsError, match="11 terms"):
        publish.derive({**SITE, "spf": [*mechanisms, "include:x.b"]})
    with pytest.raises(DnsError, match=r"of example\.test: 11 terms"):
        publish.derive({**SITE, "spf": mechanisms, "domains": [{"name": "example.test", "spf": ["a:x.b"]}]})
    with pytest.raises(DnsError, match="450"):
        publish.derive({**SITE, "spf": [f"ip4:198.51.100.{number}" for number in range(30)]})


@pytest.mark.parametrize(
    ("site", "domain", "result"),
    [
        ({}, {}, "v=DMARC1; p=quarantine"),
        ({"dmarc_policy": "reject", "dmarc_subdomain_policy": "none"}, {}, "v=DMARC1; p=reject; sp=none"),
        ({"dmarc_policy": "reject"}, {"dmarc_policy": "none"}, "v=DMARC1; p=none"),
        ({"dmarc_rua": ["a@example.test"]}, {}, "v=DMARC1; p=quarantine; rua=mailto:a@example.test"),
        (
            {"dmarc_rua": "a@example.test"},
            {"dmarc_rua": ["mailto:b@x.test", "c@x.test"]},
            "v=DMARC1; p=quarantine; rua=mailto:b@x.test,mailto:c@x.test",
        ),
    ],
)
def test_dmarc(site: dict[str, Any], domain: dict[str, Any], result: str) -> None:
    raw = {**SITE, **site, "domains": [{"name": "example.test", **domain}]}
    assert at(raw, "_dmarc.example.test", "TXT") == [result]


def test_dmarc_reports_to_another_domain_of_ours_are_agreed_to() -> None:
    """RFC 9990 4. Related names need no agreement; domains of others must publish it themselves."""
    raw = {**SITE, "domains": ["example.test", "second.test"], "dmarc_rua": ["d@example.test", "d@stranger.test"]}
    assert at(raw, "second.test._report._dmarc.example.test", "TXT") == ["v=DMARC1"]
    assert at(raw, "example.test._report._dmarc.example.test", "TXT") == []
    assert at(raw, f"{HOST}._report._dmarc.example.test", "TXT") == []
    assert at(raw, "second.test._report._dmarc.stranger.test", "TXT") == []


@pytest.mark.parametrize("rua", ["no address", "a@b,c@d", "a@b!10m", "ftp://x", "a;b@c.test"])
def test_bad_report_address(rua: str) -> None:
    with pytest.raises(DnsError, match="report address"):
        publish.derive({**SITE, "dmarc_rua": [rua]})


def test_srv_of_what_is_offered_and_of_what_is_not() -> None:
    """RFC 6186, RFC 8314: TLS from the first byte is preferred, no plain text ports."""
    services = {"submissions": True, "submission": True, "imaps": True, "pop3s": False, "sieve": True}
    phases = publish.derive({**SITE, "services": services})
    found = {record["name"]: record["values"] for record in phases["mail"] if record["type"] == "SRV"}
    assert found == {
        "_submissions._tcp.example.test.": [f"0 1 465 {HOST}."],
        "_submission._tcp.example.test.": [f"10 1 587 {HOST}."],
        "_imaps._tcp.example.test.": [f"0 1 993 {HOST}."],
        "_imap._tcp.example.test.": ["0 0 0 ."],
        "_pop3s._tcp.example.test.": ["0 0 0 ."],
        "_pop3._tcp.example.test.": ["0 0 0 ."],
        "_sieve._tcp.example.test.": [f"0 1 4190 {HOST}."],
    }


def test_caa() -> None:
    """RFC 8659 and 8657; no wildcard is ever needed."""
    issuer = {
        "domain": "letsencrypt.org",
        "accounturi": "https://ca.test/1",
        "validationmethods": ["http-01", "dns-01"],
    }
    assert at({**SITE, "caa": ["ca.example", issuer]}, HOST, "CAA") == [
        '0 issue "ca.example"',
        '0 issue "letsencrypt.org; accounturi=https://ca.test/1; validationmethods=http-01,dns-01"',
        '0 issuewild ";"',
    ]
    assert at(SITE, HOST, "CAA") == []


def test_tlsa_current_and_next_once_and_not_for_long() -> None:
    keys = ["3 1 1 " + "ab" * 32, "3 1 1 " + "cd" * 32, "3 1 1 " + "ab" * 32]
    raw = {**SITE, "tlsa": keys, "ttl": 86400}
    assert at(raw, f"_25._tcp.{HOST}", "TLSA") == keys[:2]
    assert {record["ttl"] for record in publish.derive(raw)["tlsa"]} == {3600}
    ports = {record["name"] for record in publish.derive({**raw, "tlsa_ports": [25, 465]})["tlsa"]}
    assert ports == {f"_25._tcp.{HOST}", f"_465._tcp.{HOST}"}


def test_dkim_keys_of_check_mode_and_of_others_are_left_out() -> None:
    keys = [KEY, {**KEY, "name": "s2._domainkey.example.test", "record": ""}, {**KEY, "domain": "other.test"}]
    phases = publish.derive({**SITE, "dkim": keys})
    assert [record["name"] for record in phases["dkim"]] == [KEY["name"]]
    assert not any("_domainkey" in record["name"] for record in phases["mail"])


def test_dkim_of_the_hosts_own_name() -> None:
    own = {**KEY, "domain": HOST, "name": f"s1._domainkey.{HOST}"}
    assert [record["name"] for record in publish.derive({**SITE, "dkim": [own]})["dkim"]] == [own["name"]]
    among = {**SITE, "domains": [{"name": HOST}], "dkim": [own]}
    assert [record["name"] for record in publish.derive(among)["dkim"]] == [own["name"]]


def test_only_ours_is_meant_in_shared_rrsets() -> None:
    phases = publish.derive({**SITE, "tls_rpt": "t@example.test"})
    marks = {record["name"].rstrip("."): record.get("match") for record in phases["mail"] if record["type"] == "TXT"}
    assert marks == {
        "example.test": "v=spf1",
        "_dmarc.example.test": "v=DMARC1",
        "_smtp._tls.example.test": "v=TLSRPTv1",
        HOST: "v=spf1",
        f"_dmarc.{HOST}": "v=DMARC1",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": "mail"}, "has no dot"),
        ({"hostname": "mail_1.example.test"}, "hostname 'mail_1.example.test'"),
        ({"ipv4": "2001:db8::1"}, "ipv4 '2001:db8::1': an IPv4 address is due, this is IPv6"),
        ({"ipv6": ["198.51.100.1"]}, "an IPv6 address is due, this is IPv4"),
        ({"ipv6": "nonsense"}, "ipv6 'nonsense'"),
        ({"domains": ["a.test", "A.test."]}, "domains[1] (A.test.): is given twice"),
        ({"domains": [{"name": "a.test", "state": "on"}]}, "state 'on'"),
        ({"domains": ["a..test"]}, "domains[0]"),
        ({"services": ["imaps", "gopher"]}, "service 'gopher'"),
        ({"dmarc_policy": "strict"}, "dmarc policy 'strict'"),
        ({"tlsa": ["3 1 1 abcd"]}, "64 hex digits"),
        ({"hostnames": "x"}, "unknown: hostnames"),
    ],
)
def test_bad_sites(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DnsError) as caught:
        publish.derive({**SITE, **change})
    assert words in str(caught.value)


def test_zone_text() -> None:
    raw = {**SITE, "dkim": [{**KEY, "record": "v=DKIM1; k=rsa; p=" + "A" * 392}]}
    records = [record for records in publish.derive(raw).values() for record in records]
    text = publish.zone_text(records, ["example.test"])
    assert text.startswith("; example.test\n")
    assert "; beside the other TXT records of this name:\nexample.test. " in text
    assert max(len(line) for line in text.splitlines()) < 270
    assert text.count("(") == text.count(")") == 1
