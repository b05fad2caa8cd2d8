#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: What the roles of this collection have to know of a host beforehand
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Reads the release, what M(postmeister.host.local_fact) wrote in earlier runs, and where Ansible comes from.
  - It asks for nothing else, and starts no programs of others as M(ansible.builtin.setup) does for its local facts.
extends_documentation_fragment:
  - postmeister.host._attributes.info
"""

EXAMPLES = r"""
- name: Look at the host
  postmeister.host.host_facts:
"""

RETURN = r"""
ansible_facts:
  description: Facts, to be read as C(ansible_facts['postmeister']).
  returned: always
  type: dict
  contains:
    distribution_major_version:
      description: As M(ansible.builtin.setup) gives it.
      type: str
      returned: always
      sample: "13"
    postmeister:
      description:
        - C(remembered) holds what each local fact of this collection says, by its name without C(postmeister_).
        - C(ssh_connection) is the variable SSH_CONNECTION (ssh(1)) of the session that Ansible runs in, also below
          sudo, which drops it; empty without such a session.
      type: dict
      returned: always
      sample: {remembered: {mailserver: {complete: true}}, ssh_connection: 192.0.2.7 50022 198.51.100.25 22}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _host


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        facts = _host.facts()
    except _host.HostError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
