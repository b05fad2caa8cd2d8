#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dnsbl
short_description: DNS lists of a mail host, tested before they count
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Tests each list through the host's own resolver as RFC 5782 describes it, addresses by 127.0.0.2 (always listed),
    127.0.0.1 (never listed) and their IPv6 forms, names by C(test) and C(invalid).
  - A list that died, that lists everything, that does not answer, or whose operator answers 127.255.255.x (it refuses
    this resolver) is taken out of service in the resolver (Unbound), where its names then do not exist. So it rejects
    nothing, neither in Postfix nor in rspamd, and their configuration stays as it is.
  - With O(timer=true), a systemd timer repeats the test every ten minutes with the same code, and takes lists out of
    service and back.
  - Needs python3-dnspython and unbound on the host, and C(include) of C(/var/lib/unbound/dnsbl*.conf) in its
    C(unbound.conf), as the role C(resolver) has it.
extends_documentation_fragment:
  - postmeister.host._attributes
options:
  lists:
    description: The lists that mail programs on the host look into.
    type: list
    elements: dict
    required: true
    suboptions:
      zone:
        description: Name of the list.
        type: str
        required: true
      replies:
        description:
          - The answers that count as a listing, written as in Postfix (postconf(5), C(reject_rbl_client)).
          - One that would hold 127.255.255.x, 127.0.0.1, or what is not in 127.0.0.0/8 is refused.
        type: str
        required: true
      checks:
        description: What is looked up in it, the address of a client, or names.
        type: list
        elements: str
        choices: [client, sender, helo, reverse_client]
        default: [client]
  failing:
    description:
      - What becomes of a list that fails the test. V(leave_out) takes it out of service with a warning, V(fail) fails
        and leaves everything as it was.
    type: str
    choices: [leave_out, fail]
    default: leave_out
  timer:
    description: Install C(postmeister-dnsbl.timer), which repeats the test every ten minutes.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Test the lists and take out of service what fails
  postmeister.host.dnsbl:
    lists:
      - zone: zen.spamhaus.org
        replies: 127.0.0.[2..11]
      - zone: dbl.spamhaus.org
        replies: 127.0.1.[2..99]
        checks: [sender, helo, reverse_client]
    timer: true
"""

RETURN = r"""
lists:
  description:
    - What the test found, for each zone. C(state) is V(healthy), V(refused), V(everything), V(dead) or V(silent);
      C(reason) says more; C(ipv6) tells whether the list knows IPv6 addresses.
  returned: success
  type: dict
  sample: {zen.spamhaus.org: {state: healthy, reason: "", ipv6: true}}
out_of_service:
  description: Zones of the lists that are out of service.
  returned: success
  type: list
  elements: str
  sample: []
files:
  description: Files of the timer that were not as wanted.
  returned: with O(timer=true)
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.postmeister.host.plugins.module_utils._policy import apply, health
from ansible_collections.postmeister.host.plugins.module_utils._policy.lists import ListError
from ansible_collections.postmeister.host.plugins.module_utils._service import _transaction


def main() -> None:
    module = AnsibleModule(argument_spec=apply.SPEC, supports_check_mode=True)
    if not health.HAVE_DNSPYTHON and not module.check_mode:
        module.fail_json(msg=missing_required_lib("dnspython"))
    try:
        result, warnings = apply.run(module.params, module.check_mode)
    except (ListError, health.HealthError, *_transaction.ERRORS) as exc:
        module.fail_json(msg=str(exc))
    for warning in warnings:
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
