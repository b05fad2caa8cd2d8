# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from ansible_collections.postmeister.host.plugins.module_utils._tls import given, pem

HOST = "mail.example.test"
NOW = datetime.datetime.now(datetime.timezone.utc)
KEY, OTHER = pem.new_key(), pem.new_key()


def certificate(name: str = HOST) -> str:
    return pem.dump_certificate(pem.selfsigned(KEY, name, 30, NOW).leaf).decode()


def key(made: object = KEY) -> str:
    return pem.dump_key(made).decode()


def test_text_that_fits_is_no_problem() -> None:
    assert given.problem_of_text(certificate(), key(), HOST) == ""
    assert given.problem_of_text(certificate("*.example.test"), key(), HOST) == ""


@pytest.mark.parametrize(
    ("certificate_text", "key_text", "words"),
    [
        (certificate(), key(OTHER), ["mailserver_tls_private_key", "does not belong to", "mailserver_tls_certificate"]),
        (certificate("www.example.test"), key(), ["mailserver_tls_certificate", "www.example.test", f"not for {HOST}"]),
        # The key may lie on the host; what can be said of the certificate is said.
        (certificate("www.example.test"), "/etc/my.key", ["mailserver_tls_certificate", f"not for {HOST}"]),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key(), ["mailserver_tls_certificate"]),
        (
            certificate(),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            ["mailserver_tls_private_key"],
        ),
    ],
)
def test_text_that_does_not_fit_is_named(certificate_text: str, key_text: str, words: list[str]) -> None:
    problem = given.problem_of_text(certificate_text, key_text, HOST)
    for word in words:
        assert word in problem
    assert "BEGIN" not in problem


def test_paths_are_the_hosts_business() -> None:
    assert given.problem_of_text("/etc/my.pem", "/etc/my.key", HOST) == ""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {
        "good.pem": certificate(),
        "star.pem": certificate("*.example.test"),
        "www.pem": certificate("www.example.test"),
        "good.key": key(),
        "other.key": key(OTHER),
        "broken.pem": "nothing",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in [*texts, "none.pem"]}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("good.pem", "good.key"), ""),
        (("star.pem", "good.key"), ""),
        # Without a key of the operator's own it is the host's.
        (("good.pem", ""), ""),
        (("good.pem", "other.key"), "other.key does not belong to the certificate in "),
        (("www.pem", "good.key"), f"is for www.example.test, not for {HOST}"),
        (("www.pem", ""), f"is for www.example.test, not for {HOST}"),
        (("none.pem", "good.key"), "none.pem: there is no such file on the host"),
        (("good.pem", "none.pem"), "none.pem: there is no such file on the host"),
        (("broken.pem", "good.key"), "broken.pem"),
        (("broken.pem", ""), "broken.pem"),
    ],
)
def test_files_by_pythons_own_means(files: dict[str, str], names: tuple[str, str], words: str) -> None:
    """What a bare host can say, before cryptography is installed there."""
    certificate_path, key_path = (files.get(name, "") for name in names)
    if not words:
        given.check_files(certificate_path, key_path, HOST)
        return
    with pytest.raises(pem.TlsError) as caught:
        given.check_files(certificate_path, key_path, HOST)
    assert words in str(caught.value)


def test_a_key_with_a_passphrase_asks_nobody(files: dict[str, str], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    locked = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.key").write_bytes(locked)
    with pytest.raises(pem.TlsError, match=r"locked\.key"):
        given.check_files(files["good.pem"], str(tmp_path / "locked.key"), HOST)
