# SPDX-License-Identifier: GPL-3.0-or-later

"""wordpress.org as far as the tests need it, on the machine itself: answers out of files below /srv/org.

Its address, on the machine's own loopback interface, is the real one's: WordPress downloads nothing from addresses of
private, documentation or other special use.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

from pmlab.wordpress import WordPressMachine

ADDRESS = "198.143.164.251"
NAMES = ("api.wordpress.org", "downloads.wordpress.org", "wordpress.org")
ROOT = "/srv/org"
SERVER = r"""
import http.server, json, os, ssl, sys, threading, urllib.parse

def offered(body, answer):
    # Of what there is, only what the asking site has, in an older version.
    fields = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
    asked = {name: json.loads(value) for name, value in fields.items() if value.startswith(("[", "{"))}
    for kind in ("plugins", "themes"):
        if kind in asked and kind in answer:
            had = asked[kind].get(kind) or {}
            answer[kind] = {
                name: new
                for name, new in answer[kind].items()
                if name in had and had[name]["Version"] != new["new_version"]
            }
    had = asked.get("translations") or {}
    if "offers" in answer or "no_update" in answer:
        answer["translations"] = [
            new
            for new in answer["translations"]
            if new["language"] in (had.get(new["slug"]) or {})
            and had[new["slug"]][new["language"]]["PO-Revision-Date"] < new["updated"]
        ]
    return answer

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        path = url.path.strip("/")
        if "request[slug]" in query:
            path += "/" + os.path.basename(query["request[slug]"][0])
        try:
            with open(f"/srv/org/{path}{'' if path.endswith(('.zip', '.gz', '.md5')) else '.json'}", "rb") as file:
                code, content = 200, file.read()
            if "-check/" in path:
                content = json.dumps(offered(body, json.loads(content))).encode()
        except OSError:
            code, content = 404, b'{"error":"Not found."}'
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        with open("/srv/org/log", "a") as log:
            log.write(f"{self.headers['Host']}{self.path}\n")
    do_POST = do_HEAD = do_GET
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer.allow_reuse_address = True
secure = http.server.ThreadingHTTPServer((sys.argv[1], 443), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/org/tls.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer((sys.argv[1], 80), Answer).serve_forever()
"""


def plugin(name: str, version: str, body: str = "") -> bytes:
    """A plugin's archive."""
    header = f"<?php\n/*\nPlugin Name: {name.title()}\nVersion: {version}\n*/\n{body}\n"
    return archive({f"{name}/{name}.php": header})


def theme(name: str, version: str) -> bytes:
    """A theme's archive."""
    style = f"/*\nTheme Name: {name.title()}\nVersion: {version}\n*/\n"
    return archive({f"{name}/style.css": style, f"{name}/index.php": "<?php\n"})


def translation(name: str, date: str) -> bytes:
    """A translation's archive, without a single word; its date is what WordPress compares."""
    header = f'msgid ""\nmsgstr ""\n"Project-Id-Version: x\\n"\n"PO-Revision-Date: {date} 00:00:00+0000\\n"\n'
    # An empty table, as msgfmt(1) writes it
    machine = struct.pack("<7I", 0x950412DE, 0, 0, 28, 28, 0, 28)
    return archive({f"{name}.po": header, f"{name}.mo": machine})


def archive(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return buffer.getvalue()


class WordPressOrg:
    """The service on one machine. start(), which forgets former answers; then offer() what there is to have."""

    def __init__(self, machine: WordPressMachine) -> None:
        self.machine = machine

    def start(self, certificate: bytes) -> None:
        """certificate: key and self-signed certificate, PEM."""
        put = self.machine.put
        put(f"{ROOT}/server.py", SERVER)
        put(f"{ROOT}/tls.pem", certificate)
        self.machine.sh(
            f"set -e; ip addr replace {ADDRESS}/32 dev lo; echo {ADDRESS} {' '.join(NAMES)} >> /etc/hosts\n"
            # Debian's WordPress looks there, and WP-CLI's own requests
            f"cat {ROOT}/tls.pem >> /etc/ssl/certs/ca-certificates.crt\n"
            f"for folder in /etc/php/*/cli/conf.d; do echo curl.cainfo={ROOT}/tls.pem > $folder/99-test.ini; done\n"
            f"chmod 755 {ROOT}\n"
            "systemctl stop wordpress-org 2>/dev/null || true\n"
            f"systemd-run --quiet --unit=wordpress-org --property=Restart=always python3 {ROOT}/server.py {ADDRESS}"
        )
        probe = f"import socket; [socket.create_connection(('{ADDRESS}', port)) for port in (443, 80)]"
        self.machine.sh(f'until python3 -c "{probe}" 2>/dev/null; do sleep 0.1; done', seconds=60)
        self.answer("core/version-check/1.7", {"offers": [], "translations": []})
        self.answer("plugins/update-check/1.1", {"plugins": {}, "no_update": {}, "translations": []})
        self.answer("themes/update-check/1.1", {"themes": {}, "no_update": {}, "translations": []})
        self.answer("translations/core/1.0", {"translations": []})

    def answer(self, path: str, content: object) -> None:
        """What an address of the API says."""
        self.machine.put(f"{ROOT}/{path}.json", json.dumps(content))

    def offer(self, name: str, content: bytes | Path) -> str:
        """A download; returns its address."""
        self.machine.put(f"{ROOT}/{name}", content.read_bytes() if isinstance(content, Path) else content)
        return f"https://downloads.wordpress.org/{name}"

    def extension(self, kind: str, name: str, versions: dict[str, bytes]) -> None:
        """A plugin or theme with these versions, the last of which is the newest."""
        links = {version: self.offer(f"{kind}/{name}.{version}.zip", data) for version, data in versions.items()}
        newest = list(versions)[-1]
        self.answer(
            f"{kind}s/info/1.2/{name}",
            {
                "name": name.title(),
                "slug": name,
                "version": newest,
                "requires": "5.0",
                "requires_php": "7.0",
                "download_link": links[newest],
                "versions": links,
            },
        )

    def trust(self, path: str) -> None:
        """A site that believes the service's certificate."""
        self.machine.sh(f"(echo; cat {ROOT}/tls.pem) >> {path}/wp-includes/certificates/ca-bundle.crt")

    def requests(self) -> list[str]:
        """What was asked since the last time."""
        return self.machine.sh(f"touch {ROOT}/log; cat {ROOT}/log; : > {ROOT}/log").split()
