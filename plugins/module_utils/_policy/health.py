# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The lists' health on the host: asked through its own resolver, and taken out of service in it, and back.

A list that is out of service does not exist for Unbound's clients (local-zone, always_nxdomain), except for the names
of the test (always_transparent), which go on to the list, so that its return is noticed. Postfix and rspamd keep their
configuration. What is out of service stands in a file that unbound.conf includes, so a restart keeps it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

try:
    import dns.exception
    import dns.resolver

    HAVE_DNSPYTHON = True
except ImportError:
    HAVE_DNSPYTHON = False

from .. import _files
from .._command import CommandError, run
from .lists import BlockList, Verdict, judge

FOLDER = "/etc/postmeister/dnsbl"
STATE = "/var/lib/postmeister/dnsbl"
LOCK = f"{STATE}/lock"
#: what the role resolver lets unbound.conf include; AppArmor lets Unbound read this folder
INCLUDE = "/var/lib/unbound/dnsbl.conf"
CONTROL = "/run/unbound.ctl"
POSTFIX = "/usr/sbin/postfix"
MARK = "# Lists that failed their test, and the names of that test; written by postmeister-dnsbl.service.\n"
#: seconds for one answer; glibc, which Postfix asks with, gives up after ten
PATIENCE = 8.0


class HealthError(Exception):
    """The lists could not be tested or switched; the message says why."""


@dataclass
class Places:
    """Where things lie."""

    lists: str = f"{FOLDER}/lists.json"
    status: str = f"{STATE}/status.json"
    include: str = INCLUDE
    #: there while daemons have to be told of a switch, so that a run after one that failed or was killed tells them
    due: str = f"{STATE}/reload-due"


@dataclass
class Outcome:
    """What was found, and what follows from it."""

    verdicts: dict[str, Verdict]
    #: what differs from the disk, and last the report of the test
    files: list[_files.File]
    #: zones that are taken out of service, and back, by this
    out: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    #: whether the resolver has to read its configuration again
    switches: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything but the report of the test changes."""
        return len(self.files) > 1 or self.switches

    @property
    def diff(self) -> list[dict[str, str]]:
        """Ansible's before and after of each file that changes."""
        shown = []
        for file in self.files[:-1]:
            found = _files.look(file.path)
            texts = [(found.content or b"") if found else b"", file.content or b""]
            before, after = (text.decode(errors="replace") for text in texts)
            shown.append({"before_header": file.path, "after_header": file.path, "before": before, "after": after})
        return shown

    @property
    def failing(self) -> dict[str, Verdict]:
        return {zone: verdict for zone, verdict in self.verdicts.items() if not verdict.healthy}


@contextmanager
def locked() -> Iterator[None]:
    """Playbook and timer never switch at once."""
    with _files.lock(LOCK):
        yield


def ask(names: Sequence[str]) -> dict[str, tuple[str, ...] | None]:
    """Ask the host's resolver for the A records of names; () where there are none, None without an answer."""
    resolver = dns.resolver.Resolver()
    resolver.search = []

    def one(name: str) -> tuple[str, ...] | None:
        for again in (True, False):
            try:
                answer = resolver.resolve(f"{name}.", "A", raise_on_no_answer=False, lifetime=PATIENCE)
            except dns.resolver.NXDOMAIN:
                return ()
            except dns.resolver.NoNameservers:
                # The resolver's own failure (SERVFAIL) may be over already.
                if again:
                    continue
                return None
            except dns.exception.DNSException:
                return None
            return tuple(sorted(str(record) for record in answer.rrset or ()))
        return None

    with ThreadPoolExecutor(16) as pool:
        return dict(zip(names, pool.map(one, names)))


def forget(names: Sequence[str]) -> None:
    """Let the resolver forget what it knows of the names: the list is asked, not the memory of it."""
    for name in names:
        run(["unbound-control", "flush", f"{name}."])


