# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run over postgrey: what the module of that name does, and mail_host_facts asks about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _files
from .._service import _base, _transaction, postgrey
from . import files, settings

STARTED, STOPPED = "started", "stopped"
SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": [STARTED, STOPPED], "default": STARTED},
    "lock_timeout": {"type": "int", "default": 60},
    **settings.SPEC,
}


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises SettingsError and _transaction.ERRORS."""
    if params["state"] == STOPPED:
        units = postgrey.switched_on()
        if units and not check_mode:
            postgrey.switch_off(units)
        note = "".join(f"{unit}: switched off\n" for unit in units)
        return {"changed": bool(units), "stopped": units, "diff": {"prepared": note}}
    change = transaction(params)
    outcome = change.check_mode() if check_mode else change.apply()
    result = {key: value for key, value in outcome.result().items() if key != "inputs"}
    return {**result, "diff": outcome.diff()}


def transaction(params: Mapping[str, Any]) -> _transaction.Transaction:
    """Over postgrey's files and the timer's."""
    wanted = settings.settings(params)
    texts = {**files.contents(wanted), **postgrey.companions()}
    probe = {"address": wanted.address, "port": wanted.port, "token": files.token(texts[files.CLIENTS])}
    return _transaction.Transaction(
        postgrey.Postgrey(int(_base.os_release().get("VERSION_ID", "0")), probe),
        [_files.File(path, text.encode()) for path, text in texts.items()],
        wait=params["lock_timeout"],
    )
