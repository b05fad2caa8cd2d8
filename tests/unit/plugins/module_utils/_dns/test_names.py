# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._dns import names
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError

LONG = ".".join(["a" * 63] * 3)


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("Example.ORG", "example.org."),
        ("example.org.", "example.org."),
        ("_25._tcp.mail.example.org", "_25._tcp.mail.example.org."),
        (".", "."),
        ("xn--bcher-kva.example", "xn--bcher-kva.example."),
        (LONG + "." + "b" * 61, LONG + "." + "b" * 61 + "."),
    ],
)
def test_absolute(given: str, result: str) -> None:
    assert names.absolute(given) == result


@pytest.mark.parametrize(
    ("given", "host", "words"),
    [
        ("", False, "is empty"),
        ("a..b", False, "empty label"),
        ("a b.example", False, "'a b'"),
        ("bücher.example", False, "xn--"),
        ("a" * 64 + ".example", False, "64 characters"),
        (LONG + "." + "b" * 62, False, "254 characters"),
        ("_dmarc.example", True, "letters, digits and inner hyphens"),
        ("-a.example", False, "'-a'"),
        ("a-.example", True, "'a-'"),
        ("*.example", False, "'*'"),
        ("a\\.b.example", False, "only"),
    ],
)
def test_absolute_refuses(given: str, host: bool, words: str) -> None:
    with pytest.raises(DnsError) as caught:
        names.absolute(given, "the name", host=host)
    assert words in str(caught.value)
    assert str(caught.value).startswith("the name")


@pytest.mark.parametrize(
    ("name", "zones", "result"),
    [
        ("a.b.example.", ["example.", "b.example."], "b.example."),
        ("example.", ["example."], "example."),
        ("notexample.", ["example."], None),
        ("a.", [".", "b."], "."),
    ],
)
def test_longest(name: str, zones: list[str], result: str) -> None:
    assert names.longest(name, zones) == result


def test_wire_length() -> None:
    # RFC 1035 3.1: 3www7example3org0
    assert names.wire_length("www.example.org.") == 17
    assert names.wire_length(".") == 1


def test_parents() -> None:
    assert names.parents("a.b.c.") == ["a.b.c.", "b.c.", "c."]
