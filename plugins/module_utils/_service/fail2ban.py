# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""fail2ban: the client reads the staged files; two addresses that nobody has are banned and set free as the probe."""

from __future__ import annotations

import re
import time

from .._bans import banned_though_exempt
from ._base import Change, CommandError, Service, ServiceError, Stage, run

CONFIG = "/etc/fail2ban"
#: seconds that the daemon may take to answer, or to carry out a ban
PATIENCE = 30.0
#: the IPv4 dummy address (RFC 7600), and one of the discard prefix (RFC 6666) with a neighbour that is banned too
SAMPLES = (("addr-set-", "192.0.0.8", "192.0.0.8"), ("addr6-set-", "100::8", "100::ffff:9"))


class Fail2ban(Service):
    """Options of the probe: jail, the name of the jail that is probed; exempt, the networks that it never bans."""

    name = "fail2ban"
    units = ("fail2ban.service",)
    folders = (CONFIG,)

    def check(self, stage: Stage) -> None:
        config = stage.path(CONFIG)
        done = run(["fail2ban-client", "-c", config, "--test"], check=False)
        if done.rc != 0 or "ERROR" in done.words:
            raise ServiceError(done.words.replace(config, CONFIG))

    def missing(self) -> list[str]:
        """A jail that somebody ended by hand, and bans of those who are exempt by now."""
        try:
            banned = self._banned()
        except CommandError as exc:
            return [str(exc)] if self.running() else []
        return [f"{address}: banned, and exempt" for address in banned_though_exempt(banned, self._exempt)]

    def restart_reason(self, changes: list[Change]) -> str | None:
        # A reload leaves the rules of a jail that bans somebody as they are. Bans come back after a restart.
        for change in changes:
            if change.dest.startswith(f"{CONFIG}/action.d/"):
                return change.dest
            before, after = (_rules(text) for text in (change.before, change.after))
            if before != after:
                return f"{', '.join(sorted({name for name, _value in before ^ after}))} in {change.dest}"
        return None

    def reload(self) -> None:
        self._wait()
        run(["fail2ban-client", "reload"])

    def probe(self) -> None:
        self._wait()
        jail = self._jail
        told = run(["fail2ban-client", "get", jail, "ignoreip"]).out
        overridden = [network for network in self._exempt if network not in told.split()]
        if overridden:
            raise ServiceError(
                f"{jail}: {', '.join(overridden)} would be banned: another file in {CONFIG} says ignoreip"
            )
        # What was banned before its exemption is free from now on.
        for address in banned_though_exempt(self._banned(), self._exempt):
            run(["fail2ban-client", "set", jail, "unbanip", address])
        for prefix, address, neighbour in SAMPLES:
            run(["fail2ban-client", "set", jail, "banip", address])
            try:
                self._in_kernel(f"{prefix}{jail}", neighbour)
            finally:
                run(["fail2ban-client", "set", jail, "unbanip", address], check=False)

    @property
    def _jail(self) -> str:
        return str(self.options.get("jail") or "mail")

    @property
    def _exempt(self) -> list[str]:
        return list(self.options.get("exempt") or [])

    def _banned(self) -> list[str]:
        return run(["fail2ban-client", "get", self._jail, "banip"]).out.split()

    def _wait(self) -> None:
        """Until the daemon answers: systemd takes it for started at once."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = run(["fail2ban-client", "ping"], check=False)
            if done.rc == 0:
                return
            if time.monotonic() >= deadline or not self.running():
                raise ServiceError(f"fail2ban does not answer: {done.words}")
            time.sleep(0.2)

    def _in_kernel(self, name: str, address: str) -> None:
        """Until the firewall holds a ban: fail2ban carries it out later, and tells its log alone if it cannot."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = run(["nft", "get", "element", "inet", "f2b-table", name, f"{{ {address} }}"], check=False)
            if done.rc == 0:
                return
            if time.monotonic() >= deadline:
                raise ServiceError(f"a ban does not reach the firewall (/var/log/fail2ban.log says why): {done.words}")
            time.sleep(0.2)


def _rules(content: bytes | None) -> set[tuple[str, str]]:
    """The options of jails that shape the firewall's rules, with their values."""
    names = r"port|protocol|chain|(?:ban)?action\w*|blocktype"
    return set(re.findall(rf"(?m)^({names})\s*=\s*(.*)$", (content or b"").decode(errors="replace")))


SERVICE = Fail2ban
