# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What an operator asks of the greylist: checked whole, every mistake named, before anything is touched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
DOMAIN = re.compile(rf"(?=.{{1,253}}$)(?:{LABEL}\.)+(?!\d+$){LABEL}")
#: atext of RFC 5322 §3.2.3 and the dot; the asterisk stands for any text
LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
#: argument spec of the module postgrey, as far as it is about settings
SPEC: dict[str, dict[str, Any]] = {
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 10023},
    "delay": {"type": "str", "default": "5m"},
    "retry_window": {"type": "str", "default": "48h"},
    "lifetime": {"type": "str", "default": "35d"},
    "by_subnet": {"type": "bool", "default": True},
    "ipv4_prefix": {"type": "int", "default": 24},
    "ipv6_prefix": {"type": "int", "default": 64},
    "auto_whitelist_clients": {"type": "int", "default": 5},
    "text": {"type": "str", "default": "Greylisted, please try again later"},
    "exempt_clients": {"type": "list", "elements": "str", "default": []},
    "exempt_recipients": {"type": "list", "elements": "str", "default": []},
    "domains": {"type": "list", "elements": "str", "default": []},
}
T = TypeVar("T")


class SettingsError(Exception):
    """Something that cannot be meant; the message has a line for each mistake, with the item and the reason."""


@dataclass(frozen=True)
class Settings:
    """Checked settings. Times are in the units that postgrey takes."""

    #: where postgrey listens
    address: str
    port: int
    #: seconds that a first try waits
    delay: int
    #: hours within which it must come back
    retry_window: int
    #: days after which a triplet or a client that was not seen is forgotten
    lifetime: int
    #: length of the network that stands for a client; 32 and 128 mean the address itself
    ipv4_prefix: int
    ipv6_prefix: int
    #: deliveries after which a client's address passes without a wait; 0 for never
    auto_whitelist: int
    text: str
    #: networks, domains and regular expressions, as postgrey's file has them
    clients: tuple[str, ...]
    recipients: tuple[str, ...]
    #: recipient domains that are greylisted; empty for all
    domains: tuple[str, ...]


def seconds(value: Any) -> int:
    """Duration like 300s, 5m, 48h or 35d in seconds; raises ValueError with the reason."""
    match = re.fullmatch(r"(-?)(\d+)([smhd])", str(value).strip())
    if match is None:
        raise ValueError("is no duration; 300s, 5m, 48h and 35d are")
    if match[1] or int(match[2]) == 0:
        raise ValueError("is not longer than nothing")
    return int(match[2]) * UNITS[match[3]]


def client(entry: str) -> str:
    """One line of postgrey's list of clients; raises ValueError with the reason.

    An address or network, a domain (its subdomains with it; postgrey compares the name that Postfix confirmed), or a
    regular expression between slashes. postgrey's short forms of networks are not taken: it reads 10.1 as 10.0.0.1/24.
    """
    if entry.startswith("/"):
        return _expression(entry)
    if re.fullmatch(r"[0-9a-fA-F:.]*[.:][0-9a-fA-F:.]*(/\d+)?", entry) and (
        ":" in entry or re.search(r"\d(/|$)", entry)
    ):
        try:
            network = ipaddress.ip_network(entry)
        except ValueError as exc:
            if "host bits" in str(exc):
                raise ValueError(
                    f"has host bits set; {ipaddress.ip_network(entry, strict=False)} is the network"
                ) from None
            raise ValueError("is no address and no network") from None
        if network.prefixlen == 0:
            raise ValueError("would exempt everybody")
        return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    return domain(entry)


def recipient(entry: str) -> str:
    """One line of postgrey's list of recipients; raises ValueError with the reason.

    `domain` (its subdomains with it), `local@domain`, `local@` (in every domain), each with its sub-addresses
    (local+tag); an asterisk in the local part stands for any text; or a regular expression between slashes.
    """
    if entry.startswith("/"):
        return _expression(entry)
    if "@" not in entry:
        return domain(entry)
    local, _at, name = entry.rpartition("@")
    name = domain(name) if name else ""
    if not LOCAL.fullmatch(local):
        raise ValueError("is no address: its local part is empty, too long or has a character that needs quotes")
    if not local.strip("*"):
        raise ValueError(f"is every address of {name}; write {name}" if name else "would exempt everybody")
    if "*" not in local and "#" not in local:
        return f"{local}@{name}"
    # Postgrey ends a line at #, and knows no wildcards: a regular expression says both.
    pattern = "[^@]*".join(quoted(part) for part in local.split("*"))
    return f"/^{pattern}\\@{quoted(name)}$/" if name else f"/^{pattern}\\@/"


def domain(entry: str) -> str:
    """A domain in lower case; raises ValueError with the reason."""
    name = entry.lower()
    if name.startswith("."):
        raise ValueError(f"begins with a dot; {entry[1:]} includes its subdomains")
    if not name.isascii():
        raise ValueError("is not ASCII; write the A-label (xn--…)")
    if not DOMAIN.fullmatch(name):
        raise ValueError("is no domain with at least two labels, no address and no network")
    return name


