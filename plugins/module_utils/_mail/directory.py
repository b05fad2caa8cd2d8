# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The mail directory: which domains, mailboxes and aliases there are, and what follows from them.

parse() judges what was asked for, merge() brings it together with what is there, check() judges the whole, derive()
makes the lookup tables. All are pure; every problem is collected, none holds a secret. The same code runs on the
controller (build_directory, first task of a play) and on the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Callable, NamedTuple

from .addresses import (
    AddressError,
    normalize_address,
    normalize_alias,
    normalize_domain,
    normalize_mailbox,
    without_extension,
)
from .hashes import BLF_CRYPT, HashError, check_password, parse_hash, verify

INVENTORY = "inventory"
ADHOC = "adhoc"
#: where of a problem with the purge; what else would be found wrong then only follows from it
PURGE = "purge"

#: problems shown in one message
SHOWN = 20
# Postfix, virtual_alias_expansion_limit: beyond it mail for the address is deferred for ever.
EXPANSION_LIMIT = 1000
# Owner of an address that nobody may send as, although a catch-all's owner would be found for it; no login looks like
# it.
NOBODY = "nobody"
# What becomes of an address's mail.
FORWARDED = "forwarded"
KEPT = "kept"

_QUOTA = re.compile(r"(\d{1,15})\s*([BKMGT]?)", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Problem(NamedTuple):
    """One refused item: where it stands, its value, and why."""

    where: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.value!r} {self.reason}" if self.value else f"{self.where}: {self.reason}"


class DirectoryError(Exception):
    """What was asked for cannot be; problems holds all reasons, the text the first of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join(lines))


class Mailbox(NamedTuple):
    """password is `{SCHEME}hash`; quota is in bytes, 0 for unlimited, None for the host's default."""

    password: str
    quota: int | None
    enabled: bool
    origin: str


class Alias(NamedTuple):
    """Who gets the mail of an address, or of all unknown addresses of a domain (`@domain`)."""

    destinations: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Directory:
    """All of it, keyed by normalised address or domain. domains maps each to its origin."""

    domains: dict[str, str] = field(default_factory=dict)
    mailboxes: dict[str, Mailbox] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    delimiter: str = "+"
    allow_external: bool = False


class MailboxEntry(NamedTuple):
    """A mailbox as asked for. None: not said (`quota` then depends on keep, see parse)."""

    nth: int
    present: bool
    password: str | None = None
    password_hash: str | None = None
    quota: Any = None
    enabled: bool | None = None
    remove_mail: bool = False


class AliasEntry(NamedTuple):
    nth: int
    present: bool
    destinations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entries:
    """What was asked for. A kind that is None was not spoken of: purge leaves it alone."""

    domains: dict[str, tuple[int, bool]] | None = None
    mailboxes: dict[str, MailboxEntry] | None = None
    aliases: dict[str, AliasEntry] | None = None
    #: how the place of an item is called in messages, by kind and index
    place: Callable[[str, int], str] = lambda kind, index: f"{kind}[{index}]"


@dataclass(frozen=True)
class Rules:
    """How merge() is to treat what is there."""

    origin: str = INVENTORY
    purge: bool = False
    #: per cent of the mailboxes that a purge may remove; a whole domain goes only at 100
    purge_limit: int = 10
    overwrite_passwords: bool = True
    delimiter: str = "+"
    allow_external: bool = False
    #: on the controller the directory is judged without its secrets
    need_password: bool = True


class PlainPassword(NamedTuple):
    address: str
    password: str
    #: the hash that is there, '' when there is none
    stored: str


@dataclass(frozen=True)
class Merged:
    """The directory as it is to be; the passwords of those in plain are still the former ones."""

    directory: Directory
    plain: list[PlainPassword]
    #: addresses whose folder is to be deleted
    remove_mail: list[str]


# --- what was asked for ---------------------------------------------------------------------------------------------

_DOMAIN_KEYS = frozenset(("name", "state"))
_MAILBOX_KEYS = frozenset(("address", "password", "password_hash", "quota", "enabled", "state", "remove_mail"))
_ALIAS_KEYS = frozenset(("address", "destinations", "state"))

