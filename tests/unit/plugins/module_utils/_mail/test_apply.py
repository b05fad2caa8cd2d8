# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import (
    DIFF_MOST,
    Request,
    describe,
    run_request,
    size_text,
)
from ansible_collections.postmeister.host.plugins.module_utils._mail.directory import ADHOC, DirectoryError, Rules
from ansible_collections.postmeister.host.plugins.module_utils._mail.hashes import verify
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Lists, SourceNeeded
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore, StoreError

HASH = "{BLF-CRYPT}$2y$10$" + "a" * 53
OTHER = "{BLF-CRYPT}$2y$10$" + "b" * 53
FAST: dict[str, Any] = {"scheme": "SHA512-CRYPT", "cost": 5000}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory belongs to root, as on a host")


def boxes(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"address": f"{name}@a.test", "password_hash": HASH, **more} for name in names]


def ask(
    store: FileStore,
    mailboxes: Sequence[Any] | None = None,
    aliases: Sequence[Any] | None = None,
    check: bool = False,
    fingerprint: str = "",
    **more: Any,
) -> dict[str, Any]:
    options = {key: more.pop(key) for key in ("scheme", "cost", "mail_root") if key in more}
    domains = [{"name": "a.test"}] if more.get("origin") != ADHOC else None
    request = Request(lambda: Lists(domains, mailboxes, aliases), fingerprint, Rules(**more), **options)
    return run_request(store, request, check)


def test_check_real_check_real(store: FileStore) -> None:
    wanted = [*boxes("x"), {"address": "y@a.test", "password": "geheim"}]
    results = [ask(store, wanted, check=check, **FAST) for check in (True, False, True, False)]
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[0] == results[1]
    assert results[2] == results[3]
    assert results[0]["mailboxes"] == {"created": 2, "changed": 0, "deleted": 0}
    assert results[2]["files"] == []


def test_diff_and_result_hold_no_secret(store: FileStore) -> None:
    first = ask(store, [{"address": "y@a.test", "password": "CANARY one"}], **FAST)
    second = ask(store, [{"address": "y@a.test", "password": "CANARY two"}], **FAST)
    third = ask(store, boxes("y", quota="5G"))
    stored = store.load().mailboxes["y@a.test"].password
    for result in (first, second, third):
        assert result["changed"]
        assert "CANARY" not in str(result)
        assert "$6$" not in str(result)
        assert stored not in str(result)
    assert "not shown" in second["diff"]["after"]
    assert "mailbox y@a.test quota=5G enabled (inventory)" in third["diff"]["after"]


def test_diff_of_many_stays_small(store: FileStore) -> None:
    result = ask(store, boxes(*(f"x{number}" for number in range(500))))
    lines = result["diff"]["after"].splitlines()
    assert len(lines) == 1 + DIFF_MOST + 1
    assert lines[-1] == f"and {500 - DIFF_MOST} more mailboxes"


def test_password_is_verified_not_made_anew(store: FileStore) -> None:
    wanted = [{"address": "y@a.test", "password": "geheim"}]
    ask(store, wanted, **FAST)
    stored = store.load().mailboxes["y@a.test"].password
    assert verify("geheim", stored)
    assert not ask(store, wanted, **FAST)["changed"]
    assert store.load().mailboxes["y@a.test"].password == stored
    assert ask(store, wanted, scheme="SHA512-CRYPT", cost=6000)["changed"]
    assert "rounds=6000" in store.load().mailboxes["y@a.test"].password


def test_weaker_cost_asked_for_later_changes_nothing(store: FileStore) -> None:
    wanted = [{"address": "y@a.test", "password": "geheim"}]
    ask(store, wanted, scheme="SHA512-CRYPT", cost=6000)
    assert not ask(store, wanted, **FAST)["changed"]


