# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._dns import record, text
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("rrtype", "given", "result"),
    [
        ("A", "198.51.100.1", "198.51.100.1"),
        ("AAAA", "2001:DB8:51:0:0::1", "2001:db8:51::1"),
        ("MX", "010 Mail.Example.test", "10 mail.example.test."),
        ("MX", "0 .", "0 ."),
        ("SRV", "0 1 465 mail.example.test.", "0 1 465 mail.example.test."),
        ("SRV", "0 0 0 .", "0 0 0 ."),
        ("TLSA", f"3 1 1 {DIGEST.upper()}", f"3 1 1 {DIGEST}"),
        ("TLSA", f"3 1 1 {DIGEST[:32]} {DIGEST[32:]}", f"3 1 1 {DIGEST}"),
        ("TLSA", "3 1 0 abcd", "3 1 0 abcd"),
        ("CAA", "0 ISSUE letsencrypt.org", '0 issue "letsencrypt.org"'),
        ("CAA", '0 issue "a.example; accounturi=https://x/1"', '0 issue "a.example; accounturi=https://x/1"'),
        ("CAA", '0 issuewild ";"', '0 issuewild ";"'),
        ("CNAME", "Key.example.net", "key.example.net."),
        ("TXT", 'a "quoted" text', 'a "quoted" text'),
    ],
)
def test_canonical(rrtype: str, given: str, result: str) -> None:
    assert record.canonical(rrtype, given) == result
    assert record.canonical(rrtype, result) == result


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"type": "A", "values": ["2001:db8::1"]}, "an IPv4 address is due"),
        ({"type": "AAAA", "values": ["198.51.100.1"]}, "an IPv6 address is due"),
        ({"type": "A", "values": ["198.51.100.256"]}, "an IPv4 address is due"),
        ({"type": "MX", "values": ["mail.example.test"]}, "due are: preference host"),
        ({"type": "MX", "values": ["10 198.51.100.1"]}, "not an address"),
        ({"type": "MX", "values": ["70000 a.example"]}, "from 0 to 65535"),
        ({"type": "MX", "values": ["0 .", "10 a.example"]}, "stands alone"),
        ({"type": "MX", "values": ["10 a_b.example"]}, "letters, digits and inner hyphens"),
        ({"type": "TLSA", "values": ["3 1 1 abcd"]}, "64 hex digits, not 4"),
        ({"type": "TLSA", "values": ["3 1 1 " + "x" * 64]}, "hexadecimal"),
        ({"type": "TLSA", "values": ["4 1 1 " + DIGEST]}, "usage '4'"),
        ({"type": "SRV", "values": ["0 0 mail.example."]}, "priority weight port host"),
        ({"type": "CAA", "values": ["letsencrypt.org"]}, "flags tag"),
        ({"type": "TXT", "values": ['"v=spf1 -all"']}, "without quotes"),
        ({"type": "TXT", "values": ["grün"]}, "printable ASCII"),
        ({"type": "TXT", "values": ["a\nb"]}, "printable ASCII"),
        ({"type": "TXT", "values": [""]}, "is empty"),
        ({"type": "TXT", "values": ["x" * 70000]}, "fit into one update"),
        ({"type": "TXT", "values": []}, "values: is empty"),
        ({"type": "TXT", "values": ["a", "a"]}, "stands there twice"),
        ({"type": "AAAA", "values": ["2001:db8::1", "2001:db8:0::1"]}, "stands there twice"),
        ({"type": "TXT", "match": "v=spf1", "values": ["v=spf10 x"]}, "does not start with match"),
        ({"type": "MX", "match": "x", "values": ["10 a.example"]}, "only TXT"),
        ({"type": "CNAME", "values": ["a.example", "b.example"]}, "one CNAME at most"),
        ({"type": "A", "ttl": -1, "values": ["198.51.100.1"]}, "ttl -1"),
        ({"type": "A", "name": "a" * 64, "values": ["198.51.100.1"]}, "DNS carries 63"),
        ({"type": "A", "name": ".".join(["abcdefg"] * 33), "values": ["198.51.100.1"]}, "DNS carries 253"),
        ({"type": "NS", "values": ["a.example"]}, "one of A, AAAA"),
    ],
)
def test_bad_data_is_refused_by_name(raw: dict[str, Any], words: str) -> None:
    full = {"name": "bad.example.test", **raw}
    with pytest.raises(DnsError) as caught:
        record.parse_all([{"name": "ok.example.test", "type": "A", "values": ["198.51.100.1"]}, full])
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"records[1] ({full['type']} {full['name']})")


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = {"name": "a.example", "type": "A", "values": ["x"]}
    with pytest.raises(DnsError) as caught:
        record.parse_all([bad, {**bad, "name": "b.example"}])
    assert "records[0]" in str(caught.value)
    assert "records[1]" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "A.example.", "type": "TXT", "values": ["x"]}, "the same record as records[0]"),
        ({"name": "a.example", "type": "CNAME", "values": ["b.example"]}, "a CNAME is wanted at the same name"),
    ],
)
def test_records_against_each_other(other: dict[str, Any], words: str) -> None:
    with pytest.raises(DnsError) as caught:
        record.parse_all([{"name": "a.example", "type": "TXT", "values": ["y"]}, other])
    assert words in str(caught.value)


