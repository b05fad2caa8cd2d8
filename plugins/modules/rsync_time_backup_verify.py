#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rsync_time_backup_verify
short_description: Prove that backups can be restored
version_added: 0.1.0
description:
  - Takes a sample of the files that a job of the role C(rsync_time_backup) should have, restores them from a snapshot
    into a scratch folder, and compares content, owner, group, mode, time, ACLs and extended attributes with the source.
  - A file that changed after the snapshot began is named and is no fault. For a source on another host only a change of
    content or time is known.
  - The scratch folder lies in C(/var/lib/postmeister/backup), is readable by root alone and is removed at the end.
  - Fails where a fault is found. Needs rsync and a host that the role has brought to its jobs.
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
options:
  names:
    description: Only these jobs; all where none is named. An unknown one is an error.
    type: list
    elements: str
    default: []
  snapshot:
    description: Name of a snapshot, such as V(2030-01-31-021106), or V(latest).
    type: str
    default: latest
  sample:
    description: How many files of each job, taken by chance.
    type: int
    default: 200
  seed:
    description: The same seed takes the same files from the same source. Empty takes others each time.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Are the backups good?
  postmeister.host.rsync_time_backup_verify:

- name: Every file of one job, of an older snapshot
  postmeister.host.rsync_time_backup_verify:
    names: [srv]
    snapshot: 2030-01-31-021106
    sample: 1000000
"""

RETURN = r"""
jobs:
  description: What was found, by job. Names of files are relative to the source.
  returned: always
  type: list
  elements: dict
  contains:
    job:
      description: Name of the job.
      type: str
    snapshot:
      description: Name of the snapshot.
      type: str
    files:
      description: How many files a backup of the source would hold now.
      type: int
    compared:
      description: How many were restored and compared.
      type: int
    changed_since:
      description: Files that differ and changed after the snapshot began.
      type: list
      elements: str
    faults:
      description:
        - Files that differ and should not. O(ignore:differs) has V(missing), V(content), V(owner) and the like.
      type: list
      elements: dict
  sample:
    - {job: srv, snapshot: 2030-01-31-021106, files: 5120, compared: 200, changed_since: [log], faults: []}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._backup import inspect, job, verify


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "snapshot": {"type": "str", "default": "latest"},
            "sample": {"type": "int", "default": 200},
            "seed": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    if given["sample"] < 1:
        module.fail_json(msg=f"sample: {given['sample']} compares nothing")
    seed = given["seed"] or None
    try:
        names = inspect.chosen(given["names"])
    except job.JobError as exc:
        module.fail_json(msg=str(exc))
    told, wrong = verify.verify_all(names, given["snapshot"], given["sample"], seed)
    if wrong:
        module.fail_json(msg="; ".join(wrong), jobs=told)
    module.exit_json(jobs=told)


if __name__ == "__main__":
    main()
