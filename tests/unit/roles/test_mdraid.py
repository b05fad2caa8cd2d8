# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role mdraid: its defaults against its specs, and its specs against the modules'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.postmeister.host.plugins.modules import mdraid_speed

ROLE = Path(__file__).resolve().parents[3] / "roles" / "mdraid"
SPECS: dict[str, Any] = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]


def test_defaults_equal_the_specs() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert set(SPECS) == {"main", "configure"}
    for entry in SPECS.values():
        assert {name: option["default"] for name, option in entry["options"].items()} == defaults


def test_the_module_says_the_same() -> None:
    documented = yaml.safe_load(mdraid_speed.DOCUMENTATION)["options"]
    options = SPECS["main"]["options"]
    for name, option in documented.items():
        assert option["default"] == options[f"mdraid_{name}"]["default"], name
        assert option.get("choices") == options[f"mdraid_{name}"].get("choices"), name
    own, theirs = options["mdraid_arrays"]["options"], documented["arrays"]["suboptions"]
    assert {name: option["type"] for name, option in own.items()} == {
        name: option["type"] for name, option in theirs.items()
    }