def look(lists: Sequence[BlockList], fresh: bool = False) -> dict[str, Verdict]:
    """Test all lists; raises HealthError where the resolver cannot be asked.

    fresh: ask the lists again for what the resolver still remembers, as the timer does.
    """
    names = [name for item in lists for name in item.questions()]
    try:
        if fresh:
            forget(names)
        answers = ask(names)
    except (CommandError, dns.exception.DNSException) as exc:
        raise HealthError(f"the host's resolver cannot be asked: {exc}") from exc
    return {item.zone: judge(item, answers) for item in lists}


def include_text(lists: Sequence[BlockList], verdicts: Mapping[str, Verdict]) -> str:
    """What Unbound is to read at its start."""
    lines = []
    for item in lists:
        if not verdicts[item.zone].healthy:
            lines.append(f'    local-zone: "{item.zone}." always_nxdomain\n')
            lines += [f'    local-zone: "{name}." always_transparent\n' for name in item.questions()]
    return MARK + ("server:\n" + "".join(lines) if lines else "")


def out_of_service(include: str) -> list[str]:
    """Zones of lists that such a file takes out of service."""
    return re.findall(r'local-zone: "([^"]+)\." always_nxdomain', include)


def plan(lists: Sequence[BlockList], verdicts: Mapping[str, Verdict], places: Places, now: float) -> Outcome:
    """What is to be written and switched, by what the test found."""
    found = _files.look(places.include)
    before = (found.content or b"").decode(errors="replace") if found else ""
    after = include_text(lists, verdicts)
    was, will = out_of_service(before), out_of_service(after)
    files = [
        _files.File(places.lists, _json([item.plain() for item in lists])),
        _files.File(places.include, after.encode(), 0o640, "root", _group("unbound")),
    ]
    return Outcome(
        dict(verdicts),
        [file for file in files if not _files.equal(file, _files.look(file.path))]
        + [_files.File(places.status, _json(_status(verdicts, places, now)))],
        out=[zone for zone in will if zone not in was],
        back=[zone for zone in was if zone not in will and zone in verdicts],
        switches=before != after or os.path.exists(places.due),
    )


def _group(name: str) -> int:
    return _files.gid_of(name, missing=0)


def _status(verdicts: Mapping[str, Verdict], places: Places, now: float) -> dict[str, Any]:
    """For reports: what each list was found to be, and since when."""
    former: dict[str, Any] = {}
    try:
        with open(places.status, encoding="utf-8") as handle:
            former = json.load(handle)
    except (OSError, ValueError):
        pass
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return {
        zone: {
            "state": verdict.state,
            "reason": verdict.reason,
            "ipv6": verdict.ipv6,
            "since": former[zone]["since"] if former.get(zone, {}).get("state") == verdict.state else stamp,
        }
        for zone, verdict in verdicts.items()
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def apply(outcome: Outcome, places: Places) -> None:
    """Write the files and let the resolver read what concerns it. Raises HealthError.

    By a reload: local zones that are given to the running Unbound 1.17 below one that is there hide that one.
    """
    files = [*([_files.File(places.due, b"")] if outcome.switches else []), *outcome.files]
    try:
        for folder in sorted({os.path.dirname(file.path) for file in files}):
            _files.make_folders(folder)
        if outcome.switches:
            # Unbound ends when it cannot read its configuration again.
            run(["unbound-checkconf"])
        _files.write(files)
        if outcome.switches:
            run(["unbound-control", "reload"])
            if os.path.exists(POSTFIX) and run([POSTFIX, "status"], check=False).rc == 0:
                # Each smtpd remembers for its life what a list told it.
                run([POSTFIX, "reload"])
            _files.write([_files.File(places.due, None)])
    except (CommandError, _files.FileError) as exc:
        raise HealthError(f"the lists could not be switched in the resolver: {exc}") from exc


def read(places: Places) -> list[BlockList]:
    """The lists that the playbook left; raises HealthError."""
    try:
        with open(places.lists, encoding="utf-8") as handle:
            return [BlockList.parse(entry) for entry in json.load(handle)]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise HealthError(f"{places.lists}: {exc}") from exc
