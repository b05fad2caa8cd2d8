#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wp_cron_info
short_description: Tell when the tasks of WordPress sites ran last, and what is overdue
version_added: 0.1.0
description:
  - Reads the sites that M(postmeister.host.wp_cron) looks after. Their events are read from their databases, as the
    sites' own users; no task is run.
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
options:
  names:
    description: Names of the sites; all where none is given.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Ask all sites
  postmeister.host.wp_cron_info:
  register: cron

- name: Nothing waits for more than a quarter of an hour
  ansible.builtin.assert:
    that: cron.sites | selectattr('overdue_seconds', '>', 900) | length == 0
"""

RETURN = r"""
sites:
  description: The sites, in the order of their names.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the site, as in C(wp-cron@NAME.timer).
      type: str
    path:
      description: Its folder.
      type: str
    user:
      description: User that its tasks run as.
      type: str
    scheduler:
      description: V(timer), V(crontab) or V(none).
      type: str
    last_run:
      description:
        - When the last run began, in UTC; V(null) when none did. A crontab's line without guard leaves no trace.
      type: str
      sample: "2026-01-31T12:00:07Z"
    last_seconds:
      description: How long it took.
      type: float
    last_failed:
      description: What failed in it; empty when all went well.
      type: list
      elements: str
    next_run:
      description: When the timer starts the next one, in UTC; V(null) while one is at work, and for crontabs.
      type: str
    network:
      description: Whether it is a multisite network.
      type: bool
    events:
      description: Number of scheduled events, of all sites of a network.
      type: int
    overdue:
      description: The events that are due, longest first, with C(url), C(hook), C(count) and the C(seconds) they wait.
      type: list
      elements: dict
    overdue_seconds:
      description: How long the first of them waits; 0 when nothing does.
      type: int
    maintenance:
      description: Whether WordPress is being updated just now; its tasks wait meanwhile.
      type: bool
    error:
      description: Why the events could not be read; empty when they could.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron_host


def main() -> None:
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    try:
        sites = cron_host.info(module.params["names"])
    except cron_host.ERRORS as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, sites=sites)


if __name__ == "__main__":
    main()
