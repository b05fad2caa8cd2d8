# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers: what each gets, how it is started, and when it is ready."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import socket
import ssl
import subprocess
import tarfile
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import jinja2

from . import images, keys, zones
from .inventory import Host
from .podman import containers, podman, succeeds
from .settings import CACHE, IMAGES, IPV4, IPV6, LAB, NETWORK, STATE, LabError, ipv4, ipv6

# What each of the provider's machines runs.
UNITS = {
    "dns": ["knot"],
    "ca": ["unbound", "pebble"],
    "remote": ["unbound", "opendkim", "opendmarc", "postfix"],
    "client": ["unbound", "lab-addresses"],
}
EXTRA = [zones.NAMELESS, zones.UNCONFIRMED, *zones.EXTRA_NAMES.values(), *zones.POOL]
ACME = "https://ca.test:14000/dir"
LISTS_LAST = 2 * 3600  # seconds; the archive drops packages that newer ones replace


class World:
    """All that the files of the machines are made from."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self.hosts = hosts
        record = keys.dkim()[1]
        text = " ".join(f'"{record[start : start + 255]}"' for start in range(0, len(record), 255))
        self.zones = zones.build(
            hosts,
            [f"{keys.SELECTOR}._domainkey TXT {text}", f"_25._tcp.mail TLSA {keys.tlsa('mail.remote.test', 80)}"],
        )
        names = ["lab", *sorted({zone.key for zone in self.zones if zone.key})]
        self.tsig = {name: keys.tsig(name) for name in names}

    @property
    def root_key(self) -> str:
        """The lab's trust anchor as a DNSKEY record; empty before the DNS server ran."""
        path = STATE / "root.key"
        return path.read_text() if path.exists() else ""

    def variables(self, host: Host) -> dict[str, Any]:
        """What the templates of a machine may use."""
        return {
            "host": host,
            "hosts": self.hosts,
            "zones": self.zones,
            "tsig": self.tsig,
            "root_key": self.root_key.strip(),
            "root_hints": root_hints().strip(),
            "net": {"ipv4": IPV4, "ipv6": IPV6},
            "ipv4": ipv4,
            "ipv6": ipv6,
            "extra": EXTRA,
            "elsewhere": zones.ELSEWHERE,
        }

    def files(self, host: Host) -> dict[str, tuple[bytes, int]]:
        """Path → (content, mode) of all that is put into a container before it starts."""
        trees = ["provider", host.name] if host.provider else ["bare"]
        if host.name == "dns":
            trees = ["dns"]  # runs no resolver, and is there before the trust anchor
        found: dict[str, tuple[bytes, int]] = {}
        for tree in trees:
            top = LAB / "hosts" / tree
            for path in sorted(top.rglob("*")):
                if path.is_file():
                    name = str(path.relative_to(top))
                    data = path.read_bytes()
                    if name.endswith(".j2"):
                        name, data = name.removesuffix(".j2"), _render(data.decode(), self.variables(host)).encode()
                    found[name] = (data, 0o755 if "/sbin/" in name else 0o644)
        if host.provider:
            found.update(self._secret_files(host))
            return found
        # What ca-certificates is to the real ACME servers.
        found["etc/ssl/certs/lab-ca.pem"] = (keys.authority().encode(), 0o644)
        if images.apt_proxy():
            found["etc/apt/apt.conf.d/90proxy"] = (f'Acquire::http::Proxy "{images.apt_proxy()}";\n'.encode(), 0o644)
        return found

    def _secret_files(self, host: Host) -> dict[str, tuple[bytes, int]]:
        if host.name == "dns":
            return {
                f"etc/knot/zones/{'root' if zone.name == '.' else zone.name}.zone": (zone.text.encode(), 0o644)
                for zone in self.zones
            }
        if host.name == "ca":
            key, cert = keys.certificate(host.fqdn, host.number)
            return {"etc/pebble/ca.test.key": (key.encode(), 0o600), "etc/pebble/ca.test.pem": (cert.encode(), 0o644)}
        if host.name == "remote":
            key, cert = keys.certificate(host.fqdn, host.number)
            return {
                f"etc/lab/{host.fqdn}.pem": ((key + cert).encode(), 0o600),
                f"etc/dkimkeys/{keys.SELECTOR}.private": (keys.dkim()[0].encode(), 0o600),
            }
        return {}


