# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run of dns_records: check everything, read, decide, write, wait."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _files
from . import rfc2136, text, watch, zone_file
from .names import DnsError, absolute, longest, parents
from .ownership import (
    Decision,
    ForeignError,
    Found,
    Key,
    Owned,
    Step,
    decide,
    names_of_interest,
    order,
    parse_owned,
    steps,
)
from .record import Record, parse_all

#: How often a zone that changed under our hands is read anew before that is an error.
ATTEMPTS = 4
#: options that a provider cannot do without
NEEDS = {"rfc2136": ("server", "key_name", "key_secret"), "zonefile": ("file",), "none": ()}


@dataclass
class Outcome:
    """What a run did, or would do."""

    owned: list[Owned]
    zone_text: str
    former: Sequence[Owned] = ()
    #: names of ours in zones that are not served here any more; they stay owned
    lost: list[str] = field(default_factory=list)
    changes: dict[Key, Step] = field(default_factory=dict)

    @property
    def owned_changed(self) -> bool:
        """Whether what is ours is not what was given as such, and is to be remembered."""
        return {entry.slot: set(entry.values) for entry in self.owned} != {
            entry.slot: set(entry.values) for entry in self.former
        }

    @property
    def changed(self) -> bool:
        return bool(self.changes)

    def facts(self) -> dict[str, Any]:
        """Return values of the module."""
        ordered = sorted(self.changes.values(), key=lambda step: order(step.key))
        return {
            "changed": self.changed,
            "owned": [entry.as_dict() for entry in self.owned],
            "owned_changed": self.owned_changed,
            "zone_text": self.zone_text,
            "changes": [
                {
                    "name": step.key[0],
                    "type": step.key[1],
                    "before": text.lines(step.before),
                    "after": text.lines(step.after),
                }
                for step in ordered
            ],
            "diff": {
                "before": "".join(f"{line}\n" for step in ordered for line in text.lines(step.before)),
                "after": "".join(f"{line}\n" for step in ordered for line in text.lines(step.after)),
                "before_header": "DNS",
                "after_header": "DNS",
            },
        }


class LateError(DnsError):
    """The records are published, but not every server shows them; outcome holds what was done."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass
class Request:
    """The module's options, checked: no server is asked and no file read before all of this is right."""

    records: list[Record]
    owned: list[Owned]
    zones: list[str]
    takeover: bool
    withdraw: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Request:
        """Raises DnsError with all that is wrong."""
        zones = [absolute(zone, f"zones[{index}]") for index, zone in enumerate(options["zones"])]
        request = cls(
            parse_all(options["records"]),
            parse_owned(options["owned"]),
            zones,
            options["takeover"],
            options["withdraw"],
        )
        strays = [record.title for record in request.records if zones and longest(record.name, zones) is None]
        if strays:
            raise DnsError(f"in none of the zones ({', '.join(zones)}): {', '.join(strays)}")
        return request

    @property
    def names(self) -> set[str]:
        """Names to read. A zone that is no longer among the given ones is not ours to touch."""
        owned = self.owned if self.withdraw else ()
        names = names_of_interest(self.records, owned)
        return {name for name in names if not self.zones or longest(name, self.zones)}

    def types(self) -> dict[str, set[str]]:
        result: dict[str, set[str]] = {}
        for record in self.records:
            result.setdefault(record.name, set()).add(record.type)
        for entry in self.owned:
            result.setdefault(entry.name, set()).add(entry.type)
        return result

    def decide(self, found: Found, lost: Sequence[str] = ()) -> Decision:
        """lost names, and those outside of the zones, are left alone and stay owned."""
        within = [
            entry
            for entry in self.owned
            if entry.name not in lost and (not self.zones or longest(entry.name, self.zones))
        ]
        decision = decide(self.records, within, found, self.takeover, self.withdraw)
        outside = [entry for entry in self.owned if entry not in within]
        return Decision(decision.plan, [*decision.owned, *outside])

    def outcome(self) -> Outcome:
        """With nothing published, as for provider none."""
        names = {record.name for record in self.records}
        tops = {name for name in names if not any(parent in names for parent in parents(name)[1:])}
        return Outcome(self.owned, text.render(self.records, self.zones or _groups(tops)), self.owned)