#: quota: not said, what is there stays
KEEP = object()
_TRUE = frozenset(("true", "yes", "on", "1", "y", "t"))
_FALSE = frozenset(("false", "no", "off", "0", "n", "f"))


@lru_cache(maxsize=1024)
def _quota_text(text: str) -> int | None:
    stripped = text.strip()
    if stripped.lower() in ("", "default"):
        return None
    if stripped.lower() == "unlimited":
        return 0
    match = _QUOTA.fullmatch(stripped)
    if not match:
        raise ValueError("is no size like 500M or 5G, and no number of bytes")
    size = int(match.group(1)) * _UNITS[match.group(2).upper()]
    if size >= 2**63:
        raise ValueError("is more than any disk holds")
    return size


def parse_quota(value: Any) -> int | None:
    """Bytes out of a number or a text as 500M, 5G (powers of 1024); 0 or 'unlimited' is 0, 'default' is None.

    Raises ValueError with the reason.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("is no size like 500M or 5G, and no number of bytes")
    return _quota_text(str(value))


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("is neither true nor false")


def _present(entry: Mapping[str, Any]) -> bool:
    state = entry.get("state")
    if state is None or state == "present":
        return True
    if state == "absent":
        return False
    raise ValueError(f"has the state {state!r}; it is present or absent")


class _Reader:
    """Goes through one kind of entries: shape, keys, duplicates; problems go to one list."""

    def __init__(
        self, kind: str, keys: frozenset[str], name: str, place: Callable[[str, int], str], problems: list[Problem]
    ):
        self.kind, self.keys, self.name, self.place, self.problems = kind, keys, name, place, problems

    def refuse(self, index: int, value: Any, reason: str) -> None:
        self.problems.append(Problem(self.place(self.kind, index), str(value), reason))

    def read(
        self, entries: Sequence[Any], normalize: Callable[[str], str], make: Callable[[int, str, Any], Any]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        places: dict[str, int] = {}
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                self.refuse(index, "", f"is no dictionary with the key {self.name}")
                continue
            value = entry.get(self.name)
            if not isinstance(value, str):
                self.refuse(index, "", f"has no {self.name}" if value is None else f"has a {self.name} that is no text")
                continue
            if not entry.keys() <= self.keys:
                unknown = ", ".join(sorted(str(key) for key in set(entry) - self.keys))
                self.refuse(index, value, f"has unknown keys: {unknown}")
                continue
            try:
                key = normalize(value)
                item = make(index, key, entry)
            except (AddressError, ValueError) as exc:
                self.refuse(index, value, str(exc))
                continue
            if key in places:
                self.refuse(index, value, f"is given twice, first as {self.place(self.kind, places[key])}")
                continue
            places[key] = index
            found[key] = item
        return found


def _mailbox_entry(index: int, address: str, entry: Mapping[str, Any], keep: bool) -> MailboxEntry:
    get = entry.get
    password, given_hash, quota, enabled = get("password"), get("password_hash"), get("quota"), get("enabled")
    password_hash = None
    if password not in (None, "") and given_hash not in (None, ""):
        raise ValueError("has both password and password_hash; give one")
    if given_hash not in (None, ""):
        if not isinstance(given_hash, str):
            raise ValueError("has a password_hash that is no text")
        try:
            password_hash = parse_hash(given_hash)
        except HashError as exc:
            raise ValueError(f"is refused, its password_hash {exc}") from None
    elif password is not None and (password != "" or given_hash is None):
        if not isinstance(password, str):
            raise ValueError("has a password that is no text; put it in quotes")
        try:
            check_password(password, "")
        except HashError as exc:
            raise ValueError(f"is refused, its password {exc}") from None
    else:
        password = None
    try:
        size: Any = KEEP if keep and quota is None else parse_quota(quota)
    except ValueError as exc:
        raise ValueError(f"is refused, its quota {quota!r} {exc}") from None
    try:
        flag = None if enabled is None else _flag(enabled)
        remove_mail = _flag(get("remove_mail") or False)
    except ValueError as exc:
        raise ValueError(f"is refused, enabled or remove_mail {exc}") from None
    present = _present(entry)
    if remove_mail and present:
        raise ValueError("has remove_mail, which needs state: absent")
    if not keep and flag is None:
        flag = True
    return MailboxEntry(index, present, password, password_hash, size, flag, remove_mail)


def _alias_entry(index: int, address: str, entry: Mapping[str, Any]) -> AliasEntry:
    if not _present(entry):
        return AliasEntry(index, False)
    given = entry.get("destinations")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Sequence) or not given:
        raise ValueError("has no destinations")
    destinations: dict[str, None] = {}
    for value in given:
        try:
            if not isinstance(value, str):
                raise AddressError("is no text")
            destinations[normalize_address(value)] = None
        except AddressError as exc:
            raise ValueError(f"has the destination {str(value)!r}, which {exc}") from None
    return AliasEntry(index, True, tuple(destinations))


def parse(
    domains: Sequence[Any] | None,
    mailboxes: Sequence[Any] | None,
    aliases: Sequence[Any] | None,
    delimiter: str = "+",
    keep: bool = False,
    place: Callable[[str, int], str] | None = None,
) -> tuple[Entries, list[Problem]]:
    """Judge each entry by itself and give it its one form.

    keep: quota and enabled stay as they are where the entry does not speak of them (else they get their defaults).
    """
    place = place or Entries.place
    problems: list[Problem] = []
    read_domains = read_mailboxes = read_aliases = None
    if domains is not None:
        reader = _Reader("domains", _DOMAIN_KEYS, "name", place, problems)
        read_domains = reader.read(domains, normalize_domain, lambda index, _name, entry: (index, _present(entry)))
    if mailboxes is not None:
        reader = _Reader("mailboxes", _MAILBOX_KEYS, "address", place, problems)
        read_mailboxes = reader.read(
            mailboxes,
            lambda value: normalize_mailbox(value, delimiter),
            lambda index, address, entry: _mailbox_entry(index, address, entry, keep),
        )
    if aliases is not None:
        reader = _Reader("aliases", _ALIAS_KEYS, "address", place, problems)
        read_aliases = reader.read(aliases, normalize_alias, _alias_entry)
    return Entries(read_domains, read_mailboxes, read_aliases, place), problems


# --- together with what is there ------------------------------------------------------------------------------------


def merge(found: Directory, entries: Entries, rules: Rules) -> tuple[Merged, list[Problem]]:
    """Bring what was asked for together with what is there."""
    problems: list[Problem] = []
    place = entries.place
    domains = dict(found.domains)
    gone_domains: set[str] = set()
    purged_domains: set[str] = set()
    for name, (_index, present) in (entries.domains or {}).items():
        if present:
            domains[name] = INVENTORY
        elif domains.pop(name, None):
            gone_domains.add(name)
    if rules.purge and entries.domains is not None:
        purged_domains = {name for name in domains if name not in entries.domains}
        for name in purged_domains:
            del domains[name]

    mailboxes, plain, remove_mail = _merge_mailboxes(found, entries, rules, problems)
    aliases = dict(found.aliases)
    for address, wish in (entries.aliases or {}).items():
        before = found.aliases.get(address)
        after = Alias(wish.destinations, rules.origin) if wish.present else None
        if rules.origin == ADHOC and before and before.origin == INVENTORY:
            if not after or after.destinations != before.destinations:
                problems.append(Problem(place("aliases", wish.nth), address, _IN_INVENTORY))
            continue
        if after:
            aliases[address] = after
        else:
            aliases.pop(address, None)

    if gone_domains:
        # A domain that is absent by name takes everything in it along, except what the same call asks for.
        for table, asked in ((mailboxes, entries.mailboxes or {}), (aliases, entries.aliases or {})):
            doomed = [key for key in table if key.rpartition("@")[2] in gone_domains and key not in asked]
            for key in doomed:
                del table[key]  # type: ignore[attr-defined]

    if rules.purge:
        if entries.mailboxes is not None:
            purged = [
                key for key, box in mailboxes.items() if box.origin == rules.origin and key not in entries.mailboxes
            ]
            for key in purged:
                del mailboxes[key]
            problems += _purge_problems(found, mailboxes, purged, purged_domains, rules)
        else:
            problems += _purge_problems(found, mailboxes, [], purged_domains, rules)
        if entries.aliases is not None:
            for key in [k for k, alias in aliases.items() if alias.origin == rules.origin and k not in entries.aliases]:
                del aliases[key]

    directory = Directory(domains, mailboxes, aliases, rules.delimiter, rules.allow_external)
    return Merged(directory, plain, remove_mail), problems


_IN_INVENTORY = "stands in the inventory, which wins; change it there"


def _merge_mailboxes(
    found: Directory, entries: Entries, rules: Rules, problems: list[Problem]
) -> tuple[dict[str, Mailbox], list[PlainPassword], list[str]]:
    mailboxes = dict(found.mailboxes)
    plain: list[PlainPassword] = []
    remove_mail: list[str] = []
    always = rules.overwrite_passwords
    for address, wish in (entries.mailboxes or {}).items():
        before = found.mailboxes.get(address)
        foreign = rules.origin == ADHOC and before is not None and before.origin == INVENTORY
        if not wish.present:
            if foreign:
                problems.append(Problem(entries.place("mailboxes", wish.nth), address, _IN_INVENTORY))
                continue
            mailboxes.pop(address, None)
            if wish.remove_mail:
                remove_mail.append(address)
            continue
        password = before.password if before else ""
        if wish.password_hash is not None and (always or not before):
            password = wish.password_hash
        quota = (before.quota if before else None) if wish.quota is KEEP else wish.quota
        enabled = (before.enabled if before else True) if wish.enabled is None else wish.enabled
        after = Mailbox(password, quota, enabled, rules.origin)
        if foreign and before:
            same = after[:3] == before[:3]
            if same and wish.password is not None and always:
                same = verify(wish.password, before.password)
            if not same:
                problems.append(Problem(entries.place("mailboxes", wish.nth), address, _IN_INVENTORY))
            continue
        if wish.password is not None:
            if always or not before:
                plain.append(PlainPassword(address, wish.password, password))
        elif not password and rules.need_password:
            problems.append(
                Problem(
                    entries.place("mailboxes", wish.nth), address, "is new and has neither password nor password_hash"
                )
            )
        mailboxes[address] = after
    return mailboxes, plain, remove_mail


def _purge_problems(
    found: Directory, left: Mapping[str, Mailbox], purged: list[str], purged_domains: set[str], rules: Rules
) -> Iterable[Problem]:
    """A purge beyond its limit: an empty or cut-off source must not empty the directory."""
    own = sum(1 for box in found.mailboxes.values() if box.origin == rules.origin)
    way_out = "name what is to go with state: absent, or raise purge_limit"
    # One may go in any case, else nobody with fewer than ten mailboxes could delete a line.
    if len(purged) > min(1, rules.purge_limit) and len(purged) * 100 > rules.purge_limit * own:
        yield Problem(
            PURGE,
            "",
            f"would remove {len(purged)} of {own} mailboxes ({_some(purged)}), the limit is {rules.purge_limit} %;"
            f" {way_out}",
        )
    if rules.purge_limit >= 100:
        return
    filled = {address.rpartition("@")[2] for address in left}
    emptied = {address.rpartition("@")[2] for address in purged} - filled - purged_domains
    for names, words in ((purged_domains, "remove the domain"), (emptied, "leave no mailbox in the domain")):
        if names:
            yield Problem(PURGE, "", f"would {words} {_some(sorted(names))}; {way_out} to 100")


def _some(items: Sequence[str], most: int = 5) -> str:
    text = ", ".join(items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def with_passwords(directory: Directory, passwords: Mapping[str, str]) -> Directory:
    """The same directory with these hashes."""
    boxes = dict(directory.mailboxes)
    for address, password in passwords.items():
        boxes[address] = boxes[address]._replace(password=password)
    return replace(directory, mailboxes=boxes)


# --- the whole ------------------------------------------------------------------------------------------------------


def target(directory: Directory, address: str) -> tuple[str, str]:
    """Where mail for an address goes next, in Postfix's order: ('mailbox'|'alias'|'outside'|'nowhere', key)."""
    boxes, aliases = directory.mailboxes, directory.aliases
    for key in (address, without_extension(address, directory.delimiter)):
        if key in boxes:
            return "mailbox", key
        if key in aliases:
            return "alias", key
    domain = address.rpartition("@")[2]
    if domain not in directory.domains:
        return "outside", address
    catch_all = f"@{domain}"
    return ("alias", catch_all) if catch_all in aliases else ("nowhere", address)


