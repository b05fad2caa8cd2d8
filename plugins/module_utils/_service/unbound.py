# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Unbound: unbound-checkconf on the staged tree, real queries over UDP and TCP as the probe."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Sequence

from .._resolver import conf
from ._base import Change, Service, ServiceError, Stage, run

CONFIG = "/etc/unbound/unbound.conf"
#: the package's helper copies the anchor from here at each start, before that the file need not exist
ANCHOR = ("/var/lib/unbound/root.key", "/usr/share/dns/root.key")
#: options that Unbound reads only once (unbound.conf(5), and daemon/daemon.c: sockets stay open over a reload)
ONCE = (
    "chroot",
    "control-enable",
    "control-interface",
    "control-port",
    "directory",
    "do-ip4",
    "do-ip6",
    "do-tcp",
    "do-udp",
    "interface",
    "ip-freebind",
    "ip-transparent",
    "num-threads",
    "pidfile",
    "port",
    "so-rcvbuf",
    "so-reuseport",
    "so-sndbuf",
    "username",
)
TYPES = {"A": 1, "NS": 2, "SOA": 6, "MX": 15, "AAAA": 28, "TLSA": 52}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
#: seconds that Unbound may take to answer for the first time: it starts, reads its anchors and asks the root
PATIENCE = 20.0


def settings(text: bytes | None) -> dict[str, list[str]]:
    """Read `name: value` lines of unbound.conf(5); clauses such as `server:` have no value and are left out."""
    found: dict[str, list[str]] = {}
    for line in (text or b"").decode(errors="replace").splitlines():
        match = re.match(r'\s*([a-z0-9-]+):\s*("[^"]*"|[^#\s]+)', line)
        if match:
            found.setdefault(match.group(1), []).append(match.group(2).strip('"'))
    return found


def ask(address: str, name: str, rrtype: str, tcp: bool, timeout: float = 5.0, port: int = 53) -> tuple[str, bool]:
    """Ask a resolver (RFC 1035 §4) with AD set, which asks for the AD bit (RFC 6840 §5.7).

    Returns the response code and whether the answer is marked as authenticated. Raises OSError without an answer.
    """
    number = secrets.randbits(16)
    query = _query(number, name, rrtype)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as link:
        link.settimeout(timeout)
        link.connect((address, port))
        if tcp:
            link.sendall(struct.pack("!H", len(query)) + query)
            answer = _read(link, struct.unpack("!H", _read(link, 2))[0])
        else:
            link.send(query)
            answer = link.recv(4096)
    if len(answer) < 12 or struct.unpack("!H", answer[:2])[0] != number or not answer[2] & 0x80:
        raise OSError(f"{address} sent something that is no answer to the question")
    code = answer[3] & 0x0F
    return RCODES.get(code, str(code)), bool(answer[3] & 0x20)


def _is_here(address: str) -> bool:
    """Whether the host has an IPv6 address; of an IPv4 address it is taken for granted."""
    if ":" not in address:
        return True
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as link:
            link.bind((address, 0))
    except OSError as exc:
        return exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _query(number: int, name: str, rrtype: str) -> bytes:
    labels = [label.encode("ascii") for label in name.strip(".").split(".") if label]
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    # RD and AD; one question
    return struct.pack("!HHHHHH", number, 0x0120, 1, 0, 0, 0) + encoded + struct.pack("!HH", TYPES[rrtype], 1)


def _read(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = link.recv(length - len(data))
        if not chunk:
            raise OSError("the connection was closed before the answer was complete")
        data += chunk
    return data


class Unbound(Service):
    """Options of the probe: addresses (where it listens), name and type (what to look up), secure (expect AD).

    And resolv_conf: addresses that the host's /etc/resolv.conf names once Unbound has given a validated answer.
    """

    name = "unbound"
    units = ("unbound.service",)
    folders = ("/etc/unbound",)

    def swap_rank(self, dest: str) -> int:
        # unbound.conf refers to the other files
        return 1 if dest == CONFIG else 0

    def check(self, stage: Stage) -> None:
        with open(stage.path(CONFIG), encoding="utf-8") as handle:
            text = handle.read()
        # Absolute paths in the staged text lead to the live tree; a copy leads to the stage instead.
        text = text.replace("/etc/unbound/", stage.path("/etc/unbound/"))
        if not os.path.exists(ANCHOR[0]):
            text = text.replace(*ANCHOR)
        copy = stage.path(CONFIG) + ".check"
        with open(copy, "w", encoding="utf-8") as handle:
            handle.write(text)
        done = run(["unbound-checkconf", copy], check=False)
        os.unlink(copy)
        if done.rc != 0:
            words = done.words.replace(copy, CONFIG).replace(stage.path("/etc/unbound/"), "/etc/unbound/")
            raise ServiceError(re.sub(r"\[\d+\] unbound-checkconf\[\d+:\d+\] ", "", words))

    def restart_reason(self, changes: list[Change]) -> str | None:
        for change in changes:
            if change.dest != CONFIG:
                continue
            before, after = settings(change.before), settings(change.after)
            for name in ONCE:
                if before.get(name) != after.get(name):
                    return name
        return None

    def reload(self) -> None:
        # Debian's unit calls /bin/kill, of package procps, which a minimal host lacks. And after this command's answer
        # no question is answered from the former configuration any more, so the probe sees the new one.
        run(["unbound-control", "-c", CONFIG, "reload"])

    def probe(self) -> None:
        addresses: Sequence[str] = self.options.get("addresses") or ("127.0.0.1", "::1")
        deadline = time.monotonic() + PATIENCE
        # Unbound passes over ::1 where IPv6 is switched off.
        for address in [each for each in addresses if _is_here(each)] or addresses:
            for tcp in (False, True):
                self._probe(address, tcp, deadline)

    def afterwards(self) -> list[dict[str, str]]:
        return self._resolv_conf().diff()

    def follow_up(self) -> None:
        conf.apply(self._resolv_conf())

    def _resolv_conf(self) -> conf.Plan:
        addresses: Sequence[str] | None = self.options.get("resolv_conf")
        if addresses is None:
            return conf.Plan()
        problem = conf.problem(addresses)
        if problem:
            raise ServiceError(f"resolv_conf: {problem}")
        return conf.plan(addresses)

    def _probe(self, address: str, tcp: bool, deadline: float) -> None:
        name, rrtype = str(self.options.get("name") or "."), str(self.options.get("type") or "NS")
        what = f"Unbound at {address} over {'TCP' if tcp else 'UDP'}, asked for {name} {rrtype}"
        while True:
            try:
                code, secure = ask(address, name, rrtype, tcp)
                if code == "NOERROR" and (secure or not self.options.get("secure", True)):
                    return
                problem = code if code != "NOERROR" else "an answer that it could not validate (no AD flag)"
            except OSError as exc:
                problem = f"nothing ({exc})"
            if time.monotonic() >= deadline:
                raise ServiceError(
                    f"{what}, answers {problem}. Are the root servers reachable (port 53, UDP and TCP, outgoing), "
                    f"the clock right, and the trust anchor that of the root in use? Its log: journalctl -u unbound"
                )
            time.sleep(0.3)


SERVICE = Unbound
