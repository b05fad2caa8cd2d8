#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_directory_info
short_description: Read the domains, mailboxes and aliases of a mail host
version_added: 0.1.0
description:
  - Returns what M(postmeister.host.mail_directory), M(postmeister.host.mail_user) and M(postmeister.host.mail_alias)
    made.
  - Password hashes are never returned.
extends_documentation_fragment:
  - postmeister.host._attributes.info
  - postmeister.host._directory
author: Postmeister contributors (@postmeister)
options:
  entries:
    description: Return the entries; with V(false) only the numbers, which is kinder to a large directory.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Look the directory up
  postmeister.host.mail_directory_info:
  register: directory

- name: Show who was added by hand
  ansible.builtin.debug:
    msg: "{{ directory.mailboxes | selectattr('origin', 'equalto', 'adhoc') | map(attribute='address') }}"
"""

RETURN = r"""
domains:
  description: The domains, with the numbers of their mailboxes and aliases.
  returned: O(entries) is true
  type: list
  elements: dict
  sample: [{name: example.org, mailboxes: 2, aliases: 5}]
mailboxes:
  description: The mailboxes. C(quota) is in bytes, V(0) for no limit, V(null) for the host's default.
  returned: O(entries) is true
  type: list
  elements: dict
  sample: [{address: alice@example.org, quota: 5368709120, enabled: true, origin: inventory, scheme: BLF-CRYPT}]
aliases:
  description: The aliases.
  returned: O(entries) is true
  type: list
  elements: dict
  sample: [{address: info@example.org, destinations: [alice@example.org], origin: inventory}]
sizes:
  description: Numbers of domains, mailboxes, mailboxes that are not enabled, and aliases.
  returned: always
  type: dict
  sample: {domains: 1, mailboxes: 2, disabled: 0, aliases: 5}
recipient_delimiter:
  description: What separates sub-addresses.
  returned: always
  type: str
  sample: +
allow_external:
  description: Whether aliases to outside are taken.
  returned: always
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._files import FileError
from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import describe
from ansible_collections.postmeister.host.plugins.module_utils._mail.spec import DIRECTORY
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore, StoreError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**DIRECTORY, "entries": {"type": "bool", "default": True}}, supports_check_mode=True
    )
    try:
        store = FileStore(module.params["path"])
        directory = store.load()
    except (StoreError, FileError) as exc:
        module.fail_json(msg=str(exc))
    for warning in store.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **describe(directory, module.params["entries"]))


if __name__ == "__main__":
    main()