@dataclass(frozen=True)
class _Reach:
    """Where aliases end: mailboxes and outside addresses of each, and the loops found on the way."""

    mailboxes: dict[str, set[str]]
    outside: dict[str, set[str]]
    loops: list[list[str]]


def _reach(directory: Directory) -> _Reach:
    reach = _Reach({}, {}, [])
    open_at: dict[str, int] = {}
    for start in directory.aliases:
        if start in reach.mailboxes:
            continue
        path = [start]
        open_at[start] = 0
        pending = [list(directory.aliases[start].destinations)]
        boxes: list[set[str]] = [set()]
        outside: list[set[str]] = [set()]
        while path:
            if pending[-1]:
                kind, key = target(directory, pending[-1].pop())
                if kind == "mailbox":
                    boxes[-1].add(key)
                elif kind == "outside":
                    outside[-1].add(key)
                elif kind == "alias":
                    if key in reach.mailboxes:
                        boxes[-1] |= reach.mailboxes[key]
                        outside[-1] |= reach.outside[key]
                    elif key in open_at:
                        reach.loops.append(path[open_at[key] :])
                    else:
                        open_at[key] = len(path)
                        path.append(key)
                        pending.append(list(directory.aliases[key].destinations))
                        boxes.append(set())
                        outside.append(set())
                continue
            done = path.pop()
            del open_at[done]
            pending.pop()
            reach.mailboxes[done], reach.outside[done] = boxes.pop(), outside.pop()
            if path:
                boxes[-1] |= reach.mailboxes[done]
                outside[-1] |= reach.outside[done]
    return reach


