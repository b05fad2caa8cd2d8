# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bare machine of each release, set up by the roles postgrey and postfix alone; the tests are strangers to it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pmlab.machine import Machine, Run

HERE = Path(__file__).resolve().parent
SITE = HERE / "site.yml"
DELAY = 4
#: addresses of the host, and of those who write to it; each in a network of its own unless said
ADDRESSES = [
    *("198.51.100.25/32", "2001:db8:51::25/128"),
    *("198.18.1.1/32", "198.18.1.2/32", "198.18.2.1/32", "198.18.3.1/32", "198.18.9.9/32", "198.18.10.1/32"),
    *("198.18.71.1/32", "198.18.72.1/32", "2001:db8:71::1/128"),
    *("2001:db8:55::1/128", "2001:db8:55::2/128", "2001:db8:56::1/128"),
]
ZONE = {
    "stranger.test A": ["198.18.1.1"],
    "honest.test A": ["198.18.3.1"],
    "honest.test TXT": ["v=spf1 ip4:198.18.3.1 -all"],
    # a big provider: many addresses, SPF behind an include
    "big.test A": ["198.18.71.1"],
    "big.test TXT": ["v=spf1 include:_spf.big.test -all"],
    "_spf.big.test TXT": ["v=spf1 ip4:198.18.71.1 ip4:198.18.72.1 ip6:2001:db8:71::/64 -all"],
    "mail.big.test A": ["198.18.71.1"],
    "mail.big.test TXT": ["v=spf1 include:_spf.big.test -all"],
    # its name servers do not answer when they are asked for SPF
    "slow.test A": ["198.18.71.1"],
    # a bank, known by its confirmed reverse name
    "1.10.18.198.in-addr.arpa PTR": ["out1.bank.test"],
    "out1.bank.test A": ["198.18.10.1"],
    "bank.test A": ["198.18.10.1"],
}


@dataclass(frozen=True)
class Session:
    """What a stranger was told: the answer to each recipient, then to the message, where one was taken."""

    answers: list[tuple[int, str]]
    seconds: float

    @property
    def codes(self) -> list[int]:
        return [code for code, _words in self.answers]


class Host(Machine):
    """A machine that greylists, and how strangers talk to it."""

    def prepare(self) -> None:
        """Peers and addresses; what comes from packages is not there yet."""
        self.sh("".join(f"ip address add {address} dev lo\n" for address in ADDRESSES))
        self.put("/root/mail_peers.py", (HERE.parent / "postfix" / "peers.py").read_bytes())
        for name in ("peers.py", "speak.py"):
            self.put(f"/root/{name}", (HERE / name).read_bytes())
        self.put("/root/zone.json", json.dumps(ZONE))

    def converge(self) -> None:
        """The first run."""
        name = "-subj /CN=mail.example.test -addext subjectAltName=DNS:mail.example.test"
        curve = "ec -pkeyopt ec_paramgen_curve:P-256"
        argv = f"openssl req -x509 -nodes -days 9 -newkey {curve} {name} -keyout - -out -"
        certificate = subprocess.run(argv.split(), capture_output=True, check=True)
        self.put("/etc/ssl/mail.pem", certificate.stdout, 0o600)
        self.play(SITE).good()
        # Nobody is asked before there is an answer, and Postfix knows no other name server.
        self.sh(
            "echo nameserver 127.0.0.1 > /etc/resolv.conf; systemd-run --quiet --unit=peers python3 /root/peers.py\n"
            "for turn in $(seq 300); do\n"
            "  [ -S /run/peers/lmtp ] && getent ahosts stranger.test >/dev/null && exec postfix reload; sleep 0.1\n"
            "done; exit 1"
        )

    def modules(self, *calls: dict[str, Any]) -> list[dict[str, Any]]:
        """Run modules, given as {name: options}, in one play, and return what they returned."""
        tasks: list[dict[str, Any]] = []
        for place, call in enumerate(calls):
            task = {f"postmeister.host.{name}": options for name, options in call.items()}
            tasks.append({**task, "register": f"result{place}"})
        names = ", ".join(f"result{place}" for place in range(len(calls)))
        tasks.append({"ansible.builtin.debug": {"msg": f"{{{{ 'RESULTS' ~ ([{names}] | to_json) ~ 'END' }}}}"}})
        output = self.play(tasks).good().output
        text = json.loads('"' + output.partition("RESULTS")[2].partition("END")[0] + '"')
        results: list[dict[str, Any]] = json.loads(text)
        return results

    def write(self, source: str, sender: str, *recipients: str, subject: str = "hello") -> Session:
        """One session from an address."""
        return self.sessions(1, source, sender, *recipients, subject=subject)[0]

    def sessions(self, times: int, source: str, sender: str, *recipients: str, subject: str = "hello") -> list[Session]:
        """The same session several times, one at once after the other."""
        order = {"source": source, "sender": sender, "recipients": recipients, "subject": subject, "helo": "x.test"}
        found = json.loads(self.sh("python3 /root/speak.py", stdin=json.dumps({**order, "times": times}).encode()))
        return [Session([tuple(pair) for pair in each["answers"]], each["seconds"]) for each in found]

    def delivered(self, subject: str, patience: float = 60.0) -> list[dict[str, Any]]:
        """Messages that arrived with this subject; waits for the first."""
        deadline = time.monotonic() + patience
        while True:
            text = self.sh("cat /run/peers/got/*.json 2>/dev/null || true").replace("}{", "}\n{")
            found = [json.loads(line) for line in text.splitlines() if line]
            found = [each for each in found if f"Subject: {subject}" in each["text"]]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.2)

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Without the timer that looks after postgrey every minute: what it does is asked for by hand."""
        self.sh("systemctl stop postmeister-greylist.timer postmeister-greylist.service")
        try:
            yield
        finally:
            self.sh("systemctl start postmeister-greylist.timer")


@dataclass
class Hosts:
    """Both releases, made side by side; what the first runs said is kept for the tests."""

    by_release: dict[int, Host]
    checked: dict[int, Run]
    before: dict[int, str]


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    options = {"hostname": "mail.example.test"}
    made = Hosts({release: Host(release, "greylist", "--cap-add=NET_ADMIN", **options) for release in (12, 13)}, {}, {})

    def make(release: int) -> None:
        host = made.by_release[release]
        host.start()
        host.prepare()
        made.checked[release] = host.play(SITE, "--check", "--diff")
        look = "ls /etc/postgrey /etc/postfix /var/lib/postmeister; dpkg -l postgrey"
        made.before[release] = host.sh(look, check=False)
        host.converge()

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(make, made.by_release))
        yield made
    finally:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Host.remove, made.by_release.values()))


@pytest.fixture(params=[12, 13])
def host(request: pytest.FixtureRequest, hosts: Hosts) -> Host:
    return hosts.by_release[request.param]
