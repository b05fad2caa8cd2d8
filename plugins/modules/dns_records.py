#!/usr/bin/python

# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_records
short_description: Bring DNS zones to the wanted records
version_added: 0.1.0
description:
  - Publishes records by dynamic update (RFC 2136 with TSIG over TCP) or in zone files, all in one call.
  - "Ownership is per record: what others wrote stays. Where somebody else's record stands in the way, nothing is
    changed and the difference is shown, unless O(takeover=true)."
  - All records are checked, and all zones are read, before anything is written. An edit that somebody makes at the
    same time is noticed and not lost.
  - It usually runs on the controller, where the key is. Delegated there it runs within Ansible's own process.
extends_documentation_fragment:
  - postmeister.host._attributes
  - postmeister.host._dns_server
requirements:
  - dnspython >= 2.3 (not for O(provider=none))
options:
  provider:
    description:
      - How the records are published. V(none) publishes nothing; RV(zone_text) is there to be pasted.
    type: str
    choices: [rfc2136, zonefile, none]
    required: true
  zones:
    description:
      - Zones that may be changed. A record goes to the one that matches longest; one outside of them is refused.
      - Empty means that O(server) is asked where each zone starts; with O(provider=zonefile) the files tell.
    type: list
    elements: str
    default: []
  records:
    description: The wanted records.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Owner name, always absolute; the dot at the end may be left out.
        type: str
        required: true
      type:
        description: Type of the record.
        type: str
        choices: [A, AAAA, CAA, CNAME, MX, PTR, SRV, TLSA, TXT]
        required: true
      ttl:
        description: Time to live in seconds. Records of others in the same RRset keep theirs, and ours take it on.
        type: int
        default: 3600
      values:
        description: Values as in a zone file, names absolute. A TXT value is the text itself, unquoted and not split.
        type: list
        elements: str
        required: true
      match:
        description: For TXT, the word with which our value starts (V(v=spf1)); other values of the same RRset stay.
        type: str
        default: ''
      exclusive:
        description: Whether a further value at this name and type (with O(records[].match), one like it) is in the way.
        type: bool
        default: true
  owned:
    description: What an earlier run returned as RV(owned).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Owner name.
        type: str
        required: true
      type:
        description: Type.
        type: str
        required: true
      match:
        description: Word with which our value starts.
        type: str
        default: ''
      values:
        description: Values that were published.
        type: list
        elements: str
        required: true
  takeover:
    description: Whether records of others that stand in the way are replaced.
    type: bool
    default: false
  withdraw:
    description:
      - Whether records in O(owned) that are no longer wanted are deleted.
      - Say V(false) where one call brings only a part of the records.
    type: bool
    default: true
  file:
    description:
      - Zone file for O(provider=zonefile); V({zone}) stands for the zone's name without the dot at the end.
      - Our records stand in a block of their own. The text around it stays; the serial is raised on a change.
    type: path
    default: ''
  wait:
    description:
      - Seconds to wait, after a change, until every authoritative server of the zones shows it; V(0) does not wait.
      - Only with O(provider=rfc2136).
    type: int
    default: 0
  wait_servers:
    description:
      - Servers to ask instead of those in the zones' NS records, as C(address) or C(address@port).
    type: list
    elements: str
    default: []
author:
  - Postmeister contributors (@postmeister)
"""

EXAMPLES = r"""
- name: Publish a mail domain
  postmeister.host.dns_records:
    provider: rfc2136
    server: 198.51.100.53
    key_name: mail.example.org
    key_secret: "{{ dns_key_secret }}"
    zones: [example.org]
    records:
      - {name: mail.example.org, type: A, values: [198.51.100.25]}
      - {name: example.org, type: TXT, match: v=spf1, values: ["v=spf1 ip4:198.51.100.25 -all"]}
      - {name: example.org, type: MX, values: ["10 mail.example.org"]}
    wait: 60
  delegate_to: localhost

- name: The same in a zone file
  postmeister.host.dns_records:
    provider: zonefile
    file: /etc/knot/zones/{zone}.zone
    zones: [example.org]
    records:
      - {name: example.org, type: MX, values: ["10 mail.example.org"]}
"""

RETURN = r"""
owned:
  description: What is ours in the zones now. Give it back in O(owned), so that stale records can be withdrawn.
  returned: success, and when O(wait) ran out
  type: list
  elements: dict
  sample: [{name: example.org., type: TXT, match: v=spf1, values: ["v=spf1 ip4:198.51.100.25 -all"]}]
owned_changed:
  description: Whether RV(owned) differs from O(owned), so that it is to be remembered.
  returned: success, and when O(wait) ran out
  type: bool
  sample: true
zone_text:
  description: The wanted records as text for a zone file.
  returned: success
  type: str
  sample: "example.org.   3600 IN MX    10 mail.example.org.\n"
changes:
  description: RRsets that changed, or would change, as lines of a zone file.
  returned: success
  type: list
  elements: dict
  sample: [{name: example.org., type: MX, before: [], after: ["example.org. 3600 IN MX 10 mail.example.org."]}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._dns import session
from ansible_collections.postmeister.host.plugins.module_utils._dns.options import SPEC


def main() -> None:
    module = AnsibleModule(SPEC, supports_check_mode=True)
    result = session.answer(module.params, module.check_mode)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
