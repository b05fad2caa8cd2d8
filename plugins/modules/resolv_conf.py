#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: resolv_conf
short_description: Make one resolver the only one of the host
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Writes C(/etc/resolv.conf), also where it is a symlink (replaced) or a bind mount of a container (written in place).
  - Keeps the programs of Debian 12 and 13 that write this file from doing so again, as far as they are installed,
    C(dhclient), C(dhcpcd) and NetworkManager by their own configuration; C(systemd-resolved) is switched off, since it
    answers beside the file as well.
extends_documentation_fragment:
  - postmeister.host._attributes
options:
  nameservers:
    description: Addresses of the resolver, at most three (resolv.conf(5)).
    type: list
    elements: str
    default: [127.0.0.1, "::1"]
  options:
    description:
      - Options of resolv.conf(5).
      - V(trust-ad) keeps the AD bit in answers, without which Postfix sees no DNSSEC and so no DANE.
    type: list
    elements: str
    default: [edns0, trust-ad]
"""

EXAMPLES = r"""
- name: Let the host ask its own resolver only
  postmeister.host.resolv_conf:
"""

RETURN = r"""
paths:
  description: Files that changed.
  type: list
  elements: str
  returned: success
  sample: [/etc/resolv.conf]
disabled:
  description: Units that were switched off.
  type: list
  elements: str
  returned: success
  sample: [systemd-resolved.service]
"""

import ipaddress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._resolver import conf


def show(path: str) -> str:
    """What the file holds now, for the diff."""
    found = _files.look(path)
    return (found.content or b"").decode(errors="replace") if found else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "nameservers": {"type": "list", "elements": "str", "default": ["127.0.0.1", "::1"]},
            "options": {"type": "list", "elements": "str", "default": ["edns0", "trust-ad"]},
        },
        supports_check_mode=True,
    )
    servers: list[str] = module.params["nameservers"]
    if not 1 <= len(servers) <= 3:
        module.fail_json(msg=f"nameservers: {len(servers)} addresses; resolv.conf(5) takes one to three")
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            module.fail_json(msg=f"nameservers: {server!r} is not an IP address")
    try:
        todo = conf.plan(servers, module.params["options"])
        diff: list[dict[str, Any]] = [
            {
                "before_header": file.path,
                "after_header": file.path,
                "before": show(file.path),
                "after": (file.content or b"").decode(),
            }
            for file in todo.files
        ]
        diff += [{"prepared": f"{unit}: switched off\n"} for unit in todo.disable]
        if not module.check_mode:
            conf.apply(todo)
    except (_files.FileError, CommandError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=todo.changed, paths=[file.path for file in todo.files], disabled=todo.disable, diff=diff)


if __name__ == "__main__":
    main()
