#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgrey_info
short_description: Tell what the greylist knows, and who waits
version_added: 0.1.0
description:
  - Reads postgrey's database while postgrey goes on working, from a copy that is brought up to date by its log.
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
options:
  limit:
    description: The most entries of RV(waiting) to return, those that wait longest. V(0) returns none.
    type: int
    default: 1000
"""

EXAMPLES = r"""
- name: Look at the greylist
  postmeister.host.postgrey_info:
  register: greylist

- name: Show who writes to Alice and waits
  ansible.builtin.debug:
    msg: "{{ greylist.waiting | selectattr('recipient', 'equalto', 'alice@example.org') }}"
"""

RETURN = r"""
answers:
  description: Whether postgrey answers to questions.
  returned: always
  type: bool
  sample: true
problem:
  description: Why it does not.
  returned: always
  type: str
  sample: ''
sizes:
  description:
    - C(triplets) are all that the database holds; of these C(accepted) came back in time, C(waiting) may still do so,
      and C(expired) are removed in one of the next nights.
    - C(clients) are addresses whose deliveries are counted; of these C(trusted_clients) wait no more.
    - C(exempt_clients) and C(exempt_recipients) are the entries of the host's own lists.
    - C(bytes) is the size on the disk.
  returned: always
  type: dict
  sample: {triplets: 3, accepted: 1, waiting: 1, expired: 1, clients: 1, trusted_clients: 0, exempt_clients: 2,
    exempt_recipients: 1, bytes: 10502144}
waiting:
  description: Triplets that were told to come again and did not yet. Times are seconds since 1970, UTC.
  returned: always
  type: list
  elements: dict
  sample: [{client: 198.51.100.0, sender: a@example.net, recipient: alice@example.org, first_try: 1795305600,
    last_try: 1795305600, accepted_from: 1795305900}]
times:
  description: Delay, retry window and lifetime in force, in seconds.
  returned: always
  type: dict
  sample: {delay: 300, retry_window: 172800, lifetime: 3024000}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._greylist import database, files
from ansible_collections.postmeister.host.plugins.module_utils._service import _postgrey_watch


def text(path: str) -> str:
    """A file's text; '' where there is none."""
    found = _files.look(path)
    return (found.content or b"").decode(errors="replace") if found else ""


def main() -> None:
    module = AnsibleModule(argument_spec={"limit": {"type": "int", "default": 1000}}, supports_check_mode=True)
    try:
        defaults = text(files.DEFAULTS)
        options = files.options_of(defaults)
        times = files.times_of(options)
        threshold = int(options.get("auto-whitelist-clients") or 5)
        result = database.describe(database.read(), times, threshold, int(time.time()))
        for kind, path in (("exempt_clients", files.CLIENTS), ("exempt_recipients", files.RECIPIENTS)):
            result["sizes"][kind] = files.entries(text(path))
    except (_files.FileError, CommandError, OSError) as exc:
        module.fail_json(msg=str(exc))
    result["waiting"] = result["waiting"][: max(0, module.params["limit"])]
    problem = _postgrey_watch.problem(*_postgrey_watch.where(defaults))
    names = ("delay", "retry_window", "lifetime")
    module.exit_json(changed=False, answers=not problem, problem=problem, times=dict(zip(names, times)), **result)


if __name__ == "__main__":
    main()
