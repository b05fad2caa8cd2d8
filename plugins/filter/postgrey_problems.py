# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes in what is asked of the greylist, found on the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.postmeister.host.plugins.module_utils._greylist.settings import SPEC, problems


def postgrey_problems(options: Mapping[str, Any], prefix: str = "", **domains: Iterable[Any]) -> list[str]:
    """A line for each mistake, with the item and the reason."""
    stranger = next((name for name in options if name not in SPEC), None)
    if stranger is not None:
        raise AnsibleFilterError(f"postgrey_problems: {stranger}: there is no such option")
    return problems(options, prefix, **domains)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"postgrey_problems": postgrey_problems}
