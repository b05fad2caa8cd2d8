# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail import hashes
from ansible_collections.postmeister.host.plugins.module_utils._mail.hashes import (
    HashError,
    check_cost,
    check_password,
    make_hash,
    over_cores,
    parse_hash,
    serves,
    verify,
)

# "U*U" and its hash are in the test vectors of crypt_blowfish; the cost there is 5, which is weak for passwords.
BLF_5 = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
# The first vector of the SHA-crypt specification.
SHA512_5000 = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
# The second one.
SHA512_10000 = (
    "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/"
    "YTBmSK6H9qs/y3RnOaw5v."
)
BLF_10 = "$2y$10$" + BLF_5[7:]
ARGON = "$argon2id$v=19$m={m},t={t},p=1$c29tZXNhbHRzYWx0$" + "A" * 43


@pytest.mark.parametrize(
    ("password", "stored"),
    [
        ("U*U", "{BLF-CRYPT}" + BLF_5),
        ("Hello world!", "{SHA512-CRYPT}" + SHA512_5000),
        ("Hello world!", "{SHA512-CRYPT}" + SHA512_10000),
    ],
)
def test_vectors(password: str, stored: str) -> None:
    assert verify(password, stored)
    assert not verify(password + "x", stored)


def test_argon_is_not_verified_here() -> None:
    assert not verify("anything", "{ARGON2ID}" + ARGON.format(m=65536, t=3))


@pytest.mark.parametrize(
    ("given", "scheme", "text"),
    [
        (BLF_10, "BLF-CRYPT", BLF_10),
        ("{BLF-CRYPT}" + BLF_10, "BLF-CRYPT", BLF_10),
        ("{blf-crypt}" + BLF_10, "BLF-CRYPT", BLF_10),
        ("{CRYPT}" + BLF_10, "BLF-CRYPT", BLF_10),
        ("{CRYPT}" + SHA512_5000, "SHA512-CRYPT", SHA512_5000),
        (SHA512_10000, "SHA512-CRYPT", SHA512_10000),
        ("{ARGON2ID}" + ARGON.format(m=65536, t=3), "ARGON2ID", ARGON.format(m=65536, t=3)),
        (ARGON.format(m=19456, t=2), "ARGON2ID", ARGON.format(m=19456, t=2)),
    ],
)
def test_parse(given: str, scheme: str, text: str) -> None:
    assert parse_hash(given) == f"{{{scheme}}}{text}"
    assert parse_hash(parse_hash(given)) == parse_hash(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{BLF-CRYPT}" + BLF_5, "bcrypt cost 5"),
        ("$2y$09$" + BLF_5[7:], "bcrypt cost 9"),
        ("$2x$10$" + BLF_5[7:], "not well-formed"),
        (BLF_10[:-1], "not well-formed"),
        (BLF_10 + "\n", "not well-formed"),
        ("$6$rounds=4999$saltstring$" + SHA512_5000[-86:], "4999 rounds"),
        (SHA512_5000[:-1], "not well-formed"),
        (ARGON.format(m=4096, t=3), "least"),
        (ARGON.format(m=19456, t=1), "least"),
        (ARGON.format(m=262144, t=3), "auth process"),
        ("{PLAIN}secret", "PLAIN, which is weak or unknown"),
        ("{MD5-CRYPT}$1$abc$def", "MD5-CRYPT"),
        ("{SSHA512}abcdef", "SSHA512"),
        ("{BLF-CRYPT.b64}" + BLF_10, "BLF-CRYPT.B64"),
        ("{SHA512-CRYPT}" + BLF_10, "but is a hash of BLF-CRYPT"),
        ("{CRYPT}$1$abc$def", "no scheme that is known"),
        ("$5$rounds=10000$salt$hash", "no scheme that is known"),
        ("hunter2", "no hash at all"),
        ("{BLF-CRYPT", "unclosed"),
        ("", "no hash at all"),
    ],
)
def test_parse_refused(given: str, words: str) -> None:
    with pytest.raises(HashError) as caught:
        parse_hash(given)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert given[11:] not in str(caught.value) or len(given) < 12


@pytest.mark.parametrize(
    ("scheme", "cost", "start"),
    [("BLF-CRYPT", None, "{BLF-CRYPT}$2y$10$"), ("SHA512-CRYPT", 6000, "{SHA512-CRYPT}$6$rounds=6000$")],
)
def test_make(scheme: str, cost: int | None, start: str) -> None:
    made = make_hash("pässword", scheme, cost)
    assert made.startswith(start)
    assert parse_hash(made) == made
    assert verify("pässword", made)
    assert not verify("passwort", made)
    assert make_hash("pässword", scheme, cost) != made


def test_serves() -> None:
    stored = "{SHA512-CRYPT}" + SHA512_10000
    assert serves("Hello world!", stored, "SHA512-CRYPT", 10000)
    assert not serves("Hello world!", stored, "SHA512-CRYPT", 10001)
    assert not serves("Hello world?", stored, "SHA512-CRYPT", 10000)
    assert not serves("Hello world!", stored, "BLF-CRYPT")


@pytest.mark.parametrize(
    ("password", "scheme", "words"),
    [
        ("", "BLF-CRYPT", "empty"),
        ("secret\n", "BLF-CRYPT", "control character"),
        ("se\0cret", "SHA512-CRYPT", "control character"),
        ("a" * 73, "BLF-CRYPT", "72 bytes"),
        ("ä" * 37, "BLF-CRYPT", "72 bytes"),
    ],
)
def test_password_refused(password: str, scheme: str, words: str) -> None:
    with pytest.raises(HashError, match=words):
        check_password(password, scheme)


def test_password_taken() -> None:
    check_password("a" * 72, "BLF-CRYPT")
    check_password("a" * 73, "SHA512-CRYPT")


@pytest.mark.parametrize(
    ("scheme", "cost"), [("BLF-CRYPT", 9), ("BLF-CRYPT", 16), ("SHA512-CRYPT", 10), ("ARGON2ID", 3)]
)
def test_cost_refused(scheme: str, cost: int) -> None:
    with pytest.raises(HashError):
        check_cost(scheme, cost)


def test_threads_keep_order_and_results_apart() -> None:
    passwords = [f"password {number}" for number in range(8)]
    made = over_cores(lambda password: make_hash(password, hashes.SHA512_CRYPT, 5000), passwords)
    assert len(set(made)) == 8
    assert all(verify(password, stored) for password, stored in zip(passwords, made))
