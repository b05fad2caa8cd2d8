#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wp_cli
short_description: Install WP-CLI at a pinned version
version_added: 0.1.0
description:
  - Puts WP-CLI in place when it is not the pinned one already. Only then it asks the network.
  - The checksum is always verified, the signature unless told otherwise. The program is tried with C(wp --info), as
    user nobody, before it replaces the former one and again in its place; the former one comes back when that fails.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
requirements:
  - PHP (php-cli) and gpgv on the host
options:
  version:
    description: The version.
    type: str
    required: true
  checksum:
    description: SHA-512 of the phar file.
    type: str
    required: true
  source:
    description: URL of the phar file, or its path on the host.
    type: str
    required: true
  verify_signature:
    description: Whether the signature beside it, O(source) with C(.asc), must be one by O(key).
    type: bool
    default: true
  key:
    description: OpenPGP public key in ASCII armour.
    type: str
    default: ''
  path:
    description: Where the program goes.
    type: path
    default: /usr/local/bin/wp
"""

EXAMPLES = r"""
- name: WP-CLI from a mirror
  postmeister.host.wp_cli:
    version: 2.12.0
    checksum: "{{ wp_cli_sha512 }}"
    source: https://mirror.example.org/wp-cli-2.12.0.phar
    key: "{{ lookup('ansible.builtin.file', 'wp-cli.pgp') }}"
"""

RETURN = r"""
path:
  description: Where the program is.
  returned: success
  type: str
  sample: /usr/local/bin/wp
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._files import FileError
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import phar


def download(url: str) -> bytes:
    """A file from a web server; raises OSError and ValueError."""
    content: bytes = open_url(url, timeout=60, http_agent="postmeister").read()
    return content


def run(module: AnsibleModule) -> bool:
    """Whether it changed; raises PharError, FileError and CommandError."""
    options = module.params
    pin = phar.Pin(options["version"], options["checksum"].removeprefix("sha512:").lower(), options["path"])
    if options["verify_signature"]:
        phar.dearmour(options["key"])
    if pin.installed():
        return False
    if not module.check_mode:
        source = options["source"]
        content = phar.read(source, download)
        phar.verify_checksum(pin, content, source)
        if options["verify_signature"]:
            phar.verify_signature(content, phar.read(f"{source}.asc", download), options["key"], source)
        phar.install(pin, content)
    return True


def main() -> None:
    module = AnsibleModule(
        {
            "version": {"type": "str", "required": True},
            "checksum": {"type": "str", "required": True},
            "source": {"type": "str", "required": True},
            "verify_signature": {"type": "bool", "default": True},
            "key": {"type": "str", "default": "", "no_log": False},
            "path": {"type": "path", "default": "/usr/local/bin/wp"},
        },
        supports_check_mode=True,
    )
    path, version = module.params["path"], module.params["version"]
    try:
        changed = run(module)
    except (phar.PharError, FileError, CommandError) as exc:
        module.fail_json(msg=str(exc))
    diff = {
        "before": "",
        "after": f"WP-CLI {version}\n" if changed else "",
        "before_header": path,
        "after_header": path,
    }
    module.exit_json(changed=changed, path=path, diff=diff)


if __name__ == "__main__":
    main()
