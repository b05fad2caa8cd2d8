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
from ansible.plugins.action import ActionBase
from ansible_collections.postmeister.host.plugins.action.mail_directory import ActionModule as MailDirectory
from ansible_collections.postmeister.host.plugins.action.service_config import ActionModule as ServiceConfig

COLLECTION = "postmeister.host."


class ActionModule(ActionBase):
    """Action of postmeister.host.mail_host_facts."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        modules = self._task.args.get("modules")
        if set(self._task.args) != {"modules"} or not isinstance(modules, dict):
            raise AnsibleActionFail("modules: a dictionary of options by module is needed, and nothing else is")
        asked, stranger = dict(modules), self._with_defaults(modules)
        if stranger:
            asked = {}
        if isinstance(asked.get("mail_directory"), dict):
            asked["mail_directory"], _source = self._like(MailDirectory).packed(dict(asked["mail_directory"]))
        if isinstance(asked.get("service_config"), dict):
            asked["service_config"] = self._like(ServiceConfig).packed(dict(asked["service_config"]), variables)
        packed = base64.b64encode(zlib.compress(json.dumps(asked, default=str).encode())).decode()
        result = self._execute_module(
            module_name="postmeister.host.mail_host_facts", module_args={"payload": packed}, task_vars=variables
        )
        if stranger and not result.get("failed"):
            result.update(unsettled=stranger, reason="has options by module_defaults, which only its own task knows")
        return result

    def _with_defaults(self, modules: dict[str, Any]) -> str:
        """The first of the modules, or the group of modules, that the play gives defaults; '' where it gives none."""
        given = {str(name) for defaults in self._task.module_defaults or [] for name in defaults}
        names = {
            name.removeprefix(COLLECTION) for name in given if name.startswith((COLLECTION, f"group/{COLLECTION}"))
        }
        return min((name for name in names if name in modules or name.startswith("group/")), default="")

    def _like(self, action: type[Any]) -> Any:
        """The action plugin of another module, for this task."""
        return action(
            task=self._task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
