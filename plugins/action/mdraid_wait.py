# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.postmeister.host.plugins.module_utils._mdraid.progress import line

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "interval": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 0},
}
_sleep = time.sleep


class ActionModule(ActionBase):
    """Asks the host again and again, so that the controller can show something meanwhile."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(_ARGUMENTS)
        if options["interval"] < 1 or options["timeout"] < 0:
            raise AnsibleActionFail("interval takes 1 second or more, timeout none or more")
        host = (task_vars or {}).get("inventory_hostname", "")
        started = time.monotonic()
        rebuilt: list[str] = []
        while True:
            answer = self._execute_module("postmeister.host.mdraid_info", {}, task_vars=task_vars)
            if answer.get("failed"):
                return {**result, **answer}
            for array in answer["arrays"]:
                if array["rebuilding"] and array["name"] not in rebuilt:
                    rebuilt.append(array["name"])
                if array["name"] in rebuilt:
                    Display().display(f"{host}: {line(array)}")
            if not any(array["rebuilding"] for array in answer["arrays"]):
                return {**result, "changed": False, "rebuilt": rebuilt, "arrays": answer["arrays"]}
            if options["timeout"] and time.monotonic() - started > options["timeout"]:
                late = "; ".join(line(array) for array in answer["arrays"] if array["rebuilding"])
                raise AnsibleActionFail(f"after {options['timeout']} s there is still work: {late}")
            _sleep(options["interval"])
