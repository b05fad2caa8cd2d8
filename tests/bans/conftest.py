# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mail host of each release, and a client beside them that has many addresses."""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pmlab.machine import Machine, Run
from pmlab.podman import podman

HERE = Path(__file__).resolve().parent
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mail.example.test -days 9 "
    "-keyout /tmp/key -out /tmp/cert && umask 077 && cat /tmp/key /tmp/cert > /etc/ssl/mail.pem"
)
#: what is the last of each one's addresses
PLACES = {"12": 12, "13": 13, "client": 66}


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
        return f"2001:db8:f{self.number:02x}:{part}::{last:x}"


class Site:
    """The hosts, and the client that speaks to them."""

    def __init__(self) -> None:
        self.net = Net(1 + secrets.randbelow(249))
        cap = "--cap-add=NET_ADMIN"
        at = {
            name: f"--network={self.net.name}:ip={self.net.v4(n)},ip={self.net.v6(0, n)}" for name, n in PLACES.items()
        }
        self.hosts = {
            release: Machine(release, "bans", cap, at[str(release)], hostname="mail.example.test")
            for release in (12, 13)
        }
        self.client = Machine(13, "bansclient", cap, at["client"])

    def start(self) -> None:
        subnets = [f"--subnet=198.18.{self.net.number}.0/24", f"--subnet=2001:db8:f{self.net.number:02x}::/48"]
        podman("network", "create", "--ipv6", *subnets, self.net.name)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.start(), [*self.hosts.values(), self.client]))
            list(pool.map(lambda host: host.sh(CERTIFICATE), self.hosts.values()))
        addresses = [f"{self.net.v4(n)}/24 dev eth0" for n in range(60, 130) if n != PLACES["client"]]
        addresses += [f"{self.net.v6(part, n)}/48 dev eth0 nodad" for part in range(1, 9) for n in (0x66, 0x67)]
        self.client.sh("\n".join(f"ip addr add {address}" for address in addresses))
        self.client.put("/root/knock.py", (HERE / "knock.py").read_text())

    def remove(self) -> None:
        for machine in [*self.hosts.values(), self.client]:
            machine.remove()
        podman("network", "rm", "--force", self.net.name, check=False)

    def both(self, call: Callable[[int], Any]) -> dict[int, Any]:
        """Do something for both releases at once."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(self.hosts, pool.map(call, self.hosts), strict=True))

    def play(self, *options: str, **variables: Any) -> dict[int, Run]:
        """Run site.yml against both."""
        return self.both(lambda release: self.hosts[release].play(HERE / "site.yml", *options, **variables))

    def sh(self, script: str) -> dict[int, str]:
        """Run a script on both; what it printed."""
        return self.both(lambda release: self.hosts[release].sh(script).strip())

    def speak(self, release: int, source: str, *orders: str) -> list[str]:
        """Let the client speak to a host from this address; see knock.py for the orders."""
        number = PLACES[str(release)]
        target = self.net.v6(0, number) if ":" in source else self.net.v4(number)
        words = " ".join(shlex.quote(order) for order in orders)
        return json.loads(self.client.sh(f"python3 /root/knock.py {target} {source} {words}"))

    def knock(self, source: str, *orders: str) -> list[str]:
        """Let the client speak to both, which must answer the same."""
        answers = self.both(lambda release: self.speak(release, source, *orders))
        assert answers[12] == answers[13], answers
        return answers[13]

    def guess(self, orders: dict[str, list[str]]) -> None:
        """Try wrong passwords from several addresses, each of which is to be counted once.

        The ban may come before the last answers, and on a busy machine an attempt may not come through: it is repeated.
        """

        def attack(at: tuple[int, str]) -> None:
            release, source = at
            before, wanted = self.found(release, source), orders[source]
            for _turn in range(4):
                told = self.speak(release, source, *wanted)
                assert set(told) <= {"refused", "closed"}, told
                self.until(lambda: self.found(release, source) >= before + len(orders[source]), 8)
                missing = before + len(orders[source]) - self.found(release, source)
                if missing <= 0:
                    return
                wanted = wanted[:missing]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(attack, [(release, source) for source in orders for release in self.hosts]))

    def found(self, release: int, source: str) -> int:
        """How many wrong passwords of this address fail2ban saw, whether it counts them or not."""
        return int(self.hosts[release].sh(f"grep -c -E '(Found|Ignore) {source} ' /var/log/fail2ban.log || true"))

    def soon(self, source: str, answer: str, *orders: str) -> bool:
        """Whether each host gives this answer to all orders within a minute, not both at the same moment."""
        seen = self.both(lambda release: self.until(lambda: set(self.speak(release, source, *orders)) == {answer}))
        return all(seen.values())

    def banned(self, source: str, *services: str) -> bool:
        """Whether both refuse connections from this address soon: fail2ban takes a moment, on each its own."""
        return self.soon(source, "closed", *services)

    def free(self, source: str, *orders: str) -> bool:
        """Whether both let this address in soon."""
        return self.soon(source, "ok", *orders)

    @staticmethod
    def until(call: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Ask again until it holds."""
        deadline = time.monotonic() + seconds
        while not call():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    made = Site()
    try:
        made.start()
        yield made
    finally:
        made.remove()
