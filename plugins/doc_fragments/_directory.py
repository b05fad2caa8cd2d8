# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This fragment is private to the collection.

from __future__ import annotations


class ModuleDocFragment:
    # Where the directory lies.
    DOCUMENTATION = r"""
options:
  path:
    description:
      - Folder of the directory on the host.
      - C(directory.json) is the truth; beside it lie the tables that Dovecot, Postfix and rspamd look up, made from it.
    type: path
    default: /etc/postmeister/directory
"""

    # How plain passwords become hashes.
    PASSWORDS = r"""
options:
  scheme:
    description:
      - Scheme of the hashes made from plain passwords.
      - A plain password is verified against the hash that is there. Only where it does not match, or the hash is of
        another scheme or a lower cost, a new one is made.
    type: str
    choices: [BLF-CRYPT, SHA512-CRYPT]
    default: BLF-CRYPT
  cost:
    description:
      - Cost of the hashes made, V(10) to V(15) for V(BLF-CRYPT), V(5000) to V(5000000) rounds for V(SHA512-CRYPT).
      - The default is V(10), or V(100000) rounds; each costs a login about 50 ms of one core.
    type: int
  update_password:
    description:
      - With V(always), the password of a mailbox is brought to what is given.
      - With V(on_create), only new mailboxes get theirs, so that users can change it.
    type: str
    choices: [always, on_create]
    default: always
  mail_root:
    description: Folder that holds the mail, by domain and local part; only looked at when mail is to be removed.
    type: path
    default: /var/vmail
"""
