#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wp_site
short_description: Sites of WordPress, with WP-CLI
version_added: 0.1.0
description:
  - Installs new sites, and brings WordPress, plugins, themes, languages and options of any number of sites to what is
    wanted.
  - All sites are asked before the first is changed. For a site that is as wanted WordPress starts once, for all
    questions together.
  - Everything runs as the site's own user. Root is refused, as by WP-CLI itself.
  - After a change the site is asked again; what is not as wanted then is an error.
extends_documentation_fragment: [postmeister.host._attributes]
author: Postmeister contributors (@postmeister)
requirements:
  - WP-CLI 2.12 or newer on the host, as role P(postmeister.host.wp_cli#role) installs it
notes:
  - No password is in a command line, a file or an answer. They reach WP-CLI through its standard input.
  - In check mode, for a host without WP-CLI, the result is what would be made of nothing, with a warning.
options:
  sites:
    description: The sites.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Folder of WordPress.
        type: path
        required: true
      user:
        description: The user whose the site is; not root.
        type: str
        default: www-data
      url:
        description: Address of a new site. For a network, the one of its sites that is meant.
        type: str
      title:
        description: Title of a new site. Its address when there is none.
        type: str
      admin:
        description: Administrator of a new site.
        type: dict
        suboptions:
          name:
            description: Login.
            type: str
            required: true
          password:
            description: Password.
            type: str
            required: true
          email:
            description: Address; WordPress wants a domain with a dot.
            type: str
            required: true
      database:
        description: Database of a new site. It is created when it is missing and its user may do that.
        type: dict
        suboptions:
          name:
            description: Name.
            type: str
            required: true
          user:
            description: User.
            type: str
            required: true
          password:
            description: Password.
            type: str
            default: ''
          host:
            description: Host, with a port or a socket behind a colon.
            type: str
            default: localhost
          prefix:
            description: What the names of the tables begin with.
            type: str
            default: wp_
      core:
        description: WordPress itself.
        type: dict
        suboptions:
          version:
            description:
              - The version that is wanted; V(latest), the newest that wordpress.org offers; V(minor), the newest of
                the same branch.
              - Without it a site stays at its version. There is no way back to an older one.
            type: str
          source:
            description: Archive of WordPress on the host (zip; for a new site tar, too) to take instead of a download.
            type: path
          locale:
            description: Language of a new site.
            type: str
      plugins:
        description: Plugins.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of its folder in C(wp-content), which is its name at wordpress.org.
            type: str
            required: true
          state:
            description:
              - V(present), in use or not; V(active); V(network), on all sites of a network; V(inactive); V(absent).
            type: str
            choices: [present, active, network, inactive, absent]
            default: present
          version: &version
            description: The version that is wanted, or V(latest). Without it any will do.
            type: str
          source: &source
            description: File on the host, or URL, of a zip archive to take instead of a download from wordpress.org.
            type: str
      themes:
        description: Themes.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of its folder in C(wp-content), which is its name at wordpress.org.
            type: str
            required: true
          state:
            description: V(present), in use or not; V(active); V(inactive), by another that is V(active); V(absent).
            type: str
            choices: [present, active, inactive, absent]
            default: present
          version: *version
          source: *source
      languages:
        description: Languages that should be installed, as V(de_DE).
        type: list
        elements: str
        default: []
      update_plugins:
        description: Bring all plugins to their newest version, but those whose version or source is given.
        type: bool
        default: false
      update_themes:
        description: As O(sites[].update_plugins), for themes.
        type: bool
        default: false
      update_translations:
        description: Bring all translations to their newest version.
        type: bool
        default: false
      options:
        description: Options of WordPress and their values.
        type: dict
        default: {}
      secret_options:
        description: As O(sites[].options), for values that must not be shown.
        type: dict
        default: {}
  wp:
    description: WP-CLI.
    type: path
    default: /usr/local/bin/wp
"""

EXAMPLES = r"""
- name: A blog with two plugins
  postmeister.host.wp_site:
    sites:
      - path: /var/www/blog
        url: https://blog.example.org
        admin:
          name: alice
          email: alice@example.org
          password: "{{ vault_blog_admin }}"
        database:
          name: blog
          user: blog
          password: "{{ vault_blog_database }}"
        core: {version: 7.1.1}
        plugins:
          - {name: akismet, state: absent}
          - {name: classic-editor, state: active, version: 1.6.7}
        options:
          timezone_string: Europe/Berlin
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
    version:
      description: Version of WordPress after the run. Empty for a site that check mode would install.
      type: str
      returned: success
      sample: 7.1.1
    changed:
      description: What changed, or would change.
      type: list
      elements: str
      returned: success
      sample: [core, plugin akismet]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import site, site_run
from ansible_collections.postmeister.host.plugins.module_utils._wordpress.site_spec import SITE


def run(module: AnsibleModule) -> dict[str, Any]:
    """Raises SiteError; no site changes before all were asked."""
    wanted = [site.parse(index, item) for index, item in enumerate(module.params["sites"])]
    paths = [each.path for each in wanted]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise site.SiteError(f"{twice[0]}: is given twice")
    if module.check_mode and not os.path.exists(module.params["wp"]):
        module.warn(f"{module.params['wp']} is not there yet, so no site was looked at")
        plans = [site.new_plan(each) for each in wanted]
        versions = [""] * len(wanted)
    else:
        sites = [site_run.Site(each, site_run.account_of(each), module.params["wp"]) for each in wanted]
        site_run.each(sites, site_run.Site.look)
        if not module.check_mode:
            site_run.each([each for each in sites if each.plan.changed], site_run.Site.apply)
        plans = [each.plan for each in sites]
        versions = [each.answer["core"] if each.answer else "" for each in sites]
    return {
        "changed": any(plan.changed for plan in plans),
        "sites": [
            {"path": path, "version": version, "changed": sorted([*plan.create, *plan.change, *plan.delete])}
            for path, version, plan in zip(paths, versions, plans)
        ],
        "diff": [
            plan.diff(lambda key, value: f"{key}: {value}", path) for path, plan in zip(paths, plans) if plan.changed
        ],
    }


def main() -> None:
    module = AnsibleModule(
        {
            "sites": {"type": "list", "elements": "dict", "required": True, "options": SITE},
            "wp": {"type": "path", "default": "/usr/local/bin/wp"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except site.SiteError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
