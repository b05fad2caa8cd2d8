# SPDX-License-Identifier: GPL-3.0-or-later

"""Write down which tasks ran: name, action, where, and whether they were skipped. For script/bench."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: bench_tasks
type: aggregate
short_description: Tasks as JSON
description: Writes the tasks that ran to the file that the environment names in BENCH_TASKS.
"""


class CallbackModule(CallbackBase):
    """Ansible looks for this class."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bench_tasks"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[dict[str, Any]] = []

    def _add(self, result: Any, skipped: bool) -> None:
        task, values = result.task, result.result
        self.tasks.append(
            {
                "name": task.get_name(),
                "action": task.resolved_action or task.action,
                "delegated": bool(task.delegate_to),
                "skipped": skipped,
                "installed": values.get("installed"),
            }
        )

    def v2_runner_on_ok(self, result: Any) -> None:
        self._add(result, skipped=False)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._add(result, skipped=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        with open(os.environ["BENCH_TASKS"], "w", encoding="utf-8") as file:
            json.dump(self.tasks, file)
