#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_directory
short_description: Bring all domains, mailboxes and aliases of a mail host to what is wanted
version_added: 0.1.0
description:
  - Takes domains, mailboxes and aliases in one call, and writes the tables that Dovecot, Postfix and rspamd look up.
    Lookups never fail during a change, and a run cut short is finished by the next.
  - Everything is judged before anything is written. Refused are invalid addresses (RFC 5321; local parts are ASCII, see
    below), duplicates, mailboxes and aliases in a domain that is not listed, alias loops, aliases to nowhere, aliases
    to outside (unless O(allow_external)), and weak or unknown hash schemes. All problems found are named at once.
  - Addresses become lower case, international domains their xn-- form. Local parts in UTF-8 (RFC 6531) are refused,
    because Dovecot's LMTP server does not take them. The local part of a mailbox consists of letters, digits and
    C(. _ - + = & ~); that of an alias may be any other dot-atom, without C(%), C(!), C(#) and C(/).
  - A catch-all is an alias with the address V(@domain).
  - Who may send as an address follows from the same data. The login of a mailbox owns its address and all aliases
    that lead to it. An alias to outside gives nobody that right.
  - Entries made by M(postmeister.host.mail_user) and M(postmeister.host.mail_alias) are ad hoc. They stay unless this
    module names the same address; then the inventory wins.
  - Each file of the directory that was changed by hand, in content, mode or owner, is repaired and reported.
extends_documentation_fragment:
  - postmeister.host._attributes
  - postmeister.host._directory
  - postmeister.host._directory.passwords
author: Postmeister contributors (@postmeister)
options:
  domains:
    description: The mail domains of this host.
    type: list
    elements: dict
    suboptions:
      name:
        description: The domain.
        type: str
        required: true
      state:
        description: V(absent) removes the domain with all mailboxes and aliases in it, but no mail.
        type: str
        choices: [present, absent]
        default: present
  mailboxes:
    description: The mailboxes. Some thousand at most; for more there is O(src).
    type: list
    elements: dict
    suboptions:
      address:
        description: Address and login name.
        type: str
        required: true
      password:
        description:
          - Plain password, hashed on the host; a bcrypt hash takes 50 ms of one core.
          - A mailbox that is there already keeps its password where neither this nor O(mailboxes[].password_hash) is
            given.
        type: str
      password_hash:
        description:
          - Hash as C(doveadm pw) prints it, or without the scheme in braces.
          - Taken are V(BLF-CRYPT) from cost 10, V(SHA512-CRYPT) from 5,000 rounds, and V(ARGON2ID) with 19 MiB and 2
            passes or as much work, and 128 MiB at most.
        type: str
      quota:
        description:
          - Space for the mail, in bytes or as V(500M), V(5G).
          - V(unlimited) or V(0) for no limit. Without it the host's default counts.
        type: str
      enabled:
        description: A mailbox that is not enabled cannot log in and still gets its mail.
        type: bool
        default: true
      state:
        description: V(absent) removes the mailbox, but no mail.
        type: str
        choices: [present, absent]
        default: present
      remove_mail:
        description: With O(mailboxes[].state=absent), deletes the mail on the disk as well, for good.
        type: bool
        default: false
  aliases:
    description: The aliases.
    type: list
    elements: dict
    suboptions:
      address:
        description: The address, or V(@domain) for everything in a domain that is nothing else.
        type: str
        required: true
      destinations:
        description: Who gets the mail. Required unless O(aliases[].state=absent).
        type: list
        elements: str
      state:
        description: Whether the alias should be there.
        type: str
        choices: [present, absent]
        default: present
  fallback_aliases:
    description:
      - Aliases for addresses that neither a mailbox nor an alias has, those of O(src) included, such as the role
        addresses of RFC 2142.
    type: list
    elements: dict
    suboptions:
      address:
        description: The address, or V(@domain).
        type: str
        required: true
      destinations:
        description: Who gets the mail.
        type: list
        elements: str
        required: true
  src:
    description:
      - File on the controller with further entries, for directories of any size.
      - V(.json), V(.yml), V(.yaml) hold a dictionary of O(domains), O(mailboxes) and O(aliases), or a list of
        mailboxes. 100,000 entries take a fraction of a second in JSON and five in YAML.
      - V(.csv) has a header line with the keys of a mailbox; a row with something in the column V(destinations),
        separated by white space, is an alias.
      - May be encrypted with Ansible Vault. Travels as a file that only the remote user can read, and is removed.
    type: path
  purge:
    description:
      - Remove what came from the inventory and is not listed any more; of the kinds only that are given (an empty
        list is given, too). Ad hoc entries stay.
    type: bool
    default: false
  purge_limit:
    description:
      - Per cent of the mailboxes that a purge may remove, one at least (none with V(0)). Beyond it the run is refused,
        because the source may be cut off.
      - A purge that removes a domain, or a domain's last mailbox, is refused below V(100).
      - Entries with V(state=absent) do not count.
    type: int
    default: 10
  recipient_delimiter:
    description: Separates sub-addresses, as in C(user+tag). One character, or empty for none.
    type: str
    default: +
  allow_external:
    description: Take aliases to outside. Only sensible where the host rewrites senders (SRS), see the role
      C(mailserver).
    type: bool
    default: false
  payload:
    description: The lists. Set by the action plugin, never by a user.
    type: str
"""

EXAMPLES = r"""
- name: Two domains, two people, one of them with everything that is left
  postmeister.host.mail_directory:
    domains:
      - name: example.org
      - name: example.net
    mailboxes:
      - address: alice@example.org
        password_hash: "{{ vault_alice_hash }}"
        quota: 5G
      - address: bob@example.org
        password: "{{ vault_bob_password }}"
    aliases:
      - address: info@example.org
        destinations: [alice@example.org, bob@example.org]
      - address: "@example.net"
        destinations:
          - alice@example.org
    purge: true

- name: A large directory
  postmeister.host.mail_directory:
    domains:
      - name: example.org
    src: mailboxes.json
    purge: true
"""

RETURN = r"""
domains:
  description: How many domains were created, changed and deleted.
  returned: always
  type: dict
  sample: {created: 1, changed: 0, deleted: 0}
mailboxes:
  description: How many mailboxes were created, changed and deleted.
  returned: always
  type: dict
  sample: {created: 2, changed: 0, deleted: 0}
aliases:
  description: How many aliases were created, changed and deleted.
  returned: always
  type: dict
  sample: {created: 2, changed: 0, deleted: 0}
files:
  description: Names of the files that were written.
  returned: always
  type: list
  elements: str
  sample: [directory.json, dovecot-users]
repaired:
  description: Names of the files that were not as the directory wants them although the directory itself did not
    change.
  returned: always
  type: list
  elements: str
  sample: []
removed_mail:
  description: Folders whose mail was deleted.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._mail import spec
from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import fail_or_exit, whole


def main() -> None:
    """Run the module."""
    module = AnsibleModule(spec.WHOLE, supports_check_mode=True)
    fail_or_exit(module, lambda: whole(module.params))


if __name__ == "__main__":
    main()
