# SPDX-License-Identifier: GPL-3.0-or-later

"""podman as this lab uses it, and the settings it needs on this machine."""

from __future__ import annotations

import ipaddress
import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .settings import CACHE, IPV4, IPV6, NETWORK, LabError

CAP_SYS_RESOURCE = 24


def podman(*argv: str, stdin: bytes | None = None, check: bool = True, timeout: float = 600) -> str:
    """Run podman, return its standard output; a failure becomes one LabError with podman's words."""
    try:
        done = subprocess.run(
            ["podman", *argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise LabError("podman is not installed: run script/bootstrap.") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"podman {argv[0]} gave no answer within {timeout:g} s.") from None
    if check and done.returncode != 0:
        raise LabError(f"podman {' '.join(argv[:2])}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def succeeds(*argv: str) -> bool:
    """Whether podman's exit status is 0."""
    return subprocess.run(["podman", *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def containers() -> dict[str, dict[str, Any]]:
    """All containers of this lab by name; State is "dead" for one that podman believes in and whose processes are gone.

    podman learns of a container's end from conmon. Where both were killed at once (the end of a session that takes all
    its processes along), it says "running" for ever, and can neither stop nor start it.
    """
    found = json.loads(podman("ps", "--all", "--format", "json", "--filter", "label=postmeister.lab") or "[]")
    for item in found:
        if item["State"] in ("running", "stopping") and not _has_process(item):
            item["State"] = "dead"
    return {item["Names"][0]: item for item in found}


def _has_process(item: dict[str, Any]) -> bool:
    try:
        return item["Id"] in Path(f"/proc/{item['Pid']}/cgroup").read_text()
    except OSError:
        return False


def write_configuration() -> None:
    """Write containers.conf for what this machine is; CONTAINERS_CONF points to it.

    runc: crun cannot start systemd on hybrid cgroups (v1 controllers beside v2). Limits: without CAP_SYS_RESOURCE
    podman's default limits cannot be set. Without systemd on the machine there is neither its cgroup manager nor its
    journal.
    """
    containers_section = ['base_hosts_file = "none"']
    engine = []
    if not _capable(CAP_SYS_RESOURCE):
        files = min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 63))
        processes = min(5000, resource.getrlimit(resource.RLIMIT_NPROC)[1] % (1 << 63))
        containers_section.append(f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]')
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if shutil.which("runc") and (not unified or not shutil.which("crun")):
        engine.append('runtime = "runc"')
    if not Path("/run/systemd/system").is_dir():
        engine += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
        containers_section.append('log_driver = "k8s-file"')
    text = "\n".join(
        [
            "# Made by script/bootstrap for this machine.",
            *("[containers]", *containers_section),
            *("[network]", 'network_backend = "netavark"'),
            *("[engine]", *engine, ""),
        ]
    )
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "containers.conf"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _capable(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    return bool(mask >> number & 1)


def ensure_network() -> None:
    """Create the lab's network; say so where its addresses are somebody else's."""
    if succeeds("network", "exists", NETWORK):
        return
    for family, subnet in (("-4", IPV4), ("-6", IPV6)):
        taken = _overlap(family, subnet)
        if taken:
            raise LabError(
                f"The lab needs {subnet} (a range reserved for documentation) for itself, but this machine already "
                f"has a route to {taken}: remove that, or run the lab on another machine."
            )
    options = ["--ipv6", f"--subnet={IPV4}", f"--subnet={IPV6}", "--disable-dns", "--label=postmeister.lab=1"]
    podman("network", "create", *options, NETWORK)


def _overlap(family: str, subnet: str) -> str | None:
    ours = ipaddress.ip_network(subnet)
    shown = subprocess.run(
        ["ip", family, "route", "show", "table", "all"], capture_output=True, text=True, check=False
    ).stdout
    for line in shown.splitlines():
        words = line.split()
        if words and words[0] in ("local", "broadcast", "multicast", "unreachable", "blackhole"):
            words = words[1:]
        try:
            route = ipaddress.ip_network(words[0], strict=False)
        except (ValueError, IndexError):
            continue
        if route.prefixlen > 0 and route.version == ours.version and route.overlaps(ours):
            return f"{route} ({line.strip()})"
    return None
