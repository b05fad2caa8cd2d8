# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""postgrey's own files."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping

from .settings import Settings, quoted

MARK = "# Managed by Ansible (postmeister.host)\n"
DEFAULTS = "/etc/default/postgrey"
CLIENTS = "/etc/postgrey/whitelist_clients.local"
RECIPIENTS = "/etc/postgrey/whitelist_recipients.local"
#: below this name nobody has a host (RFC 6761); the first asks whether postgrey answers at all
OWN = "postgrey.invalid"
NAME = f"watch.{OWN}"


def contents(wanted: Settings) -> dict[str, str]:
    """The files, by path."""
    recipients = _recipients(wanted)
    return {
        DEFAULTS: _defaults(wanted),
        RECIPIENTS: recipients,
        CLIENTS: _clients(wanted, recipients),
    }


def token(clients: str) -> str:
    """The client's name in the list that stands for just this state of both lists; '' where there is none."""
    match = re.search(rf"^(s[0-9a-f]{{16}}\.{re.escape(OWN)})$", clients, re.MULTILINE)
    return match[1] if match else ""


def _defaults(wanted: Settings) -> str:
    host = f"[{wanted.address}]" if ":" in wanted.address else wanted.address
    options = [
        # With the port alone it listens on every address of localhost, and dies where IPv6 is off and ::1 is not.
        f"--inet={host}:{wanted.port}",
        f"--delay={wanted.delay}",
        f"--retry-window={wanted.retry_window}h",
        f"--max-age={wanted.lifetime}",
        f"--ipv4cidr={wanted.ipv4_prefix}",
        f"--ipv6cidr={wanted.ipv6_prefix}",
        f"--auto-whitelist-clients={wanted.auto_whitelist}",
    ]
    return f'{MARK}POSTGREY_OPTS="{" ".join(options)}"\nPOSTGREY_TEXT="{wanted.text}"\n'


def _recipients(wanted: Settings) -> str:
    head = f"{MARK}# Beside whitelist_recipients, which is the package's.\n"
    optional = ""
    if wanted.domains:
        names = "|".join(quoted(name) for name in wanted.domains)
        optional = f"# Other domains than these have not opted in.\n/@(?!(?:{names})$)[^@]*$/\n"
    return head + optional + _lines(wanted.recipients)


def _clients(wanted: Settings, recipients: str) -> str:
    text = f"{MARK}# Beside whitelist_clients, which is the package's.\n"
    entries = _lines(wanted.clients)
    # postgrey reads both lists at once: who passes by this name knows that the new ones are in force.
    state = hashlib.sha256(f"{recipients}\n{entries}".encode()).hexdigest()[:16]
    return f"{text}# Names that nobody has (RFC 6761), for questions about postgrey itself.\n{NAME}\n" + (
        f"s{state}.{OWN}\n{entries}"
    )


def _lines(entries: tuple[str, ...]) -> str:
    return "".join(f"{entry}\n" for entry in entries)


def options_of(defaults: str) -> dict[str, str]:
    """Options of postgrey as /etc/default/postgrey has them, by their long name without dashes."""
    match = re.search(r'^POSTGREY_OPTS="?([^"\n]*)"?$', defaults, re.MULTILINE)
    words = shlex.split(match[1]) if match else []
    return {name.lstrip("-"): value for name, _equals, value in (word.partition("=") for word in words)}


def times_of(options: Mapping[str, str]) -> tuple[int, int, int]:
    """Delay, retry window and lifetime in seconds; postgrey's own defaults where an option is not there."""
    window = options.get("retry-window", "2")
    hours = int(window[:-1]) if window.endswith(("h", "H")) else int(window) * 24
    return int(options.get("delay", 300)), hours * 3600, int(options.get("max-age", 35)) * 86400


def entries(text: str) -> int:
    """Number of the operator's entries in one of the lists."""
    own = (line for line in text.splitlines() if line and not line.startswith("#"))
    return sum(1 for line in own if not line.endswith(f".{OWN}"))