def test_one_ttl_per_rrset() -> None:
    made = record.parse_all(
        [
            {"name": "a.example", "type": "TXT", "match": "v=spf1", "values": ["v=spf1 -all"], "ttl": 3600},
            {"name": "a.example", "type": "TXT", "match": "x", "values": ["x 1"], "ttl": 600},
        ]
    )
    assert [each.ttl for each in made] == [600, 600]


@pytest.mark.parametrize(
    ("value", "word", "result"),
    [
        ("v=spf1 -all", "v=spf1", True),
        ("V=SPF1 -all", "v=spf1", True),
        ("v=spf1", "v=spf1", True),
        ("v=spf10", "v=spf1", False),
        ("v=DMARC1;p=none", "v=DMARC1", True),
        ("x v=spf1", "v=spf1", False),
    ],
)
def test_starts_with_word(value: str, word: str, result: bool) -> None:
    assert record.starts_with_word(value, word) is result


@pytest.mark.parametrize("length", [1, 254, 255, 256, 392, 510, 511, 4000])
def test_txt_is_split_in_strings_of_255(length: int) -> None:
    value = "".join(chr(33 + number % 94) for number in range(length))
    parts = text.strings(value.encode())
    assert b"".join(parts).decode() == value
    assert all(0 < len(part) <= 255 for part in parts)
    assert record.rdata_length("TXT", value) == sum(len(part) + 1 for part in parts)


def test_quoting() -> None:
    assert text.quoted(b'a "b" \\c \xe9') == r'"a \"b\" \\c \233"'


SAMPLES = [
    ("A", "198.51.100.1"),
    ("AAAA", "2001:db8::1"),
    ("MX", "10 mail.example.test."),
    ("SRV", "0 1 465 mail.example.test."),
    ("TLSA", f"3 1 1 {DIGEST}"),
    ("CNAME", "b.example.test."),
    ("CAA", '0 issue "letsencrypt.org; validationmethods=http-01"'),
    ("TXT", 'a "b" \\c; ' + "x" * 600),
]


@pytest.mark.parametrize(("rrtype", "value"), SAMPLES)
def test_zone_text_means_the_same_to_dnspython(rrtype: str, value: str) -> None:
    pytest.importorskip("dns")
    import dns.name
    import dns.rdatatype
    import dns.zone
    from ansible_collections.postmeister.host.plugins.module_utils._dns import rfc2136

    made = record.parse_all([{"name": "a.example.test", "type": rrtype, "values": [value]}])
    rendered = text.render(made, ["example.test."])
    zone = dns.zone.from_text(rendered, origin="example.test.", relativize=False, check_origin=False)
    rdataset = zone.get_rdataset(dns.name.from_text("a.example.test."), rrtype)
    assert [rfc2136.as_text(rrtype, rdata) for rdata in rdataset] == [value]
    wire = rdataset[0].to_wire()
    # Never less than the truth: chunks are filled by this number.
    assert len(wire) <= record.rdata_length(rrtype, value) <= len(wire) + 20
    assert all(len(line) < 300 for line in rendered.splitlines())


def test_parse_and_as_dict_are_inverse() -> None:
    raw = {"name": "a.example.", "type": "TXT", "ttl": 60, "values": ["v=spf1"], "match": "v=spf1", "exclusive": False}
    assert record.as_dict(record.parse(raw, "x")) == raw
