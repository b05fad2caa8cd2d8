# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""rspamd: rspamadm configtest on the staged tree, a message through the milter socket as the probe."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, ClassVar

from ._base import Change, Service, ServiceError, Stage, run

ETC = "/etc/rspamd"
STATE = "/var/lib/rspamd"
MILTER = "/run/rspamd/milter.sock"
CONTROLLER = "/run/rspamd/controller.sock"
SYSUSERS = "/etc/sysusers.d/postmeister-rspamd.conf"
#: seconds that a start may take, or compiling 10,000 domain suffixes before the first one (12 s on an idle core)
PATIENCE = 300.0
#: role rspamd's compile.yml starts it ahead
COMPILER = "postmeister-rspamd-compile.service"
#: the command looks for URLs in a message, and so needs what the daemon needs; any file serves
COMPILE = [
    *("systemd-run", "--quiet", "--collect", "--wait", f"--unit={COMPILER}", "--uid=_rspamd"),
    *(f"--property=RuntimeMaxSec={PATIENCE:.0f}", "rspamadm", "mime", "urls", "/etc/os-release"),
]
#: configtest says "syntax OK" to these
COMPLAINT = re.compile(r"unknown worker attribute|no active routines|invalid config for")
#: sockets and the number of processes are set when a worker starts for the first time
WORKERS = re.compile(r"/(?:local|override)\.d/worker-[a-z]+\.inc$")

#: the first octets of an Ed25519 key in PKCS#8 (RFC 8410), in base64
PEM_ED25519 = "MC4CAQAwBQYDK2Vw"

#: bytes; only the database of the domain suffixes is larger
SUFFIXES = 10_000_000
#: the signal that tells a worker to end, as a bit of SigBlk in proc(5): it blocks it, and then stops to accept
ENDING = 1 << (signal.SIGUSR2 - 1)
#: workers that answer on a socket
SERVING = ("rspamd_proxy", "controller")


class MilterReply(Exception):
    """Something that is no milter reply, or none at all."""


class Milter:
    """A mail server's side of the milter protocol, version 6, as Sendmail's libmilter and Postfix speak it.

    Sends one message over a unix socket. added holds the header fields that the filter inserts, answer its verdict:
    accept, reject, tempfail, discard, or the text of an SMTP reply.
    """

    #: we take added and changed headers, changed bodies and quarantines
    ACTIONS = 0x3F
    #: steps that the filter may leave without an answer (SMFIP_NR_…), by command
    SILENT: ClassVar[dict[bytes, int]] = {
        b"L": 0x80,
        b"C": 0x1000,
        b"H": 0x2000,
        b"M": 0x4000,
        b"R": 0x8000,
        b"T": 0x10000,
        b"N": 0x40000,
        b"B": 0x80000,
    }
    VERDICTS: ClassVar[dict[bytes, str]] = {
        b"a": "accept",
        b"c": "continue",
        b"d": "discard",
        b"r": "reject",
        b"t": "tempfail",
    }

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self.added: list[tuple[str, str]] = []
        self.removed: list[tuple[str, int]] = []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(timeout)
        try:
            self._link.connect(path)
            self._send(b"O", struct.pack("!III", 6, self.ACTIONS, sum(self.SILENT.values())))
            code, rest = self._reply()
            if code != b"O" or len(rest) < 12:
                raise MilterReply("the filter does not negotiate")
            self._steps = struct.unpack("!III", rest[:12])[2]
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> Milter:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._send(b"Q", b"")
        self._link.close()

    def message(
        self,
        sender: str,
        recipients: Iterable[str],
        headers: Iterable[tuple[str, str]],
        body: bytes,
        client: tuple[str, str] = ("localhost", "127.0.0.1"),
        login: str = "",
        host: str = "localhost",
    ) -> str:
        """Hand a message over and return the verdict. client is a name and an address."""
        name, address = client
        family = b"6" if ":" in address else b"4"
        self._macros(b"C", j=host, daemon_name=host)
        verdict = self._step(b"C", name.encode() + b"\0" + family + struct.pack("!H", 0) + address.encode() + b"\0")
        verdict = verdict or self._step(b"H", name.encode() + b"\0")
        self._macros(b"M", i="probe", **({"auth_authen": login, "auth_type": "PLAIN"} if login else {}))
        verdict = verdict or self._step(b"M", f"<{sender}>".encode() + b"\0")
        for recipient in recipients:
            verdict = verdict or self._step(b"R", f"<{recipient}>".encode() + b"\0")
        verdict = verdict or self._step(b"T", b"")
        for field, value in headers:
            verdict = verdict or self._step(b"L", field.encode() + b"\0" + value.encode() + b"\0")
        verdict = verdict or self._step(b"N", b"")
        for start in range(0, len(body), 65535):
            verdict = verdict or self._step(b"B", body[start : start + 65535])
        return verdict or self._step(b"E", b"") or "continue"

    def _macros(self, step: bytes, **macros: str) -> None:
        pairs = b"".join(f"{{{k}}}".encode() + b"\0" + v.encode() + b"\0" for k, v in macros.items())
        # one-letter macros have no braces
        self._send(b"D", step + re.sub(rb"\{(.)\}", rb"\1", pairs))

    def _step(self, command: bytes, data: bytes) -> str:
        """Send one step; return the final verdict, or '' when the filter wants more."""
        self._send(command, data)
        if self._steps & self.SILENT.get(command, 0):
            return ""
        while True:
            code, rest = self._reply()
            if code == b"y":
                return rest.rstrip(b"\0").decode(errors="replace")
            if code in (b"h", b"i"):
                field, value = rest[4 if code == b"i" else 0 :].split(b"\0")[:2]
                self.added.append((field.decode(errors="replace"), value.decode(errors="replace")))
            elif code == b"m":
                field, value = rest[4:].split(b"\0")[:2]
                if value:
                    self.added.append((field.decode(errors="replace"), value.decode(errors="replace")))
                else:
                    self.removed.append((field.decode(errors="replace"), struct.unpack("!I", rest[:4])[0]))
            elif code in self.VERDICTS:
                return "" if code == b"c" and command != b"E" else self.VERDICTS[code]
            elif code not in (b"b", b"p", b"q", b"e", b"+", b"-"):
                raise MilterReply(f"the filter answers {code!r}")

    def _send(self, command: bytes, data: bytes) -> None:
        self._link.sendall(struct.pack("!I", len(data) + 1) + command + data)

    def _reply(self) -> tuple[bytes, bytes]:
        data = self._read(struct.unpack("!I", self._read(4))[0])
        return data[:1], data[1:]

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._link.recv(length - len(data))
            if not part:
                raise MilterReply("the filter closed the connection")
            data += part
        return data


