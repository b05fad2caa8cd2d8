# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.directory import (
    ADHOC,
    INVENTORY,
    NOBODY,
    Alias,
    Directory,
    DirectoryError,
    Entries,
    Mailbox,
    Rules,
    Tables,
    build_directory,
    check,
    derive,
    merge,
    parse,
    parse_quota,
)

HASH = "{BLF-CRYPT}$2y$10$" + "a" * 53
OTHER = "{BLF-CRYPT}$2y$10$" + "b" * 53


def box(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "password_hash": HASH, **more}


def alias(address: str, *destinations: str) -> dict[str, Any]:
    return {"address": address, "destinations": list(destinations)}


def domains(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


def reasons(
    domain_list: Sequence[Any], mailboxes: Sequence[Any], aliases: Sequence[Any] = (), **more: Any
) -> list[str]:
    with pytest.raises(DirectoryError) as caught:
        build_directory(domain_list, mailboxes, aliases, **more)
    return [str(problem) for problem in caught.value.problems]


def there(*mailboxes: str, origin: str = INVENTORY, aliases: dict[str, Alias] | None = None) -> Directory:
    names = {address.rpartition("@")[2] for address in mailboxes} or {"a.test"}
    return Directory(
        dict.fromkeys(names, INVENTORY), {key: Mailbox(HASH, None, True, origin) for key in mailboxes}, aliases or {}
    )


def merged(
    found: Directory,
    domain_list: Sequence[Any] | None = None,
    mailboxes: Sequence[Any] | None = None,
    aliases: Sequence[Any] | None = None,
    **rules: Any,
) -> tuple[Directory, list[str]]:
    entries, problems = parse(domain_list, mailboxes, aliases, keep=rules.get("origin") == ADHOC)
    assert not problems
    result, more = merge(found, entries, Rules(**rules))
    return result.directory, [str(problem) for problem in [*more, *check(result.directory, entries)]]


# --- each entry by itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("alice@a.test", "mailboxes[0]: is no dictionary"),
        ({"password_hash": HASH}, "mailboxes[0]: has no address"),
        ({"address": 5}, "mailboxes[0]: has a address that is no text"),
        (box("a@@a.test"), "mailboxes[0]: 'a@@a.test' has more than one @"),
        (box("x@a.test", pasword="secret"), "has unknown keys: pasword"),
        (box("x@a.test", password="secret"), "both password and password_hash"),
        ({"address": "x@a.test", "password": 12345}, "password that is no text"),
        ({"address": "x@a.test", "password": ""}, "its password is empty"),
        ({"address": "x@a.test", "password": "CANARY\n"}, "its password holds a control character"),
        ({"address": "x@a.test", "password_hash": "{PLAIN}CANARY"}, "its password_hash is in the scheme PLAIN"),
        (box("x@a.test", quota="5Q"), "its quota '5Q' is no size"),
        (box("x@a.test", quota=-1), "its quota -1 is no size"),
        (box("x@a.test", quota=True), "its quota True is no size"),
        (box("x@a.test", enabled="maybe"), "neither true nor false"),
        (box("x@a.test", state="gone"), "has the state 'gone'"),
        (box("x@a.test", remove_mail=True), "needs state: absent"),
    ],
)
def test_mailbox_refused(entry: Any, words: str) -> None:
    found = reasons(domains("a.test"), [entry])
    assert len(found) == 1
    assert words in found[0]
    assert "CANARY" not in found[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"address": "x@a.test"}, "has no destinations"),
        ({"address": "x@a.test", "destinations": []}, "has no destinations"),
        ({"address": "x@a.test", "destinations": ["y"]}, "has the destination 'y', which is no mail address"),
        ({"address": "x@a.test", "destinations": [None]}, "which is no text"),
        ({"address": "@", "destinations": ["a@a.test"]}, "has no domain"),
    ],
)
def test_alias_refused(entry: Any, words: str) -> None:
    found = reasons(domains("a.test"), [box("a@a.test")], [entry])
    assert len(found) == 1
    assert words in found[0]


