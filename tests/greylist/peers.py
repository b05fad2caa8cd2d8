# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in the container: mailboxes behind LMTP, and DNS at 127.0.0.1 with names, reverse names and SPF records.

LMTP is that of the tests of Postfix, in mail_peers.py beside this file.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading

import mail_peers

ZONE = "/root/zone.json"
TYPES = {1: "A", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA"}


def name(text: str) -> bytes:
    """A domain name on the wire."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def data(kind: str, value: str) -> bytes:
    """Data of a record on the wire."""
    if kind == "A":
        return socket.inet_aton(value)
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    if kind == "MX":
        return struct.pack("!H", 10) + name(value)
    return name(value) if kind == "PTR" else socket.inet_pton(socket.AF_INET6, value)


def dns(zone: dict[str, list[str]]) -> None:
    """Records are listed under `name TYPE`; names of slow.test with TXT get no answer."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    names = {key.split()[0] for key in zone}
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += query[at] + 1
        owner, kind = ".".join(labels), TYPES.get(struct.unpack("!H", query[at + 1 : at + 3])[0], "")
        if owner == "slow.test" and kind == "TXT":
            continue
        found = [data(kind, value) for value in zone.get(f"{owner} {kind}", [])]
        number = query[at + 1 : at + 3]
        answer = b"".join(b"\xc0\x0c" + number + struct.pack("!HIH", 1, 60, len(each)) + each for each in found)
        rcode = 0 if owner in names else 3
        header = query[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, len(found), 0, 0)
        server.sendto(header + query[12 : at + 5] + answer, client)


def main() -> None:
    os.umask(0)
    os.makedirs(f"{mail_peers.FOLDER}/got", exist_ok=True)
    server = mail_peers.Unix(f"{mail_peers.FOLDER}/lmtp", mail_peers.Lmtp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(ZONE, encoding="utf-8") as handle:
        dns(json.load(handle))


if __name__ == "__main__":
    main()
