# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.addresses import (
    AddressError,
    normalize_address,
    normalize_alias,
    normalize_domain,
    normalize_mailbox,
    without_extension,
)

LONG = "a" * 63


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Alice@Example.ORG", "alice@example.org"),
        ("o'brien+tag@example.org", "o'brien+tag@example.org"),
        ("a@müller.example", "a@xn--mller-kva.example"),
        ("a@XN--MLLER-KVA.example", "a@xn--mller-kva.example"),
        ("a" * 64 + "@example.org", "a" * 64 + "@example.org"),
        (f"{'a' * 64}@{LONG}.{LONG}.{'a' * 61}", f"{'a' * 64}@{LONG}.{LONG}.{'a' * 61}"),
    ],
)
def test_address(given: str, wanted: str) -> None:
    assert normalize_address(given) == wanted
    assert normalize_address(wanted) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "is empty"),
        ("alice", "it has no @"),
        ("@example.org", "nothing in front of the @"),
        ("alice@", "has no domain"),
        ("a@b@example.org", "more than one @"),
        ("a b@example.org", "white space"),
        ("a@exam ple.org", "white space"),
        (" a@example.org", "white space"),
        ('"a b"@example.org', "quoted"),
        (".a@example.org", "dot at the start"),
        ("a.@example.org", "dot at the start or end"),
        ("a..b@example.org", "two in a row"),
        ("a" * 65 + "@example.org", "65 octets in front of the @, 64"),
        ("a%b@example.org", "'%'"),
        ("a!b@example.org", "'!'"),
        ("#a@example.org", "'#'"),
        ("a/b@example.org", "'/'"),
        ("a,b@example.org", "RFC 5322"),
        ("jürgen@example.org", "SMTPUTF8"),
        ("a@localhost", "no dot"),
        ("a@example.org.", "ends with a dot"),
        ("a@example..org", "empty label"),
        ("a@-example.org", "hyphen"),
        ("a@example-.org", "hyphen"),
        ("a@exam_ple.org", "'_' in the domain"),
        (f"a@{'a' * 64}.org", "64 octets in the domain, 63"),
        ("a@192.168.0.1", "names"),
        ("a@[192.168.0.1]", "names"),
        ("a@straße.example", "xn--"),
        ("a@xn--a-\u00fc.example", "xn--"),
        (f"a@{LONG}.{LONG}.{LONG}.{LONG}", "DNS can carry 253"),
        (f"a@{LONG}.{LONG}.{LONG}.{LONG}.org", "255 are allowed"),
        (f"{'a' * 64}@{LONG}.{LONG}.{'a' * 62}", "255 octets, 254 are allowed"),
    ],
)
def test_address_refused(given: str, words: str) -> None:
    with pytest.raises(AddressError, match=words.replace("(", r"\(")):
        normalize_address(given)


@pytest.mark.parametrize("given", ["alice@example.org", "a.b_c-d=e&f~g@example.org"])
def test_mailbox(given: str) -> None:
    assert normalize_mailbox(given) == given


@pytest.mark.parametrize(
    ("given", "delimiter", "words"),
    [
        ("alice+tag@example.org", "+", "alice@… gets this mail already"),
        ("alice-tag@example.org", "-", "recipient delimiter"),
        ("al*ice@example.org", "+", "'*' in its name"),
        ("o'brien@example.org", "+", '"\'" in its name'),
        ("$alice@example.org", "+", "make it an alias"),
    ],
)
def test_mailbox_refused(given: str, delimiter: str, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        normalize_mailbox(given, delimiter)
    assert words.lower() in str(caught.value).lower()


def test_mailbox_without_delimiter() -> None:
    assert normalize_mailbox("alice+tag@example.org", "") == "alice+tag@example.org"


def test_alias() -> None:
    assert normalize_alias("@Example.ORG") == "@example.org"
    assert normalize_alias("Sales+EU@example.org") == "sales+eu@example.org"
    with pytest.raises(AddressError):
        normalize_alias("@nodot")


def test_domain_is_not_an_address() -> None:
    with pytest.raises(AddressError, match="'@' in the domain"):
        normalize_domain("alice@example.org")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("alice+tag@example.org", "alice@example.org"),
        ("alice+tag+more@example.org", "alice@example.org"),
        ("+tag@example.org", "+tag@example.org"),
        ("alice@example.org", "alice@example.org"),
    ],
)
def test_without_extension(given: str, wanted: str) -> None:
    assert without_extension(given, "+") == wanted
    assert without_extension(given, "") == given
