#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mdraid_speed
short_description: Set how fast Linux software RAID rebuilds, now and after every boot
version_added: 0.1.0
description:
  - Sets the limits of the md driver for resync, recovery, reshape and check, for the host and for single arrays.
    The kernel's own limit of 200000 KiB/s is below what fast disks can do, and so leaves an array without redundancy
    for longer than needed.
  - They hold at once, and after every boot, whether the initramfs brings the md driver, the driver comes later with
    the first array, or an array is assembled much later.
  - Values that the kernel would take silently although they make no sense are refused, as is an array that is not
    there, before anything is changed.
  - Without arrays the limits are prepared for when there are some. In a container, or with a kernel without the md
    driver, nothing is done, and RV(reason) says why.
extends_documentation_fragment:
  - postmeister.host._attributes
author: Postmeister contributors (@postmeister)
options:
  speed_limit_max:
    description:
      - The most that a rebuild takes of each device, in KiB/s.
      - V(1250000) is 10 Gbit/s.
    type: int
    default: 1250000
  speed_limit_min:
    description:
      - What a rebuild gets of each device even while programs read and write, in KiB/s.
      - On a busy host this decides how long a rebuild takes.
    type: int
    default: 1000
  mode:
    description:
      - With V(always), the limits hold for whatever an array does, the monthly check included.
      - With V(while_resyncing), they hold for an array only while it resyncs, recovers or reshapes, and go back by
        themselves. An array that is only being checked keeps O(normal_speed_limit_max) and O(normal_speed_limit_min).
    type: str
    choices: [always, while_resyncing]
    default: always
  normal_speed_limit_max:
    description: With O(mode=while_resyncing), the limit at all other times, in KiB/s. The default is the kernel's.
    type: int
    default: 200000
  normal_speed_limit_min:
    description: As O(normal_speed_limit_max), for the lower limit.
    type: int
    default: 1000
  working_hours:
    description:
      - With O(mode=while_resyncing), hours in which a rebuild, too, keeps the normal limits, by the host's own clock.
      - Like V(Mon-Fri 08:00-18:00) or V(Sat 09:00-24:00).
    type: list
    elements: str
    default: []
  arrays:
    description:
      - Arrays that differ. All others have no limits of their own.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Kernel name (V(md0)), name in its metadata (V(data), V(/dev/md/data)) or UUID.
          - Kernel names may change with a boot; afterwards the array is recognised by its UUID.
        type: str
        required: true
      speed_limit_max:
        description: As O(speed_limit_max), for this array.
        type: int
      speed_limit_min:
        description: As O(speed_limit_min), for this array.
        type: int
      stripe_cache_size:
        description:
          - For RAID 4, 5 and 6, entries of the stripe cache, V(17) to V(32768).
          - It takes this number times the number of devices times 4 KiB of memory.
        type: int
      group_thread_cnt:
        description: For RAID 4, 5 and 6, threads for each group of processors, V(0) for one thread in all.
        type: int
      bitmap:
        description:
          - The write-intent bitmap. With V(internal), a resync after a crash takes seconds, and writes take a
            little longer.
          - It stays as it is while the array rebuilds, and where this is not given.
        type: str
        choices: [internal, none]
seealso:
  - module: postmeister.host.mdraid_info
  - module: postmeister.host.mdraid_wait
"""

EXAMPLES = r"""
- name: Rebuild as fast as the disks can
  postmeister.host.mdraid_speed:
    speed_limit_max: 1250000
    speed_limit_min: 50000

- name: Only rebuilds, and not while people work
  postmeister.host.mdraid_speed:
    mode: while_resyncing
    working_hours: [Mon-Fri 08:00-18:00]
    arrays:
      - name: /dev/md/data
        stripe_cache_size: 8192
        group_thread_cnt: 4
        bitmap: internal
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
changes:
  description: What changed, or would change, one line each.
  returned: always
  type: list
  elements: str
  sample: ["dev.raid.speed_limit_max: 200000 -> 1250000"]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, run
from ansible_collections.postmeister.host.plugins.module_utils._files import FileError
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import limits, state

ROOT = "/"
ARRAY = {
    "name": {"type": "str", "required": True},
    "speed_limit_max": {"type": "int"},
    "speed_limit_min": {"type": "int"},
    "stripe_cache_size": {"type": "int"},
    "group_thread_cnt": {"type": "int"},
    "bitmap": {"type": "str", "choices": ["internal", "none"]},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "speed_limit_max": {"type": "int", "default": 1250000},
            "speed_limit_min": {"type": "int", "default": 1000},
            "mode": {"type": "str", "choices": ["always", "while_resyncing"], "default": "always"},
            "normal_speed_limit_max": {"type": "int", "default": 200000},
            "normal_speed_limit_min": {"type": "int", "default": 1000},
            "working_hours": {"type": "list", "elements": "str", "default": []},
            "arrays": {"type": "list", "elements": "dict", "default": [], "options": ARRAY},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "supported": True, "reason": "", "changes": []}
    try:
        wanted = limits.check(module.params)
        host = state.look(ROOT)
        if host.unsupported:
            module.exit_json(**{**result, "supported": False, "reason": host.unsupported})
        active = run(["systemctl", "is-active", limits.SERVICE], check=False).out.strip() == "active"
        todo = limits.plan(wanted, host, ROOT, active, time.localtime())
        result.update(changed=todo.changed, changes=limits.lines(todo, ROOT), diff=limits.diff(todo, ROOT))
        for warning in todo.warnings:
            module.warn(warning)
        if not module.check_mode:
            limits.apply(todo)
    except (limits.LimitError, CommandError, FileError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
