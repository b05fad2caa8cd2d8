# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Whose record it is: ours is what we declared, everything else stays (RFC 2136 knows RRsets, owners know records)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._plan import Plan, compare
from . import text
from .names import DnsError, absolute
from .record import Record, RRset, canonical_or_as_is

Key = tuple[str, str]
#: What stands in the zones at the names of interest: name → type → RRset, without DNSSEC's own types.
Found = Mapping[str, Mapping[str, RRset]]


@dataclass(frozen=True)
class Owned:
    """What an earlier run published at one name and type."""

    name: str
    type: str
    match: str
    values: tuple[str, ...]

    @property
    def slot(self) -> tuple[str, str, str]:
        return (self.name, self.type, self.match)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "match": self.match, "values": list(self.values)}


class ForeignError(DnsError):
    """Somebody else's records stand where ours shall be; before and after are zone lines for a diff."""

    def __init__(self, message: str, before: str, after: str) -> None:
        super().__init__(message)
        self.before = before
        self.after = after


@dataclass(frozen=True)
class Decision:
    """What is to be done, and what is ours afterwards."""

    plan: Plan[Key, RRset]
    owned: list[Owned]


def parse_owned(raws: Sequence[Mapping[str, Any]]) -> list[Owned]:
    """Read back what an earlier run returned. Raises DnsError for what cannot come from there."""
    result = []
    for index, raw in enumerate(raws):
        try:
            rrtype = str(raw["type"]).upper()
            values = tuple(canonical_or_as_is(rrtype, str(value)) for value in raw["values"])
            result.append(Owned(absolute(str(raw["name"]), wildcard=True), rrtype, str(raw.get("match") or ""), values))
        except (KeyError, TypeError, DnsError) as exc:
            raise DnsError(f"owned[{index}]: not what an earlier run returned ({exc})") from exc
    return result


def names_of_interest(wanted: Iterable[Record], owned: Iterable[Owned]) -> set[str]:
    return {record.name for record in wanted} | {entry.name for entry in owned}


def decide(
    wanted: Sequence[Record], owned: Sequence[Owned], found: Found, takeover: bool = False, withdraw: bool = True
) -> Decision:
    """Compute what brings the zones to what is wanted.

    A record of ours that somebody changed is set right. What somebody put beside it is foreign, and so is all that
    stands where we never published: raises ForeignError for it, unless takeover.
    withdraw: what is owned and no longer wanted goes.
    """
    by_slot = {entry.slot: entry for entry in owned}
    wanted_at: dict[Key, list[Record]] = defaultdict(list)
    for record in wanted:
        wanted_at[record.name, record.type].append(record)
    stale: dict[Key, set[str]] = defaultdict(set)
    keep: list[Owned] = []
    slots = {record.slot for record in wanted}
    for entry in owned:
        if entry.slot in slots:
            continue
        if withdraw:
            stale[entry.name, entry.type].update(entry.values)
        else:
            keep.append(entry)

    after: dict[Key, RRset] = {}
    gone: list[Key] = []
    foreign: dict[Key, list[str]] = {}
    for key in {**wanted_at, **stale}:
        rrset, strangers = _rrset(key, wanted_at[key], stale[key], by_slot, found)
        if strangers and not takeover:
            foreign[key] = strangers
        if rrset is None:
            gone.append(key)
        else:
            after[key] = rrset
    aliases = _aliases(after, gone, found, takeover)
    gone += [key for key in aliases if takeover]
    if not takeover:
        foreign.update({key: list(found[key[0]][key[1]].values) for key in aliases})

    flat = {key: found[key[0]][key[1]] for key in [*after, *gone, *aliases] if key[1] in found.get(key[0], {})}
    plan = compare(flat, after, absent=gone, same=RRset.same)
    if foreign:
        raise _foreign(foreign, plan, flat)
    ours = [Owned(record.name, record.type, record.match, record.values) for record in wanted]
    return Decision(plan, sorted(ours + keep, key=lambda entry: entry.slot))


def _rrset(
    key: Key, records: Sequence[Record], stale: set[str], by_slot: Mapping[tuple[str, str, str], Owned], found: Found
) -> tuple[RRset | None, list[str]]:
    """The RRset as it shall be (None: gone), and the strangers that stand in the way."""
    current = found.get(key[0], {}).get(key[1])
    present = current.values if current else ()
    ours = {value for record in records for value in record.values}
    remove = {value for value in present if value in stale and value not in ours}
    in_the_way: list[str] = []
    for record in records:
        meant = [value for value in present if _meant(record, records, value)]
        former = by_slot.get(record.slot)
        mine = set(former.values) if former else set()
        remove |= {value for value in meant if value in mine and value not in ours}
        if record.exclusive:
            strangers = [value for value in meant if value not in ours and value not in mine and value not in stale]
            remove.update(strangers)
            # Ours is missing and another stands in its place: somebody changed it, and it is set right.
            if len(strangers) > len(mine.difference(present)):
                in_the_way += strangers
    stay = [value for value in present if value not in remove]
    values = tuple(stay + sorted(ours.difference(stay)))
    if not values:
        return None, in_the_way
    # One TTL per RRset (RFC 2181 5.2): beside records of others it is theirs.
    beside = current is not None and any(value not in ours for value in stay)
    ttl = current.ttl if current is not None and (beside or not records) else records[0].ttl
    return RRset(key[0], key[1], ttl, values), in_the_way