def ask_controller(path: str, request: str, timeout: float = 10.0) -> str:
    """Body of the controller's answer to a GET request over its unix socket; OSError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        link.connect(path)
        link.sendall(f"GET {request} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while part := link.recv(65536):
            answer += part
            head, _blank, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
            if length and len(body) >= int(length.group(1)):
                break
    head, _blank, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] + b" ":
        raise OSError(f"{path} answers {head[:80]!r}")
    return body.decode(errors="replace")


def dkim_paths(section: Any) -> list[str]:
    """Key files that a dkim_signing or arc section names, those with variables in their name left out."""
    if isinstance(section, dict):
        own = [v for k, v in section.items() if k == "path" and isinstance(v, str) and "$" not in v]
        return own + [path for value in section.values() for path in dkim_paths(value)]
    if isinstance(section, list):
        return [path for value in section for path in dkim_paths(value)]
    return []


def compiled() -> bool:
    """Whether there is the Hyperscan database of the domain suffixes (more than 40 MB)."""
    return any(os.path.getsize(path) > SUFFIXES for path in glob.glob(os.path.join(STATE, "*.hsmp")))


def main_pid(unit: str) -> int:
    """Main process of a unit; 0 when it does not run."""
    return int(run(["systemctl", "show", "--property=MainPID", "--value", unit]).out.strip() or 0)


def workers(parent: int) -> dict[int, str]:
    """Children of rspamd's main process and their kinds, as their titles tell: `rspamd: controller process (…)`.

    The kind is '' for one that was told to end and takes no connections any more, although it stays for some seconds.
    """
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as handle:
                # the name in parentheses may hold anything
                ppid = int(handle.read().rpartition(")")[2].split()[1])
            if ppid != parent:
                continue
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as handle:
                title = handle.read()
            with open(f"/proc/{entry}/status", encoding="utf-8", errors="replace") as handle:
                ends = ENDING & int(re.findall(r"^SigBlk:\s*([0-9a-f]+)", handle.read(), re.MULTILINE)[0], 16)
        except (OSError, ValueError, IndexError):
            continue
        match = re.match(r"rspamd: (\S+) process", title)
        found[int(entry)] = match.group(1) if match and not ends else ""
    return found


class Rspamd(Service):
    """Options of the probe: milter, controller (sockets), host, domain and selectors (who must sign; '' = nobody)."""

    name = "rspamd"
    units = ("rspamd.service",)
    folders = (ETC,)

    def check(self, stage: Stage) -> None:
        # configtest looks up the groups of the sockets. A group that is there too early harms nobody: the packages of
        # the MTA and of the mail store take it over.
        if os.path.exists(stage.path(SYSUSERS)):
            run(["systemd-sysusers", stage.path(SYSUSERS)])
        root = stage.path(ETC)
        paths = [f"--var=CONFDIR={root}", f"--var=LOCAL_CONFDIR={root}"]
        main = os.path.join(root, "rspamd.conf")
        done = run(["rspamadm", *paths, "configtest", "-c", main], check=False)
        if done.rc != 0 or COMPLAINT.search(done.err):
            raise ServiceError(done.words.replace(stage.root, ""))
        dump = run(["rspamadm", *paths, "configdump", "-C", "-c", main, "dkim_signing"], check=False)
        try:
            section = json.loads(dump.out)
        except ValueError:
            section = {}
        for path in sorted(set(dkim_paths(section))):
            try:
                with open(path, encoding="ascii", errors="replace") as handle:
                    # a base64 key without a head is one line, and of either type
                    text = handle.read(64)
            except OSError as exc:
                raise ServiceError(f"DKIM key {path}: {exc.strerror}; mail would leave without its signature") from exc
            if not re.match(r"-----BEGIN (?:RSA )?PRIVATE KEY-----|[A-Za-z0-9+/=\s]{40}", text):
                raise ServiceError(f"DKIM key {path}: not a private key")
            if PEM_ED25519 in text:
                raise ServiceError(f"DKIM key {path}: rspamd signs with Ed25519 keys in base64, not in PEM")

    def restart_reason(self, changes: list[Change]) -> str | None:
        for change in changes:
            if change.dest == SYSUSERS or WORKERS.search(change.dest):
                return change.dest
        return None

    def restart(self) -> None:
        """Start anew, and before the first start compile the domain suffixes.

        A main process that compiles them itself keeps 200 MB for it, and its children with it.
        """
        deadline = time.monotonic() + PATIENCE
        ahead = ["systemctl", "is-active", "--quiet", COMPILER]
        while run(ahead, check=False).rc == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        if not compiled():
            # Where it fails, as without Hyperscan, rspamd starts all the same.
            run(COMPILE, check=False, timeout=2 * PATIENCE)
        super().restart()

    def reload(self) -> None:
        """Tell rspamd, and wait until processes that have read the new files answer, and no former ones do.

        It starts the new ones first: on a busy machine both serve for a while, and the probe could meet either.
        """
        before = workers(main_pid(self.units[0]))
        run(["systemctl", "kill", "--signal=HUP", "--kill-whom=main", *self.units])
        wanted = {kind for kind in before.values() if kind in SERVING}
        deadline = time.monotonic() + PATIENCE
        while True:
            now = workers(main_pid(self.units[0]))
            new = {kind for pid, kind in now.items() if pid not in before}
            former = {kind for pid, kind in now.items() if pid in before}
            if wanted <= new and not wanted & former:
                return
            if time.monotonic() >= deadline or not self.running():
                raise ServiceError("rspamd was told to read its new configuration, and goes on with the former one")
            time.sleep(0.1)

    def probe(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._probe()
                return
            except (OSError, MilterReply) as exc:
                problem = str(exc)
            if time.monotonic() >= deadline or not self.running():
                raise ServiceError(f"rspamd does not answer: {problem}")
            time.sleep(0.3)

    def _probe(self) -> None:
        domain = str(self.options.get("domain") or "")
        address = f"postmaster@{domain or 'localhost'}"
        host = str(self.options.get("host") or "localhost")
        path = str(self.options.get("milter") or MILTER)
        headers = [
            ("From", f" {address}"),
            ("To", f" {address}"),
            ("Subject", " probe"),
            ("Date", time.strftime(" %a, %d %b %Y %H:%M:%S +0000", time.gmtime())),
            ("Message-ID", f" <probe.{time.time_ns()}@{host}>"),
        ]
        with Milter(path) as milter:
            verdict = milter.message(
                address, [address], headers, b"This message asks rspamd whether it works.\r\n", host=host
            )
        if verdict not in ("accept", "continue"):
            raise ServiceError(f"{path} answers {verdict!r} to an ordinary message")
        signed = {
            tag.group(1)
            for field, value in milter.added
            if field.lower() == "dkim-signature"
            for tag in [re.search(r"\bs=([^;\s]+)", value)]
            if tag
        }
        missing = sorted(set(self.options.get("selectors") or []) - signed) if domain else []
        if missing:
            raise ServiceError(f"a message from {address} was not signed with the selector {', '.join(missing)}")
        controller = str(self.options.get("controller") or CONTROLLER)
        if ask_controller(controller, "/ping").strip() != "pong":
            raise ServiceError(f"{controller} does not answer to /ping")


SERVICE = Rspamd