def check(directory: Directory, entries: Entries) -> list[Problem]:
    """Judge the directory as a whole. entries only say where an item came from."""
    problems: list[Problem] = []
    wishes: dict[str, Any] = {"mailboxes": entries.mailboxes or {}, "aliases": entries.aliases or {}}

    def refuse(kind: str, key: str, reason: str) -> None:
        wish = wishes[kind].get(key)
        origin = (directory.mailboxes if kind == "mailboxes" else directory.aliases)[key].origin
        what = "mailbox" if kind == "mailboxes" else "alias"
        there = f"{'ad hoc ' if origin == ADHOC else ''}{what} that is there already"
        problems.append(Problem(entries.place(kind, wish.nth) if wish else there, key, reason))

    domains, aliases = directory.domains, directory.aliases
    for kind, table in (("mailboxes", directory.mailboxes), ("aliases", aliases)):
        for key in table:
            domain = key.rpartition("@")[2]
            if domain not in domains:
                refuse(kind, key, f"is in the domain {domain}, which is not among the domains of this directory")
    for key, alias in aliases.items():
        if key in directory.mailboxes:
            refuse("aliases", key, "is a mailbox as well; one address is one of both")
        for destination in alias.destinations:
            kind, _key = target(directory, destination)
            if kind == "nowhere":
                refuse("aliases", key, f"points to {destination}, and there is no such mailbox or alias")
            elif kind == "outside" and not directory.allow_external:
                refuse(
                    "aliases",
                    key,
                    f"points to {destination}, outside of this host: forwarded mail fails SPF at its receiver unless"
                    " this host rewrites senders (SRS); set allow_external once it does",
                )
    reach = _reach(directory)
    for loop in reach.loops:
        refuse(
            "aliases", loop[0], f"is a loop: {' -> '.join([*loop[:10], '…'] if len(loop) > 10 else [*loop, loop[0]])}"
        )
    for key in aliases:
        count = len(reach.mailboxes[key]) + len(reach.outside[key])
        if count > EXPANSION_LIMIT:
            refuse("aliases", key, f"reaches {count} addresses; Postfix expands an alias to {EXPANSION_LIMIT} at most")
    return problems


