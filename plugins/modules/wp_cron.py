#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wp_cron
short_description: Run the scheduled tasks of WordPress sites by a real cron
version_added: 0.1.0
description:
  - Gives each site a systemd timer, or a line in its user's crontab, that runs what is due, and a daily timer for its
    upkeep. All sites of a host in one call.
  - Tasks run as the user that the site belongs to, never as root. Two runs of one site never overlap, a task that hangs
    is ended, and sites start at seconds of their own, so that they do not all start at once.
  - Each site of a multisite network gets its events. A site of it that hangs does not delay the others.
  - Output goes to the journal. A failure, a database that is down included, leaves the site's unit failed; the operator
    gets one mail when it begins and one when it is over, each for all sites of the host that failed in that minute.
  - C(DISABLE_WP_CRON) is not set here; M(postmeister.host.wp_config) does that.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
options:
  sites:
    description:
      - The sites. Each may have O(user), O(scheduler), O(crontab_guard), O(command), O(interval), O(timeout),
        O(upkeep_transients), O(upkeep_spam), O(upkeep_checksums), O(upkeep_updates) and O(upkeep_time) of its own.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Folder that holds C(wp-cron.php).
        type: str
        required: true
      name:
        description: Name of the timers, as in C(wp-cron@NAME.timer). The default is the last part of O(sites[].path).
        type: str
      url:
        description:
          - Address of the site. Needed only where C(wp-config.php) itself looks at the host name, as Debian's does.
        type: str
      state:
        description: Whether its tasks are run. With V(absent) timers and lines go, the site stays.
        type: str
        choices: [present, absent]
        default: present
      user:
        description: As O(user).
        type: str
      scheduler:
        description: As O(scheduler).
        type: str
        choices: [timer, crontab, none]
      crontab_guard:
        description: As O(crontab_guard).
        type: bool
      command:
        description: As O(command).
        type: str
        choices: [php, wp]
      interval:
        description: As O(interval).
        type: int
      timeout:
        description: As O(timeout).
        type: int
      upkeep_transients:
        description: As O(upkeep_transients).
        type: str
        choices: [expired, all, none]
      upkeep_spam:
        description: As O(upkeep_spam).
        type: bool
      upkeep_checksums:
        description: As O(upkeep_checksums).
        type: bool
      upkeep_updates:
        description: As O(upkeep_updates).
        type: bool
      upkeep_time:
        description: As O(upkeep_time).
        type: str
  user:
    description: User that the sites belong to. Root is refused.
    type: str
    default: www-data
  scheduler:
    description:
      - V(timer) is a systemd timer, V(crontab) a line in the user's crontab, V(none) neither, for sites that only want
        the upkeep.
    type: str
    choices: [timer, crontab, none]
    default: timer
  crontab_guard:
    description:
      - With V(false) a crontab's line is C(*/1 * * * * php PATH/wp-cron.php) and nothing more. A hanging task is not
        ended, WordPress's own lock gives way after a minute, a database that is down makes no failure, and of a network
        only the first site is served.
      - With V(true) the line starts the same program as the timers do, with all that they promise.
    type: bool
    default: false
  command:
    description:
      - V(php) runs C(php PATH/wp-cron.php), V(wp) runs C(wp cron event run --due-now), which tells the journal of each
        event.
    type: str
    choices: [php, wp]
    default: php
  interval:
    description: Minutes between two runs; a number that divides 60.
    type: int
    default: 1
  timeout:
    description: Seconds after which the tasks of a run are ended.
    type: int
    default: 600
  upkeep_transients:
    description: Which transients the daily upkeep deletes. On a network those of each site, and the shared ones.
    type: str
    choices: [expired, all, none]
    default: expired
  upkeep_spam:
    description: Whether the daily upkeep deletes the comments marked as spam, on each site of a network.
    type: bool
    default: false
  upkeep_checksums:
    description: Whether the daily upkeep compares WordPress's own files with wordpress.org, once for a whole network.
    type: bool
    default: true
  upkeep_updates:
    description:
      - Whether the daily upkeep looks for updates of WordPress, plugins and themes, once for a whole network.
        Nothing is installed. A mail tells of all sites when there is something new.
    type: bool
    default: true
  upkeep_time:
    description: Time of day from which the upkeep of the sites runs, spread over an hour.
    type: str
    default: "03:00"
  php:
    description: PHP to run the sites with, a name or a path.
    type: str
    default: php
  wp_cli:
    description: Path of WP-CLI, which the upkeep and V(wp) of O(command) need.
    type: str
    default: /usr/local/bin/wp
  mail_to:
    description: Who is told by mail of failures and updates. Empty for nobody; the journal is told in any case.
    type: str
    default: root
  mail_wait:
    description: Seconds that one mail collects what fails.
    type: int
    default: 60
  purge:
    description: Whether sites of earlier runs that O(sites) does not name lose their timers and lines.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Run the tasks of all sites, each as its own user
  postmeister.host.wp_cron:
    sites:
      - path: /var/www/example.org
        user: example
      - path: /var/www/shop.example.org
        user: shop
        interval: 5
        upkeep_spam: true

