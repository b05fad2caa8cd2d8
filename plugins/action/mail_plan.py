# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.postmeister.host.plugins.module_utils import _bans
from ansible_collections.postmeister.host.plugins.module_utils._mail.site import SiteError, derive
from ansible_collections.postmeister.host.plugins.module_utils._policy import restrictions
from ansible_collections.postmeister.host.plugins.module_utils._tls import given

_ARGUMENTS: dict[str, dict[str, Any]] = {
    "hostname": {"type": "str", "required": True},
    "ipv4": {"type": "str", "default": ""},
    "ipv6": {"type": "str", "default": ""},
    "domains": {"type": "list", "elements": "dict", "required": True},
    "mailboxes": {"type": "list", "elements": "dict", "default": []},
    "aliases": {"type": "list", "elements": "dict", "default": []},
    "directory_src": {"type": "str", "default": ""},
    "postmaster": {"type": "str", "default": ""},
    "role_addresses": {"type": "list", "elements": "str", "default": []},
    "forwarding": {"type": "bool", "default": False},
    "pop3": {"type": "bool", "default": True},
    "starttls_submission": {"type": "bool", "default": True},
    "managesieve": {"type": "bool", "default": False},
    "mail_format": {"type": "str", "default": "maildir"},
    "queue_lifetime": {"type": "str", "default": "5d"},
    "quota": {"type": "str", "default": ""},
    "dkim_selectors": {"type": "list", "elements": "dict", "required": True},
    "dmarc_policy": {"type": "str", "default": "quarantine"},
    "tls_method": {"type": "str", "default": "acme"},
    "tls_certificate": {"type": "str", "default": ""},
    "tls_private_key": {"type": "str", "default": ""},
    "acme_issuers": {"type": "list", "elements": "str", "default": []},
    "acme_challenge": {"type": "str", "default": "http-01"},
    "dns_provider": {"type": "str", "default": "none"},
    "dns_server": {"type": "str", "default": ""},
    "dns_key_name": {"type": "str", "default": ""},
    "dns_key_given": {"type": "bool", "default": False},
    "dns_zonefile": {"type": "str", "default": ""},
    "dns_ttl": {"type": "int", "default": 3600},
    "policy": {"type": "dict", "default": {}},
    "list_sources": {"type": "list", "elements": "str", "default": []},
    "list_sources_malformed": {"type": "list", "elements": "str", "default": []},
    "bans": {"type": "dict", "default": {}},
}


class ActionModule(ActionBase):
    """Runs on the controller alone: the host is not touched while a value can still be wrong."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validated, site = self.validate_argument_spec(_ARGUMENTS)
        # All problems of the inventory at once, whichever part finds them
        problems: list[str] = []
        plan: dict[str, Any] = {}
        try:
            plan = derive(site)
        except SiteError as exc:
            problems.append(str(exc))
        try:
            plan["policy"] = restrictions.derive(
                site["policy"], sources=site["list_sources"], malformed=site["list_sources_malformed"]
            )
        except restrictions.PolicyError as exc:
            problems.append(str(exc))
        try:
            if site["bans"]:
                _bans.jail(site["bans"])
        except _bans.BanError as exc:
            problems.append(f"fail2ban_{exc}")
        if site["tls_method"] == "files":
            problem = given.problem_of_text(site["tls_certificate"], site["tls_private_key"], site["hostname"])
            problems += [problem] if problem else []
        if problems:
            raise AnsibleActionFail("\n".join(["the inventory was refused, nothing was touched:", *problems]))
        return {**result, "changed": False, "ansible_facts": {"mailserver_plan": plan}}
