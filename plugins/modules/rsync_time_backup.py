#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rsync_time_backup
short_description: Bring a host to its backup jobs
version_added: 0.1.0
description:
  - Installs C(rsync-time-backup) so that it never compresses, the programs around it, and a systemd timer for each job.
    All files change as one; what fails leaves the former jobs.
  - Makes an SSH key for each job that goes to another host, and lets keys of other hosts in, each for one folder.
  - All options are checked before anything changes. Snapshots are never touched.
  - Needs rsync, and OpenSSH's client for jobs over SSH.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  implementation:
    description: V(script) is C(rsync_tmbackup.sh), V(python) the port C(rsync-time-machine).
    type: str
    choices: [script, python]
    default: script
  source:
    description: File on the host with the script, or with the wheel of the port; needed where there are jobs.
    type: path
  checksum:
    description: SHA-256 of O(source). Empty is that of the version that the collection was tested with.
    type: str
    default: ""
  operator:
    description: Address that gets a mail when a backup failed; empty for none.
    type: str
    default: root
  jobs:
    description: The backups of this host. One that is not listed any more loses its timer, its key and its record.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the job, lower case letters, digits and hyphens. Its unit is C(postmeister-backup-NAME.service).
        type: str
        required: true
      preset:
        description:
          - V(mail_host) is the job of a host of the role C(mailserver), with mailboxes, directory, DKIM keys,
            certificates, what postgrey and the spam filter learnt. It needs no O(jobs[].source).
          - More O(jobs[].paths) and O(jobs[].excludes) may be given.
        type: str
        choices: ["", mail_host]
        default: ""
      source:
        description:
          - Folder to back up, an absolute path, or C(user@host:/path) to fetch it from another host. Needed but with a
            O(jobs[].preset).
        type: str
        default: ""
      paths:
        description: Files and folders inside O(jobs[].source) that are backed up, absolute paths; empty for all.
        type: list
        elements: str
        default: []
      destination:
        description:
          - Folder that holds the snapshots, an absolute path, or C(user@host:/path). Source and destination cannot
            both be on another host.
        type: str
        required: true
      port:
        description: Port of the other host's SSH server.
        type: int
        default: 22
      host_keys:
        description:
          - Public keys of the other host, each like C(ssh-ed25519 AAAA…); needed for a job over SSH. No other key
            is accepted.
        type: list
        elements: str
        default: []
      excludes:
        description: Patterns to leave out, as in the file of C(rsync --exclude-from).
        type: list
        elements: str
        default: []
      strategy:
        description:
          - Pairs C(after:every) of days. V(1:1 30:7 365:30) keeps all of a day, then one a day, after 30 days one a
            week, after a year one a month.
          - C(every) of V(0) deletes. The oldest snapshot is always kept.
        type: str
        default: "1:1 30:7 365:30"
      schedule:
        description: When it runs, as in systemd.time(7); empty for no timer.
        type: str
        default: "*-*-* 02:00:00"
      random_delay:
        description: At most so much later by chance, as in systemd.time(7).
        type: str
        default: 30min
      persistent:
        description: Catch up at boot with a run that was missed.
        type: bool
        default: true
      compression:
        description:
          - For thin lines. V(zstd) and V(lz4) do not have the fault of zlib; where the other host's rsync lacks it,
            nothing is compressed and the journal says so.
        type: str
        choices: [none, zstd, lz4]
        default: none
      bandwidth_limit:
        description: As in C(rsync --bwlimit), such as V(5m) for 5 MiB a second; empty for none.
        type: str
        default: ""
      nice:
        description: Scheduling priority, V(0) to V(19).
        type: int
        default: 10
      ionice:
        description: Class of disk access.
        type: str
        choices: [none, best-effort, idle]
        default: idle
      before:
        description:
          - Shell commands that run first, as root, such as the dump of a database. When one fails there is no
            backup, and the failure is told.
          - Their text may hold a password, so it is hidden in all output, and this module writes nothing to the
            host's syslog.
        type: list
        elements: str
        default: []
      after:
        description:
          - Shell commands that run at the end, whatever became of the backup; C($BACKUP_RESULT) is V(ok),
            V(partial) or V(failed).
          - Their text is hidden like that of O(jobs[].before).
        type: list
        elements: str
        default: []
      mount:
        description:
          - Mount point that the (local) destination lies on. Nothing is written while nothing is mounted there.
        type: str
        default: ""
      marker:
        description:
          - Make the destination folder and its C(backup.marker), once; only for a local destination. Without the
            marker no backup runs.
          - A marker that is missing later is not made again, as it tells an unmounted disk.
        type: bool
        default: true
      one_file_system:
        description: Leave out what is mounted below the source.
        type: bool
        default: true
      acls:
        description: Keep access control lists.
        type: bool
        default: true
      xattrs:
        description: Keep extended attributes.
        type: bool
        default: true
      timeout:
        description: Seconds without any data after which rsync gives up.
        type: int
        default: 3600
      rsync_options:
        description: Further options of rsync, one an entry. Options that compress are refused.
        type: list
        elements: str
        default: []
  peers:
    description: Keys of other hosts' jobs that may log in here, each for one folder.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, such as that of the other host and its job.
        type: str
        required: true
      public_key:
        description: Public key of the job.
        type: str
        required: true
      path:
        description: The folder, an absolute path.
        type: str
        required: true
      access:
        description:
          - V(read) lets the other host fetch the folder as its source, V(write) keep its snapshots in it. With
            V(write) the folder and its marker are made, once.
        type: str
        required: true
        choices: [read, write]
      user:
        description: User whose C(authorized_keys) gets the key. Only root can read all files and keep their owners.
        type: str
        default: root
      from:
        description: Addresses that may use the key, as in sshd(8); empty for all.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Back /srv up every night
  postmeister.host.rsync_time_backup:
    source: /root/rsync_tmbackup.sh
    jobs:
      - name: srv
        source: /srv
        destination: /mnt/backup/srv
        mount: /mnt/backup