def test_all_problems_are_named_and_the_text_is_cut() -> None:
    with pytest.raises(DirectoryError) as caught:
        build_directory(domains("a.test"), [box(f"x{number}@") for number in range(30)], [])
    assert len(caught.value.problems) == 30
    assert str(caught.value).splitlines()[-1] == "and 10 more"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, None),
        ("", None),
        ("default", None),
        (0, 0),
        ("unlimited", 0),
        ("5G", 5 << 30),
        ("500 m", 500 << 20),
        (7, 7),
    ],
)
def test_quota(given: Any, wanted: int | None) -> None:
    assert parse_quota(given) == wanted


def test_place_names_the_item() -> None:
    found = reasons([], [box("x")], place=lambda kind, index: f"mailserver_{kind}[{index}]")
    assert found[0].startswith("mailserver_mailboxes[0]: 'x'")


# --- the whole ----------------------------------------------------------------------------------------------------


def test_duplicates() -> None:
    found = reasons(
        domains("a.test", "A.test"), [box("x@a.test"), box("X@A.test")], [alias("y@a.test", "x@a.test")] * 2
    )
    assert found == [
        "domains[1]: 'A.test' is given twice, first as domains[0]",
        "mailboxes[1]: 'X@A.test' is given twice, first as mailboxes[0]",
        "aliases[1]: 'y@a.test' is given twice, first as aliases[0]",
    ]


def test_mailbox_and_alias_of_one_address() -> None:
    found = reasons(domains("a.test"), [box("x@a.test"), box("y@a.test")], [alias("x@a.test", "y@a.test")])
    assert found == ["aliases[0]: 'x@a.test' is a mailbox as well; one address is one of both"]


def test_unknown_domain() -> None:
    found = reasons(domains("a.test"), [box("x@b.test")], [alias("@c.test", "x@b.test")])
    assert [each.split(" is in ")[0] for each in found] == ["mailboxes[0]: 'x@b.test'", "aliases[0]: '@c.test'"]


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ([alias("a@a.test", "a@a.test")], "a@a.test -> a@a.test"),
        (
            [alias("a@a.test", "b@a.test"), alias("b@a.test", "x@a.test", "a@a.test")],
            "a@a.test -> b@a.test -> a@a.test",
        ),
        ([alias("@a.test", "nobody@a.test")], "@a.test -> @a.test"),
        ([alias("a@a.test", "a+tag@a.test")], "a@a.test -> a@a.test"),
        ([alias("@a.test", "b@a.test"), alias("b@a.test", "c@a.test")], "@a.test -> b@a.test -> @a.test"),
    ],
)
def test_loop(aliases: list[Any], words: str) -> None:
    found = reasons(domains("a.test"), [box("x@a.test")], aliases)
    assert len(found) == 1
    assert f"is a loop: {words}" in found[0]


def test_no_loop() -> None:
    """The same mailbox on several ways, and a long chain."""
    chain = [alias(f"c{number}@a.test", f"c{number + 1}@a.test") for number in range(2000)]
    build_directory(
        domains("a.test"),
        [box("x@a.test")],
        [
            alias("a@a.test", "b@a.test", "c@a.test"),
            alias("b@a.test", "x@a.test"),
            alias("c@a.test", "x@a.test"),
            *chain,
            alias("c2000@a.test", "x+deep@a.test"),
        ],
    )


def test_alias_to_nowhere() -> None:
    found = reasons(domains("a.test"), [box("x@a.test")], [alias("a@a.test", "x@a.test", "gone@a.test")])
    assert found == ["aliases[0]: 'a@a.test' points to gone@a.test, and there is no such mailbox or alias"]


def test_catch_all_makes_somewhere_of_nowhere() -> None:
    build_directory(domains("a.test"), [box("x@a.test")], [alias("@a.test", "x@a.test"), alias("a@a.test", "b@a.test")])


