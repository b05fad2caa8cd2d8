# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from ansible_collections.postmeister.host.plugins.module_utils._dkim import key, record, store
from ansible_collections.postmeister.host.plugins.module_utils._dkim.record import DkimError, Wanted, parse_all
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

RSA = Wanted("example.test", "r1", "rsa", 2048)
ED = Wanted("example.test", "e1", "ed25519", 0)
# RFC 8463 appendix A.1 and A.2
RFC8463_SECRET = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RFC8463_PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
LONG = ".".join(["a" * 60] * 3)


def pem(private: Any) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def made() -> dict[str, key.Key]:
    return {"rsa": key.generate(RSA), "ed25519": key.generate(ED)}


def test_rfc8463_key_gives_the_record_of_the_rfc() -> None:
    loaded = key.load(RFC8463_SECRET.encode())
    assert loaded.record == f"v=DKIM1; k=ed25519; p={RFC8463_PUBLIC}"
    octets = base64.b64decode(RFC8463_SECRET) + base64.b64decode(RFC8463_PUBLIC)
    assert key.load(base64.b64encode(octets) + b"\n").record == loaded.record


def test_rsa_record_is_the_public_key_of_the_file(made: dict[str, key.Key]) -> None:
    """RFC 6376 3.6.1: p= is SubjectPublicKeyInfo in base64."""
    public = serialization.load_pem_private_key(made["rsa"].content, None).public_key()
    head, _tag, value = made["rsa"].record.partition("p=")
    assert head == "v=DKIM1; k=rsa; "
    assert serialization.load_der_public_key(base64.b64decode(value)).public_numbers() == public.public_numbers()
    assert public.key_size == 2048
    assert public.public_numbers().e == 65537


def test_forms_that_rspamd_reads(made: dict[str, key.Key]) -> None:
    assert made["rsa"].content.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert len(base64.b64decode(made["ed25519"].content)) == 64


@pytest.mark.parametrize("wanted", [RSA, ED])
def test_load_is_the_inverse_of_generate(made: dict[str, key.Key], wanted: Wanted) -> None:
    one = made[wanted.type]
    again = key.load(one.content)
    assert again == one
    key.check(wanted, again)
    assert key.generate(wanted).fingerprint != one.fingerprint


def test_private_part_is_not_in_the_repr(made: dict[str, key.Key]) -> None:
    for one in made.values():
        assert one.content.decode()[60:80] not in repr(one)


def test_an_old_pkcs1_key_is_read(made: dict[str, key.Key]) -> None:
    private = serialization.load_pem_private_key(made["rsa"].content, None)
    old = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert key.load(old).record == made["rsa"].record


def bad_files() -> list[tuple[bytes, str]]:
    good = pem(rsa.generate_private_key(65537, 2048))
    other = ed25519.Ed25519PrivateKey.generate()
    mixed = base64.b64decode(RFC8463_SECRET) + other.public_key().public_bytes_raw()
    return [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (good[:800], "damaged"),
        (good.replace(good[200:210], b"AAAAAAAAAA"), "damaged"),
        (b"\0" * 1704, "damaged"),
        (b"hello world", "damaged"),
        (base64.b64encode(b"x" * 31), "31 octets"),
        (base64.b64encode(mixed), "does not belong to the private one"),
        (pem(other), "Ed25519 key in PEM"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
    ]


BAD_FILES = bad_files()


# The keys are new in each process; parallel workers must name the cases alike.
@pytest.mark.parametrize(("content", "words"), BAD_FILES, ids=[words for _content, words in BAD_FILES])
def test_bad_files_are_refused_and_not_quoted(content: bytes, words: str) -> None:
    with pytest.raises(DkimError) as caught:
        key.load(content)
    assert words in str(caught.value)
    assert content.decode(errors="replace")[30:50].strip() not in str(caught.value) or len(content) < 50


@pytest.mark.parametrize(
    ("wanted", "have", "words"),
    [
        (ED, "rsa", "type rsa, ed25519 is wanted"),
        (RSA, "ed25519", "type ed25519, rsa is wanted"),
        (Wanted("example.test", "r1", "rsa", 3072), "rsa", "2048 bits, 3072 are wanted"),
    ],
)
def test_another_key_is_refused(made: dict[str, key.Key], wanted: Wanted, have: str, words: str) -> None:
    with pytest.raises(DkimError, match=words):
        key.check(wanted, made[have])


def test_small_rsa_key_is_refused() -> None:
    """RFC 8301 3.2"""
    small = key.load(pem(rsa.generate_private_key(65537, 1024)))  # noqa: S505 (that is the point)
    with pytest.raises(DkimError, match="1024 bits, 2048 are wanted"):
        key.check(RSA, small)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"selector": "a_b"}, "only letters, digits and inner hyphens"),
        ({"selector": "-a"}, "only letters"),
        ({"selector": "a..b"}, "only letters"),
        ({"selector": "a/../b"}, "only letters"),
        ({"selector": ""}, "only letters"),
        ({"selector": "x" * 64}, "64 characters, DNS carries 63"),
        ({"selector": LONG, "domain": LONG[:60] + ".test"}, "DNS carries 253"),
        ({"domain": "localhost"}, "has no dot"),
        ({"domain": "../etc"}, "only letters"),
        ({"bits": 1024}, "bits 1024"),
        ({"bits": 8192}, "bits 8192"),
        ({"bits": 2049}, "bits 2049"),
    ],
)
def test_bad_items_are_refused_by_index(raw: dict[str, Any], words: str) -> None:
    good = {"domain": "example.test", "selector": "ok", "type": "rsa"}
    with pytest.raises(DkimError) as caught:
        parse_all([good, {"domain": "example.test", "selector": "s", "type": "rsa", "bits": 2048, **raw}])
    assert str(caught.value).startswith("keys[1]: ")
    assert words in str(caught.value)