def test_password_too_long_for_bcrypt_names_the_item(store: FileStore) -> None:
    with pytest.raises(DirectoryError, match=r"mailboxes\[1\]: 'y@a.test' is refused, its password is longer than 72"):
        ask(store, [*boxes("x"), {"address": "y@a.test", "password": "a" * 73}])
    assert store.load().mailboxes == {}


def test_cost_out_of_range(store: FileStore) -> None:
    with pytest.raises(DirectoryError, match="cost: 4 is out of range"):
        ask(store, boxes("x"), cost=4)


@pytest.mark.parametrize("rules", [{"delimiter": "++"}, {"delimiter": "a"}, {"delimiter": "."}, {"purge_limit": 101}])
def test_rule_that_makes_no_sense(store: FileStore, rules: dict[str, Any]) -> None:
    with pytest.raises(DirectoryError, match="is no"):
        ask(store, boxes("x"), **rules)


def test_refused_purge_is_not_followed_by_its_consequences(store: FileStore) -> None:
    ask(store, boxes("x"), [{"address": "z@a.test", "destinations": ["x@a.test"]}])
    with pytest.raises(DirectoryError) as caught:
        ask(store, [], purge=True)
    assert {problem.where for problem in caught.value.problems} == {"purge"}
    assert set(store.load().mailboxes) == {"x@a.test"}


def test_adhoc_takes_the_directory_as_it_is(store: FileStore) -> None:
    ask(store, boxes("x"), [], delimiter="-", allow_external=True)
    alias = {"address": "z@a.test", "destinations": ["me@outside.example"]}
    assert ask(store, None, [alias], origin=ADHOC)["changed"]
    found = store.load()
    assert (found.delimiter, found.allow_external) == ("-", True)
    assert found.aliases["z@a.test"].origin == ADHOC
    with pytest.raises(DirectoryError, match="delimiter"):
        ask(store, boxes("a-b"), origin=ADHOC)


def test_inventory_takes_an_adhoc_mailbox_over(store: FileStore) -> None:
    ask(store, [], [])
    ask(store, boxes("x", quota="1G"), origin=ADHOC)
    assert ask(store, boxes("x"))["mailboxes"]["changed"] == 1
    box = store.load().mailboxes["x@a.test"]
    assert (box.origin, box.quota) == ("inventory", None)


def test_repairs_are_told_apart_from_changes(store: FileStore) -> None:
    ask(store, boxes("x"))
    Path(store.file("dovecot-users")).write_text("harm")
    result = ask(store, boxes("x"))
    assert (result["changed"], result["files"], result["repaired"]) == (True, ["dovecot-users"], ["dovecot-users"])
    assert "dovecot-users: repaired" in result["diff"]["after"]
    assert ask(store, boxes("x", "y"))["repaired"] == []


# --- the same as last time ----------------------------------------------------------------------------------------


def test_same_request_is_not_even_read(store: FileStore) -> None:
    assert ask(store, boxes("x"), fingerprint="f")["changed"]
    # These entries would be refused, were they read.
    assert not ask(store, ["bad"], fingerprint="f")["changed"]
    Path(store.file("dovecot-users")).write_text("harm")
    for check in (True, False):
        assert ask(store, ["bad"], fingerprint="f", check=check)["repaired"] == ["dovecot-users"]
    assert "x@a.test" in Path(store.file("dovecot-users")).read_text()
    assert not ask(store, ["bad"], fingerprint="f")["changed"]


def test_adhoc_change_makes_the_request_be_read_again(store: FileStore) -> None:
    ask(store, boxes("x"), fingerprint="f")
    ask(store, boxes("y"), origin=ADHOC)
    with pytest.raises(DirectoryError):
        ask(store, ["bad"], fingerprint="f")


def kept(store: FileStore) -> Any:
    return json.loads(Path(store.file(".state")).read_text())["source"]


