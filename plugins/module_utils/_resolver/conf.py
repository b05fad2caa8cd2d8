# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The host's resolver: /etc/resolv.conf, and the programs of Debian that would write it again.

What writes resolv.conf on Debian 12 and 13: dhclient (isc-dhcp-client), dhcpcd, NetworkManager; systemd-resolved
puts a symlink there and, through nss-resolve, answers beside it. cloud-init does not (its module is not for Debian),
resolvconf leaves a plain file alone.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import _files
from .._command import run

MARK = "Managed by Ansible (postmeister.host)"
RESOLV_CONF = "/etc/resolv.conf"
#: last of the folder, since Debian's own hooks define the same function
DHCLIENT = ("/etc/dhcp/dhclient-enter-hooks.d", "zz-postmeister-resolver")
DHCPCD = ("/usr/lib/dhcpcd", "/lib/dhcpcd")
DHCPCD_HOOK = "/etc/dhcpcd.enter-hook"
DHCPCD_LINE = f'skip_hooks="${{skip_hooks:-}} resolv.conf"  # {MARK}'
NETWORK_MANAGER = ("/etc/NetworkManager/conf.d", "postmeister-resolver.conf")
RESOLVED = "systemd-resolved.service"
#: trust-ad keeps the AD bit in answers, without which Postfix sees no DNSSEC and so no DANE
OPTIONS = ("edns0", "trust-ad")


@dataclass
class Plan:
    """What is to be done: files, and whether systemd-resolved is to be switched off."""

    files: list[_files.File] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)

    def diff(self) -> list[dict[str, str]]:
        """Ansible's diff, an entry for each file and each unit."""
        shown = []
        for file in self.files:
            found = _files.look(file.path)
            texts = [(found.content or b"") if found else b"", file.content or b""]
            before, after = (content.decode(errors="replace") for content in texts)
            shown.append({"before_header": file.path, "after_header": file.path, "before": before, "after": after})
        return shown + [{"prepared": f"{unit}: switched off\n"} for unit in self.disable]


def problem(nameservers: Sequence[str]) -> str:
    """What is wrong with the addresses; '' when nothing is."""
    for address in nameservers:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return f"{address!r} is not an IP address"
    return "" if 1 <= len(nameservers) <= 3 else f"{len(nameservers)} addresses; resolv.conf(5) takes one to three"


def text(nameservers: Sequence[str]) -> str:
    """Text of resolv.conf(5). `search .` switches off the search list that glibc makes of the host's name."""
    lines = [f"# {MARK}"]
    lines += [f"nameserver {address}" for address in nameservers]
    lines.append(f"options {' '.join(OPTIONS)}")
    lines.append("search .")
    return "\n".join(lines) + "\n"


def plan(nameservers: Sequence[str]) -> Plan:
    """Compare what should be with what is. Raises FileError when a file cannot be read."""
    wanted = [_files.File(RESOLV_CONF, text(nameservers).encode())]
    if os.path.isdir(DHCLIENT[0]):
        hook = f"# {MARK}\nmake_resolv_conf() {{\n\t:\n}}\n"
        wanted.append(_files.File(os.path.join(*DHCLIENT), hook.encode()))
    if any(os.path.exists(os.path.join(folder, "dhcpcd-run-hooks")) for folder in DHCPCD):
        wanted.append(_files.File(DHCPCD_HOOK, _with_line(DHCPCD_HOOK, DHCPCD_LINE)))
    if os.path.isdir(NETWORK_MANAGER[0]):
        wanted.append(_files.File(os.path.join(*NETWORK_MANAGER), f"# {MARK}\n[main]\ndns=none\n".encode()))
    result = Plan([file for file in wanted if not _files.equal(file, _files.look(file.path))])
    if _on(RESOLVED):
        result.disable.append(RESOLVED)
    return result


def apply(todo: Plan) -> None:
    """Carry the plan out; resolv.conf comes first, so that the host has a resolver at each moment."""
    for file in todo.files:
        if is_mounted(file.path):
            _write_in_place(file)
        else:
            _files.write([file])
        if file.path == os.path.join(*NETWORK_MANAGER):
            run(["systemctl", "try-reload-or-restart", "NetworkManager.service"], check=False)
    for unit in todo.disable:
        run(["systemctl", "disable", "--now", unit])


def is_mounted(path: str, mountinfo: str = "/proc/self/mountinfo") -> bool:
    """Whether a mount lies on the path itself (proc(5)), as container engines do; such a file cannot be renamed."""
    try:
        with open(mountinfo, encoding="utf-8", errors="replace") as handle:
            return any(line.split(" ")[4:5] == [path] for line in handle)
    except OSError:
        return False


def _with_line(path: str, line: str) -> bytes:
    found = _files.look(path)
    before = (found.content or b"").decode(errors="surrogateescape") if found else ""
    if line in before.splitlines():
        return before.encode(errors="surrogateescape")
    if before and not before.endswith("\n"):
        before += "\n"
    return f"{before}{line}\n".encode(errors="surrogateescape")


def _write_in_place(file: _files.File) -> None:
    # One write of a few bytes: a reader sees the former or the new text in practice, and there is no other way.
    try:
        handle = os.open(file.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            content = file.content or b""
            os.pwrite(handle, content, 0)
            os.ftruncate(handle, len(content))
            os.fchmod(handle, file.mode)
            os.fchown(handle, 0, 0)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        raise _files.FileError(f"{file.path}: {exc.strerror}") from exc


def _on(unit: str) -> bool:
    if not os.path.isdir("/run/systemd/system"):
        return False
    words = [run(["systemctl", verb, unit], check=False).out.strip() for verb in ("is-enabled", "is-active")]
    return words[0] in ("enabled", "enabled-runtime") or words[1] in ("active", "activating")
