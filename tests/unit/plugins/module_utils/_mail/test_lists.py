# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import (
    Parcel,
    PayloadError,
    SourceNeeded,
    from_csv,
    join,
    pack,
    read_lists,
)


def test_join_names_places_of_both() -> None:
    lists = join({"mailboxes": [1, 2], "aliases": None}, {"mailboxes": [3], "aliases": [4]}, "boxes.json")
    assert (lists.domains, lists.mailboxes, lists.aliases) == (None, [1, 2, 3], [4])
    assert lists.place("mailboxes", 1) == "mailboxes[1]"
    assert lists.place("mailboxes", 2) == "mailboxes[0] in boxes.json"
    assert lists.place("aliases", 0) == "aliases[0] in boxes.json"


def test_fallback_aliases_are_for_addresses_that_nobody_has() -> None:
    inline = {"aliases": [{"address": "abuse@a.test"}]}
    source = {"mailboxes": [{"address": "Postmaster@a.test"}, {"address": "noc@b\u00fccher.test"}]}
    free = {"address": "security@a.test"}
    taken = [{"address": f"{name}"} for name in ("postmaster@a.test", "abuse@a.test", "noc@xn--bcher-kva.test")]
    lists = join({**inline, "fallback_aliases": [*taken, free]}, source, "boxes.json")
    assert lists.aliases == [{"address": "abuse@a.test"}, free]
    assert lists.place("aliases", 1) == "fallback_aliases (security@a.test)"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"[]", {"mailboxes": []}),
        (b'{"mailboxes": [1], "aliases": null}', {"mailboxes": [1], "aliases": None}),
    ],
)
def test_read(content: bytes, wanted: Any) -> None:
    assert read_lists(content, "x.json") == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.json: is no JSON, or was cut off"),
        (b'[{"address": "CANARY@a.test"}, {"addr', "cut off (line 1, column"),
        (b"\xff\xfe", "is no JSON"),
        (b'"CANARY"', "neither a list of mailboxes nor a dictionary"),
        (b'{"mailboxes": {}}', "mailboxes is no list"),
        (b'{"users": []}', "unknown keys users"),
    ],
)
def test_read_refused(content: bytes, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        read_lists(content, "x.json")
    assert words in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_csv() -> None:
    rows = ["address,password_hash,quota,destinations\n", "x@a.test,HASH,,\n", "y@a.test,,,x@a.test  z@a.test\n"]
    assert from_csv(rows, "x.csv") == {
        "mailboxes": [{"address": "x@a.test", "password_hash": "HASH"}],
        "aliases": [{"address": "y@a.test", "destinations": ["x@a.test", "z@a.test"]}],
    }


def test_csv_that_says_nothing_of_aliases() -> None:
    assert from_csv(["address,quota\n", "x@a.test,5G\n"], "x.csv") == {
        "mailboxes": [{"address": "x@a.test", "quota": "5G"}]
    }


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no header line"),
        (["mail,password\n"], "no header line"),
        (["address,password\n", "x@a.test,CANARY,CANARY\n"], "line 2 has not as many fields"),
        (["address,password\n", "x@a.test\n"], "line 2 has not as many fields"),
        (["address,password\n", 'x@a.test,"CANARY'], "unexpected end"),
    ],
)
def test_csv_refused(rows: list[str], words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        from_csv(rows, "x.csv")
    assert words in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_parcel_with_everything_in_it() -> None:
    parcel = Parcel(pack({"domains": [{"name": "a.test"}]}, "[1]", "x.json", "digest"), None)
    lists = parcel.lists()
    assert (lists.domains, lists.mailboxes) == ([{"name": "a.test"}], [1])


def test_parcel_asks_for_its_source(tmp_path: Path) -> None:
    payload = pack({}, None, "x.json", "digest")
    with pytest.raises(SourceNeeded):
        Parcel(payload, None).lists()
    source = tmp_path / "directory.json"
    source.write_text("[2]")
    assert Parcel(payload, str(source)).lists().mailboxes == [2]
    assert not source.exists()
    with pytest.raises(PayloadError, match=r"x\.json"):
        Parcel(payload, str(source)).lists()


def test_fingerprint_tells_requests_apart() -> None:
    def fingerprint(lists: Any, digest: str, options: Any) -> str:
        return Parcel(pack(lists, None, "x.json", digest), None).fingerprint(options)

    same = fingerprint({"mailboxes": [1]}, "d", {"purge": True})
    assert same == fingerprint({"mailboxes": [1]}, "d", {"purge": True})
    others = {
        fingerprint({"mailboxes": [2]}, "d", {"purge": True}),
        fingerprint({"mailboxes": [1]}, "e", {"purge": True}),
        fingerprint({"mailboxes": [1]}, "d", {"purge": False}),
        fingerprint({"aliases": [1]}, "d", {"purge": True}),
    }
    assert len(others - {same}) == 4


@pytest.mark.parametrize(
    "payload", ["", "x", base64.b64encode(b"x").decode(), base64.b64encode(zlib.compress(b"1")).decode()]
)
def test_payload_by_hand(payload: str) -> None:
    with pytest.raises(PayloadError, match="action plugin"):
        Parcel(payload, None)


def test_packed_text_is_no_plain_text() -> None:
    packed = pack({"mailboxes": [{"password": "CANARY"}]})
    assert "CANARY" not in packed
    assert json.loads(zlib.decompress(base64.b64decode(packed)))["lists"]["mailboxes"] == [{"password": "CANARY"}]
