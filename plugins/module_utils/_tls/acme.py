# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""ACME (RFC 8555) with dehydrated, which gets a signing request and gives back a certificate.

The private key is never dehydrated's business: so the same two keys serve whatever the method is. Its configuration
is written for each run, from the same settings that the playbook gave.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from .._command import CommandError, Result, run
from . import hook
from .pem import TlsError, load_certificates

BASE = "/var/lib/postmeister/acme"
#: path of the challenge (RFC 8555 §8.3); the token is base64url
TOKEN = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]+)")
#: seconds for the whole exchange with the authority, the wait for DNS included
PATIENCE = 600.0


def config(settings: Mapping[str, Any], folder: str, challenges: str) -> str:
    """Text of dehydrated's configuration, a piece of shell: everything is quoted."""
    # Each request has an end, so that a dead network is an error and not a hanging unit.
    curl = "--connect-timeout 20 --max-time 120"
    if settings.get("ca_file"):
        curl += f" --cacert {settings['ca_file']}"
    values = {
        "BASEDIR": BASE,
        "WELLKNOWN": challenges,
        "CA": settings["directory"],
        "CHALLENGETYPE": settings["challenge"],
        "CONTACT_EMAIL": settings.get("contact") or "",
        "CURL_OPTS": curl,
        "HOOK": os.path.join(folder, "hook") if settings["challenge"] == "dns-01" else "",
        # the account's key: 0.7.0 knows only the first name
        "KEYSIZE": "3072",
        "ACCOUNT_KEYSIZE": "3072",
        # external account binding (RFC 8555 §7.3.4), for authorities that want it
        "EAB_KID": settings.get("eab_kid") or "",
        "EAB_HMAC_KEY": settings.get("eab_hmac_key") or "",
        **(settings.get("settings") or {}),
    }
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def issue(settings: Mapping[str, Any], request: bytes) -> tuple[Any, ...]:
    """Have a signing request signed; returns the certificate and its issuers. Raises TlsError with the reason.

    settings: directory, ca_file, contact, challenge, webroot, dns, settings. The caller holds the lock.
    """
    with _folders(settings) as (folder, challenges):
        _private(os.path.join(folder, "config"), config(settings, folder, challenges))
        _private(os.path.join(folder, "request.pem"), request.decode())
        if settings["challenge"] == "dns-01":
            _private(os.path.join(folder, "dns.json"), json.dumps(settings["dns"]))
            command = [sys.executable or "python3", "-m", f"{__package__}.hook", folder]
            _private(os.path.join(folder, "hook"), f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', 0o700)
        standing = settings["challenge"] == "http-01" and not settings.get("webroot")
        try:
            with listener(challenges) if standing else contextlib.nullcontext():
                done = _sign(folder)
        finally:
            if settings["challenge"] == "dns-01":
                hook.clean_up(folder)
    if done.rc != 0:
        raise TlsError(f"ACME: {settings['directory']} gave no certificate:\n{_words(done.err)}")
    return load_certificates(done.out.encode(), f"the answer of {settings['directory']}")


def _sign(folder: str) -> Result:
    argv = ["dehydrated", "--config", os.path.join(folder, "config"), "--accept-terms", "--no-lock"]
    # TMPDIR: dehydrated makes temporary files; those that it leaves behind go with the folder. PYTHONPATH is for the
    # hook: the same code in the module's zip file and installed on the host, both are on this path.
    env = {"TMPDIR": folder, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    attempts = 6
    try:
        for attempt in range(1, attempts + 1):
            done = run(
                [*argv, "--signcsr", os.path.join(folder, "request.pem")], timeout=PATIENCE, env=env, check=False
            )
            # A client has to try again (RFC 8555 §6.5); dehydrated 0.7.0 of Debian 12 does not.
            if done.rc == 0 or "urn:ietf:params:acme:error:badNonce" not in done.err or attempt == attempts:
                break
    except CommandError as exc:
        raise TlsError(f"ACME: {exc}") from exc
    return done


@contextlib.contextmanager
def _folders(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A private folder for this run, and the one where challenges are put, which goes with it unless it is yours."""
    webroot = settings.get("webroot")
    if webroot and not os.path.isdir(webroot):
        raise TlsError(f"ACME: the folder for challenges, {webroot}, does not exist; your web server has to serve it")
    try:
        os.makedirs(BASE, 0o700, exist_ok=True)
        os.chmod(BASE, 0o700)
        for name in os.listdir(BASE):
            if name.startswith("run-"):
                shutil.rmtree(os.path.join(BASE, name), ignore_errors=True)
        folder = tempfile.mkdtemp(prefix="run-", dir=BASE)
        os.mkdir(os.path.join(folder, "challenges"), 0o700)
    except OSError as exc:
        raise TlsError(f"ACME: {exc.filename}: {exc.strerror}") from exc
    try:
        yield folder, webroot or os.path.join(folder, "challenges")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private(path: str, text: str, mode: int = 0o600) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _words(text: str) -> str:
    """What of dehydrated's output says why: its last lines without progress and HTTP headers."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not re.match(r"\s*[+#] |[A-Za-z-]+: |HTTP/", line) or "ERROR" in line]
    return "\n".join((told or lines)[-25:])[-4000:]


class Challenges(http.server.BaseHTTPRequestHandler):
    """Serves challenge files and nothing else."""

    folder = ""
    timeout = 10
    server_version = "acme"
    sys_version = ""

    def do_GET(self) -> None:
        match = TOKEN.fullmatch(self.path)
        content = b""
        if match:
            with contextlib.suppress(OSError), open(os.path.join(self.folder, match.group(1)), "rb") as handle:
                content = handle.read(4096)
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the module's output is the answer to Ansible."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # one socket for both families: the authority comes over IPv6 where there is an AAAA record
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        http.server.HTTPServer.server_bind(self)


class Server4(Server):
    address_family = socket.AF_INET


def _bind(handler: type[Challenges], port: int) -> Server:
    try:
        return Server(("::", port), handler)
    except OSError as exc:
        if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return Server4(("0.0.0.0", port), handler)


@contextlib.contextmanager
def listener(folder: str, port: int = 80) -> Iterator[int]:
    """Answer HTTP-01 challenges (RFC 8555 §8.3) on all addresses as long as the block runs; yields the port."""
    handler = type("Handler", (Challenges,), {"folder": folder})
    try:
        server = _bind(handler, port)
    except OSError as exc:
        raise TlsError(
            f"ACME: port {port} is needed for a moment and cannot be had ({exc.strerror}). If a web server of yours "
            f"listens there, let it serve a folder as /.well-known/acme-challenge and name that folder as the webroot"
        ) from exc
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
