# SPDX-License-Identifier: GPL-3.0-or-later

"""The verbs of script/lab."""

from __future__ import annotations

import email
import email.policy
import ipaddress
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import dns.exception
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update
import dns.xfr
import dns.zone

from . import hosts as machines
from . import images, inventory, keys
from .inventory import Host
from .podman import containers, podman, succeeds
from .settings import NETWORK, REVERSE4, REVERSE6, STATE, LabError, ipv4, say
from .zones import TTL

T = TypeVar("T")


def up(names: list[str]) -> None:
    """Start the lab; does nothing where all of it runs."""
    known = inventory.load()
    wanted = [inventory.pick(known, name) for name in names] or [host for host in known.values() if host.start]
    wanted = [host for host in wanted if not host.provider]
    images.ensure(["provider", *sorted({f"bare-{host.release}" for host in wanted})])
    world = machines.World(known)
    if machines.start(known["dns"], world):
        say(f"dns: started ({known['dns'].ipv4})")
    machines.wait("The lab's DNS server", lambda: machines.answers(ipv4(53), "test.", "SOA"))
    machines.export_root()

    def one(host: Host) -> None:
        if machines.start(host, world):
            say(f"{host.name}: started ({host.ipv4}, {host.ipv6}, {host.fqdn})")

    _in_parallel(one, [host for host in known.values() if host.provider and host.name != "dns"] + wanted)
    ca, remote = known["ca"], known["remote"]
    machines.wait("The lab's resolver", lambda: machines.answers(ca.ipv4, "mail.remote.test.", "AAAA", authentic=True))
    machines.wait("Pebble", lambda: bool(machines.fetch("/dir", 14000)))
    machines.export_acme_root()
    machines.wait("The other provider's mail server", lambda: machines.greets(remote.ipv4, 25, b"220 mail.remote.test"))
    _in_parallel(
        lambda host: machines.wait(host.name, lambda: machines.systemd_up(host.container)), [known["client"], *wanted]
    )


def _in_parallel(work: Callable[[T], object], items: list[T]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


def down(state: bool) -> None:
    """Remove the lab from the machine; what made it quick to start stays, unless asked."""
    _in_parallel(machines.remove, list(containers()))
    if succeeds("network", "exists", NETWORK):
        podman("network", "rm", "--force", NETWORK)
    if state and STATE.exists():
        shutil.rmtree(STATE)


def status() -> int:
    """Show the containers; 0 where the provider's all run."""
    known = inventory.load()
    found = containers()
    by_container = {host.container: host for host in known.values()}
    missing = 0
    for name in sorted({*found, *(host.container for host in known.values() if host.provider or host.start)}):
        host = by_container.get(name)
        running = name in found and found[name]["State"] == "running"
        missing += not running and host is not None and host.provider
        where = f"{host.ipv4}  {host.ipv6}  {host.fqdn}" if host else ""
        say(f"{name:<14} {found[name]['State'] if name in found else 'absent':<9} {where}")
    say(f"state: {STATE}")
    return 1 if missing else 0


def fresh(names: list[str], release: int | None, number: int | None, fqdn: str | None) -> None:
    """Replace bare hosts."""
    known = inventory.load()
    if containers().get("pm-dns", {}).get("State") != "running":
        raise LabError("The lab is not up: script/lab up.")
    if len(names) > 1 and (number or fqdn):
        raise LabError("--number and --fqdn are for one host at a time.")
    picked = [inventory.pick(known, name, release=release, number=number, fqdn=fqdn) for name in names]
    images.ensure(sorted({f"bare-{host.release}" for host in picked if not host.provider}))
    world = machines.World(known)

    def one(host: Host) -> None:
        machines.start(host, world, fresh=True)
        if known.get(host.name) != host:
            _set_pointer(host)
        machines.wait(host.name, lambda: machines.systemd_up(host.container))
        kind = "made anew" if host.provider else f"a bare Debian {host.release}"
        say(f"{host.name}: {kind} at {host.ipv4} and {host.ipv6}, {host.fqdn}")

    _in_parallel(one, picked)


def rm(names: list[str]) -> None:
    """Remove hosts."""
    known = inventory.load()
    _in_parallel(machines.remove, [known[name].container if name in known else f"pm-{name}" for name in names])


def _keyring() -> dict[Any, Any]:
    ring: dict[Any, Any] = dns.tsigkeyring.from_text({"lab.": ("hmac-sha256", keys.tsig("lab"))})
    return ring


def _send(update: dns.update.UpdateMessage) -> None:
    reply = dns.query.tcp(update, ipv4(53), timeout=60)
    if reply.rcode() != dns.rcode.NOERROR:
        raise LabError(f"The lab's DNS server refused a change: {dns.rcode.to_text(reply.rcode())}.")


def _set_pointer(host: Host) -> None:
    for apex, address in ((REVERSE4, host.ipv4), (REVERSE6, host.ipv6)):
        update = dns.update.UpdateMessage(f"{apex}.", keyring=_keyring())
        update.replace(f"{ipaddress.ip_address(address).reverse_pointer}.", TTL, "PTR", f"{host.fqdn}.")
        _send(update)


def zone(name: str, reset: bool) -> None:
    """Print a zone, or bring it back to its first content."""
    name = name.rstrip(".")
    world = machines.World(inventory.load())
    first = {zone.name: zone.text for zone in world.zones}.get(name or ".")
    if first is None:
        raise LabError(f"The lab has no zone {name}.")
    origin = f"{name}." if name else "."
    now = dns.zone.Zone(origin, relativize=False)
    dns.query.inbound_xfr(ipv4(53), now, dns.xfr.make_query(now, keyring=_keyring())[0], lifetime=60)
    if not reset:
        say("\n".join(line for line in now.to_text(want_origin=True).splitlines() if not _signature(line)))
        return
    wanted = dns.zone.from_text(first, origin=origin, relativize=False, check_origin=False)
    update = dns.update.UpdateMessage(origin, keyring=_keyring())
    signed = {"RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY", "SOA", "DS"}
    for owner, rdataset in now.iterate_rdatasets():
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        if kind in signed or (kind == "NS" and owner == now.origin):
            continue
        if wanted.get_rdataset(owner, rdataset.rdtype) is None:
            update.delete(owner, kind)
    for owner, rdataset in wanted.iterate_rdatasets():
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        if kind not in signed:
            update.replace(owner, rdataset)
    _send(update)
    say(f"{origin} is as in a new lab")


def _signature(line: str) -> bool:
    return any(f" {kind} " in line for kind in ("RRSIG", "NSEC", "DNSKEY", "CDS", "CDNSKEY"))


def read(mailbox: str, subject: str, seconds: float, last: bool) -> int:
    """Print mail of the other provider's; 1 where there is none."""
    box = mailbox.partition("@")[0]
    deadline = time.monotonic() + seconds
    while True:
        found = [mail for mail in _mail(box) if subject in _subject(mail)]
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    for mail in found[-1:] if last else found:
        sys.stdout.write(mail.decode(errors="replace"))
        sys.stdout.write("\n")
    return 0 if found else 1


def _subject(mail: bytes) -> str:
    return str(email.message_from_bytes(mail, policy=email.policy.default)["subject"])


def _mail(box: str) -> list[bytes]:
    if not box.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise LabError(f"{box} is no mailbox of the lab's other provider.")
    script = f"cd /srv/mail/{box}/new 2>/dev/null && for f in $(ls -tr); do cat $f; printf '\\0'; done"
    text = podman("exec", "pm-remote", "sh", "-c", script, check=False)
    return [part.encode() for part in text.split("\0") if part]
