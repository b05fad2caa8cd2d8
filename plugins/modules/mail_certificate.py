#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_certificate
short_description: Certificate and keys of a mail host
version_added: 0.1.0
author: Postmeister contributors (@postmeister)
description:
  - Keeps a certificate with its private key and the next private key of a host name, and returns the TLSA data
    (RFC 6698) of both keys.
  - A new certificate takes the next key once DNS shows its TLSA record, otherwise it keeps the current key. So a change
    of method or a renewal never presents a key to DANE senders that was not in DNS before.
  - With O(method=files) a certificate of yours with another key waits, with a warning, while the present one serves and
    the host has TLSA records. Its key is the next one meanwhile, and the first run or look of the timer takes it once
    DNS has shown its record for O(next_key_age), or two days before the present one ends.
  - Writes O(path)/O(hostname)/mail.pem (key, certificate and chain in one file, replaced by one rename), C(next.key)
    and C(settings.json), from which the timer of O(renewal_time) renews; all of them are mode 0600.
  - Needs python3-cryptography and python3-dnspython on the host, and dehydrated for O(method=acme).
extends_documentation_fragment:
  - postmeister.host._attributes
options:
  hostname:
    description: Name of the host, as in its MX records.
    type: str
    required: true
  method:
    description:
      - V(acme) gets the certificate from an ACME server (RFC 8555), V(selfsigned) makes one, V(files) takes yours.
    type: str
    choices: [acme, files, selfsigned]
    required: true
  path:
    description: Folder that holds a folder per host name.
    type: path
    default: /etc/ssl/postmeister
  certificate:
    description:
      - With O(method=files), a file on the host with the certificate, followed by its issuers (PEM).
      - The timer looks at it every day, so a certificate that another program renews there is picked up. With the same
        key that is at once; let your program keep the key where it can, as C(certbot --reuse-key) does.
    type: path
  certificate_content:
    description: The same as text, instead of O(certificate).
    type: str
  private_key:
    description:
      - With O(method=files), a file on the host with the private key (PEM, without a passphrase).
      - When neither this nor O(private_key_content) is given, the certificate has to belong to the current or the next
        key; a signing request for the latter is in C(next.csr).
    type: path
  private_key_content:
    description: The same as text, instead of O(private_key).
    type: str
  validity:
    description: Days that a self-signed certificate is valid.
    type: int
    default: 365
  renew_before:
    description: Days before its end at which a certificate is renewed; V(0) is a third of its life, at most 30.
    type: int
    default: 0
  next_key_age:
    description:
      - Seconds that DNS must have shown the next key before a renewal takes it; twice the TTL or more.
      - With O(method=files), the same for a certificate of yours with another key.
    type: int
    default: 86400
  renewal_time:
    description:
      - When C(postmeister-certificate.timer) looks whether a renewal is due, as in systemd.time(7); up to four hours
        are added by chance. It runs the same code, and writes to root when a renewal fails.
      - There is one timer on a host, for all certificates below C(/etc/ssl/postmeister); with another O(path) it is
        refused. When this is not given, no timer is installed, and one that is there stays.
    type: str
  reload:
    description: Services that read the new certificate; C(postfix), C(dovecot) or any unit that can reload.
    type: list
    elements: str
    default: []
  acme:
    description: How O(method=acme) gets the certificate.
    type: dict
    suboptions:
      directory:
        description: URL of the server's directory (RFC 8555 §7.1.1). Its terms of service are accepted.
        type: str
        required: true
      ca_file:
        description: File on the host with the roots that the server's own certificate is checked against.
        type: path
      contact:
        description: Address that the authority may write to.
        type: str
      challenge:
        description: How the authority checks that the name is this host's.
        type: str
        choices: [http-01, dns-01]
        default: http-01
      webroot:
        description:
          - Folder that your web server shows as C(/.well-known/acme-challenge) on port 80.
          - Without it, the module itself listens on port 80 for a moment.
        type: path
      eab_kid:
        description: Key identifier of an account that exists at the authority (RFC 8555 §7.3.4).
        type: str
      eab_hmac_key:
        description: Its key.
        type: str
      settings:
        description: Further settings of dehydrated, such as C(PREFERRED_CHAIN) or C(IP_VERSION); nothing secret.
        type: dict
      dns:
        description: DNS server for V(dns-01) (RFC 2136, RFC 8945).
        type: dict
        suboptions:
          server:
            description: Name or address of the primary server.
            type: str
            required: true
          port:
            description: Its port.
            type: int
            default: 53
          key_name:
            description: Name of the TSIG key. It has to change C(_acme-challenge.HOSTNAME TXT) and nothing else.
            type: str
            required: true
          key_secret:
            description: Secret of the TSIG key, base64.
            type: str
            required: true
          key_algorithm:
            description: Algorithm of the TSIG key.
            type: str
            choices: [hmac-sha256, hmac-sha384, hmac-sha512]
            default: hmac-sha256
          wait:
            description: Seconds to wait until all servers of the zone show the record.
            type: int
            default: 120
"""

EXAMPLES = r"""
- name: Get the certificate
  postmeister.host.mail_certificate:
    hostname: mail.example.org
    method: acme
    acme:
      directory: https://acme-v02.api.letsencrypt.org/directory
      contact: postmaster@example.org
    renewal_time: "*-*-* 01:00:00"
    reload: [postfix, dovecot]
  register: certificate

- name: Show what is to be in DNS at _25._tcp.mail.example.org
  ansible.builtin.debug: {var: certificate.tlsa}
"""

RETURN = r"""
tlsa:
  description:
    - TLSA data of the current and of the next key; empty in check mode on a host that has no keys yet.
    - While a certificate of yours waits, the next key is its key.
  type: list
  elements: str
  returned: success
  sample: ["3 1 1 0b9f…", "3 1 1 77c1…"]
path:
  description: File with key, certificate and chain.
  type: str
  returned: success
  sample: /etc/ssl/postmeister/mail.example.org/mail.pem
not_after:
  description: End of the certificate's validity, empty when there is none yet.
  type: str
  returned: success
  sample: "2030-01-31T12:00:00Z"
notes:
  description: Why there is a new certificate, and which key it got.
  type: list
  elements: str
  returned: success
files:
  description: Files of the timer that were not as wanted.
  type: list
  elements: str
  returned: with O(renewal_time)
  sample: []
"""

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.postmeister.host.plugins.module_utils._service import _transaction
from ansible_collections.postmeister.host.plugins.module_utils._tls import apply, options, pem


def main() -> None:
    module = AnsibleModule(argument_spec=options.SPEC, supports_check_mode=True, **apply.RULES)
    library = apply.missing_library()
    if library and not module.check_mode:
        module.fail_json(msg=missing_required_lib(library))
    try:
        result, outcome = apply.run(module.params, module.check_mode)
    except (pem.TlsError, *_transaction.ERRORS) as exc:
        module.fail_json(msg=str(exc), exception=traceback.format_exc())
    for warning in outcome.warnings:
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