def build_directory(
    domains: Sequence[Any],
    mailboxes: Sequence[Any],
    aliases: Sequence[Any],
    delimiter: str = "+",
    allow_external: bool = False,
    place: Callable[[str, int], str] | None = None,
) -> Directory:
    """Judge a whole directory without its secrets, as mail_plan does before any host is touched.

    Raises DirectoryError with all problems.
    """
    entries, problems = parse(domains, mailboxes, aliases, delimiter, place=place)
    merged, more = merge(
        Directory(), entries, Rules(delimiter=delimiter, allow_external=allow_external, need_password=False)
    )
    problems += more
    # What was refused by itself is missing from the whole and would only be found missing again.
    if not problems:
        problems += check(merged.directory, entries)
    if problems:
        raise DirectoryError(problems)
    return merged.directory


# --- what follows ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """What the daemons look up: key to value, in the words of each."""

    users: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    mailboxes: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    senders: dict[str, str] = field(default_factory=dict)
    forwards: dict[str, str] = field(default_factory=dict)

    def with_former(self, former: Tables) -> Tables:
        """Both: what is there now and what is to be, the latter where they differ.

        Written first, so that nobody misses anything in the middle of a change. An alias that became a mailbox is no
        alias any more: together with its opposite it could make a loop.
        """
        return Tables(
            {**former.users, **self.users},
            {**former.disabled, **self.disabled},
            {**former.domains, **self.domains},
            {**former.mailboxes, **self.mailboxes},
            {**{k: v for k, v in former.aliases.items() if k not in self.mailboxes}, **self.aliases},
            {**former.senders, **self.senders},
            {**former.forwards, **self.forwards},
        )


