# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What fail2ban's jail is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.postmeister.host.plugins.module_utils import _bans


def mail_bans(options: Mapping[str, Any], connection: str = "") -> dict[str, Any]:
    """The role's variables, checked, and with the controller among the exempt."""
    try:
        return _bans.jail(options, connection)
    except _bans.BanError as exc:
        raise AnsibleFilterError(f"fail2ban_{exc}") from exc


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mail_bans": mail_bans}
