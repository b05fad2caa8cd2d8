# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of mail_policy_info for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.postmeister.host.plugins.module_utils._policy_log import page, table


def mail_policy_page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """One HTML page for all hosts."""
    return page.page(reports)


def mail_policy_table(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal."""
    return table.table(reports)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mail_policy_page": mail_policy_page, "mail_policy_table": mail_policy_table}
