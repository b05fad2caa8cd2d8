# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Options that the modules of the directory share; doc_fragments/_directory.py mirrors the first two."""

from __future__ import annotations

from typing import Any

from .lists import FALLBACK as FALLBACK_ALIASES
from .store_files import DEFAULT_PATH

_STATE: dict[str, Any] = {"type": "str", "choices": ["present", "absent"], "default": "present"}

DIRECTORY: dict[str, Any] = {"path": {"type": "path", "default": DEFAULT_PATH}}

ALWAYS = "always"

PASSWORDS: dict[str, Any] = {
    "scheme": {"type": "str", "choices": ["BLF-CRYPT", "SHA512-CRYPT"], "default": "BLF-CRYPT"},
    "cost": {"type": "int"},
    "update_password": {"type": "str", "choices": [ALWAYS, "on_create"], "default": ALWAYS, "no_log": False},
    "mail_root": {"type": "path", "default": "/var/vmail"},
}

DOMAIN: dict[str, Any] = {"name": {"type": "str", "required": True}, "state": _STATE}

MAILBOX: dict[str, Any] = {
    "address": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "password_hash": {"type": "str", "no_log": True},
    "quota": {"type": "str"},
    "enabled": {"type": "bool", "default": True},
    "state": _STATE,
    "remove_mail": {"type": "bool", "default": False},
}

ALIAS: dict[str, Any] = {
    "address": {"type": "str", "required": True},
    "destinations": {"type": "list", "elements": "str"},
    "state": _STATE,
}

FALLBACK: dict[str, Any] = {
    "address": {"type": "str", "required": True},
    "destinations": {"type": "list", "elements": "str", "required": True},
}

#: options of mail_directory
WHOLE: dict[str, Any] = {
    **DIRECTORY,
    **PASSWORDS,
    "domains": {"type": "list", "elements": "dict", "options": DOMAIN},
    "mailboxes": {"type": "list", "elements": "dict", "options": MAILBOX},
    "aliases": {"type": "list", "elements": "dict", "options": ALIAS},
    FALLBACK_ALIASES: {"type": "list", "elements": "dict", "options": FALLBACK},
    "src": {"type": "path"},
    "purge": {"type": "bool", "default": False},
    "purge_limit": {"type": "int", "default": 10},
    "recipient_delimiter": {"type": "str", "default": "+"},
    "allow_external": {"type": "bool", "default": False},
    "payload": {"type": "str", "no_log": True},
}
