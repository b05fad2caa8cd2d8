# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Wanted against found: what to create, change and delete, and the diff, out of one computation.

Bulk modules read the state, normalise both sides to the same shape, call compare(), apply the plan unless in
check mode, and return its diff. So check mode, the real run and the diff cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
Item = TypeVar("Item")


class PlanError(Exception):
    """The wanted items contradict each other; the message names the items by their index."""


@dataclass(frozen=True)
class Plan(Generic[Key, Value]):
    """What is to be done. Each part maps a key to its value; change maps it to (before, after)."""

    create: dict[Key, Value] = field(default_factory=dict)
    change: dict[Key, tuple[Value, Value]] = field(default_factory=dict)
    delete: dict[Key, Value] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.create or self.change or self.delete)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for a module's return value."""
        return {"created": len(self.create), "changed": len(self.change), "deleted": len(self.delete)}

    def result(self) -> dict[Key, Value]:
        """The touched keys after the plan was applied."""
        return {**self.create, **{key: after for key, (_before, after) in self.change.items()}}

    def diff(
        self,
        render: Callable[[Key, Value], str],
        header: str = "",
        order: Callable[[Key], Any] | None = None,
    ) -> dict[str, str]:
        """Make Ansible's before/after text of the touched entries only.

        render gives an entry's lines and must leave out what is secret. A change that render does not show is
        marked as such, so that the diff of a changed password is not empty. order is a sort key for the keys;
        without it they are sorted by their text.
        """
        by = order or str
        before: list[tuple[Any, str]] = [(by(key), render(key, value)) for key, value in self.delete.items()]
        after: list[tuple[Any, str]] = [(by(key), render(key, value)) for key, value in self.create.items()]
        for key, (old, new) in self.change.items():
            old_text, new_text = render(key, old), render(key, new)
            if old_text == new_text:
                new_text = new_text.rstrip("\n") + "  (changed in a part that is not shown)"
            before.append((by(key), old_text))
            after.append((by(key), new_text))
        result = {"before": _join(before), "after": _join(after)}
        if header:
            result.update(before_header=header, after_header=header)
        return result


def compare(
    found: Mapping[Key, Value],
    wanted: Mapping[Key, Value],
    absent: Iterable[Key] = (),
    purge: Callable[[Key, Value], bool] | None = None,
    same: Callable[[Value, Value], bool] | None = None,
) -> Plan[Key, Value]:
    """Compute the plan that brings found to wanted.

    absent: keys to delete if they are there. purge: says of a found entry that is not wanted whether it goes;
    without it such entries stay. same: equality of two values, where == is not enough.
    Raises PlanError when a key is both wanted and absent.
    """
    plan: Plan[Key, Value] = Plan()
    for key, value in wanted.items():
        if key not in found:
            plan.create[key] = value
            continue
        old = found[key]
        if not (same(old, value) if same else old == value):
            plan.change[key] = (old, value)
    for key in absent:
        if key in wanted:
            raise PlanError(f"{key}: wanted and absent at once")
        if key in found:
            plan.delete[key] = found[key]
    if purge:
        for key, value in found.items():
            if key not in wanted and purge(key, value):
                plan.delete[key] = value
    return plan


def by_key(items: Iterable[Item], key: Callable[[Item], Key], what: str = "item") -> dict[Key, Item]:
    """Index items; raises PlanError naming both places of a duplicate, as in 'users[3] and users[7]: a@b.test'."""
    result: dict[Key, Item] = {}
    place: dict[Key, int] = {}
    for index, item in enumerate(items):
        name = key(item)
        if name in result:
            raise PlanError(f"{what}[{place[name]}] and {what}[{index}]: {name} is given twice")
        result[name] = item
        place[name] = index
    return result


def _join(entries: list[tuple[Any, str]]) -> str:
    return "".join(text if text.endswith("\n") else text + "\n" for _key, text in sorted(entries, key=lambda e: e[0]))
