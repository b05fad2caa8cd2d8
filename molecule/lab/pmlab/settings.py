# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things lie, and the addresses of the lab."""

from __future__ import annotations

import os
from pathlib import Path

LAB = Path(__file__).resolve().parents[1]
CACHE = Path(
    os.environ.get("POSTMEISTER_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
).joinpath("postmeister")
STATE = CACHE / "lab"

NETWORK = "postmeister-lab"
# Documentation ranges (RFC 5737, RFC 3849): a private range counts as local to mail filters and proves nothing.
IPV4 = "198.51.100.0/24"
IPV6 = "2001:db8:51::/64"
REVERSE4 = "100.51.198.in-addr.arpa"
REVERSE6 = "0.0.0.0.1.5.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
IMAGES = "localhost/postmeister-lab"
RELEASES = {12: "bookworm", 13: "trixie"}
DEBIAN = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"


class LabError(Exception):
    """The lab cannot do what was asked; the message is one sentence for the user."""


def ipv4(number: int) -> str:
    """IPv4 address of the host with this number."""
    return f"198.51.100.{number}"


def ipv6(number: int) -> str:
    """IPv6 address of the host with this number: the same digits."""
    return f"2001:db8:51::{number}"


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)
