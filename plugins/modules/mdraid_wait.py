#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The action plugin of the same name does the work; it asks mdraid_info on the host.

from __future__ import annotations

DOCUMENTATION = r"""
module: mdraid_wait
short_description: Show how rebuilds of Linux software RAID get on, until their end
version_added: 0.1.0
description:
  - Prints percent, speed and time left of each array that resyncs, recovers or reshapes, and ends with the last of
    them. It does not wait for a check.
  - Where nothing rebuilds, or there can be no arrays, it ends at once.
extends_documentation_fragment:
  - postmeister.host._attributes.info
author: Postmeister contributors (@postmeister)
options:
  interval:
    description: Seconds between two looks.
    type: int
    default: 5
  timeout:
    description: Fail when it takes longer than this number of seconds. V(0) waits without end.
    type: int
    default: 0
seealso:
  - module: postmeister.host.mdraid_info
"""

EXAMPLES = r"""
- name: Wait for the rebuild, two hours at most
  postmeister.host.mdraid_wait:
    timeout: 7200
"""

RETURN = r"""
rebuilt:
  description: Names of the arrays that were waited for.
  returned: always
  type: list
  elements: str
  sample: [md0]
arrays:
  description: The arrays at the end, as M(postmeister.host.mdraid_info) returns them.
  returned: always
  type: list
  elements: dict
  sample: [{name: md0, action: idle, degraded: 0}]
"""
