# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The options of one site of wp_site, as its documentation has them."""

from __future__ import annotations

from typing import Any

THEME: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "active", "inactive", "absent"], "default": "present"},
    "version": {"type": "str"},
    "source": {"type": "str"},
}
PLUGIN: dict[str, Any] = {
    **THEME,
    "state": {"type": "str", "choices": ["present", "active", "network", "inactive", "absent"], "default": "present"},
}
ADMIN: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "email": {"type": "str", "required": True},
}
DATABASE: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "default": "", "no_log": True},
    "host": {"type": "str", "default": "localhost"},
    "prefix": {"type": "str", "default": "wp_"},
}
CORE: dict[str, Any] = {"version": {"type": "str"}, "source": {"type": "path"}, "locale": {"type": "str"}}
SITE: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "user": {"type": "str", "default": "www-data"},
    "url": {"type": "str"},
    "title": {"type": "str"},
    "admin": {"type": "dict", "options": ADMIN},
    "database": {"type": "dict", "options": DATABASE},
    "core": {"type": "dict", "options": CORE},
    "plugins": {"type": "list", "elements": "dict", "default": [], "options": PLUGIN},
    "themes": {"type": "list", "elements": "dict", "default": [], "options": THEME},
    "languages": {"type": "list", "elements": "str", "default": []},
    "update_plugins": {"type": "bool", "default": False},
    "update_themes": {"type": "bool", "default": False},
    "update_translations": {"type": "bool", "default": False},
    "options": {"type": "dict", "default": {}},
    "secret_options": {"type": "dict", "default": {}, "no_log": True},
}
