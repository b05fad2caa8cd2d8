#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_alias
short_description: Make, change or remove one alias ad hoc
version_added: 0.1.0
description:
  - The same as M(postmeister.host.mail_directory) for one alias that does not stand in the inventory.
  - Such an alias survives a purge by M(postmeister.host.mail_directory). One that came from the inventory is refused;
    it is changed there.
extends_documentation_fragment:
  - postmeister.host._attributes
  - postmeister.host._directory
author: Postmeister contributors (@postmeister)
options:
  address:
    description: The address, or V(@domain) for everything in a domain that is nothing else.
    type: str
    required: true
  destinations:
    description:
      - Who gets the mail. Required unless O(state=absent).
      - Addresses outside of the host are taken where M(postmeister.host.mail_directory) allowed them for the directory.
    type: list
    elements: str
  state:
    description: Whether the alias should be there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Mail to sales goes to two people
  postmeister.host.mail_alias:
    address: sales@example.org
    destinations:
      - alice@example.org
      - bob@example.org

- name: No sales any more
  postmeister.host.mail_alias:
    address: sales@example.org
    state: absent
"""

RETURN = r"""
aliases:
  description: How many aliases were created, changed and deleted.
  returned: always
  type: dict
  sample: {created: 1, changed: 0, deleted: 0}
files:
  description: Names of the files that were written.
  returned: always
  type: list
  elements: str
  sample: [directory.json, virtual_aliases.lmdb]
repaired:
  description: Names of the files that were not as the directory wants them although the directory itself did not
    change.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import Request, fail_or_exit
from ansible_collections.postmeister.host.plugins.module_utils._mail.directory import ADHOC, Rules
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Lists
from ansible_collections.postmeister.host.plugins.module_utils._mail.spec import ALIAS, DIRECTORY


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**DIRECTORY, **ALIAS},
        required_if=[("state", "present", ("destinations",))],
        supports_check_mode=True,
    )
    options = module.params

    def request() -> Request:
        entry = {key: options[key] for key in ALIAS}
        lists = Lists(aliases=[entry], place=lambda _kind, _index: "address")
        return Request(lambda: lists, rules=Rules(origin=ADHOC))

    fail_or_exit(module, request)


if __name__ == "__main__":
    main()
