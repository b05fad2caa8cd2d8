# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run over the keys: what dkim_key does, and mail_host_facts asks about."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from .._files import gid_of, uid_of
from . import key, store
from .record import TYPES, parse_all

KEY: dict[str, Any] = {
    "domain": {"type": "str", "required": True},
    "selector": {"type": "str", "required": True},
    "type": {"type": "str", "choices": list(TYPES), "default": "rsa"},
    "bits": {"type": "int", "default": 2048},
}
SPEC: dict[str, Any] = {
    "path": {"type": "path", "default": "/etc/postmeister/dkim"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "_rspamd"},
    "keys": {"type": "list", "elements": "dict", "required": True, "options": KEY, "no_log": False},
}


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises DkimError and FileError; nothing is written before every key was looked at."""
    wanted = parse_all(params["keys"])
    gid = gid_of(params["group"], missing=-1)
    place = store.Store(params["path"].rstrip("/"), uid_of(params["owner"]), max(gid, 0))
    with contextlib.nullcontext() if check_mode or not wanted else place.lock():
        before = place.read(wanted)
        after = before
        if not check_mode:
            after = [
                store.Entry(each.wanted, each.path, each.found, each.key or key.generate(each.wanted))
                for each in before
            ]
        files = [file.path for file in place.files_to_write(after)]
        folders = place.folders_to_mend(after)
        mended = [path for path in [*folders, *files] if os.path.lexists(path)]
        if not check_mode and (files or folders):
            place.write(after)
    return {
        "changed": bool(files or folders),
        "dkim_keys": [each.facts() for each in after],
        "group_missing": gid < 0,
        "diff": store.diff(before, after, mended),
    }