def test_outside() -> None:
    entries = (domains("a.test"), [box("x@a.test")], [alias("a@a.test", "x@a.test", "me@outside.example")])
    (found,) = reasons(*entries)
    assert "points to me@outside.example, outside of this host" in found
    assert "SRS" in found
    build_directory(*entries, allow_external=True)


def test_expansion_limit() -> None:
    boxes = [box(f"x{number}@a.test") for number in range(1001)]
    everyone = alias("all@a.test", *(each["address"] for each in boxes))
    assert "reaches 1001 addresses" in reasons(domains("a.test"), boxes, [everyone])[0]
    everyone["destinations"].pop()
    build_directory(domains("a.test"), boxes, [everyone])


# --- together with what is there ----------------------------------------------------------------------------------


def test_new_mailbox_needs_a_password() -> None:
    _directory, problems = merged(there("x@a.test"), None, [{"address": "y@a.test"}, {"address": "x@a.test"}])
    assert problems == ["mailboxes[0]: 'y@a.test' is new and has neither password nor password_hash"]


def test_inventory_states_the_whole_entry() -> None:
    found = there("x@a.test")
    found.mailboxes["x@a.test"] = Mailbox(HASH, 5, False, ADHOC)
    directory, problems = merged(found, None, [{"address": "x@a.test"}])
    assert not problems
    assert directory.mailboxes["x@a.test"] == Mailbox(HASH, None, True, INVENTORY)


def test_adhoc_keeps_what_it_does_not_name() -> None:
    found = there("x@a.test", origin=ADHOC)
    found.mailboxes["x@a.test"] = Mailbox(HASH, 5, False, ADHOC)
    directory, problems = merged(found, None, [{"address": "x@a.test", "quota": None}], origin=ADHOC)
    assert not problems
    assert directory.mailboxes["x@a.test"] == Mailbox(HASH, 5, False, ADHOC)


@pytest.mark.parametrize(
    "entry",
    [box("x@a.test", quota=7), box("x@a.test", state="absent"), {"address": "x@a.test", "password_hash": OTHER}],
)
def test_adhoc_does_not_touch_the_inventory(entry: Any) -> None:
    directory, problems = merged(there("x@a.test"), None, [entry], origin=ADHOC)
    assert problems == ["mailboxes[0]: 'x@a.test' stands in the inventory, which wins; change it there"]
    assert directory.mailboxes == there("x@a.test").mailboxes


def test_adhoc_that_says_the_same_is_fine() -> None:
    _directory, problems = merged(there("x@a.test"), None, [box("x@a.test")], origin=ADHOC)
    assert not problems


def test_adhoc_alias_does_not_touch_the_inventory() -> None:
    found = there("x@a.test", "y@a.test", aliases={"a@a.test": Alias(("x@a.test",), INVENTORY)})
    _directory, problems = merged(found, None, None, [alias("a@a.test", "y@a.test")], origin=ADHOC)
    assert "stands in the inventory" in problems[0]
    _directory, problems = merged(found, None, None, [alias("a@a.test", "x@a.test")], origin=ADHOC)
    assert not problems


def test_password_on_create_only() -> None:
    directory, _problems = merged(
        there("x@a.test"), None, [{"address": "x@a.test", "password_hash": OTHER}], overwrite_passwords=False
    )
    assert directory.mailboxes["x@a.test"].password == HASH
    directory, _problems = merged(there("x@a.test"), None, [{"address": "x@a.test", "password_hash": OTHER}])
    assert directory.mailboxes["x@a.test"].password == OTHER


