# SPDX-License-Identifier: GPL-3.0-or-later

"""The images: bare Debian 12 and 13, and the provider's machine.

Only the standard library: script/bootstrap builds them while the virtual environment is still being made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from .podman import podman, succeeds
from .settings import CACHE, DEBIAN, IMAGES, RELEASES, SECURITY, LabError, say

# Bare means: what a provider's smallest image has, and what Ansible needs.
BARE = ["systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "ca-certificates", "iproute2"]
PROVIDER = [
    "knot", "knot-dnsutils", "unbound", "dns-root-data", "ldnsutils", "bind9-dnsutils",
    "postfix", "opendkim", "opendkim-tools", "opendmarc", "publicsuffix", "postfix-policyd-spf-python",
    "python3-dkim", "python3-nacl", "python3-cryptography", "python3-dnspython", "python3-spf",
    "pebble", "swaks", "libnet-ssleay-perl",
    "openssl", "curl", "procps",
]  # fmt: skip
UNITS = ["knot", "unbound", "unbound-resolvconf", "postfix", "opendkim", "opendmarc"]
REGISTRY = "docker.io/library/debian"
ENTRY = ["--change", 'CMD ["/lib/systemd/systemd"]', "--change", "STOPSIGNAL SIGRTMIN+3"]


def mirrors() -> tuple[str, str]:
    """Debian's archive and security archive as this machine's apt knows them; else Debian's own names."""
    if os.environ.get("POSTMEISTER_MIRROR"):
        return os.environ["POSTMEISTER_MIRROR"], os.environ.get("POSTMEISTER_MIRROR_SECURITY", SECURITY)
    archive, security = DEBIAN, SECURITY
    for uri, suites in _sources():
        if not uri.startswith("http://"):
            continue  # the bare image has no certificates before it has its packages
        if any(suite.endswith("-security") for suite in suites):
            security = uri
        elif any(suite in RELEASES.values() for suite in suites):
            archive = uri
    return archive.rstrip("/"), security.rstrip("/")


def _sources() -> Iterator[tuple[str, list[str]]]:
    apt = Path("/etc/apt")
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(errors="replace")
        for line in text.splitlines():
            match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line)
            if match:
                yield match[1], [match[2]]
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^(URIs|Suites|Enabled):[ \t]*(.*)$", stanza, re.MULTILINE | re.IGNORECASE))
            if fields.get("Enabled", "yes").strip().lower() not in ("no", "false", "0"):
                for uri in fields.get("URIs", "").split():
                    yield uri, fields.get("Suites", "").split()


def apt_proxy() -> str:
    """The proxy that this machine's apt uses for http, or nothing."""
    shown = subprocess.run(
        ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"], capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"PROXY='([^']+)'", shown)
    return match[1] if match and match[1] != "DIRECT" else ""


def host_entries() -> list[str]:
    """--add-host for the archives: apt works whatever resolver the container has."""
    names = {urlsplit(uri).hostname for uri in (*mirrors(), apt_proxy()) if uri}
    entries = []
    for name in sorted(filter(None, names)):
        try:
            address = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
        except OSError:
            raise LabError(f"The name of the Debian archive, {name}, cannot be resolved on this machine.") from None
        if address != name:
            entries.append(f"--add-host={name}:{address}")
    return entries


