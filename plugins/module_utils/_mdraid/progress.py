# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""How far an array is, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def line(array: Mapping[str, Any]) -> str:
    """One line of an array as mdraid_info returns it."""
    if array["rebuilding"]:
        if array["percent"] is None:
            return f"{array['name']}: {array['action']}, has to wait for another array"
        text = f"{array['name']}: {array['action']} {array['percent']:.1f} %"
        if array["speed"]:
            text += f", {array['speed']} KiB/s"
        if array["seconds_left"] is not None:
            text += f", {duration(array['seconds_left'])} left"
        return text
    if array["degraded"]:
        missing = f"{array['degraded']} of {array['devices']} devices"
        return f"{array['name']}: ended, but {missing} are still missing"
    return f"{array['name']}: done"


def duration(seconds: int) -> str:
    """3725 → '1 h 2 min'."""
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