def test_purge_takes_its_own_only() -> None:
    found = there(*(f"x{number}@a.test" for number in range(20)))
    found.mailboxes["guest@a.test"] = Mailbox(HASH, None, True, ADHOC)
    found.aliases["g@a.test"] = Alias(("guest@a.test",), ADHOC)
    found.aliases["old@a.test"] = Alias(("x1@a.test",), INVENTORY)
    wanted = [box(f"x{number}@a.test") for number in range(18)]
    directory, problems = merged(found, domains("a.test"), wanted, [], purge=True)
    assert not problems
    assert set(found.mailboxes) - set(directory.mailboxes) == {"x18@a.test", "x19@a.test"}
    assert set(directory.aliases) == {"g@a.test"}


def test_purge_leaves_kinds_alone_that_are_not_named() -> None:
    found = there("x@a.test", aliases={"a@a.test": Alias(("x@a.test",), INVENTORY)})
    directory, problems = merged(found, domains("a.test"), purge=True)
    assert not problems
    assert directory == found


def test_purge_limit() -> None:
    found = there(*(f"x{number}@a.test" for number in range(20)))
    wanted = [box(f"x{number}@a.test") for number in range(17)]
    _directory, problems = merged(found, domains("a.test"), wanted, purge=True)
    assert problems == [
        "purge: would remove 3 of 20 mailboxes (x17@a.test, x18@a.test, x19@a.test), the limit is 10 %;"
        " name what is to go with state: absent, or raise purge_limit"
    ]
    assert not merged(found, domains("a.test"), wanted, purge=True, purge_limit=15)[1]
    named = [*wanted, *({"address": f"x{number}@a.test", "state": "absent"} for number in (17, 18, 19))]
    assert not merged(found, domains("a.test"), named, purge=True)[1]


def test_empty_source_does_not_empty_the_directory() -> None:
    _directory, problems = merged(there("x@a.test", "y@a.test"), domains("a.test"), [], purge=True)
    assert any("would remove 2 of 2 mailboxes" in each for each in problems)
    assert any("would leave no mailbox in the domain a.test" in each for each in problems)


def test_one_mailbox_of_few_may_go_but_not_the_last() -> None:
    found = there("x@a.test", "y@a.test")
    assert not merged(found, domains("a.test"), [box("x@a.test")], purge=True)[1]
    _directory, problems = merged(found, domains("a.test"), [box("x@a.test")], purge=True, purge_limit=0)
    assert any("would remove 1 of 2 mailboxes" in each for each in problems)
    _directory, problems = merged(there("x@a.test"), domains("a.test"), [], purge=True)
    assert [each for each in problems if "would leave no mailbox in the domain a.test" in each] == problems


def test_purge_of_a_domain_wants_100() -> None:
    found = there(*(f"x{number}@a.test" for number in range(20)), "y@b.test")
    wanted = [box(f"x{number}@a.test") for number in range(20)]
    for limit in (10, 99):
        _directory, problems = merged(found, domains("a.test"), wanted, purge=True, purge_limit=limit)
        assert "would remove the domain b.test" in problems[0]
        assert "purge_limit to 100" in problems[0]
    directory, problems = merged(found, domains("a.test"), wanted, purge=True, purge_limit=100)
    assert not problems
    assert set(directory.domains) == {"a.test"}


def test_domain_absent_takes_all_in_it_along() -> None:
    found = there("x@a.test", "y@b.test", aliases={"a@b.test": Alias(("y@b.test",), ADHOC)})
    directory, problems = merged(found, [{"name": "b.test", "state": "absent"}])
    assert not problems
    assert (set(directory.mailboxes), directory.aliases) == ({"x@a.test"}, {})
    _directory, problems = merged(found, [{"name": "b.test", "state": "absent"}], [box("y@b.test")])
    assert "is in the domain b.test" in problems[0]


def test_removed_mailbox_that_an_alias_needs() -> None:
    found = there("x@a.test", "y@a.test", aliases={"a@a.test": Alias(("x@a.test",), ADHOC)})
    _directory, problems = merged(found, None, [{"address": "x@a.test", "state": "absent"}])
    assert problems == [
        "ad hoc alias that is there already: 'a@a.test' points to x@a.test, and there is no such mailbox or alias"
    ]