def _recipe(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _current(image: str, recipe: str) -> bool:
    if not succeeds("image", "exists", image):
        return False
    found: str = podman("image", "inspect", "--format", '{{index .Labels "postmeister.recipe"}}', image).strip()
    return found == recipe


def ensure(names: list[str]) -> None:
    """Build what is missing or out of date of: bare-12, bare-13, provider, vm-12, vm-13."""
    for name in names:
        if name == "provider":
            ensure(["bare-13"])
            _provider()
        elif name.startswith("vm-"):
            from . import vm  # needs the virtual environment

            vm.ensure(int(name.removeprefix("vm-")))
        else:
            _bare(int(name.removeprefix("bare-")))


def bare_image(release: int) -> str:
    """Name of the bare image of a Debian release."""
    return f"{IMAGES}/{RELEASES[release]}"


def _bare(release: int) -> None:
    suite, image = RELEASES[release], bare_image(release)
    archive, security = mirrors()
    recipe = _recipe(suite, BARE, archive, security, apt_proxy())
    if _current(image, recipe):
        return
    say(f"image of Debian {release} ({suite}): being made from {archive}")
    started = time.monotonic()
    change = [*ENTRY, "--change", f"LABEL postmeister.recipe={recipe}"]
    trouble = _bare_from_archive(suite, image, archive, security, change)
    if trouble and not _bare_from_registry(suite, image, change):
        raise LabError(
            f"No image of Debian {release}: neither could mmdebstrap make one ({trouble}), "
            f"nor is {REGISTRY}:{suite} reachable."
        )
    say(f"image of Debian {release}: {time.monotonic() - started:.0f} s")


def _bare_from_archive(suite: str, image: str, archive: str, security: str, change: list[str]) -> str:
    """Make the image with mmdebstrap; returns what went wrong, or nothing."""
    if not shutil.which("mmdebstrap"):
        return "it is not installed"
    sources = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    sources.append(f"deb {security} {suite}-security main")
    tar = CACHE / f"{suite}.tar"
    # The clean-up: mmdebstrap copies this machine's resolver and name.
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BARE)}"]
    argv += ["--customize-hook=rm -f $1/etc/resolv.conf $1/etc/hostname"]
    if apt_proxy():
        argv.append(f'--aptopt=Acquire::http::Proxy "{apt_proxy()}"')
    done = subprocess.run([*argv, suite, str(tar), *sources], capture_output=True, text=True, check=False)
    try:
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["it failed"]
            return lines[0]
        podman("import", "--quiet", *change, str(tar), image)
    finally:
        tar.unlink(missing_ok=True)
    return ""


def _bare_from_registry(suite: str, image: str, change: list[str]) -> bool:
    base = f"{REGISTRY}:{suite}-slim"
    if not (succeeds("pull", "--quiet", base) or succeeds("image", "exists", base)):
        return False
    _install(base, image, BARE, change, "rm -f /etc/apt/apt.conf.d/docker-*", volume=None)
    return True


def _provider() -> None:
    image, base = f"{IMAGES}/provider", bare_image(13)
    base_id = podman("image", "inspect", "--format", "{{.Id}}", base).strip()
    recipe = _recipe(base_id, PROVIDER, UNITS)
    if _current(image, recipe):
        return
    say("image of the other provider: being made")
    started = time.monotonic()
    # Each container starts only its own daemons (pmlab.hosts).
    after = f"systemctl disable --quiet {' '.join(UNITS)}"
    change = [*ENTRY, "--change", f"LABEL postmeister.recipe={recipe}"]
    _install(base, image, PROVIDER, change, after, volume="pm-apt-13")
    say(f"image of the other provider: {time.monotonic() - started:.0f} s")


def _install(base: str, image: str, packages: list[str], change: list[str], after: str, volume: str | None) -> None:
    """base + packages = image, nothing started while it is made."""
    script = f"""set -e
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
apt-get -qq update
echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
apt-get -qq install -y --no-install-recommends {" ".join(packages)}
{after}
rm -rf /usr/sbin/policy-rc.d /var/lib/apt/lists/*
: >/etc/machine-id
"""
    builder = f"pm-build-{os.getpid()}"
    proxy = [f"--env=http_proxy={apt_proxy()}"] if apt_proxy() else []
    cache = [f"--volume={volume}:/var/cache/apt/archives"] if volume else []
    try:
        options = ["--dns=none", *host_entries(), *proxy, *cache]
        podman("run", "--name", builder, *options, base, "sh", "-c", script, timeout=900)
        podman("commit", "--quiet", *change, builder, image)
    finally:
        podman("rm", "--force", "--ignore", builder)
