# SPDX-License-Identifier: GPL-3.0-or-later
"""A zone file that we wrote, in the eyes of the name server that loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.postmeister.host.plugins.module_utils._dns import publish, session

Knot = Any

SITE = {
    "hostname": "mail.example.test",
    "ipv4": "198.51.100.25",
    "ipv6": "2001:db8:51::25",
    "domains": ["example.test", "sub.example.test"],
    "dkim": [
        {"domain": "example.test", "name": "r1._domainkey.example.test", "record": "v=DKIM1; k=rsa; p=" + "A" * 392}
    ],
    "tlsa": ["3 1 1 " + "ab" * 32, "3 1 1 " + "cd" * 32],
    "caa": ["letsencrypt.org"],
    "dmarc_rua": ["dmarc@example.test"],
    "tls_rpt": "tls@example.test",
}
HEAD = """\
$ORIGIN example.test.
$TTL 3600
@ SOA ns1 hostmaster 1 3600 900 604800 300
@ NS ns1
ns1 A 198.51.100.53
@ TXT "site-verification=abc"
"""


def kzonecheck(knot: Knot, text: str) -> tuple[str, str]:
    """The exit status, and what the program says."""
    said = knot.sh("kzonecheck -v -o example.test /dev/stdin; echo $?", stdin=text).splitlines()
    return said[-1], "\n".join(said[:-1])


def test_kzonecheck_likes_the_file_and_the_text_to_paste(knot: Knot, tmp_path: Path) -> None:
    phases = publish.derive(SITE)
    records = [record for phase in publish.PHASES for record in phases[phase]]
    path = tmp_path / "example.test.zone"
    path.write_text(HEAD, encoding="utf-8")
    options = {
        "zones": ["example.test"],
        "records": records,
        "owned": [],
        "takeover": False,
        "withdraw": True,
        "file": str(path),
    }
    facts = session.by_zonefile(session.Request.of(options), options, False).facts()
    for text in (path.read_text(encoding="utf-8"), HEAD + facts["zone_text"]):
        status, words = kzonecheck(knot, text)
        assert status == "0", words
        assert "warning" not in words.lower()
        for record in records:
            assert str(record["name"]).rstrip(".") + "." in text
    assert kzonecheck(knot, HEAD + "mail A 198.51.100\n")[0] != "0"
