#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_host_facts
short_description: Whether a mail host is as an earlier run left it
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Reads the facts of M(postmeister.host.host_facts), and asks modules of this collection what they would change, all
    in one visit to the host. Each is asked in its own check mode, on the options that its task has.
  - Where none would change anything, a play can leave out their tasks. That is what the role
    P(postmeister.host.mailserver#role) does, and why its second run takes a fraction of the first one's tasks.
  - Whatever keeps a module from looking, a library that is missing for one, counts as something to do. Its own task
    will say what.
extends_documentation_fragment:
  - postmeister.host._attributes.info
options:
  modules:
    description:
      - The options of each module, by its name. They are asked in this order, until one would change something.
      - Known are V(packages), V(service_config) with C(services), V(dkim_key), V(postgrey), V(mail_certificate),
        V(dnsbl), V(reverse_dns_info) and V(mail_directory).
      - Where the play gives one of them options by C(module_defaults), nobody is asked, and that one has something
        to do.
      - Options that a module would refuse are an error. It names the module and the option.
      - Needed, and replaced by O(payload) before the module runs.
    type: dict
  payload:
    description: O(modules), packed. Set by the action plugin.
    type: str
"""

EXAMPLES = r"""
- name: Look whether keys and certificate are in place
  postmeister.host.mail_host_facts:
    modules:
      dkim_key:
        keys: "{{ dkim_keys }}"
      mail_certificate:
        hostname: mail.example.org
        method: selfsigned
  register: look

- name: Make the DKIM keys
  postmeister.host.dkim_key:
    keys: "{{ dkim_keys }}"
  when: look.unsettled != ''
"""

RETURN = r"""
ansible_facts:
  description: As M(postmeister.host.host_facts) gives them.
  returned: always
  type: dict
  sample: {distribution_major_version: "13", postmeister: {remembered: {}, ssh_connection: ""}}
unsettled:
  description: The first module that has something to do; empty where none has. Those after it were not asked.
  returned: always
  type: str
  sample: mail_certificate
reason:
  description: Why it has. For what kept it from looking only the kind of error, the module itself will say more.
  returned: always
  type: str
  sample: would change something
found:
  description:
    - For each module that has nothing to do what it would return, as far as other tasks need it.
    - These are C(dkim_keys) of M(postmeister.host.dkim_key), C(tlsa) of M(postmeister.host.mail_certificate), and
      C(confirmed) of M(postmeister.host.reverse_dns_info).
  returned: always
  type: dict
  sample: {packages: {}, reverse_dns_info: {confirmed: true}}
"""

import base64
import json
import zlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _host, _look


def main() -> None:
    module = AnsibleModule(
        argument_spec={"modules": {"type": "dict"}, "payload": {"type": "str", "no_log": True}},
        supports_check_mode=True,
    )
    if not module.params["payload"]:
        module.fail_json(msg="payload: missing; the action plugin of this module sets it")
    try:
        asked = _look.validated(json.loads(zlib.decompress(base64.b64decode(module.params["payload"]))))
        facts = _host.facts()
    except (_look.OptionError, _host.HostError) as exc:
        module.fail_json(msg=str(exc))
    seen = _look.look(asked)
    for warning in seen.warnings:
        module.warn(warning)
    module.exit_json(changed=False, ansible_facts=facts, unsettled=seen.unsettled, reason=seen.reason, found=seen.found)


if __name__ == "__main__":
    main()
