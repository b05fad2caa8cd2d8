#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_fact
short_description: Let a host remember something from one run to the next
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Writes C(/etc/ansible/facts.d/NAME.fact), which M(ansible.builtin.setup) shows as C(ansible_local.NAME), and makes
    the folder where there is none.
  - The file is replaced in one step and is readable by all, so nothing secret belongs in it.
extends_documentation_fragment:
  - postmeister.host._attributes
options:
  name:
    description: Name of the fact, letters, digits and underscores.
    type: str
    required: true
  value:
    description: What is remembered.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Remember that a run came to its end
  postmeister.host.local_fact:
    name: postmeister_mailserver
    value: {complete: true}
"""

RETURN = r"""
path:
  description: The file.
  type: str
  returned: success
  sample: /etc/ansible/facts.d/postmeister_mailserver.fact
"""

import json
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils import _files

FOLDER = "/etc/ansible/facts.d"


def main() -> None:
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}, "value": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    name: str = module.params["name"]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        module.fail_json(msg=f"name: {name!r} is not letters, digits and underscores")
    text = json.dumps(module.params["value"], indent=4, sort_keys=True) + "\n"
    file = _files.File(os.path.join(FOLDER, f"{name}.fact"), text.encode())
    try:
        found = _files.look(file.path)
        changed = not _files.equal(file, found)
        if changed and not module.check_mode:
            _files.make_folders(FOLDER)
            _files.write([file])
    except _files.FileError as exc:
        module.fail_json(msg=str(exc))
    before = (found.content or b"").decode(errors="replace") if found else ""
    diff = {"before_header": file.path, "after_header": file.path, "before": before, "after": text}
    module.exit_json(changed=changed, path=file.path, **({"diff": diff} if changed else {}))


if __name__ == "__main__":
    main()
