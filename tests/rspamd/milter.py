# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In the container: hands one message (JSON on standard input) to rspamd as a mail server does; or serves DNS.

The milter client is the probe's own, from the collection's folder /root/collection.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import struct
import sys
import time

TYPES = {1: "A", 15: "MX", 16: "TXT", 28: "AAAA"}


def send(order: dict) -> dict:
    sys.path.insert(0, "/root/collection")
    rspamd = importlib.import_module("ansible_collections.postmeister.host.plugins.module_utils._service.rspamd")
    begin = time.monotonic()
    with rspamd.Milter("/run/rspamd/milter.sock") as milter:
        verdict = milter.message(
            order["sender"],
            order["recipients"],
            list(map(tuple, order["headers"])),
            order["body"].encode(),
            client=tuple(order["client"]),
            login=order["login"],
            host="mail.example.test",
        )
        seconds = time.monotonic() - begin
        return {"verdict": verdict, "added": milter.added, "removed": milter.removed, "seconds": seconds}


def labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def answer(query: bytes, zone: dict) -> bytes:
    at, parts = 12, []
    while query[at]:
        parts.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    name, number = ".".join(parts).lower(), struct.unpack("!H", query[at + 1 : at + 3])[0]
    values = zone.get(f"{name} {TYPES.get(number)}", [])
    exists = any(key.split()[0] == name or key.split()[0].endswith(f".{name}") for key in zone)
    records = b""
    for value in values:
        if number == 1:
            data = socket.inet_aton(value)
        elif number == 16:
            text = value.encode()
            data = b"".join(bytes([len(text[i : i + 255])]) + text[i : i + 255] for i in range(0, len(text), 255))
        else:
            data = struct.pack("!H", 10) + labels(value)
        records += b"\xc0\x0c" + struct.pack("!HHIH", number, 1, 60, len(data)) + data
    if not values:
        # without an SOA rspamd's resolver takes it for no answer, and asks again
        data = labels("ns.test") + labels("hostmaster.test") + struct.pack("!IIIII", 1, 60, 60, 60, 60)
        records = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 60, len(data)) + data
    head = struct.pack("!HHHHH", 0x8180 | (0 if exists else 3), 1, len(values), 0 if values else 1, 0)
    return query[:2] + head + query[12 : at + 5] + records


def serve() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 53))
        while True:
            query, peer = link.recvfrom(4096)
            zone = {}
            if os.path.exists("/root/zone.json"):
                with open("/root/zone.json", encoding="utf-8") as handle:
                    zone = json.load(handle)
            link.sendto(answer(query, zone), peer)


if __name__ == "__main__":
    if sys.argv[1:] == ["dns"]:
        serve()
    print(json.dumps(send(json.load(sys.stdin))))