def test_a_selector_names_one_key() -> None:
    one = {"domain": "example.test", "selector": "s", "type": "rsa"}
    with pytest.raises(DkimError, match=r"keys\[0\] and keys\[1\]: example\.test, selector s is given twice"):
        parse_all([one, {**one, "type": "ed25519", "domain": "Example.Test."}])


def test_names_are_lower_case_and_may_have_dots() -> None:
    assert parse_all([{"domain": "Example.Test.", "selector": "S1.Mail", "type": "ed25519"}])[0].name == (
        "s1.mail._domainkey.example.test"
    )


@pytest.fixture
def place(tmp_path: Path) -> store.Store:
    return store.Store(str(tmp_path / "dkim"), os.getuid(), os.getgid())


def fill(place: store.Store, wanted: list[Wanted]) -> list[store.Entry]:
    entries = [
        store.Entry(each.wanted, each.path, each.found, each.key or key.generate(each.wanted))
        for each in place.read(wanted)
    ]
    place.write(entries)
    return entries


def test_store_writes_private_and_only_once(place: store.Store) -> None:
    os.umask(0o022)
    first = fill(place, [RSA, ED])
    for entry in first:
        assert os.stat(entry.path).st_mode & 0o777 == 0o640
        assert os.stat(os.path.dirname(entry.path)).st_mode & 0o777 == 0o750
    again = place.read([RSA, ED])
    assert [entry.key for entry in again] == [entry.key for entry in first]
    assert place.files_to_write(again) == []
    assert place.folders_to_mend(again) == []


def test_store_mends_modes_without_touching_the_key(place: store.Store) -> None:
    first = fill(place, [ED])
    os.chmod(first[0].path, 0o644)
    os.chmod(os.path.dirname(first[0].path), 0o755)  # noqa: S103 (damage)
    again = place.read([ED])
    assert [file.path for file in place.files_to_write(again)] == [first[0].path]
    assert place.folders_to_mend(again) == [os.path.dirname(first[0].path)]
    place.write(again)
    assert place.read([ED])[0].key == first[0].key
    assert os.stat(first[0].path).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("damage", ["empty", "cut", "link", "folder"])
def test_one_bad_file_stops_all(place: store.Store, damage: str) -> None:
    path = Path(fill(place, [ED])[0].path)
    other = Path(place.path, "example.test", "r1.key")
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:40])
    else:
        path.unlink()
        path.symlink_to("/nowhere") if damage == "link" else path.mkdir()
    with pytest.raises(DkimError) as caught:
        fill(place, [RSA, ED])
    assert str(path) in str(caught.value)
    assert "no key is ever overwritten" in str(caught.value)
    assert not other.exists()


def test_diff_shows_fingerprints_only(place: store.Store) -> None:
    before = place.read([RSA, ED])
    after = fill(place, [RSA, ED])
    text = store.diff(before, after, ["/x"])
    assert "rsa 2048 SHA256:" in text["after"]
    assert "ed25519 SHA256:" in text["after"]
    assert text["before"] == "/x: another owner or mode\n"
    for entry in after:
        assert entry.key is not None
        assert entry.key.content.decode().splitlines()[-2 if entry.wanted.type == "rsa" else 0] not in text["after"]


def test_facts_of_a_key_that_is_not_made() -> None:
    facts = store.Entry(ED, "/p", None, None).facts()
    assert facts["record"] == facts["fingerprint"] == ""
    assert facts["name"] == "e1._domainkey.example.test"


def test_text() -> None:
    assert record.text("rsa", "AA==") == "v=DKIM1; k=rsa; p=AA=="
