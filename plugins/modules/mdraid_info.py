#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mdraid_info
short_description: Read the arrays of Linux software RAID and their speed limits
version_added: 0.1.0
description:
  - Tells of each array its members, its state, how far a rebuild is, how fast it goes and how long it will take, and
    which limits are in force and where they come from.
  - Needs no program on the host. In a container, or with a kernel without the md driver, there are no arrays, and
    RV(reason) says why.
extends_documentation_fragment:
  - postmeister.host._attributes.info
author: Postmeister contributors (@postmeister)
options: {}
seealso:
  - module: postmeister.host.mdraid_speed
  - module: postmeister.host.mdraid_wait
"""

EXAMPLES = r"""
- name: Look at the arrays
  postmeister.host.mdraid_info:
  register: raid

- name: Stop where an array has lost its redundancy
  ansible.builtin.assert:
    that: raid.arrays | selectattr('degraded') | length == 0
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
loaded:
  description: Whether the md driver is in the kernel.
  returned: always
  type: bool
  sample: true
arrays:
  description:
    - The arrays. Sizes are in KiB, speeds and limits in KiB/s for each device.
    - C(action) is what the array does, as in C(md/sync_action); V(none) for one without redundancy. C(pending) means
      that it will resync after the first write to it.
    - C(source) of a limit is V(array) for one of its own, V(host) for that of the host.
  returned: always
  type: list
  elements: dict
  sample:
    - name: md0
      uuid: 0e4ae6f4:b3a1f1a2:58e1e4f6:a3c9a9ab
      label: mx:data
      links: [/dev/md/data]
      level: raid1
      devices: 2
      degraded: 1
      state: active
      size: 976630464
      members:
        - {device: /dev/sda1, slot: 0, state: [in_sync], errors: 0}
        - {device: /dev/sdb1, slot: 1, state: [spare], errors: 0}
      bitmap: internal
      action: recover
      rebuilding: true
      pending: false
      percent: 43.1
      speed: 512000
      seconds_left: 1085
      mismatches: 0
      stripe_cache_size: null
      group_thread_cnt: null
      speed_limit_max: {value: 1250000, source: host}
      speed_limit_min: {value: 1000, source: host}
limits:
  description:
    - C(now) holds the host's limits in force; empty while the driver is not loaded. C(at_boot) holds what the next
      boot sets.
    - C(source) is the file that says so, V(kernel) for the kernel's own value, V(runtime) for one that was set by hand
      and does not survive a boot.
  returned: always
  type: dict
  sample:
    now:
      speed_limit_max: {value: 1250000, source: /etc/sysctl.d/zz-postmeister-mdraid.conf}
    at_boot:
      speed_limit_max: {value: 1250000, source: /etc/sysctl.d/zz-postmeister-mdraid.conf}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._mdraid import state

ROOT = "/"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    host = state.look(ROOT)
    for warning in host.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **host.describe())


if __name__ == "__main__":
    main()