def _meant(record: Record, records: Sequence[Record], value: str) -> bool:
    """Whether a value belongs to this record; one that speaks of the whole RRset leaves out what others there match."""
    if record.match:
        return record.means(value)
    return not any(other.match and other.means(value) for other in records)


def _aliases(after: Mapping[Key, RRset], gone: Sequence[Key], found: Found, takeover: bool) -> list[Key]:
    """CNAMEs at names where other records are wanted. Raises DnsError where a CNAME is wanted beside others."""
    result = []
    for name, rrtype in after:
        others = found.get(name, {})
        if rrtype != "CNAME":
            if "CNAME" in others and (name, "CNAME") not in gone and (name, "CNAME") not in result:
                result.append((name, "CNAME"))
            continue
        beside = sorted(other for other in others if other != "CNAME" and (name, other) not in gone)
        if beside:
            raise DnsError(
                f"CNAME {name}: {', '.join(beside)} records stand at this name; a CNAME stands alone (RFC 1034 3.6.2)"
            )
    return result


def _foreign(foreign: Mapping[Key, list[str]], plan: Plan[Key, RRset], flat: Mapping[Key, RRset]) -> ForeignError:
    parts = []
    before: list[str] = []
    after: list[str] = []
    result = plan.result()
    for key, values in foreign.items():
        old = [text.line(key[0], flat[key].ttl, key[1], value) for value in values]
        before += text.lines(flat[key])
        new = text.lines(result.get(key)) if key[1] != "CNAME" else []
        after += new
        parts += [*("- " + line for line in old), *("+ " + line for line in new if line not in text.lines(flat[key]))]
    titles = ", ".join(f"{rrtype} {name}" for name, rrtype in foreign)
    return ForeignError(
        f"{titles}: records that this collection did not publish stand there."
        " Nothing was changed; with takeover: true they are replaced:\n" + "\n".join(parts),
        "\n".join(before) + "\n",
        "\n".join(after) + "\n" if after else "",
    )


def render(_key: Key, rrset: RRset) -> str:
    """For Plan.diff."""
    return "\n".join(text.lines(rrset))


def order(key: Key) -> tuple[tuple[str, ...], str]:
    """Sort key for Plan.diff."""
    return (tuple(reversed(key[0].rstrip(".").split("."))), key[1])


@dataclass(frozen=True)
class Step:
    """One RRset before and after; None means: none."""

    before: RRset | None
    after: RRset | None

    @property
    def key(self) -> Key:
        rrset = self.after or self.before
        if rrset is None:
            raise ValueError("a step from nothing to nothing")
        return (rrset.name, rrset.type)


_RANK = {"A": 0, "AAAA": 0, "PTR": 0, "CNAME": 0, "CAA": 1, "TLSA": 1, "TXT": 2, "SRV": 4, "MX": 5}


def _rank(step: Step) -> int:
    """What others rely on comes first and goes last: addresses, then keys, then who may send, MX at the end."""
    name, rrtype = step.key
    policy = rrtype == "TXT" and (name.startswith("_dmarc.") or "._report._dmarc." in name)
    rank = 3 if policy else _RANK.get(rrtype, 2)
    return rank if step.after else 20 - rank


def steps(plan: Plan[Key, RRset]) -> list[list[Step]]:
    """The plan in an order in which it may stop anywhere and the zone still works; a list inside must not be split.

    Those are the records of one name where a CNAME comes or goes.
    """
    every = [Step(None, rrset) for rrset in plan.create.values()]
    every += [Step(before, after) for before, after in plan.change.values()]
    every += [Step(rrset, None) for rrset in plan.delete.values()]
    bound = {step.key[0] for step in every if step.key[1] == "CNAME"}
    groups: dict[Any, list[Step]] = defaultdict(list)
    for step in every:
        groups[step.key[0] if step.key[0] in bound else step.key].append(step)
    # Inside a group what goes makes room for what comes.
    for group in groups.values():
        group.sort(key=lambda step: (step.after is not None, step.key))
    return sorted(groups.values(), key=lambda group: (min(map(_rank, group)), order(group[0].key)))
