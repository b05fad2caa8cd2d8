# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._plan import PlanError, by_key, compare


def text(key: str, value: int) -> str:
    return f"{key}={value}"


def test_create_change_delete_and_keep() -> None:
    found = {"same": 1, "old": 2, "gone": 3, "foreign": 4}
    plan = compare(found, {"same": 1, "old": 5, "new": 6}, absent=["gone", "never"])

    assert plan.create == {"new": 6}
    assert plan.change == {"old": (2, 5)}
    assert plan.delete == {"gone": 3}
    assert plan.changed
    assert plan.counts == {"created": 1, "changed": 1, "deleted": 1}
    assert plan.result() == {"new": 6, "old": 5}


def test_nothing_to_do() -> None:
    plan = compare({"a": 1, "b": 2}, {"a": 1})

    assert not plan.changed
    assert plan.diff(text) == {"before": "", "after": ""}


def test_purge_asks_for_each_unwanted_entry() -> None:
    asked = []

    def mine(key: str, value: int) -> bool:
        asked.append(key)
        return value < 10

    plan = compare({"a": 1, "b": 2, "foreign": 99}, {"a": 1}, purge=mine)

    assert plan.delete == {"b": 2}
    assert asked == ["b", "foreign"]


def test_own_equality() -> None:
    assert not compare({"a": 1}, {"a": 1001}, same=lambda old, new: old % 1000 == new % 1000).changed


def test_wanted_and_absent_at_once_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^a: wanted and absent at once$"):
        compare({}, {"a": 1}, absent=["a"])


def test_diff_holds_touched_entries_in_order() -> None:
    plan = compare({"b": 1, "keep": 1, "a": 1}, {"a": 2, "keep": 1, "c": 3}, absent=["b"])

    assert plan.diff(text, "table") == {
        "before": "a=1\nb=1\n",
        "after": "a=2\nc=3\n",
        "before_header": "table",
        "after_header": "table",
    }
    assert plan.diff(text, order=lambda key: -ord(key))["before"] == "b=1\na=1\n"


def test_change_that_is_not_shown_is_marked() -> None:
    diff = compare({"alice": "hash1"}, {"alice": "hash2"}).diff(lambda key, _value: f"{key} password: ***")

    assert diff["before"] == "alice password: ***\n"
    assert diff["after"] == "alice password: ***  (changed in a part that is not shown)\n"


def test_duplicates_are_named_by_index() -> None:
    assert by_key(["a", "b"], str.upper) == {"A": "a", "B": "b"}
    with pytest.raises(PlanError, match=r"^users\[0\] and users\[2\]: A is given twice$"):
        by_key(["a", "b", "A"], str.upper, "users")
