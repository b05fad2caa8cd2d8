#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_user
short_description: Make, change or remove one mailbox ad hoc
version_added: 0.1.0
description:
  - The same as M(postmeister.host.mail_directory) for one mailbox that does not stand in the inventory, for instance
    from a self-service or an C(ansible) command line.
  - Such a mailbox survives a purge by M(postmeister.host.mail_directory). One that came from the inventory is
    refused; it is changed there.
  - Its domain must be known to the directory already. For many mailboxes take M(postmeister.host.mail_directory); one
    call with a thousand costs about as much as one call of this module.
extends_documentation_fragment:
  - postmeister.host._attributes
  - postmeister.host._directory
  - postmeister.host._directory.passwords
author: Postmeister contributors (@postmeister)
options:
  address:
    description: Address and login name.
    type: str
    required: true
  password:
    description: Plain password, hashed on the host. A new mailbox needs this or O(password_hash).
    type: str
  password_hash:
    description: Hash as C(doveadm pw) prints it; see M(postmeister.host.mail_directory) for what is taken.
    type: str
  quota:
    description:
      - Space for the mail, in bytes or as V(500M), V(5G); V(unlimited) for no limit, V(default) for the host's default.
      - Stays as it is where it is not given.
    type: str
  enabled:
    description:
      - A mailbox that is not enabled cannot log in and still gets its mail.
      - Stays as it is where it is not given; a new mailbox is enabled.
    type: bool
  state:
    description: V(absent) removes the mailbox, but no mail.
    type: str
    choices: [present, absent]
    default: present
  remove_mail:
    description: With O(state=absent), deletes the mail on the disk as well, for good.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A mailbox for Carol
  postmeister.host.mail_user:
    address: carol@example.org
    password: "{{ vault_carol_password }}"
    quota: 2G

- name: Carol is on leave; her mail still arrives
  postmeister.host.mail_user:
    address: carol@example.org
    enabled: false

- name: Carol has left
  postmeister.host.mail_user:
    address: carol@example.org
    state: absent
    remove_mail: true
"""

RETURN = r"""
mailboxes:
  description: How many mailboxes were created, changed and deleted.
  returned: always
  type: dict
  sample: {created: 1, changed: 0, deleted: 0}
files:
  description: Names of the files that were written.
  returned: always
  type: list
  elements: str
  sample: [directory.json, dovecot-users]
repaired:
  description: Names of the files that were not as the directory wants them although the directory itself did not
    change.
  returned: always
  type: list
  elements: str
  sample: []
removed_mail:
  description: Folders whose mail was deleted.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import Request, fail_or_exit
from ansible_collections.postmeister.host.plugins.module_utils._mail.directory import ADHOC, Rules
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Lists
from ansible_collections.postmeister.host.plugins.module_utils._mail.spec import ALWAYS, DIRECTORY, MAILBOX, PASSWORDS


def main() -> None:
    """Run the module."""
    # Not given means: as it is.
    spec = {**DIRECTORY, **PASSWORDS, **MAILBOX, "enabled": {"type": "bool"}}
    module = AnsibleModule(
        argument_spec=spec, mutually_exclusive=[("password", "password_hash")], supports_check_mode=True
    )
    options = module.params

    def request() -> Request:
        entry = {key: options[key] for key in MAILBOX}
        return Request(
            lambda: Lists(mailboxes=[entry], place=lambda _kind, _index: "address"),
            rules=Rules(origin=ADHOC, overwrite_passwords=options["update_password"] == ALWAYS),
            **{key: options[key] for key in ("scheme", "cost", "mail_root")},
        )

    fail_or_exit(module, request)


if __name__ == "__main__":
    main()
