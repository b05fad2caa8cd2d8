# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""postsrsd 1.10 (both releases): an address is rewritten and found again through its tcp_table(5)."""

from __future__ import annotations

import re
import socket
import time
import urllib.parse

from ._base import Change, Service, ServiceError, Stage, run

CONFIG = "/etc/default/postsrsd"
#: an address of a domain that nobody has (RFC 6761)
SAMPLE = "probe@postsrsd.invalid"
#: seconds that a start may take
PATIENCE = 10.0


class Postsrsd(Service):
    """Options of the probe, all of them optional: address (127.0.0.1), forward_port (10001), reverse_port (10002)."""

    name = "postsrsd"
    units = ("postsrsd.service",)

    def check(self, stage: Stage) -> None:
        """The launcher reads the file as a shell does; a domain is what it cannot do without."""
        config = stage.path(CONFIG)
        result = run(["sh", "-n", config], check=False)
        if result.rc != 0:
            raise ServiceError(result.words.replace(config, CONFIG))
        with open(config, encoding="utf-8", errors="replace") as handle:
            if not re.search(r"^SRS_DOMAIN=[A-Za-z0-9]", handle.read(), re.MULTILINE):
                raise ServiceError(f"{CONFIG}: SRS_DOMAIN is empty")

    def restart_reason(self, changes: list[Change]) -> str | None:
        # The file is read by the script that starts the daemon
        return next((change.dest for change in changes), None)

    def reload(self) -> None:
        # There is nothing to read anew
        return

    def probe(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                rewritten = self._ask("forward_port", 10001, SAMPLE)
                found = self._ask("reverse_port", 10002, rewritten)
                break
            except OSError as exc:
                if time.monotonic() >= deadline:
                    raise ServiceError(f"postsrsd does not answer: {exc.strerror or exc}") from exc
            time.sleep(0.1)
        if found != SAMPLE:
            raise ServiceError(f"postsrsd makes {rewritten} of {SAMPLE}, and {found} of that")

    def _ask(self, option: str, default: int, address: str) -> str:
        """Look an address up; raises ServiceError with the answer when there is no result (tcp_table(5))."""
        where = (str(self.options.get("address") or "127.0.0.1"), int(self.options.get(option) or default))
        with socket.create_connection(where, timeout=5) as link:
            link.sendall(f"get {urllib.parse.quote(address, safe='@')}\n".encode())
            with link.makefile("r", encoding="utf-8", errors="replace") as answer:
                line = answer.readline().strip()
        if not line:
            raise ConnectionResetError(0, "connection closed without an answer")
        code, _sep, text = line.partition(" ")
        if code != "200":
            raise ServiceError(f"postsrsd answers {line} to {address}")
        return urllib.parse.unquote(text)


SERVICE = Postsrsd
