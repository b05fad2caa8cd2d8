# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Options of dns_records, for the module and for its action."""

from __future__ import annotations

from typing import Any

from .record import TYPES

RECORD: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "required": True, "choices": list(TYPES)},
    "ttl": {"type": "int", "default": 3600},
    "values": {"type": "list", "elements": "str", "required": True},
    "match": {"type": "str", "default": ""},
    "exclusive": {"type": "bool", "default": True},
}
OWNED: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "required": True},
    "match": {"type": "str", "default": ""},
    "values": {"type": "list", "elements": "str", "required": True},
}
SPEC: dict[str, dict[str, Any]] = {
    "provider": {"type": "str", "required": True, "choices": ["rfc2136", "zonefile", "none"]},
    "zones": {"type": "list", "elements": "str", "default": []},
    "records": {"type": "list", "elements": "dict", "required": True, "options": RECORD},
    "owned": {"type": "list", "elements": "dict", "default": [], "options": OWNED},
    "takeover": {"type": "bool", "default": False},
    "withdraw": {"type": "bool", "default": True},
    "server": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 53},
    "key_name": {"type": "str", "default": ""},
    "key_secret": {"type": "str", "default": "", "no_log": True},
    "key_algorithm": {
        "type": "str",
        "default": "hmac-sha256",
        "choices": ["hmac-sha256", "hmac-sha384", "hmac-sha512"],
        "no_log": False,
    },
    "timeout": {"type": "int", "default": 10},
    "file": {"type": "path", "default": ""},
    "wait": {"type": "int", "default": 0},
    "wait_servers": {"type": "list", "elements": "str", "default": []},
}
