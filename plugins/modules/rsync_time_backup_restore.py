#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rsync_time_backup_restore
short_description: Bring files back from a snapshot
version_added: 0.1.0
description:
  - Restores a snapshot of a job of the role C(rsync_time_backup), or a part of it, with owners (by number), modes,
    times, links, ACLs and extended attributes.
  - Nothing happens without O(confirm), but in check mode, which lists what would be new and what replaced.
  - Nothing is deleted, and what is replaced is kept in a folder that the module names.
  - For a job with the preset V(mail_host), owners come back by name; users and groups that are missing are made.
    Restore such a job before the playbook C(mailserver) runs on a new host.
  - Needs rsync and a host that the role has brought to the job.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  job:
    description: Name of the job.
    type: str
    required: true
  snapshot:
    description: Name of a snapshot, such as V(2030-01-31-021106), or V(latest).
    type: str
    default: latest
  path:
    description: File or folder to bring back, relative to the job's source; empty for all.
    type: str
    default: ""
  to:
    description:
      - Folder that takes the place of the job's source; empty for the source itself.
      - Needed for a job that fetches from another host.
    type: str
    default: ""
  confirm:
    description: Name of the job and of the snapshot, such as V(srv 2030-01-31-021106). A run without it tells it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look at Alice's mail of last night
  postmeister.host.rsync_time_backup_restore:
    job: mail
    path: var/vmail/example.org/alice
    to: /root/alice
    confirm: mail 2030-01-31-021106
    snapshot: 2030-01-31-021106
"""

RETURN = r"""
snapshot:
  description: Name of the snapshot.
  returned: success
  type: str
  sample: 2030-01-31-021106
to:
  description: Folder that was restored into.
  returned: success
  type: str
  sample: /srv
new:
  description: How many files and folders were not there.
  returned: success
  type: int
  sample: 12
replaced:
  description: How many were there and differed, if only by a time.
  returned: success
  type: int
  sample: 3
accounts:
  description: Users and groups that were not there, and were made, for a job with the preset V(mail_host).
  returned: success
  type: list
  elements: str
  sample: [vmail, redis]
confirm:
  description: What O(confirm) has to be.
  returned: success
  type: str
  sample: srv 2030-01-31-021106
kept:
  description: Folder with the former content of what was replaced; empty where there is none.
  returned: success
  type: str
  sample: /var/lib/postmeister/backup/srv/replaced/2030-01-31-101112
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._backup import job, restore


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "str", "required": True},
            "snapshot": {"type": "str", "default": "latest"},
            "path": {"type": "str", "default": ""},
            "to": {"type": "str", "default": ""},
            "confirm": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = restore.Wanted(given["snapshot"], given["path"], given["to"], given["confirm"])
    try:
        done = restore.restore(job.load(given["job"]), wanted, module.check_mode)
    except restore.ERRORS as exc:
        module.fail_json(msg=str(exc))
    counts = {"new": len(done.new), "replaced": len(done.replaced)}
    module.exit_json(
        changed=done.changed,
        snapshot=done.snapshot,
        to=done.to,
        kept=done.kept,
        accounts=done.accounts,
        confirm=f"{given['job']} {done.snapshot}",
        **counts,
        **({"diff": done.diff()} if module._diff else {}),
    )


if __name__ == "__main__":
    main()
