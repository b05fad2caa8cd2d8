#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgrey
short_description: Greylist mail of unknown senders, and spare those who cannot wait
version_added: 0.1.0
description:
  - Configures postgrey, a policy service for Postfix. Who writes for the first time, from an unknown network, is told
    to come again; a mail server does, most programs that send spam do not.
  - Writes postgrey's own files, in one transaction as in M(postmeister.host.service_config). The new files are read by
    postgrey itself before they replace the former ones. A change of the lists is read by the running daemon, other
    changes restart it; the database of what it knows stays in any case.
  - A timer, C(postmeister-greylist.timer), asks postgrey every minute whether it answers, restarts it when it hangs,
    and writes a mail to root when it does not answer. Postfix is to be told to let mail pass meanwhile.
  - Times have a unit, as in V(300s), V(5m), V(48h) and V(35d). Each must be longer than the one before, O(delay),
    O(retry_window), O(lifetime).
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  state:
    description:
      - V(started) configures and runs it.
      - V(stopped) stops it and keeps it from starting, as where something else greylists. Files and database stay.
    type: str
    choices: [started, stopped]
    default: started
  address:
    description: Address of this machine that it listens on.
    type: str
    default: 127.0.0.1
  port:
    description: Its port.
    type: int
    default: 10023
  delay:
    description: How long a first try waits.
    type: str
    default: 5m
  retry_window:
    description: How long after its first try a sender may come back, in whole hours.
    type: str
    default: 48h
  lifetime:
    description: How long a sender is known that was not seen again, in whole days.
    type: str
    default: 35d
  by_subnet:
    description:
      - Whether another address of the same network is the same client. Large senders try again from another one.
      - A change of this, or of a prefix, makes most of the known triplets unknown.
    type: bool
    default: true
  ipv4_prefix:
    description: Length of the network that stands for a client's IPv4 address, with O(by_subnet=true).
    type: int
    default: 24
  ipv6_prefix:
    description: The same for IPv6.
    type: int
    default: 64
  auto_whitelist_clients:
    description:
      - Number of deliveries after a wait, at most one an hour counts, after which a client's address waits no more.
      - V(0) for never.
    type: int
    default: 5
  text:
    description:
      - What the sender is told. C(%s) becomes the seconds that are left, C(%r) the recipient's domain.
    type: str
    default: Greylisted, please try again later
  exempt_clients:
    description:
      - Clients that never wait, addresses, networks, domains with their subdomains (of the confirmed reverse name), or
        Perl's regular expressions between slashes.
    type: list
    elements: str
    default: []
  exempt_recipients:
    description:
      - Recipients that never wait, V(domain), V(local@domain), V(local@), or a regular expression between slashes.
      - Sub-addresses C(local+tag) go with their address. An asterisk in the local part stands for any text, so
        V(login+*@example.org) spares the sub-addresses only, and V(*+login@) a tag that every mailbox may use.
    type: list
    elements: str
    default: []
  domains:
    description: Recipient domains that have opted in to greylisting. Empty for all.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: Seconds to wait for another run.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Greylist, and never delay a code that somebody waits for
  postmeister.host.postgrey:
    delay: 2m
    exempt_clients:
      - 198.51.100.0/24
      - 2001:db8:51::/64
      - bank.example
    exempt_recipients:
      - login+*@example.org
      - helpdesk@example.org
"""

RETURN = r"""
files:
  description: Paths of the files that were not as wanted.
  returned: O(state) is V(started)
  type: list
  elements: str
  sample: [/etc/postgrey/whitelist_clients.local]
action:
  description: What the daemon was told; empty when nothing had to be done, and in check mode.
  returned: O(state) is V(started)
  type: str
  sample: reloaded
restart_reason:
  description: The file whose change needed a restart.
  returned: O(state) is V(started)
  type: str
  sample: ''
recovered:
  description: What was done about a change that an earlier run could not finish.
  returned: O(state) is V(started)
  type: str
  sample: ''
stopped:
  description: Units that ran, or would have after the next boot.
  returned: O(state) is V(stopped)
  type: list
  elements: str
  sample: [postgrey.service, postmeister-greylist.timer]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._greylist import apply, settings
from ansible_collections.postmeister.host.plugins.module_utils._service import _transaction


def main() -> None:
    module = AnsibleModule(apply.SPEC, supports_check_mode=True)
    try:
        result = apply.run(module.params, module.check_mode)
    except (settings.SettingsError, *_transaction.ERRORS) as exc:
        module.fail_json(msg=str(exc))
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
