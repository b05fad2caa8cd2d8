# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Render the templates of service_config on the controller and hand them to the module in one piece."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# Jinja's settings in ansible.builtin.template's own style, and lines that hold only a block tag leave nothing behind.
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}


class ActionModule(ActionBase):
    """Action of postmeister.host.service_config."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        return self._execute_module(
            module_name="postmeister.host.service_config",
            module_args=self.packed(dict(self._task.args), variables),
            task_vars=variables,
        )

    def packed(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """The arguments with the rendered files in one of them."""
        if arguments.get("payload") is not None:
            raise AnsibleActionFail("payload: is set by the action plugin, not by a task")
        if arguments.get("services") is not None and arguments.get("files") is not None:
            raise AnsibleActionFail("services and files: only one of them can be given")
        if arguments.get("services") is None:
            payload = [self._rendered("", arguments, variables)]
        else:
            services = dictionaries("services", arguments["services"])
            payload = [self._rendered(f"services[{n}].", each, variables) for n, each in enumerate(services)]
            arguments["services"] = services
        return {**arguments, "payload": base64.b64encode(zlib.compress(json.dumps(payload).encode())).decode()}

    def _rendered(self, where: str, service: dict[str, Any], variables: dict[str, Any]) -> list[dict[str, Any]]:
        """The files of one service with their content, which stays behind in no other argument: modules log those."""
        files = dictionaries(f"{where}files", service.get("files"))
        role = service.get("role")
        result = [self._entry(f"{where}files[{n}]", dict(file), role, variables) for n, file in enumerate(files)]
        service["files"] = [{key: value for key, value in file.items() if key != "content"} for file in files]
        return result

    def _entry(self, where: str, entry: dict[str, Any], role: Any, variables: dict[str, Any]) -> dict[str, Any]:
        template, content = entry.pop("template", None), entry.get("content")
        absent = entry.get("state") == "absent"
        if absent and (template is not None or content is not None):
            raise AnsibleActionFail(f"{where}: state is absent, so template and content have no meaning")
        if not absent and (template is None) == (content is None):
            raise AnsibleActionFail(f"{where}: exactly one of template and content must be given")
        if template is not None:
            entry["content"] = self._render(where, str(template), role, variables)
        elif content is not None:
            entry["content"] = str(content)
        return entry

    def _render(self, where: str, template: str, role: Any, variables: dict[str, Any]) -> str:
        own = getattr(self._task, "_role", None)
        if own is None:
            raise AnsibleActionFail(f"{where}.template: {template} needs a role; outside of one give content")
        path = own._role_path if role is None else os.path.join(os.path.dirname(own._role_path), str(role))
        folder = os.path.realpath(os.path.join(path, "templates"))
        # Not Ansible's search: that falls back to the parent role and to the play's folder without a word.
        source = os.path.realpath(os.path.join(folder, template))
        if not source.startswith(folder + os.sep) or not os.path.isfile(source):
            raise AnsibleActionFail(f"{where}.template: there is no {template} below {folder}")
        text = trust_as_template(self._loader.get_text_file_contents(source))
        templar = self._templar.copy_with_new_env(
            searchpath=[folder, os.path.dirname(source)],
            available_variables={"ansible_managed": "Ansible managed", **variables},
        )
        try:
            return str(templar.template(text, escape_backslashes=False, overrides=OVERRIDES))
        except AnsibleError as exc:
            raise AnsibleActionFail(f"{where}.template: {template}: {exc}") from exc


def dictionaries(where: str, given: Any) -> list[dict[str, Any]]:
    """Copies of the dictionaries in a list; an error that names it where it is anything else."""
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise AnsibleActionFail(f"{where}: is not a list of dictionaries")
    return [dict(entry) for entry in given]
