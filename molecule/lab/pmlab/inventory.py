# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts, as inventory/hosts.yml states them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from .settings import LAB, LabError, ipv4, ipv6


@dataclass(frozen=True)
class Host:
    """One container of the lab."""

    name: str
    container: str
    number: int
    fqdn: str
    release: int = 13
    provider: bool = False
    zones: tuple[str, ...] = ()
    start: bool = False
    caps: tuple[str, ...] = field(default=())

    @property
    def ipv4(self) -> str:
        """The host's IPv4 address."""
        return ipv4(self.number)

    @property
    def ipv6(self) -> str:
        """The host's IPv6 address."""
        return ipv6(self.number)


def load() -> dict[str, Host]:
    """All hosts by name."""
    tree = yaml.safe_load((LAB / "inventory" / "hosts.yml").read_text())
    hosts: dict[str, Host] = {}
    for name, values, groups in _walk("all", tree["all"], ()):
        hosts[name] = Host(
            name=name,
            container=values["ansible_host"],
            number=values["lab_number"],
            fqdn=values["lab_fqdn"],
            release=values.get("lab_release", 13),
            provider="provider" in groups,
            zones=tuple(values.get("lab_zones", ())),
            start=bool(values.get("lab_start", False)),
            caps=tuple(values.get("lab_caps", ())),
        )
    numbers: dict[int, str] = {}
    for host in hosts.values():
        if host.number in numbers:
            raise LabError(f"inventory/hosts.yml gives {host.ipv4} to both {numbers[host.number]} and {host.name}.")
        numbers[host.number] = host.name
    return hosts


Found = tuple[str, dict[str, Any], tuple[str, ...]]  # host, its variables, its groups


def _walk(group: str, node: dict[str, Any], groups: tuple[str, ...]) -> Iterator[Found]:
    for name, values in (node.get("hosts") or {}).items():
        if values and "lab_number" in values:
            yield name, values, (*groups, group)
    for child, inner in (node.get("children") or {}).items():
        yield from _walk(child, inner or {}, (*groups, group))


def pick(hosts: dict[str, Host], name: str, **changes: Any) -> Host:
    """The host of this name, with what the command line says otherwise."""
    given = {key: value for key, value in changes.items() if value is not None}
    if name in hosts:
        return replace(hosts[name], **given)
    if not {"number", "release"} <= set(given):
        known = ", ".join(host.name for host in hosts.values() if not host.provider)
        raise LabError(f"{name} is not in inventory/hosts.yml ({known}): give it --release and --number.")
    return Host(name=name, container=f"pm-{name}", **{"fqdn": f"h{given['number']}.test", **given})
