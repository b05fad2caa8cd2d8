# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The action plugin of the same name does the work, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_plan
short_description: Check the inventory of a mail host and derive everything from it, once
version_added: 0.1.0
description:
  - Checks every value that describes a mail host and refuses all bad ones in one message, each with its variable, its
    value and the reason, before the host is touched.
  - Derives what the roles share, so that SPF, the login map, the names in the certificate and the records in DNS cannot
    disagree, and sets it as the fact C(mailserver_plan). The plan holds no password and no hash.
author:
  - Postmeister contributors (@postmeister)
extends_documentation_fragment:
  - postmeister.host._attributes.info
attributes:
  facts:
    description: Sets the fact C(mailserver_plan).
    support: full
options:
  hostname:
    description: Fully qualified name of the host.
    type: str
    required: true
  ipv4:
    description: Its IPv4 address, or empty.
    type: str
    default: ""
  ipv6:
    description: Its IPv6 address, or empty.
    type: str
    default: ""
  domains:
    description: Mail domains, as C(mailserver_domains) of the role P(postmeister.host.mailserver#role).
    type: list
    elements: dict
    required: true
  mailboxes:
    description: Mailboxes, as in M(postmeister.host.mail_directory). Only the addresses are used.
    type: list
    elements: dict
    default: []
  aliases:
    description: Aliases, as in M(postmeister.host.mail_directory).
    type: list
    elements: dict
    default: []
  directory_src:
    description: File on the controller that holds the directory, which M(postmeister.host.mail_directory) then checks.
    type: str
    default: ""
  postmaster:
    description: Who reads the role addresses and root's mail.
    type: str
    default: ""
  role_addresses:
    description: Local parts that every domain has (RFC 2142).
    type: list
    elements: str
    default: []
  forwarding:
    description: Whether aliases may lead to other providers.
    type: bool
    default: false
  pop3:
    description: Whether POP3 is offered.
    type: bool
    default: true
  starttls_submission:
    description: Whether port 587 is offered.
    type: bool
    default: true
  managesieve:
    description: Whether ManageSieve is offered.
    type: bool
    default: false
  mail_format:
    description: Mailbox format, V(maildir) or V(mbox).
    type: str
    default: maildir
  queue_lifetime:
    description: How long Postfix tries to deliver, like V(5d).
    type: str
    default: 5d
  quota:
    description: Quota of mailboxes that have none of their own, like V(5G).
    type: str
    default: ""
  dkim_selectors:
    description: Selector and type of each DKIM key that a domain has.
    type: list
    elements: dict
    required: true
  dmarc_policy:
    description: DMARC policy of domains that set none, V(none), V(quarantine) or V(reject).
    type: str
    default: quarantine
  tls_method:
    description: V(acme), V(files) or V(selfsigned).
    type: str
    default: acme
  tls_certificate:
    description: File with the certificate, for O(tls_method=files).
    type: str
    default: ""
  tls_private_key:
    description: File with the private key, for O(tls_method=files).
    type: str
    default: ""
  acme_issuers:
    description: CAA issuers.
    type: list
    elements: str
    default: []
  acme_challenge:
    description: V(http-01) or V(dns-01).
    type: str
    default: http-01
  dns_provider:
    description: V(none), V(rfc2136) or V(zonefile).
    type: str
    default: none
  dns_server:
    description: Name server that takes updates.
    type: str
    default: ""
  dns_key_name:
    description: Name of the TSIG key.
    type: str
    default: ""
  dns_key_given:
    description: Whether the key's secret is set; the secret itself is none of the plan's business.
    type: bool
    default: false
  dns_zonefile:
    description: Zone file, for O(dns_provider=zonefile).
    type: str
    default: ""
  dns_ttl:
    description: TTL of the records in seconds.
    type: int
    default: 3600
  policy:
    description: How strict port 25 is, as C(mailserver_policy) of the role P(postmeister.host.mailserver#role).
    type: dict
    default: {}
  list_sources:
    description: Zones of DNS lists that have another name in secret; that name is none of the plan's business.
    type: list
    elements: str
    default: []
  list_sources_malformed:
    description: Those of them whose other name is no name.
    type: list
    elements: str
    default: []
  bans:
    description:
      - The variables of the role P(postmeister.host.fail2ban#role), without their prefix, to be checked here.
      - Empty where there are no bans.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Check the inventory and derive the mail host from it
  postmeister.host.mail_plan:
    hostname: mail.example.org
    ipv4: 198.51.100.25
    domains:
      - name: example.org
    postmaster: alice@example.org
    mailboxes:
      - address: alice@example.org
    dkim_selectors:
      - selector: rsa1
        type: rsa
"""

RETURN = r"""
ansible_facts:
  description: Holds C(mailserver_plan), a dictionary with C(hostname), C(directory), C(dkim_keys), C(publish) and more.
  returned: success
  type: dict
"""
