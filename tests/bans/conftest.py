# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mail host of each release, and a client beside them that has many addresses."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pmlab.machine import Machine
from pmlab.podman import podman

HERE = Path(__file__).resolve().parent
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mail.example.test -days 9 "
    "-keyout /tmp/key -out /tmp/cert && install -m 600 /dev/null /etc/ssl/mail.pem && cat /tmp/key /tmp/cert > /etc/ssl/mail.pem"
)


@dataclass(frozen=True)
class Net:
    """A network of the tests' own, wide enough for several /64."""

    number: int

    @property
    def name(self) -> str:
        return f"pm-bans-{self.number}"

    def v4(self, last: int) -> str:
        return f"198.18.{self.number}.{last}"

    def v6(self, part: int, last: int) -> str:
        return f"2001:db8:{self.number:x}:{part}::{last:x}"


class Site:
    """The hosts, and the client that speaks to them."""

    def __init__(self) -> None:
        self.net = Net(random.randrange(1, 250))
        cap = "--cap-add=NET_ADMIN"
        at = {name: f"--network={self.net.name}:ip={self.net.v4(n)},ip={self.net.v6(0, n)}" for name, n in PLACES.items()}
        self.hosts = {release: Machine(release, "bans", cap, at[str(release)], hostname="mail.example.test") for release in (12, 13)}
        self.client = Machine(13, "bansclient", cap, at["client"])

    def start(self) -> None:
        subnets = [f"--subnet=198.18.{self.net.number}.0/24", f"--subnet=2001:db8:{self.net.number:x}::/48"]
        podman("network", "create", "--ipv6", *subnets, self.net.name)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.start(), [*self.hosts.values(), self.client]))
            list(pool.map(lambda host: host.sh(CERTIFICATE), self.hosts.values()))
        addresses = [f"{self.net.v4(n)}/24" for n in range(60, 100)]
        addresses += [f"{self.net.v6(part, n)}/48" for part in range(1, 9) for n in (0x66, 0x67)]
        self.client.sh("\n".join(f"ip addr add {address} dev eth0 nodad" if ":" in address else f"ip addr add {address} dev eth0" for address in addresses))
        self.client.put("/root/knock.py", (HERE / "knock.py").read_text())

    def remove(self) -> None:
        for machine in [*self.hosts.values(), self.client]:
            machine.remove()
        podman("network", "rm", "--force", self.net.name, check=False)

    def knock(self, release: int, source: str, *orders: str) -> list[Any]:
        """Let the client speak from this address; see knock.py for the orders. One answer for each."""
        number = PLACES[str(release)]
        target = self.net.v6(0, number) if ":" in source else self.net.v4(number)
        return json.loads(self.client.sh(f"python3 /root/knock.py {target} {source} {' '.join(orders)}"))


PLACES = {"12": 12, "13": 13, "client": 66}


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    made = Site()
    try:
        made.start()
        yield made
    finally:
        made.remove()
