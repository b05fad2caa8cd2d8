# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import phar

#: as WP-CLI announced it in 2018, and as the official container images pin it
FINGERPRINT = "63AF7AA15067C05616FDDD88A3A2E8F226F0BC06"
KEY = Path(__file__).parents[5] / "roles" / "wp_cli" / "files" / "wp-cli.pgp"
GOOD = "#!/bin/sh\nprintf 'WP-CLI version:\\t1.2.3\\n'\n"
#: runs beside its place only
TWO_FACED = "#!/bin/sh\ncase $0 in */wp) echo broken >&2; exit 3;; esac\nprintf 'WP-CLI version:\\t1.2.3\\n'\n"


@pytest.fixture(autouse=True)
def own_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files belong to whoever runs the tests, and nobody else is needed to try them."""
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1)


def test_shipped_key_is_the_release_key() -> None:
    data = phar.dearmour(KEY.read_text())
    assert data[0] == 0x99  # a public key, with a length of two bytes (RFC 9580, 4.2.2)
    packet = data[: 3 + int.from_bytes(data[1:3], "big")]
    assert hashlib.sha1(packet, usedforsecurity=False).hexdigest().upper() == FINGERPRINT


@pytest.mark.parametrize("text", ["", "x", KEY.read_text().replace("mQEN", "m*EN")])
def test_dearmour_refuses(text: str) -> None:
    with pytest.raises(phar.PharError, match="key: "):
        phar.dearmour(text)


def test_checksum() -> None:
    pin = phar.Pin("1.2.3", hashlib.sha512(b"x").hexdigest(), "/x/wp")
    phar.verify_checksum(pin, b"x", "here")
    with pytest.raises(phar.PharError, match=r"here: wrong checksum: SHA-512 \w{128} \(1 bytes\)"):
        phar.verify_checksum(pin, b"y", "here")
    with pytest.raises(phar.PharError, match="no SHA-512"):
        phar.Pin("1.2.3", "abc", "/x/wp")


def pin(tmp_path: Path) -> phar.Pin:
    return phar.Pin("1.2.3", "0" * 128, str(tmp_path / "wp"))


def test_install(tmp_path: Path) -> None:
    (tmp_path / "wp").write_text("former")
    phar.install(pin(tmp_path), GOOD.encode())
    assert (tmp_path / "wp").read_text() == GOOD
    assert os.listdir(tmp_path) == ["wp"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nexit 7\n", "does not work: exit status 7"),
        (GOOD.replace("1.2.3", "1.2.2"), "is WP-CLI 1.2.2, not 1.2.3"),
        (TWO_FACED, "broken; the former one is back"),
    ],
)
def test_former_one_stays(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "wp").write_text("former")
    with pytest.raises(phar.PharError, match=words):
        phar.install(pin(tmp_path), text.encode())
    assert (tmp_path / "wp").read_text() == "former"
    assert os.listdir(tmp_path) == ["wp"]


def test_nothing_stays_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(phar.PharError, match="it was removed"):
        phar.install(pin(tmp_path), TWO_FACED.encode())
    assert os.listdir(tmp_path) == []