def _groups(names: set[str]) -> list[str]:
    """Headings of the zone text: names without their leading underscore labels."""
    result = set()
    for name in names:
        labels = name.rstrip(".").split(".")
        while len(labels) > 2 and labels[0].startswith(("_", "*")):
            labels.pop(0)
        if len(labels) > 2 and "_domainkey" in labels:
            labels = labels[labels.index("_domainkey") + 1 :]
        result.add(".".join(labels) + ".")
    return sorted(result)


def answer(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """What dns_records returns; with failed and msg where something is wrong, with warnings where there are any."""
    provider = options["provider"]
    missing = [name for name in NEEDS[provider] if not options[name]]
    if missing:
        return {"failed": True, "msg": f"provider {provider} needs {', '.join(missing)}"}
    if provider != "none" and rfc2136.DNSPYTHON_IMPORT_ERROR:
        msg = f"{sys.executable} has no dnspython: install it, or set ansible_python_interpreter to one that has it"
        return {"failed": True, "msg": msg, "exception": rfc2136.DNSPYTHON_IMPORT_ERROR}
    try:
        request = Request.of(options)
        if provider == "rfc2136":
            outcome = by_rfc2136(request, options, check_mode)
        elif provider == "zonefile":
            outcome = by_zonefile(request, options, check_mode)
        else:
            outcome = request.outcome()
    except ForeignError as exc:
        return {"failed": True, "msg": str(exc), "diff": {"before": exc.before, "after": exc.after}}
    except LateError as exc:
        return {**exc.outcome.facts(), "failed": True, "msg": str(exc)}
    except (DnsError, _files.FileError) as exc:
        return {"failed": True, "msg": str(exc)}
    stays = "was published by an earlier run; its zone is not served here any more, so it stays"
    warnings = [f"{name}: {stays}" for name in outcome.lost]
    return {**outcome.facts(), **({"warnings": warnings} if warnings else {})}


def by_rfc2136(request: Request, options: Mapping[str, Any], check_mode: bool) -> Outcome:
    """Raises DnsError; LateError when `wait` ran out."""
    if rfc2136.DNSPYTHON_IMPORT_ERROR:
        raise DnsError("dnspython is missing")
    waiting = [watch.split_server(server) for server in options["wait_servers"]]
    key = rfc2136.Key(options["key_name"], options["key_secret"], options["key_algorithm"])
    server = rfc2136.Server(options["server"], options["port"], key, options["timeout"])
    outcome = request.outcome()
    try:
        zone_of, outcome.lost = server.zones_of(request.names, request.zones, {r.name for r in request.records})
        types = request.types()
        for attempt in range(ATTEMPTS):
            decision = request.decide(server.read(zone_of, types), outcome.lost)
            outcome.owned = decision.owned
            groups = steps(decision.plan)
            for step in (step for group in groups for step in group):
                first = outcome.changes.get(step.key)
                outcome.changes[step.key] = Step(first.before if first else step.before, step.after)
            touched = {zone_of[group[0].key[0]] for group in groups}
            rfc2136.split(groups)
            if groups:
                server.check_key(touched)
            if check_mode or not groups:
                break
            try:
                _update(server, groups, zone_of)
                break
            except rfc2136.ChangedMeanwhile:
                if attempt + 1 == ATTEMPTS:
                    raise
    finally:
        server.close()
    if options["wait"] and outcome.changed and not check_mode:
        _wait(outcome, server, {zone_of[name] for name, _rrtype in outcome.changes}, waiting, options)
    return outcome


def _update(server: rfc2136.Server, groups: Sequence[Sequence[Step]], zone_of: Mapping[str, str]) -> None:
    """Zone after zone; with several zones MX records and withdrawals wait until all zones have the rest."""
    zones = sorted({zone_of[group[0].key[0]] for group in groups})
    if len(zones) == 1:
        server.update(zones[0], groups)
        return
    for late in (False, True):
        for zone in zones:
            part = [group for group in groups if zone_of[group[0].key[0]] == zone and _is_late(group) == late]
            if part:
                server.update(zone, part)


def _is_late(group: Sequence[Step]) -> bool:
    return all(step.after is None or step.key[1] == "MX" for step in group)


def _wait(
    outcome: Outcome,
    server: rfc2136.Server,
    zones: set[str],
    servers: Sequence[tuple[str, int]],
    options: Mapping[str, Any],
) -> None:
    expected: dict[Key, tuple[set[str], set[str]]] = {}
    for step in outcome.changes.values():
        after = set(step.after.values) if step.after else set()
        before = set(step.before.values) if step.before else set()
        expected[step.key] = (after, before - after)
    try:
        servers = servers or watch.servers_of(zones, server.address, server.port)
        watch.wait(servers, expected, options["wait"])
    except DnsError as exc:
        raise LateError(str(exc), outcome) from exc


def by_zonefile(request: Request, options: Mapping[str, Any], check_mode: bool) -> Outcome:
    """Raises DnsError and FileError. All files are read and all new texts checked before the first is written."""
    if zone_file.DNSPYTHON_IMPORT_ERROR:
        raise DnsError("dnspython is missing")
    pattern = options["file"]
    zone_of = {name: _zone_by_file(name, request.zones, pattern) for name in sorted(request.names)}
    paths = {zone: pattern.replace("{zone}", zone.rstrip(".")) for zone in set(zone_of.values())}
    if len(paths) > 1 and len(set(paths.values())) < len(paths):
        raise DnsError(f"file {pattern!r}: several zones need {{zone}} in it: {', '.join(sorted(paths))}")
    if check_mode:
        return _zonefiles(request, zone_of, paths, write=False)
    locks = [os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock") for path in sorted(paths.values())]
    return _locked(locks, request, zone_of, paths)


def _locked(locks: Sequence[str], request: Request, zone_of: Mapping[str, str], paths: Mapping[str, str]) -> Outcome:
    if not locks:
        return _zonefiles(request, zone_of, paths, write=True)
    with _files.lock(locks[0]):
        return _locked(locks[1:], request, zone_of, paths)


def _zone_by_file(name: str, zones: Sequence[str], pattern: str) -> str:
    if zones:
        zone = longest(name, zones)
    elif "{zone}" in pattern:
        zone = next((up for up in parents(name) if os.path.isfile(pattern.replace("{zone}", up.rstrip(".")))), None)
    else:
        raise DnsError(f"file {pattern!r}: name its zone in `zones`, or write {{zone}} where its name stands")
    if zone is None:
        raise DnsError(f"{name}: no zone file {pattern!r} is there for this name")
    return zone


def _zonefiles(request: Request, zone_of: Mapping[str, str], paths: Mapping[str, str], write: bool) -> Outcome:
    outcome = request.outcome()
    looked: dict[str, _files.Found] = {}
    zones: dict[str, zone_file.ZoneFile] = {}
    found: dict[str, Any] = {}
    for zone, path in sorted(paths.items()):
        file = _files.look(path)
        if file is None or file.content is None:
            raise DnsError(f"{path}: there is no such file (zone {zone})")
        looked[zone] = file
        zones[zone] = zone_file.ZoneFile(path, zone, file.content)
        found.update(zones[zone].read([name for name in zone_of if zone_of[name] == zone]))
    decision = request.decide(found)
    outcome.owned = decision.owned
    groups = steps(decision.plan)
    outcome.changes = {step.key: step for group in groups for step in group}
    today = time.strftime("%Y%m%d", time.gmtime())
    files = []
    for zone in zones:
        part = [group for group in groups if zone_of[group[0].key[0]] == zone]
        if part:
            old = looked[zone]
            content = zones[zone].new_content(part, today)
            files.append(_files.File(paths[zone], content, old.mode, old.uid, old.gid))
    if write:
        _files.write(files)
    return outcome
