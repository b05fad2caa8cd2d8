# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pack the options of all modules into one secret option: they hold what these modules keep out of the log."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.postmeister.host.plugins.action.mail_directory import ActionModule as MailDirectory


class ActionModule(MailDirectory):
    """Action of postmeister.host.mail_host_info."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super(MailDirectory, self).run(tmp, task_vars)
        modules = self._task.args.get("modules")
        if set(self._task.args) != {"modules"} or not isinstance(modules, dict):
            raise AnsibleActionFail("modules: a dictionary of options by module is needed, and nothing else is")
        asked = dict(modules)
        if isinstance(asked.get("mail_directory"), dict):
            asked["mail_directory"], _content = self._packed(dict(asked["mail_directory"]))
        packed = base64.b64encode(zlib.compress(json.dumps(asked, default=str).encode())).decode()
        return self._execute_module(
            module_name="postmeister.host.mail_host_info", module_args={"payload": packed}, task_vars=task_vars or {}
        )
