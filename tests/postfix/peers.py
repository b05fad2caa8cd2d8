# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in the container: what Postfix talks to, reduced to the protocol, so that only Postfix is tested.

LMTP, quota policy and login socket below /run/peers, another provider's MX at 127.0.0.5:2525, DNS at 127.0.0.1.
Each message that arrives becomes /run/peers/got/<number>.json.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import socketserver
import struct
import threading

FOLDER = "/run/peers"
PASSWORD = "secret"
numbers = itertools.count(1)


class Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Lmtp(socketserver.StreamRequestHandler):
    kind = "lmtp"

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("220 peer")
        sender, recipients = "", []
        for raw in self.rfile:
            line = raw.decode("latin1").strip()
            verb = line.upper()
            if verb.startswith(("LHLO", "EHLO")):
                self.say("250-peer\r\n250-8BITMIME\r\n250-SIZE\r\n250 PIPELINING")
            elif verb.startswith("MAIL"):
                sender, recipients = line[10:].split()[0].strip("<>"), []
                self.say("250 2.1.0 Ok")
            elif verb.startswith("RCPT"):
                recipients.append(line[8:].split()[0].strip("<>"))
                self.say("250 2.1.5 Ok")
            elif verb == "DATA":
                self.say("354 Go on")
                self.keep(sender, recipients, self.data())
                for _turn in recipients if self.kind == "lmtp" else [0]:
                    self.say("250 2.0.0 Ok")
            elif verb == "QUIT":
                self.say("221 2.0.0 Bye")
                return
            else:
                self.say("250 2.0.0 Ok")

    def data(self) -> str:
        lines = []
        while True:
            line = self.rfile.readline()
            if line in (b".\r\n", b""):
                return b"".join(lines).decode("latin1")
            lines.append(line[1:] if line.startswith(b".") else line)

    def keep(self, sender: str, recipients: list[str], text: str) -> None:
        peer = self.client_address[0] if self.kind == "smtp" else ""
        path = f"{FOLDER}/got/{next(numbers):05}"
        with open(f"{path}.new", "w", encoding="utf-8") as handle:
            json.dump({"kind": self.kind, "from": sender, "to": recipients, "peer": peer, "text": text}, handle)
        os.rename(f"{path}.new", f"{path}.json")


class Smtp(Lmtp):
    kind = "smtp"


class Policy(socketserver.StreamRequestHandler):
    """quota-status: whose local part begins with "full" is over his quota."""

    def handle(self) -> None:
        attributes: dict[str, str] = {}
        for raw in self.rfile:
            name, sep, value = raw.decode().strip().partition("=")
            if sep:
                attributes[name] = value
            else:
                full = attributes.get("recipient", "").startswith("full")
                self.wfile.write(f"action={'552 5.2.2 Mailbox is full' if full else 'DUNNO'}\n\n".encode())
                attributes = {}


class Auth(socketserver.StreamRequestHandler):
    """Dovecot's authentication protocol, PLAIN only."""

    def handle(self) -> None:
        hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t{}\nCOOKIE\t{}\nDONE\n"
        self.wfile.write(hello.format(next(numbers), "0" * 32).encode())
        for raw in self.rfile:
            fields = raw.decode().strip().split("\t")
            if fields[0] == "AUTH":
                answer = next(field[5:] for field in fields if field.startswith("resp="))
                _authorize, user, password = base64.b64decode(answer).decode().split("\0")
                verdict = "OK" if password == PASSWORD else "FAIL"
                self.wfile.write(f"{verdict}\t{fields[1]}\tuser={user}\n".encode())


def dns() -> None:
    """A for every name; nx.* does not exist, fail.* makes the server fail."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += query[at] + 1
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        rcode = {"nx": 3, "fail": 2}.get(labels[0] if labels else "", 0)
        answer = b""
        if rcode == 0 and kind == 1:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.5")
        elif kind == 2 and not labels:
            # Postfix asks for the root's name servers to learn whether the resolver validates.
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 2, 1, 60, 3) + b"\x01a\x00"
        flags = struct.pack("!HHHHH", 0x81A0 | rcode, 1, 1 if answer else 0, 0, 0)
        server.sendto(query[:2] + flags + query[12 : at + 5] + answer, client)


def main() -> None:
    os.umask(0)
    os.makedirs(f"{FOLDER}/got", exist_ok=True)
    servers: list[socketserver.BaseServer] = [Tcp(("127.0.0.5", 2525), Smtp)]
    for name, handler in (("lmtp", Lmtp), ("quota", Policy), ("auth", Auth)):
        servers.append(Unix(f"{FOLDER}/{name}", handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    dns()


if __name__ == "__main__":
    main()
