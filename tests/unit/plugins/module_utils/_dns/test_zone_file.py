# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dns")
from ansible_collections.postmeister.host.plugins.module_utils._dns import session, zone_file
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError
from ansible_collections.postmeister.host.plugins.module_utils._dns.ownership import ForeignError

ZONE = """\
; kept as it is, tabs\tand   spaces
$ORIGIN example.test.
$TTL 1h
@\tIN SOA ns1 hostmaster (
\t\t2020010100 ; serial
\t\t3600 900 604800 300 )
\tNS ns1   ; inherits its owner
ns1 A 198.51.100.53
@ TXT "site-verification=abc" ; a ; in "a comment"
www 300 A 198.51.100.80
    300 AAAA 2001:db8:51::80
"""
RECORDS: list[dict[str, Any]] = [
    {"name": "mail.example.test", "type": "A", "values": ["198.51.100.25"]},
    {"name": "example.test", "type": "TXT", "match": "v=spf1", "values": ["v=spf1 ip4:198.51.100.25 -all"]},
    {"name": "s1._domainkey.example.test", "type": "TXT", "values": ["v=DKIM1; k=rsa; p=" + "A" * 392]},
    {"name": "example.test", "type": "MX", "values": ["10 mail.example.test"]},
]


def run(path: Path, records: list[dict[str, Any]], check: bool = False, **more: Any) -> dict[str, Any]:
    options = {
        "zones": ["example.test"],
        "records": records,
        "owned": [],
        "takeover": False,
        "withdraw": True,
        "file": str(path),
        **more,
    }
    return session.by_zonefile(session.Request.of(options), options, check).facts()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "example.test.zone"
    file.write_text(ZONE, encoding="utf-8")
    file.chmod(0o644)
    return file


def outside(text: str) -> str:
    """The text without our block and with the serial masked."""
    head, _mark, rest = text.partition(zone_file.BEGIN)
    tail = rest.partition(zone_file.END)[2].lstrip("\r\n")
    words = (head + tail).split("SOA")[1].split()
    serial = next(word for word in words if len(word) == 10 and word.isdigit())
    return (head + tail).replace(serial, "SERIAL")


def test_check_real_check_real(path: Path) -> None:
    assert run(path, RECORDS, check=True)["changed"]
    assert path.read_text(encoding="utf-8") == ZONE
    first = run(path, RECORDS)
    assert first["changed"]
    text = path.read_text(encoding="utf-8")
    assert outside(text) == ZONE.replace("2020010100", "SERIAL")
    assert "2020010100" not in text
    assert "mail.example.test. 3600 IN A 198.51.100.25\n" in text
    for check in (True, False):
        assert not run(path, RECORDS, check=check, owned=first["owned"])["changed"]
    assert path.read_text(encoding="utf-8") == text
    assert path.stat().st_mode & 0o777 == 0o644


def test_everything_withdrawn_leaves_the_former_text(path: Path) -> None:
    first = run(path, RECORDS)
    run(path, [], owned=first["owned"])
    text = path.read_text(encoding="utf-8")
    assert "postmeister" not in text
    assert outside(text) == ZONE.replace("2020010100", "SERIAL")


def test_text_behind_the_block_stays_there(path: Path) -> None:
    first = run(path, RECORDS)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write("later A 198.51.100.99 ; behind the block")
    second = run(path, RECORDS[:3], owned=first["owned"])
    text = path.read_text(encoding="utf-8")
    assert second["changed"]
    assert text.endswith("later A 198.51.100.99 ; behind the block")
    assert "MX" not in text


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", [True, False])
def test_line_ends(path: Path, newline: str, end: bool) -> None:
    content = ZONE.replace("\n", newline) if end else ZONE.replace("\n", newline).rstrip()
    path.write_bytes(content.encode())
    run(path, RECORDS)
    text = path.read_bytes().decode()
    assert outside(text).rstrip() == content.replace("2020010100", "SERIAL").rstrip()
    assert ("\r\n" in text) == (newline == "\r\n")
    assert text.replace("\r\n", "").count("\r") == 0
    if newline == "\r\n":
        assert text.replace("\r\n", "").count("\n") == 0


