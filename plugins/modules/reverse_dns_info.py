#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reverse_dns_info
short_description: Look whether the reverse DNS of an address is confirmed by its forward DNS
version_added: 0.1.0
description:
  - Asks the host's own resolver for the PTR records of an address, and whether one of the names has that address
    (RFC 8499 section 2, FCrDNS).
  - Gmail and Microsoft refuse mail over IPv6 from an address without it, and many others do over IPv4.
  - What is not confirmed becomes a warning with the reason.
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
requirements: [dnspython on the host]
options:
  address:
    description: An IPv4 or IPv6 address.
    type: str
    required: true
  consequence:
    description: What the warning says of what follows.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look whether other providers will take mail from the IPv6 address
  postmeister.host.reverse_dns_info:
    address: 2001:db8:51::25
  register: reverse
"""

RETURN = r"""
confirmed:
  description:
    - Whether the address has a name that leads back to it. Also false where the resolver gave no answer in 20 seconds.
    - Null where dnspython is not installed, as on a host that the collection did not set up yet.
  returned: always
  type: bool
names:
  description: The names that its PTR records give.
  returned: always
  type: list
  elements: str
  sample: [mail.example.org]
reason:
  description: Why it is not confirmed; empty where it is.
  returned: always
  type: str
  sample: it has no PTR record
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._resolver import ask


def main() -> None:
    module = AnsibleModule(ask.REVERSE, supports_check_mode=True)
    address = module.params["address"]
    if not ask.HAVE_DNSPYTHON:
        module.exit_json(changed=False, confirmed=None, names=[], reason="dnspython is not installed")
    try:
        found = ask.reverse(address)
    except ValueError as exc:
        module.fail_json(msg=f"address: {exc}")
    if found.reason:
        module.warn(": ".join(filter(None, [address, found.reason, module.params["consequence"]])))
    module.exit_json(changed=False, confirmed=not found.reason, names=list(found.names), reason=found.reason)


if __name__ == "__main__":
    main()
