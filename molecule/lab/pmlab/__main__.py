# SPDX-License-Identifier: GPL-3.0-or-later

"""script/lab and molecule call this."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import images
from .podman import ensure_network, write_configuration
from .settings import CACHE, LabError, say


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="script/lab", description="The mini-internet that tests and the demo use.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text)

    verb("images", "build what is missing of the images").add_argument("name", nargs="*")
    verb("configure", "write containers.conf for this machine")
    up = verb("up", "start the lab: DNS, CA, the other provider, a client, bare hosts (default: mx, mx12)")
    up.add_argument("host", nargs="*")
    down = verb("down", "remove all containers and the network; images, packages and keys stay")
    down.add_argument("--state", action="store_true", help="remove keys and certificates of the lab, too")
    verb("status", "show what runs")
    fresh = verb("fresh", "replace hosts by bare ones (of the inventory, or any name with --release and --number)")
    fresh.add_argument("host", nargs="+")
    fresh.add_argument("--release", type=int, choices=(12, 13), help="Debian release")
    fresh.add_argument("--number", type=int, help="last part of the addresses")
    fresh.add_argument("--fqdn", help="host name; becomes the addresses' PTR")
    verb("rm", "remove hosts").add_argument("host", nargs="+")
    zone = verb("zone", "print a zone as the server has it")
    zone.add_argument("zone")
    zone.add_argument("--reset", action="store_true", help="back to what a new lab has")
    read = verb("read", "print mail in a mailbox of the other provider, newest last (read carol = carol@remote.test)")
    read.add_argument("mailbox")
    read.add_argument("--subject", default="", help="only where the subject contains this")
    read.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait for one")
    read.add_argument("--last", action="store_true", help="only the newest")
    return top


@contextmanager
def locked() -> Iterator[None]:
    """One run at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lab.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another run of script/lab")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Entry point; the exit status."""
    arguments = parser().parse_args()
    os.environ.setdefault("CONTAINERS_CONF", str(CACHE / "containers.conf"))
    started = time.monotonic()
    try:
        if arguments.verb in ("images", "configure"):
            write_configuration()
            if arguments.verb == "images":
                images.ensure(arguments.name or ["bare-13", "bare-12", "provider"])
            return 0
        # Needs the virtual environment; the two verbs above do not.
        from . import lab

        if arguments.verb == "read":
            return lab.read(arguments.mailbox, arguments.subject, arguments.wait, arguments.last)
        with locked():
            write_configuration()
            if arguments.verb == "up":
                ensure_network()
                lab.up(arguments.host)
            elif arguments.verb == "down":
                lab.down(arguments.state)
            elif arguments.verb == "status":
                return lab.status()
            elif arguments.verb == "fresh":
                lab.fresh(arguments.host, arguments.release, arguments.number, arguments.fqdn)
            elif arguments.verb == "rm":
                lab.rm(arguments.host)
            elif arguments.verb == "zone":
                lab.zone(arguments.zone, arguments.reset)
        if arguments.verb in ("up", "fresh"):
            say(f"{arguments.verb}: {time.monotonic() - started:.1f} s")
    except LabError as problem:
        print(f"script/lab: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