- name: One line in the crontab of www-data
  postmeister.host.wp_cron:
    scheduler: crontab
    sites:
      - path: /var/www/wordpress
"""

RETURN = r"""
sites:
  description: The sites, with the second of the interval at which their tasks start.
  returned: always
  type: list
  elements: dict
  sample: [{name: example.org, path: /var/www/example.org, user: example, offset: 42}]
wp_config:
  description:
    - What M(postmeister.host.wp_config) has to be given as its sites so that visitors start no tasks; for sites that
      are V(absent), so that they do again. Sites whose scheduler is V(none) are left as they are.
  returned: always
  type: list
  elements: dict
  sample: [{path: /var/www/example.org, constants: {DISABLE_WP_CRON: true}}]
files:
  description: Paths of the files that were not as wanted.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/wp-cron@example.org.timer.d/site.conf]
started:
  description: Timers that were not running.
  returned: always
  type: list
  elements: str
  sample: [wp-cron@example.org.timer]
stopped:
  description: Timers that went.
  returned: always
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron, cron_host

#: what a site may have of its own
PER_SITE: dict[str, dict[str, Any]] = {
    "user": {"type": "str", "default": "www-data"},
    "scheduler": {"type": "str", "choices": ["timer", "crontab", "none"], "default": "timer"},
    "crontab_guard": {"type": "bool", "default": False},
    "command": {"type": "str", "choices": ["php", "wp"], "default": "php"},
    "interval": {"type": "int", "default": 1},
    "timeout": {"type": "int", "default": 600},
    "upkeep_transients": {"type": "str", "choices": ["expired", "all", "none"], "default": "expired"},
    "upkeep_spam": {"type": "bool", "default": False},
    "upkeep_checksums": {"type": "bool", "default": True},
    "upkeep_updates": {"type": "bool", "default": True},
    "upkeep_time": {"type": "str", "default": "03:00"},
}
SITE: dict[str, dict[str, Any]] = {
    "path": {"type": "str", "required": True},
    "name": {"type": "str"},
    "url": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **{name: {key: value for key, value in spec.items() if key != "default"} for name, spec in PER_SITE.items()},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sites": {"type": "list", "elements": "dict", "required": True, "options": SITE},
            **PER_SITE,
            "php": {"type": "str", "default": "php"},
            "wp_cli": {"type": "str", "default": "/usr/local/bin/wp"},
            "mail_to": {"type": "str", "default": "root"},
            "mail_wait": {"type": "int", "default": 60},
            "purge": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        sites, gone = cron.sites_from(options["sites"], options)
        lacking = [f"{site.name}: {words}" for site in sites.values() for words in cron_host.missing(site)]
        if lacking and not module.check_mode:
            raise cron.Refused("; ".join(lacking))
        todo = cron_host.plan(sites, gone, options["purge"], options["mail_to"], options["mail_wait"])
        if not module.check_mode:
            cron_host.apply(todo)
    except cron_host.ERRORS as exc:
        module.fail_json(msg=str(exc))
    for site in filter(cron_host.network_by_plain_line, sites.values()):
        module.warn(f"{site.name}: a network, of which this line serves the first site only; crontab_guard serves all")
    for words in lacking:
        module.warn(f"{words}; a real run would fail unless something before it sees to that")
    module.exit_json(
        changed=todo.changed,
        sites=[{"name": s.name, "path": s.path, "user": s.user, "offset": s.offset} for s in sites.values()],
        wp_config=cron_host.constants(options["sites"], sites),
        files=[file.path for file in todo.files],
        started=todo.start,
        stopped=todo.stop,
        **({"diff": todo.diff()} if module._diff else {}),
    )


if __name__ == "__main__":
    main()
