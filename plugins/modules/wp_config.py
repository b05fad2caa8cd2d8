#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wp_config
short_description: Constants in WordPress' wp-config.php
version_added: 0.1.0
description:
  - Brings constants of any number of sites to their values. What is code and what a comment or a string is decided by
    PHP's own tokenizer. Nothing else in the file changes, not even the spaces around a value.
  - A new constant stands before the line V(stop editing), or before WordPress is loaded; one whose raw expression uses
    V(ABSPATH) stands behind the definition of that. One that stands too late to count is moved, later duplicates of one
    are removed.
  - A definition under a condition other than its own absence is never touched, the module fails and names the line.
  - All files are read and edited, and the results compiled by C(php -l), before the first is replaced. Owner, group and
    mode stay.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
requirements:
  - PHP 8.2 or newer on the host, with its tokenizer (Debian's php-cli has it)
notes:
  - The difference shows the touched constants only. Values of O(sites[].secrets), and of every constant whose name
    speaks of a password, key, salt, token or secret, are not shown.
  - In check mode a site whose folder is not there yet, or a host without PHP, gives what would be written, with a
    warning.
options:
  sites:
    description: The sites.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Folder with WordPress. Its C(wp-config.php) lies there or in the folder above, as WordPress has it.
          - Or a file. One that is not called C(wp-config.php) may hold nothing but constants, like Debian's
            C(/etc/wordpress/config-default.php).
        type: path
        required: true
      constants:
        description: Values by name. Booleans, numbers, strings, or null; a boolean is not the string of that name.
        type: dict
        default: {}
      secrets:
        description: As O(sites[].constants), for values that must not be shown.
        type: dict
        default: {}
      raw:
        description: PHP expressions by name, as C(dirname(__FILE__) . '/content').
        type: dict
        default: {}
      absent:
        description: Names of constants that must not be defined.
        type: list
        elements: str
        default: []
  php:
    description: The PHP program.
    type: str
    default: php
"""

EXAMPLES = r"""
- name: WordPress no longer starts cron on a visit
  postmeister.host.wp_config:
    sites:
      - path: /var/www/blog
        constants:
          DISABLE_WP_CRON: true
          WP_POST_REVISIONS: 5
        raw:
          WP_CONTENT_DIR: ABSPATH . 'content'
        absent: [ALTERNATE_WP_CRON]
"""

RETURN = r"""
sites:
  description: The sites in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: As given.
      type: str
      returned: success
      sample: /var/www/blog
    file:
      description: The file with the constants.
      type: str
      returned: success
      sample: /var/www/blog/wp-config.php
    changed:
      description: Names of the constants that changed, or would change.
      type: list
      elements: str
      returned: success
      sample: [DISABLE_WP_CRON]
"""

import contextlib
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._files import FileError
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import config

SITE = {
    "path": {"type": "path", "required": True},
    "constants": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "raw": {"type": "dict", "default": {}},
    "absent": {"type": "list", "elements": "str", "default": []},
}


def files_of(sites: list[config.Wanted], later: bool) -> tuple[list[tuple[str, config.Wanted]], list[config.Edit]]:
    """The files that are there, and (where later is set) what to say of those that are not there yet."""
    found: dict[str, config.Wanted] = {}
    missing = []
    for index, site in enumerate(sites):
        if later and config.absent(site.path):
            missing.append(config.planned(os.path.join(site.path, "wp-config.php"), site))
            continue
        path = config.locate(site.path)
        if path in found:
            raise config.ConfigError(f"sites[{index}]: {path} is the file of another item, too")
        found[path] = site
    return list(found.items()), missing


def run(module: AnsibleModule) -> dict[str, Any]:
    """Raises ConfigError, CommandError and FileError; no file is replaced before all of them are ready."""
    php = module.params["php"]
    sites = [config.parse(index, site) for index, site in enumerate(module.params["sites"])]
    found, missing = files_of(sites, module.check_mode)
    if module.check_mode and not shutil.which(php):
        missing += [config.planned(path, site) for path, site in found]
        found = []
    with contextlib.nullcontext() if module.check_mode else config.lock([path for path, _site in found]):
        edits = config.edit(php, found) if found else []
        if not module.check_mode:
            config.replace(php, edits)
    if missing:
        module.warn(f"not there yet, so nothing was looked at: {', '.join(each.path for each in missing)}")
    by_site = {id(each.wanted): each for each in [*edits, *missing]}
    ordered = [by_site[id(site)] for site in sites]
    return {
        "changed": any(each.content is not None for each in ordered),
        "sites": [{"path": each.wanted.path, "file": each.path, "changed": each.names} for each in ordered],
        "diff": [each.diff() for each in ordered if each.plan.changed],
    }


def main() -> None:
    module = AnsibleModule(
        {
            "sites": {"type": "list", "elements": "dict", "required": True, "options": SITE},
            "php": {"type": "str", "default": "php"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (config.ConfigError, CommandError, FileError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
