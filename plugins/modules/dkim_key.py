#!/usr/bin/python

# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dkim_key
short_description: Make DKIM keys on the mail host
version_added: 0.1.0
description:
  - Makes RSA and Ed25519 keys to sign mail with and says what to publish (RFC 6376, RFC 8301, RFC 8463).
  - The private part never leaves the host. A key that is there is never overwritten; a new key takes a new selector.
  - RSA keys are PEM (PKCS#8), Ed25519 keys base64, because these are the forms that rspamd signs with.
extends_documentation_fragment: [postmeister.host._attributes]
requirements:
  - python3-cryptography on the host (in check mode only where keys are there already)
options:
  path:
    description: Folder of the keys. A key lies in C(path/domain/selector.key).
    type: path
    default: /etc/postmeister/dkim
  owner:
    description: Owner of folders and keys.
    type: str
    default: root
  group:
    description:
      - Group of folders and keys, which may read them; that of the daemon that signs.
      - While there is no such group the keys belong to the group of root, and a warning says so.
    type: str
    default: _rspamd
  keys:
    description: The wanted keys, of all domains.
    type: list
    elements: dict
    required: true
    suboptions:
      domain:
        description: Mail domain.
        type: str
        required: true
      selector:
        description: Selector. Letters, digits and inner hyphens; it may have several labels.
        type: str
        required: true
      type:
        description: Kind of key.
        type: str
        choices: [rsa, ed25519]
        default: rsa
      bits:
        description: Size of an RSA key, 2048 to 4096.
        type: int
        default: 2048
author:
  - Postmeister contributors (@postmeister)
"""

EXAMPLES = r"""
- name: Two keys for a domain
  postmeister.host.dkim_key:
    keys:
      - {domain: example.org, selector: r2026, type: rsa}
      - {domain: example.org, selector: e2026, type: ed25519}
  register: dkim
"""

RETURN = r"""
dkim_keys:
  description: The keys in the order given. RV(dkim_keys[].record) is empty for a key that check mode would make.
  returned: success
  type: list
  elements: dict
  contains:
    domain:
      description: Mail domain.
      type: str
      returned: success
      sample: example.org
    selector:
      description: Selector.
      type: str
      returned: success
      sample: e2026
    type:
      description: Kind of key.
      type: str
      returned: success
      sample: ed25519
    path:
      description: File of the private key.
      type: str
      returned: success
      sample: /etc/postmeister/dkim/example.org/e2026.key
    name:
      description: Owner name of the TXT record.
      type: str
      returned: success
      sample: e2026._domainkey.example.org
    record:
      description: Text of the TXT record.
      type: str
      returned: success
      sample: v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    fingerprint:
      description: SHA-256 of the public key.
      type: str
      returned: success
      sample: SHA256:06f06ad1e3a2a5c4eab5ab0a1b1f2b1c6ed5d21f2dd5d2f9f1c64d49ddf3bd9c
group_missing:
  description: Whether the group is not there yet, so that the keys belong to the group of root.
  returned: success
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.postmeister.host.plugins.module_utils._dkim import apply, key
from ansible_collections.postmeister.host.plugins.module_utils._dkim.record import DkimError
from ansible_collections.postmeister.host.plugins.module_utils._files import FileError


def main() -> None:
    module = AnsibleModule(apply.SPEC, supports_check_mode=True)
    if key.CRYPTOGRAPHY_IMPORT_ERROR and not module.check_mode:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=key.CRYPTOGRAPHY_IMPORT_ERROR)
    try:
        result = apply.run(module.params, module.check_mode)
    except (DkimError, FileError) as exc:
        module.fail_json(msg=str(exc))
    if result["group_missing"] and not module.check_mode:
        module.warn(f"there is no group {module.params['group']} yet: the DKIM keys belong to the group of root")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
