#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages without starting their daemons
version_added: 0.1.0
description:
  - Installs what is missing, without recommended packages, and starts none of the daemons it brings.
    A daemon on its package's defaults would refuse mail that a configured one accepts.
  - While packages are installed a temporary C(/usr/sbin/policy-rc.d) forbids starts. One that a killed run left
    behind is recognised and removed by the next run.
  - Where nothing is missing it costs one call of C(dpkg-query).
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  names:
    description:
      - Packages that should be installed. Real packages, not virtual ones, and the bare names, without version, release
        or architecture; anything else is refused.
    type: list
    elements: str
    required: true
  hold:
    description:
      - systemd units that must not start before M(postmeister.host.service_config) starts them, not even by a reboot.
      - Those that are not installed yet are masked before the installation. Units that are there already stay as
        they are.
    type: list
    elements: str
    default: []
  preseed:
    description:
      - Answers for debconf, given before the installation, as a dictionary of package, question and answer.
      - Only packages that are missing are answered for.
    type: dict
    default: {}
  lock_timeout:
    description: Seconds to wait while somebody else uses apt or dpkg.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Install Postfix without starting it
  postmeister.host.packages:
    names: [postfix, postfix-lmdb]
    hold: [postfix.service]
    preseed:
      postfix:
        postfix/main_mailer_type: No configuration
"""

RETURN = r"""
installed:
  description: The packages that were missing.
  returned: always
  type: list
  elements: str
  sample: [postfix-lmdb]
masked:
  description: The units that were masked, for M(postmeister.host.service_config) to unmask.
  returned: when packages were installed
  type: list
  elements: str
  sample: [postfix.service]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _packages


def main() -> None:
    module = AnsibleModule(_packages.SPEC, supports_check_mode=True)
    options = module.params
    names = sorted(set(options["names"]))
    for package, answers in options["preseed"].items():
        if not isinstance(answers, dict):
            module.fail_json(msg=f"preseed.{package}: {answers!r} is not a dictionary of question and answer")
    try:
        _packages.check(options["names"], options["preseed"])
        plan = _packages.plan(names)
        stale = _packages.leftover()
        result: dict[str, Any] = {"changed": plan.changed or stale, "installed": sorted(plan.create)}
        result["diff"] = plan.diff(lambda name, _state: name, "packages")
        if not module.check_mode:
            if plan.changed:
                result["masked"] = _packages.install(
                    sorted(plan.create), options["hold"], options["preseed"], options["lock_timeout"]
                )
            elif stale:
                _packages.remove_policy()
    except (_packages.PackageError, _packages.CommandError, _packages.FileError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
