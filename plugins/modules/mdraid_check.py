#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mdraid_check
short_description: Set when Linux software RAID is checked
version_added: 0.1.0
description:
  - A check reads all devices of an array and compares them, so that a bad sector is found while the array still has its
    redundancy. Debian does so on the first Sunday of a month.
  - With a schedule or a duration of one's own it uses the timers of C(mdcheck), which both Debian 12 and 13 bring, and
    switches the job of cron in Debian 12 off.
  - In a container, or with a kernel without the md driver, nothing is done, and RV(reason) says why.
extends_documentation_fragment:
  - postmeister.host._attributes
author: Postmeister contributors (@postmeister)
options:
  enabled:
    description: Whether arrays are checked.
    type: bool
    default: true
  schedule:
    description:
      - When, as a calendar expression of systemd.time(7), by the host's own clock. A check that fell into a time when
        the host was off is made up for.
      - Empty is Debian's own schedule.
    type: str
    default: ""
  duration:
    description:
      - After which time a check pauses until the next day, like V(6 hours).
      - Empty is Debian's own. Its job of cron in Debian 12 does not pause.
    type: str
    default: ""
seealso:
  - module: postmeister.host.mdraid_speed
"""

EXAMPLES = r"""
- name: Check at night, four hours at a time
  postmeister.host.mdraid_check:
    schedule: Sat *-*-8..14 01:00
    duration: 4 hours
"""

RETURN = r"""
supported:
  description: Whether this host can have arrays.
  returned: always
  type: bool
  sample: true
reason:
  description: Why it cannot.
  returned: always
  type: str
  sample: this is a container
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import check, state

ROOT = "/"


def diff(todo: check.Plan) -> list[dict[str, str]]:
    """Make Ansible's diff."""
    result = []
    for file in todo.files:
        found = _files.look(file.path)
        before = (found.content or b"").decode(errors="replace") if found else ""
        after = (file.content or b"").decode(errors="replace")
        result.append({"before_header": file.path, "after_header": file.path, "before": before, "after": after})
    result += [{"prepared": f"{unit}: switched on\n"} for unit in todo.enable]
    return result + [{"prepared": f"{unit}: switched off\n"} for unit in todo.disable]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "enabled": {"type": "bool", "default": True},
            "schedule": {"type": "str", "default": ""},
            "duration": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    schedule, duration = module.params["schedule"], module.params["duration"]
    result: dict[str, Any] = {"changed": False, "supported": True, "reason": ""}
    try:
        check.verify(schedule, duration)
        host = state.look(ROOT)
        if host.unsupported:
            module.exit_json(**{**result, "supported": False, "reason": host.unsupported})
        if not module.check_mode and not os.path.exists(os.path.join(ROOT, check.PROGRAM)):
            raise check.CheckError(f"/{check.PROGRAM} is not there: install mdadm first")
        arrays = any(array.redundant for array in host.arrays)
        todo = check.plan(ROOT, module.params["enabled"], schedule, duration, arrays, check.look())
        result.update(changed=todo.changed, diff=diff(todo))
        if not module.check_mode:
            check.apply(todo)
    except (check.CheckError, CommandError, _files.FileError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