def test_no_fingerprint_of_a_plain_password(store: FileStore) -> None:
    ask(store, [{"address": "y@a.test", "password": "geheim"}], fingerprint="f", **FAST)
    assert kept(store) is None
    ask(store, boxes("y"), fingerprint="f")
    assert kept(store) == "f"
    ask(store, [{"address": "y@a.test", "password": "geheim"}], fingerprint="g", **FAST)
    assert kept(store) is None
    ask(store, boxes("y"), fingerprint="f")
    # The fingerprint is of the whole request, of a password that changes nothing as well.
    ask(store, [{"address": "y@a.test", "password": "geheim"}], fingerprint="h", overwrite_passwords=False, **FAST)
    assert kept(store) is None


def test_check_mode_keeps_no_fingerprint(store: FileStore) -> None:
    ask(store, boxes("x"))
    ask(store, boxes("x"), fingerprint="f", check=True)
    assert kept(store) is None


def test_source_is_asked_for_only_when_needed(store: FileStore) -> None:
    def nothing() -> Lists:
        raise SourceNeeded

    request = Request(nothing, "f")
    with pytest.raises(SourceNeeded):
        run_request(store, request, False)
    ask(store, boxes("x"), fingerprint="f")
    assert not run_request(store, request, False)["changed"]


# --- mail on the disk ---------------------------------------------------------------------------------------------


def test_mail_stays_unless_asked_by_name(store: FileStore, tmp_path: Path) -> None:
    mail = tmp_path / "vmail"
    for name in ("x", "y", "z"):
        (mail / "a.test" / name / "cur").mkdir(parents=True)
    root = {"mail_root": str(mail)}
    ask(store, boxes("x", "y", "z"), **root)
    ask(store, [{"address": "x@a.test", "state": "absent"}], **root)
    assert (mail / "a.test" / "x").is_dir()
    gone = [{"address": "y@a.test", "state": "absent", "remove_mail": True}]
    for check in (True, False):
        result = ask(store, gone, check=check, **root)
        assert (result["changed"], result["removed_mail"]) == (True, [str(mail / "a.test" / "y")])
        assert (mail / "a.test" / "y").is_dir() == check
    assert not ask(store, gone, **root)["changed"]
    assert (mail / "a.test" / "z").is_dir()


def test_mail_is_not_removed_through_a_link(store: FileStore, tmp_path: Path) -> None:
    mail = tmp_path / "vmail"
    (mail / "b.test" / "x").mkdir(parents=True)
    (mail / "a.test").symlink_to("b.test")
    ask(store, boxes("x"))
    with pytest.raises(StoreError, match="symbolic link"):
        ask(store, [{"address": "x@a.test", "state": "absent", "remove_mail": True}], mail_root=str(mail))
    assert (mail / "b.test" / "x").is_dir()
    assert "x@a.test" in store.load().mailboxes


# --- for people ---------------------------------------------------------------------------------------------------


def test_describe_holds_no_hash(store: FileStore) -> None:
    ask(store, [*boxes("x", enabled=False), *boxes("y")], [{"address": "@a.test", "destinations": ["x@a.test"]}])
    told = describe(store.load(), True)
    assert HASH[12:] not in str(told)
    assert told["sizes"] == {"domains": 1, "mailboxes": 2, "disabled": 1, "aliases": 1}
    assert told["domains"] == [{"name": "a.test", "mailboxes": 2, "aliases": 1}]
    assert told["mailboxes"][0] == {
        "address": "x@a.test",
        "quota": None,
        "enabled": False,
        "origin": "inventory",
        "scheme": "BLF-CRYPT",
    }
    assert told["aliases"] == [{"address": "@a.test", "destinations": ["x@a.test"], "origin": "inventory"}]
    assert "mailboxes" not in describe(store.load(), False)


@pytest.mark.parametrize(
    ("quota", "text"),
    [(None, "default"), (0, "unlimited"), (5 << 30, "5G"), (1536, "1536"), (500 << 20, "500M"), (2048, "2K")],
)
def test_size_text(quota: int | None, text: str) -> None:
    assert size_text(quota) == text