@pytest.mark.parametrize(
    ("foreign", "gone", "kept"),
    [
        ("@ MX 10 old.example.net.\n", "old.example.net", []),
        ('@ MX 10 old.example.net.\n   TXT "other"\n', "old.example.net", ['"other"']),
        ('@ TXT "v=spf1 include:old ~all"\n', "include:old", ['"site-verification=abc"']),
        ("sub MX 10 x\n@ 600 MX (\n 10 old.example.net. ; gone\n )\n", "old.example.net", ["sub MX 10 x\n"]),
        ("$ORIGIN test.\nexample MX 10 old.example.net.\n\tTXT other\n", "old.example.net", ["TXT other"]),
        ("s1._domainkey CNAME key.example.net.\n", "key.example.net", []),
    ],
)
def test_foreign_records_are_refused_then_taken_over(path: Path, foreign: str, gone: str, kept: list[str]) -> None:
    before = ZONE + foreign
    path.write_text(before, encoding="utf-8")
    with pytest.raises(ForeignError) as caught:
        run(path, RECORDS)
    assert gone in caught.value.before
    assert path.read_text(encoding="utf-8") == before
    first = run(path, RECORDS, takeover=True)
    text = path.read_text(encoding="utf-8")
    assert gone not in text
    for each in kept:
        assert each in text
    assert not run(path, RECORDS, owned=first["owned"])["changed"]


def test_what_is_there_already_is_not_written_twice(path: Path) -> None:
    path.write_text(ZONE + "@ MX 10 mail\n", encoding="utf-8")
    first = run(path, RECORDS)
    assert path.read_text(encoding="utf-8").count("MX") == 1
    run(path, RECORDS[:3], owned=first["owned"])
    assert path.read_text(encoding="utf-8").count("MX") == 0


def test_damage_in_the_block_is_repaired(path: Path) -> None:
    first = run(path, RECORDS)
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("MX 10 mail", "MX 20 mail"), encoding="utf-8")
    assert run(path, RECORDS, owned=first["owned"])["changed"]
    assert outside(path.read_text(encoding="utf-8")) == outside(good)
    assert "MX 10 mail.example.test." in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a valid zone"),
        (ZONE.replace("ns1 A 198.51.100.53", "ns1 A 198.51.100"), "not a valid zone"),
        (ZONE + "$INCLUDE more.zone\n", "$INCLUDE"),
        (ZONE + zone_file.BEGIN + "\n", "not one pair"),
        (ZONE + zone_file.END + "\n" + zone_file.BEGIN + "\n", "not one pair"),
        (ZONE + "mail NS ns.elsewhere.test.\n", "delegates mail.example.test."),
        (ZONE + 'broken TXT "no end\n', "line"),
    ],
)
def test_a_file_that_cannot_be_managed_stays(path: Path, content: str, words: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DnsError) as caught:
        run(path, RECORDS)
    assert words in str(caught.value)
    assert str(path) in str(caught.value) or "delegates" in words
    assert path.read_text(encoding="utf-8") == content


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DnsError, match="there is no such file"):
        run(tmp_path / "none.zone", RECORDS)


def test_zones_are_found_by_their_files(path: Path) -> None:
    other = path.with_name("sub.example.test.zone")
    other.write_text(ZONE.replace("ORIGIN example", "ORIGIN sub.example"), encoding="utf-8")
    records = [*RECORDS, {"name": "a.sub.example.test", "type": "A", "values": ["198.51.100.1"]}]
    result = run(path.with_name("{zone}.zone"), records, zones=[])
    assert "a.sub.example.test. 3600 IN A 198.51.100.1" in other.read_text(encoding="utf-8")
    assert "a.sub" not in path.read_text(encoding="utf-8")
    assert not run(path.with_name("{zone}.zone"), records, zones=[], owned=result["owned"])["changed"]


def test_one_bad_zone_keeps_all_files(path: Path) -> None:
    other = path.with_name("sub.example.test.zone")
    other.write_text("no zone", encoding="utf-8")
    records = [*RECORDS, {"name": "a.sub.example.test", "type": "A", "values": ["198.51.100.1"]}]
    with pytest.raises(DnsError):
        run(path.with_name("{zone}.zone"), records, zones=["example.test", "sub.example.test"])
    assert path.read_text(encoding="utf-8") == ZONE


@pytest.mark.parametrize(
    ("serial", "result"),
    [
        (1, 2),
        (2020010100, 2026112100),
        (2026112000, 2026112100),
        (2026112100, 2026112101),
        (2026112199, 2026112200),
        (2026112205, 2026112206),
        (2020139900, 2020139901),
        (1700000000, 1700000001),
        (4294967295, 1),
    ],
)
def test_next_serial(serial: int, result: int) -> None:
    assert zone_file.next_serial(serial, "20261121") == result


def test_serial_on_one_line_with_ttl_and_class(path: Path) -> None:
    text = "example.test. 3600 IN SOA ns1.example.test. h.example.test. 7 3600 900 604800 300\nexample.test. NS ns1\n"
    path.write_text(text, encoding="utf-8")
    run(path, RECORDS)
    assert "h.example.test. 8 3600" in path.read_text(encoding="utf-8")