@lru_cache(maxsize=1024)
def _quota_fields(quota: int) -> str:
    # Dovecot 2.3 reads the first and 2.4 the second; each ignores the other's. 0 is unlimited for both.
    return f":userdb_quota_rule=*:storage={quota}B userdb_quota_storage_size={quota}B"


def derive(directory: Directory) -> Tables:
    """Make the lookup tables of a directory that passed check()."""
    boxes, aliases = directory.mailboxes, directory.aliases
    catch_alls = {key[1:] for key in aliases if key.startswith("@")}
    # user:password:uid:gid:gecos:home:shell:extra; whoever reads it knows uid, gid and home.
    users = {
        address: f"{box.password}:::::" + ("" if box.quota is None else _quota_fields(box.quota))
        for address, box in boxes.items()
    }
    virtual = {key: ", ".join(alias.destinations) for key, alias in aliases.items()}
    if catch_alls:
        # A catch-all beats real mailboxes: each needs an entry of its own, to itself.
        virtual.update({address: address for address in boxes if address.rpartition("@")[2] in catch_alls})
    senders = {address: address for address in boxes}
    forwards: dict[str, str] = {}
    if aliases:
        reach = _reach(directory)
        forwards = _forwards(directory, {key for key in aliases if reach.outside[key]})
        for key in aliases:
            owners = reach.mailboxes[key]
            if owners:
                senders[key] = ",".join(sorted(owners))
            elif not key.startswith("@") and key.rpartition("@")[2] in catch_alls:
                senders[key] = NOBODY
    return Tables(
        users,
        {address: "" for address, box in boxes.items() if not box.enabled},
        dict.fromkeys(directory.domains, "ok"),
        dict.fromkeys(boxes, "ok"),
        virtual,
        senders,
        forwards,
    )


def _forwards(directory: Directory, leaving: set[str]) -> dict[str, str]:
    """Addresses whose mail goes on to elsewhere; below a catch-all that does, also those whose mail stays."""
    found = dict.fromkeys(leaving, FORWARDED)
    whole = {key[1:] for key in leaving if key.startswith("@")}
    if whole:
        for key in (*directory.mailboxes, *directory.aliases):
            if key not in leaving and key.rpartition("@")[2] in whole:
                found[key] = KEPT
    return found


__all__ = [
    "ADHOC",
    "BLF_CRYPT",
    "INVENTORY",
    "PURGE",
    "Alias",
    "Directory",
    "DirectoryError",
    "Entries",
    "Mailbox",
    "Merged",
    "PlainPassword",
    "Problem",
    "Rules",
    "Tables",
    "build_directory",
    "check",
    "derive",
    "merge",
    "parse",
    "parse_quota",
    "with_passwords",
]