"""

RETURN = r"""
changes:
  description: Files and units that were not as wanted.
  returned: success
  type: list
  elements: str
  sample: [/etc/postmeister/backup/jobs/srv.json]
public_keys:
  description:
    - The public key of each job over SSH, for O(peers) of the other host; empty in check mode before there is one.
  returned: success
  type: dict
  sample: {srv: ssh-ed25519 AAAA… postmeister-backup:srv}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._backup import install

JOB = {
    "name": {"type": "str", "required": True},
    "preset": {"type": "str", "choices": ["", "mail_host"], "default": ""},
    "source": {"type": "str", "default": ""},
    "paths": {"type": "list", "elements": "str", "default": []},
    "destination": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
    "host_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "excludes": {"type": "list", "elements": "str", "default": []},
    "strategy": {"type": "str", "default": "1:1 30:7 365:30"},
    "schedule": {"type": "str", "default": "*-*-* 02:00:00"},
    "random_delay": {"type": "str", "default": "30min"},
    "persistent": {"type": "bool", "default": True},
    "compression": {"type": "str", "choices": ["none", "zstd", "lz4"], "default": "none"},
    "bandwidth_limit": {"type": "str", "default": ""},
    "nice": {"type": "int", "default": 10},
    "ionice": {"type": "str", "choices": ["none", "best-effort", "idle"], "default": "idle"},
    "before": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "after": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "mount": {"type": "str", "default": ""},
    "marker": {"type": "bool", "default": True},
    "one_file_system": {"type": "bool", "default": True},
    "acls": {"type": "bool", "default": True},
    "xattrs": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 3600},
    "rsync_options": {"type": "list", "elements": "str", "default": []},
}
PEER = {
    "name": {"type": "str", "required": True},
    "public_key": {"type": "str", "required": True, "no_log": False},
    "path": {"type": "str", "required": True},
    "access": {"type": "str", "required": True, "choices": ["read", "write"]},
    "user": {"type": "str", "default": "root"},
    "from": {"type": "list", "elements": "str", "default": []},
}


class Module(AnsibleModule):
    """Writes nothing to syslog: there, a command of several lines looks another way than what no_log searches for."""

    def log(self, msg: str, log_args: Any = None) -> None:
        pass


def main() -> None:
    module = Module(
        argument_spec={
            "implementation": {"type": "str", "choices": ["script", "python"], "default": "script"},
            "source": {"type": "path"},
            "checksum": {"type": "str", "default": ""},
            "operator": {"type": "str", "default": "root"},
            "jobs": {"type": "list", "elements": "dict", "default": [], "options": JOB},
            "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
        },
        supports_check_mode=True,
    )
    given = module.params
    common = {"implementation": given["implementation"], "operator": given["operator"]}
    try:
        host = install.Host(
            [{**job, **common} for job in given["jobs"]],
            given["peers"],
            given["implementation"],
            given["source"] or "",
            given["checksum"],
            module.check_mode,
        )
        outcome = host.apply()
    except install.ERRORS as exc:
        module.fail_json(msg=str(exc))
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.result(), **({"diff": outcome.diff} if module._diff else {}))


if __name__ == "__main__":
    main()