def _render(text: str, variables: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(text).render(variables)


def root_hints() -> str:
    """Root hints of the lab."""
    return f". 3600 IN NS ns.test.\nns.test. 3600 IN A {ipv4(53)}\nns.test. 3600 IN AAAA {ipv6(53)}\n"


def start(host: Host, world: World, fresh: bool = False) -> bool:
    """Bring one container up; True where it was made anew."""
    wants = {name: (hashlib.sha256(data).hexdigest(), mode) for name, (data, mode) in world.files(host).items()}
    arguments = _arguments(host)
    image = podman("image", "inspect", "--format", "{{.Id}}", arguments[-1]).strip()
    recipe = hashlib.sha256(json.dumps([image, arguments, sorted(wants.items())]).encode()).hexdigest()[:16]
    found = containers().get(host.container)
    usable = found is not None and not fresh and found["State"] != "dead"
    if found and usable and (found["Labels"].get("postmeister.recipe") == recipe or not host.provider):
        if found["State"] != "running":
            podman("start", host.container)
        return False
    remove(host.container)
    podman("create", f"--label=postmeister.recipe={recipe}", *arguments)
    podman("cp", "-a=false", "-", f"{host.container}:/", stdin=_tar(host, world.files(host)))
    podman("start", host.container)
    return True


def _arguments(host: Host) -> list[str]:
    image = f"{IMAGES}/provider" if host.provider else images.bare_image(host.release)
    arguments = [
        f"--name={host.container}",
        f"--hostname={host.fqdn}",
        "--label=postmeister.lab=1",
        f"--label=postmeister.host={host.name}",
        f"--label=postmeister.release={host.release}",
        "--systemd=always",
        # A fixed hardware address: the neighbours' tables stay right when a host is replaced.
        f"--network={NETWORK}:ip={host.ipv4},ip={host.ipv6},mac=02:50:4d:00:00:{host.number:02x}",
        # A bind mount in its place could not be replaced by the playbook.
        "--dns=none",
    ]
    arguments += [f"--cap-add={cap}" for cap in host.caps]
    if host.name == "dns":
        (STATE / "dns").mkdir(parents=True, exist_ok=True)
        arguments.append(f"--volume={STATE}/dns:/var/lib/knot")
    if not host.provider:
        # A machine has a firewall of its own.
        arguments.append("--cap-add=NET_ADMIN")
        arguments += images.host_entries()
        ensure_volume(host.release)
        # Each container writes to a layer of its own, so that two may run apt at the same time; see keep_packages.
        arguments.append(f"--volume={volume(host.release)}:/var/cache/apt/archives:O")
    return [*arguments, image]


def _tar(host: Host, files: dict[str, tuple[bytes, int]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
        for unit in UNITS.get(host.name, []) if host.provider else []:
            entry = tarfile.TarInfo(f"etc/systemd/system/multi-user.target.wants/{unit}.service")
            entry.type = tarfile.SYMTYPE
            own = any(name == f"etc/systemd/system/{unit}.service" for name in files)
            entry.linkname = f"/{'etc' if own else 'usr/lib'}/systemd/system/{unit}.service"
            tar.addfile(entry)
    return stream.getvalue()


def remove(container: str) -> None:
    """Remove a container; the packages that it downloaded are kept for the next."""
    found = containers().get(container)
    if found is None:
        return
    if found["State"] == "running" and found["Labels"].get("postmeister.host") not in UNITS:
        keep_packages(container, int(found["Labels"]["postmeister.release"]))
    podman("rm", "--force", "--time=0", "--volumes", container)


def volume(release: int) -> str:
    """The volume with the packages of a Debian release."""
    return f"pm-apt-{release}"


def ensure_volume(release: int) -> None:
    """Create that volume."""
    if not succeeds("volume", "exists", volume(release)):
        # Others may be about to do the same; who cannot mount it says so.
        podman("volume", "create", volume(release), check=False)


def ensure_lists(release: int) -> str:
    """The volume with the lists of a Debian release for apt, fetched anew where they are old."""
    prefix = f"pm-lists-{release}-"
    with (CACHE / f"{prefix}lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        known = podman("volume", "ls", "--quiet", f"--filter=name=^{prefix}").split()
        made = {int(name.removeprefix(prefix)): name for name in known}
        if made and time.time() - max(made) < LISTS_LAST:
            return made[max(made)]
        # Another volume each time: machines that run have the former one below theirs.
        name = f"{prefix}{time.time():.0f}"
        proxy = [f"--env=http_proxy={images.apt_proxy()}"] if images.apt_proxy() else []
        options = ["--rm", "--dns=none", *images.host_entries(), *proxy, f"--volume={name}:/var/lib/apt/lists"]
        update = "apt-get -qq -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update"
        try:
            podman("run", *options, images.bare_image(release), "sh", "-c", update)
        except LabError:
            podman("volume", "rm", name, check=False)
            raise
        for former in made.values():
            podman("volume", "rm", former, check=False)  # stays where a machine uses it
    return name


def keep_packages(container: str, release: int) -> None:
    """Copy what apt downloaded in a container to the volume that later ones start with."""
    target = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume(release)).strip())
    listing = podman("exec", container, "sh", "-c", "cd /var/cache/apt/archives && ls *.deb 2>/dev/null", check=False)
    new = [name for name in listing.split() if not (target / name).exists()]
    if not new:
        return
    command = ["podman", "exec", container, "tar", "-C", "/var/cache/apt/archives", "-cf", "-", *new]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            source = tar.extractfile(member)
            if source is not None and "/" not in member.name:
                # Another machine may end at this moment, and bring the same package.
                aside = target / f".{member.name}.{uuid.uuid4().hex}"
                aside.write_bytes(source.read())
                aside.rename(target / member.name)


# --- ready? -------------------------------------------------------------------------------------------------------


def wait(what: str, ready: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until ready() is true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (OSError, dns.exception.DNSException, LabError):
            pass
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not come up within {seconds:g} s.")
        time.sleep(0.1)


def answers(server: str, name: str, kind: str, authentic: bool = False) -> bool:
    """Whether a DNS server answers, with authentic: and has validated it (AD)."""
    query = dns.message.make_query(name, kind, want_dnssec=True)
    query.flags |= dns.flags.AD
    reply = dns.query.udp(query, server, timeout=5, ignore_trailing=True)
    good = reply.rcode() == dns.rcode.NOERROR and bool(reply.answer)
    return good and (not authentic or bool(reply.flags & dns.flags.AD))


def greets(server: str, port: int, text: bytes) -> bool:
    """Whether a server's first line starts with text."""
    with socket.create_connection((server, port), timeout=5) as connection:
        connection.settimeout(5)
        return connection.recv(512).startswith(text)


def systemd_up(container: str) -> bool:
    """Whether the container has booted."""
    state = podman("exec", container, "systemctl", "is-system-running", check=False).strip()
    return state in ("running", "degraded")


def fetch(path: str, port: int) -> bytes:
    """A document of Pebble's, its certificate checked against the lab's CA."""
    context = ssl.create_default_context(cafile=str(STATE / "ca.pem"))
    url = f"https://{ipv4(14)}:{port}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=5) as reply:
        body: bytes = reply.read()
    return body


def export_root() -> None:
    """Copy the trust anchor out of the DNS server's folder."""
    for name in ("root.key", "root.ds"):
        keys.write(STATE / name, (STATE / "dns" / "export" / name).read_text(), 0o644)
    keys.write(STATE / "root.hints", root_hints(), 0o644)


def export_acme_root() -> None:
    """The root that Pebble's certificates lead to; a new one each time Pebble starts."""
    pem = fetch("/roots/0", 15000)
    path = STATE / "acme-root.pem"
    if not path.exists() or path.read_bytes() != pem:
        keys.write(path, pem, 0o644)
