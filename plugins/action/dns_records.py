# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On the controller dns_records runs within Ansible: a process of its own costs more than to ask the server."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.postmeister.host.plugins.module_utils._dns import rfc2136, session
from ansible_collections.postmeister.host.plugins.module_utils._dns.options import SPEC


class ActionModule(ActionBase):
    """Action of postmeister.host.dns_records."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not self._here():
            return {**result, **self._execute_module(task_vars=task_vars)}
        _validated, options = self.validate_argument_spec(SPEC)
        return {**result, **session.answer(options, self._task.check_mode)}

    def _here(self) -> bool:
        """Whether this very process may do it: as the same user, with all that it needs."""
        if self._play_context.become or self._task.async_val or rfc2136.DNSPYTHON_IMPORT_ERROR:
            return False
        return self._connection.transport in ("local", "ansible.builtin.local")