def quoted(text: str) -> str:
    """Text as a literal in a Perl regular expression that stands in one of postgrey's files."""
    return re.sub(r"[^A-Za-z0-9_]", lambda match: "\\x23" if match[0] == "#" else f"\\{match[0]}", text)


def _expression(entry: str) -> str:
    # What postgrey makes of others: nothing, or a host name that never matches.
    if not re.fullmatch(r"/\S+/", entry):
        raise ValueError("begins with a slash and is no regular expression between slashes without blanks")
    if "#" in entry:
        raise ValueError("has a #, where postgrey ends the line; write \\x23")
    return entry


class _Check:
    """Collects mistakes. `prefix` is what the user's variables begin with."""

    def __init__(self, options: Mapping[str, Any], prefix: str) -> None:
        self.options = options
        self.prefix = prefix
        self.problems: list[str] = []

    def refuse(self, name: str, reason: str) -> None:
        self.problems.append(f"{self.prefix}{name}: {reason}")

    def one(self, name: str, parse: Callable[[Any], T], otherwise: T) -> T:
        value = self.options[name]
        try:
            return parse(value)
        except ValueError as exc:
            self.refuse(name, f"{value!r} {exc}")
            return otherwise

    def many(self, name: str, parse: Callable[[str], str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        if isinstance(self.options[name], str) or not isinstance(self.options[name], Iterable):
            self.refuse(name, f"{self.options[name]!r} is no list")
            return ()
        for index, value in enumerate(self.options[name]):
            try:
                found[parse(str(value).strip())] = None
            except ValueError as exc:
                self.refuse(f"{name}[{index}]", f"{value!r} {exc}")
        return tuple(found)

    def duration(self, name: str, unit: str) -> int:
        """In whole units; 0 where it was refused."""
        found = self.one(name, seconds, 0)
        if found % UNITS[unit]:
            what = {"h": "hours", "d": "days"}[unit]
            self.refuse(name, f"{self.options[name]!r} is not a number of whole {what}, which is what postgrey takes")
            return 0
        return found // UNITS[unit]


def _between(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not re.fullmatch(r"\d+", str(value)) or not low <= int(value) <= high:
            raise ValueError(f"is no number from {low} to {high}")
        return int(value)

    return parse


def _address(value: Any) -> str:
    try:
        found = ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError("is no address") from None
    if not found.is_loopback:
        raise ValueError("is not this machine's own (127.0.0.1 or ::1); postgrey answers whoever asks")
    return str(found)


def _text(value: Any) -> str:
    text = str(value)
    if not text.strip() or not text.isascii() or not text.isprintable() or set(text) & set('"\\$`'):
        raise ValueError("is no line of plain ASCII text without quotes, backslashes and dollar signs")
    if re.match(r"\d", text):
        raise ValueError("begins with a digit; the code 4.2.0 comes by itself")
    return text


def settings(options: Mapping[str, Any], prefix: str = "") -> Settings:
    """Check the options of the module postgrey; raises SettingsError naming every mistake.

    prefix stands before the names in messages: postgrey_ for the variables of the role.
    """
    check = _Check(options, prefix)
    delay = check.one("delay", seconds, 0)
    retry_window = check.duration("retry_window", "h")
    lifetime = check.duration("lifetime", "d")
    # Each must leave room for the one before, else nobody ever passes, or passes only once.
    if delay and retry_window and delay >= retry_window * UNITS["h"]:
        what = f"{options['delay']} and {prefix}retry_window {options['retry_window']} overlap"
        check.refuse("delay", f"{what}: who waits as long as he must has come too late")
    if retry_window and lifetime and retry_window * UNITS["h"] >= lifetime * UNITS["d"]:
        what = f"{options['retry_window']} and {prefix}lifetime {options['lifetime']} overlap"
        check.refuse("retry_window", f"{what}: a triplet would be forgotten before its second try")
    made = Settings(
        address=check.one("address", _address, ""),
        port=check.one("port", _between(1, 65535), 0),
        delay=delay,
        retry_window=retry_window,
        lifetime=lifetime,
        ipv4_prefix=check.one("ipv4_prefix", _between(8, 32), 0) if options["by_subnet"] else 32,
        ipv6_prefix=check.one("ipv6_prefix", _between(16, 128), 0) if options["by_subnet"] else 128,
        auto_whitelist=check.one("auto_whitelist_clients", _between(0, 1000), 0),
        text=check.one("text", _text, ""),
        clients=check.many("exempt_clients", client),
        recipients=check.many("exempt_recipients", recipient),
        domains=check.many("domains", domain),
    )
    if check.problems:
        raise SettingsError("\n".join(check.problems))
    return made


def problems(options: Mapping[str, Any], prefix: str = "", **domains: Iterable[Any]) -> list[str]:
    """The mistakes, a line each, also in further lists of domains; nothing where all is well.

    Options that are not there have their defaults.
    """
    complete = {**{name: spec["default"] for name, spec in SPEC.items()}, **options}
    found: list[str] = []
    try:
        settings(complete, prefix)
    except SettingsError as exc:
        found += str(exc).splitlines()
    check = _Check(domains, "")
    for name in domains:
        check.many(name, domain)
    return found + check.problems