# --- what follows -------------------------------------------------------------------------------------------------


def tables(mailboxes: Sequence[Any], aliases: Sequence[Any], names: Sequence[str] = ("a.test", "b.test")) -> Tables:
    return derive(build_directory(domains(*names), mailboxes, aliases, allow_external=True))


def test_users() -> None:
    found = tables([box("x@a.test"), box("y@a.test", quota="1M"), box("z@a.test", quota=0, enabled=False)], [])
    assert found.users == {
        "x@a.test": f"{HASH}:::::",
        "y@a.test": f"{HASH}::::::userdb_quota_rule=*:storage=1048576B userdb_quota_storage_size=1048576B",
        "z@a.test": f"{HASH}::::::userdb_quota_rule=*:storage=0B userdb_quota_storage_size=0B",
    }
    assert set(found.disabled) == {"z@a.test"}
    assert set(found.mailboxes) == set(found.users)
    assert set(found.domains) == {"a.test", "b.test"}


def test_catch_all_gives_each_mailbox_of_its_domain_an_identity() -> None:
    found = tables([box("x@a.test"), box("y@b.test")], [alias("@a.test", "y@b.test")])
    assert found.aliases == {"@a.test": "y@b.test", "x@a.test": "x@a.test"}


def test_whose_mail_goes_on() -> None:
    found = tables(
        [box("x@a.test"), box("y@b.test")],
        [
            alias("stays@a.test", "x@a.test"),
            alias("half@a.test", "x@a.test", "me@outside.example"),
            alias("through@a.test", "half@a.test"),
            alias("@b.test", "me@outside.example"),
            alias("stays@b.test", "y@b.test"),
        ],
    )
    leaving = dict.fromkeys(("half@a.test", "through@a.test", "@b.test"), "forwarded")
    # A catch-all is asked for those whom nobody else has.
    assert found.forwards == {**leaving, "y@b.test": "kept", "stays@b.test": "kept"}


def test_who_may_send_as_whom() -> None:
    found = tables(
        [box("x@a.test"), box("y@b.test")],
        [
            alias("info@a.test", "x@a.test", "y@b.test"),
            alias("through@a.test", "info@a.test"),
            alias("tag@a.test", "x+tag@a.test"),
            alias("out@a.test", "me@outside.example"),
            alias("half@a.test", "x@a.test", "me@outside.example"),
            alias("out@b.test", "me@outside.example"),
            alias("@b.test", "y@b.test"),
        ],
    )
    assert found.senders == {
        "x@a.test": "x@a.test",
        "y@b.test": "y@b.test",
        "info@a.test": "x@a.test,y@b.test",
        "through@a.test": "x@a.test,y@b.test",
        "tag@a.test": "x@a.test",
        "half@a.test": "x@a.test",
        "@b.test": "y@b.test",
        # Else the owner of the catch-all could send as this address.
        "out@b.test": NOBODY,
    }


def test_in_the_middle_of_a_change_nothing_is_missing() -> None:
    before = tables([box("x@a.test"), box("y@a.test", enabled=False)], [alias("z@a.test", "x@a.test")])
    after = tables([box("x@a.test", quota=5), box("z@a.test")], [alias("y@a.test", "z@a.test")])
    both = after.with_former(before)
    assert set(both.users) == {"x@a.test", "y@a.test", "z@a.test"}
    assert both.users["x@a.test"] == after.users["x@a.test"]
    assert set(both.mailboxes) == {"x@a.test", "y@a.test", "z@a.test"}
    # z became a mailbox: as an alias beside y it could make a loop.
    assert both.aliases == {"y@a.test": "z@a.test"}
    assert set(both.disabled) == {"y@a.test"}


def test_entries_of_no_kind() -> None:
    entries, problems = parse(None, None, None)
    assert not problems
    assert (entries.domains, entries.mailboxes, entries.aliases) == (None, None, None)
    assert Entries().place("mailboxes", 3) == "mailboxes[3]"
