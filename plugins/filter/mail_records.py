# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a mail host must publish in DNS, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.postmeister.host.plugins.module_utils._dns import publish
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError


def mail_records(
    site: Mapping[str, Any], *phases: str, dkim: Sequence[Mapping[str, Any]] = (), tlsa: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Items of the `records` option of dns_records; all phases when none is named."""
    stranger = next((phase for phase in phases if phase not in publish.PHASES), None)
    if stranger is not None:
        raise AnsibleFilterError(f"mail_records: phase {stranger!r}: one of {', '.join(publish.PHASES)} is due")
    try:
        made = publish.derive({**site, "dkim": list(dkim), "tlsa": list(tlsa)})
    except (DnsError, TypeError) as exc:
        raise AnsibleFilterError(f"mail_records: {exc}") from exc
    return [record for phase in phases or publish.PHASES for record in made[phase]]


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mail_records": mail_records}
