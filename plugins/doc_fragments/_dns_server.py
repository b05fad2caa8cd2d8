# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This fragment is private to the collection.

from __future__ import annotations


class ModuleDocFragment:
    # A DNS server that takes updates signed with TSIG.
    DOCUMENTATION = r"""
options:
  server:
    description:
      - Name or address of the primary DNS server that takes the updates.
      - Needed for O(provider=rfc2136).
    type: str
    default: ''
  port:
    description: TCP port of O(server).
    type: int
    default: 53
  key_name:
    description:
      - Name of the TSIG key. Every query and update is signed with it.
      - Needed for O(provider=rfc2136).
    type: str
    default: ''
  key_secret:
    description:
      - Secret of the TSIG key in base64.
      - Needed for O(provider=rfc2136).
    type: str
    default: ''
  key_algorithm:
    description: Algorithm of the TSIG key.
    type: str
    choices: [hmac-sha256, hmac-sha384, hmac-sha512]
    default: hmac-sha256
  timeout:
    description: Seconds to wait for each answer of O(server).
    type: int
    default: 10
"""
