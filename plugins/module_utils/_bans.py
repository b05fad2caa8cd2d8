# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Bans: who is exempt from them, and how long they last."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: an IPv6 address is banned together with this much of its neighbourhood: what one customer is given at least
PREFIX = 64
LOOPBACK = ("127.0.0.0/8", "::1")
#: options of the jail that follow from the variables, and what the operator sets by them
OWN = {
    "enabled": "state",
    "ignoreip": "exempt",
    "maxretry": "maxretry",
    "findtime": "findtime",
    "bantime": "bantime",
    "bantime.maxtime": "bantime_max",
    "port": "ports",
}


class BanError(Exception):
    """What was asked for cannot be right; the message names the item, the value and the reason."""


def seconds(name: str, value: Any) -> int:
    """Read 600, '600', '10m', '1h', '1d' or '1w'."""
    match = re.fullmatch(r"([0-9]+)([smhdw]?)", str(value))
    if isinstance(value, bool) or not match or int(match[1]) == 0:
        raise BanError(f"{name}: {value!r} is no time: seconds, or a number with s, m, h, d or w, more than 0")
    return int(match[1]) * UNITS[match[2] or "s"]


def whole(name: str, value: Any) -> int:
    """Read 5 or '5'."""
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", str(value)):
        raise BanError(f"{name}: {value!r} is no whole number")
    return int(value)


def network(name: str, text: Any) -> Network:
    """Read an address or a network; one without host bits."""
    if not isinstance(text, str):
        raise BanError(f"{name}: {text!r} is not text")
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise BanError(f"{name}: {text!r} is neither an address nor a network ({exc})") from exc


def exempt(given: Sequence[str], controller: str = "") -> list[str]:
    """Return who is never banned: the host itself, these networks, and the controller.

    A ban covers the /64 of an IPv6 address, so the exemption of a smaller network covers all of its /64 as well: else a
    neighbour could have it banned. The controller is left out where a given network holds it, so that the result is
    the same from each of an operator's machines.
    """
    networks = [network(f"exempt[{index}]", text) for index, text in enumerate(given)]
    for index, net in enumerate(networks):
        if net.prefixlen == 0:
            raise BanError(f"exempt[{index}]: {given[index]} is everybody: nobody would ever be banned")
    if controller:
        found = network("controller", controller.partition("%")[0])
        # how a socket for both families names an IPv4 address
        mapped = found.network_address.ipv4_mapped if isinstance(found, ipaddress.IPv6Network) else None
        networks.append(ipaddress.ip_network(mapped) if mapped else found)
    result: list[Network] = [network("", text) for text in LOOPBACK]
    for net in networks:
        wide = net.supernet(new_prefix=PREFIX) if net.version == 6 and net.prefixlen > PREFIX else net
        if not any(_holds(held, wide) for held in result):
            result.append(wide)
    return [str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net) for net in result]


def _holds(outer: Network, inner: Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def banned_though_exempt(banned: Iterable[str], networks: Sequence[str]) -> list[str]:
    """Which of these banned addresses lie in an exempt network; what is no address is passed over."""
    nets = [network("exempt", text) for text in networks]
    result = []
    for text in banned:
        try:
            address = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if any(_holds(net, address) for net in nets):
            result.append(text)
    return result


def controller_of(connection: str) -> str:
    """The client's address in SSH_CONNECTION (`client port server port`); '' where there is none."""
    words = connection.split()
    return words[0] if len(words) == 4 else ""


def jail(options: Mapping[str, Any], connection: str = "") -> dict[str, Any]:
    """Check the role's variables and work out what the templates need.

    options: exempt, maxretry, findtime, bantime, bantime_max, ports, settings. connection: SSH_CONNECTION on the host.
    Times come out in seconds. Raises BanError naming the item.
    """
    findtime, bantime = (seconds(name, options[name]) for name in ("findtime", "bantime"))
    longest = seconds("bantime_max", options["bantime_max"])
    if longest < bantime:
        raise BanError(f"bantime_max: {options['bantime_max']} is shorter than bantime, {options['bantime']}")
    maxretry = whole("maxretry", options["maxretry"])
    if maxretry < 1:
        raise BanError(f"maxretry: {maxretry} wrong passwords: at least 1")
    ports = [whole(f"ports[{index}]", port) for index, port in enumerate(options["ports"])]
    for index, port in enumerate(ports):
        if not 1 <= port <= 65535:
            raise BanError(f"ports[{index}]: {port} is no port")
        if port == 25:
            raise BanError(f"ports[{index}]: 25 is where mail arrives, and nobody logs in there: it is never closed")
    if not ports:
        raise BanError("ports: none is named, so a ban would close nothing")
    for name, value in options["settings"].items():
        if name in OWN:
            raise BanError(f"settings.{name}: is said by {OWN[name]}")
        if not re.fullmatch(r"[a-z][a-z_.]*", name) or "\n" in str(value):
            raise BanError(f"settings.{name}: is no option of a jail on one line")
    return {
        "exempt": exempt(options["exempt"], controller_of(connection)),
        "maxretry": maxretry,
        "findtime": findtime,
        "bantime": bantime,
        "bantime_max": longest,
        "ports": sorted(set(ports)),
        "settings": dict(options["settings"]),
        # Who was banned is remembered at least until his longest ban could have ended.
        "memory": max(longest + findtime, UNITS["d"]),
    }
