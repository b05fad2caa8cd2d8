#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rsync_time_backup_info
short_description: What became of this host's backups
version_added: 0.1.0
description:
  - Tells of each job of the role C(rsync_time_backup) its last success, its age, the snapshots and the next run.
  - It reads what the runs remembered on this host, so it answers at once, and also while the other host is away.
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
options:
  names:
    description: Only these jobs. An unknown one is an error.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look at the backups
  postmeister.host.rsync_time_backup_info:
  register: backups

- name: No backup may be older than two days
  ansible.builtin.assert:
    that: item.age is not none and item.age < 2 * 86400
    fail_msg: "{{ item.name }}: {{ item.result }} {{ item.reason }}"
  loop: "{{ backups.jobs }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
jobs:
  description: The jobs, by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the job.
      type: str
    source:
      description: What is backed up.
      type: str
    destination:
      description: Where the snapshots lie.
      type: str
    result:
      description:
        - Of the last run. V(ok), V(partial) (files of the source could not be read, the rest is there), V(failed),
          V(interrupted) (it was killed), V(running), or V(never).
      type: str
    reason:
      description: Why it is not V(ok).
      type: str
    errors:
      description: The first messages of rsync.
      type: list
      elements: str
    rsync_status:
      description: rsync's own exit status.
      type: int
    last_run:
      description: When the last run began, UTC.
      type: str
    last_success:
      description: When the last whole backup began, UTC; V(null) if there is none.
      type: str
    age:
      description: Seconds since O(ignore:last_success); V(null) if there is none.
      type: int
    size:
      description: Bytes of all files in the newest snapshot.
      type: int
    snapshots:
      description:
        - The snapshots after the last run, oldest first. C(name) is their time in UTC, C(result) V(ok) or V(partial).
      type: list
      elements: dict
    next_run:
      description: When the timer starts it next, UTC; V(null) without a timer.
      type: str
  sample:
    - name: srv
      source: /srv
      destination: backup@vault.example.org:/srv/backup/www
      result: ok
      reason: ""
      errors: []
      rsync_status: 0
      last_run: "2030-01-31T02:11:05Z"
      last_success: "2030-01-31T02:11:05Z"
      age: 30411
      size: 52428800
      snapshots: [{name: "2030-01-31-021106", result: ok}]
      next_run: "2030-02-01T02:03:44Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._backup import inspect, job


def main() -> None:
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    try:
        jobs = inspect.jobs(module.params["names"])
    except job.JobError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(jobs=jobs)


if __name__ == "__main__":
    main()
