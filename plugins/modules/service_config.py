#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_config
short_description: Configure a daemon in one transaction, or several, one after the other
version_added: 0.1.0
description:
  - Brings all files of a daemon to what is wanted, in one step that either holds or leaves the former files serving.
  - The new files are checked by the daemon's own tools in a root-only copy of its configuration. Then they are swapped
    in, the daemon is reloaded, or restarted where a changed setting needs it, and asked as a client would ask it.
    Where the check, the reload or that probe fails, the former files come back, and the error shows the daemon's words.
  - A journal and a small systemd unit, C(postmeister-recover.service), see to it that a run cut short by a power
    failure or C(kill -9) is undone by the next run or the next boot.
  - On the first success the daemon's units are unmasked, enabled and started. Where the first configuration fails,
    the daemon is stopped and masked rather than left on a package's defaults.
  - Templates are rendered on the controller by an action plugin; they must lie in the role that holds the task, or in
    one beside it.
  - Several daemons in one task are as many transactions, in the order of the list. The first that fails ends the task;
    those before it keep what they have.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  service:
    description: The daemon. How it is checked, reloaded and probed is known to the collection.
    type: str
    choices: [postfix, dovecot, rspamd, redis, unbound, postsrsd, fail2ban]
  files:
    description:
      - The files that belong to the daemon, its systemd drop-ins, timers and scripts included.
      - They are swapped in the order that the daemon needs, whatever their order here.
    type: list
    elements: dict
    suboptions: &file
      dest:
        description: Absolute path on the host. Missing parent folders are made.
        type: str
        required: true
      template:
        description: Template of the task's own role, as a path below its C(templates) folder.
        type: str
      content:
        description: The content itself, instead of O(files[].template).
        type: str
      mode:
        description:
          - Four octal digits in quotes.
          - The default is V(0644), and V(0600) where O(files[].secret) is true.
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      secret:
        description: The content is never shown, and a mode looser than V(0640) is refused.
        type: bool
        default: false
      state:
        description: Whether the file should be there.
        type: str
        choices: [present, absent]
        default: present
  inputs:
    description:
      - Files or folders, such as a certificate, that the daemon reads and that are not written here.
      - When their content is not what it was at the last success, the daemon is reloaded and probed.
    type: list
    elements: str
    default: []
  probe:
    description:
      - What the probe of the daemon has to know; the options of each daemon are those of its class in
        C(plugins/module_utils/_service).
      - For Postfix V(hostname), V(address), V(recipient), V(foreign), V(ports), V(auth).
      - For Unbound V(addresses), V(name), V(type), V(secure), and V(resolv_conf), addresses that the host is to ask.
        Once Unbound has given a validated answer, C(/etc/resolv.conf) names these and no others, also where it is a
        symlink (replaced) or a bind mount of a container (written in place). C(dhclient), C(dhcpcd) and NetworkManager,
        as far as they are installed, are told to leave the file alone, and C(systemd-resolved) is switched off.
    type: dict
    default: {}
  services:
    description: Several daemons, instead of O(service), O(files), O(inputs) and O(probe), which mean the same there.
    type: list
    elements: dict
    suboptions:
      service:
        description: As O(service).
        type: str
        required: true
        choices: [postfix, dovecot, rspamd, redis, unbound, postsrsd, fail2ban]
      role:
        description: A role beside the one that holds the task, whose templates O(services[].files) names.
        type: str
      files:
        description: As O(files).
        type: list
        elements: dict
        required: true
        suboptions: *file
      inputs:
        description: As O(inputs).
        type: list
        elements: str
        default: []
      probe:
        description: As O(probe).
        type: dict
        default: {}
  lock_timeout:
    description: Seconds to wait for another run on the same daemon.
    type: int
    default: 60
  payload:
    description: The rendered files. Set by the action plugin, never by a user.
    type: str
"""

EXAMPLES = r"""
- name: Configure Postfix
  postmeister.host.service_config:
    service: postfix
    files:
      - template: etc/postfix/master.cf.j2
        dest: /etc/postfix/master.cf
      - template: etc/postfix/main.cf.j2
        dest: /etc/postfix/main.cf
    inputs:
      - /etc/ssl/postmeister/mail.example.org/mail.pem
    probe:
      hostname: mail.example.org
      recipient: postmaster@example.org

- name: Configure Redis, then rspamd, which needs it
  postmeister.host.service_config:
    services:
      - service: redis
        role: redis
        files:
          - template: etc/redis/redis.conf.j2
            dest: /etc/redis/redis.conf
        probe:
          socket: /run/redis/redis-server.sock
      - service: rspamd
        role: rspamd
        files:
          - template: etc/rspamd/local.d/redis.conf.j2
            dest: /etc/rspamd/local.d/redis.conf
"""

RETURN = r"""
services:
  description: For each of O(services) its name, whether it was changed, and the values below.
  returned: with O(services)
  type: list
  elements: dict
files:
  description: Paths of the files that were not as wanted, C(/etc/resolv.conf) and its like included.
  returned: with O(service), as all that follows
  type: list
  elements: str
  sample: [/etc/postfix/main.cf]
inputs:
  description: Inputs that changed since the last success.
  returned: with O(service)
  type: list
  elements: str
  sample: []
action:
  description: What the daemon was told; empty when nothing had to be done, and in check mode.
  returned: with O(service)
  type: str
  sample: restarted
restart_reason:
  description: The setting or file whose change needed a restart.
  returned: with O(service)
  type: str
  sample: inet_interfaces in /etc/postfix/main.cf
recovered:
  description: What was done about a change that an earlier run could not finish.
  returned: with O(service)
  type: str
  sample: the former files are back
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._service import _group, _transaction


def main() -> None:
    module = AnsibleModule(
        argument_spec=_group.SPEC,
        mutually_exclusive=[("service", "services"), ("files", "services")],
        required_one_of=[("service", "services")],
        required_by={"service": "files"},
        supports_check_mode=True,
    )
    options = module.params
    if not options["payload"]:
        module.fail_json(msg="payload: missing; the action plugin of this module renders the templates and sets it")
    several = options["services"] is not None
    group = _group.Group(options["lock_timeout"])
    try:
        group.add(options["services"] if several else [options], _group.unpacked(options["payload"]))
        group.run(module.check_mode)
    except _transaction.ERRORS as exc:
        # The message may quote a checker that quotes a secret file.
        module.no_log_values.update(group.secrets())
        if several:
            module.fail_json(msg=f"{group.at}: {exc}" if group.at else str(exc), **group.result(module._diff))
        module.fail_json(msg=str(exc))
    result = group.result(module._diff)
    if not several:
        (own,) = result.pop("services")
        result.update({key: value for key, value in own.items() if key != "service"})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
