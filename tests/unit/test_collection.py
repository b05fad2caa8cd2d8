# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every role, module and playbook, and what README.md says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir() if path.is_dir())
MODULES = sorted(path.stem for path in (TOP / "plugins" / "modules").glob("[a-z]*.py"))
PLAYBOOKS = sorted(path.stem for path in (TOP / "playbooks").glob("*.yml"))
README = (TOP / "README.md").read_text(encoding="utf-8")


def load(role: str, name: str) -> Any:
    path = TOP / "roles" / role / name
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_of_a_role_are_those_of_its_specs(role: str) -> None:
    options: dict[str, Any] = {}
    for point in load(role, "meta/argument_specs.yml")["argument_specs"].values():
        for name, spec in (point.get("options") or {}).items():
            if "default" in spec:
                assert options.setdefault(name, spec["default"]) == spec["default"]
    assert (load(role, "defaults/main.yml") or {}) == options


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_readme_that_leads_to_its_variables(role: str) -> None:
    text = (TOP / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert "meta/argument_specs.yml" in text or f"ansible-doc -t role postmeister.host.{role}`" in text
    assert load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["short_description"]


def test_the_readme_names_each_role_module_and_playbook() -> None:
    assert [name for name in ROLES if f"| [{name}](roles/{name}/README.md) |" not in README] == []
    assert [name for name in MODULES if not re.search(rf"^\|.*`{name}`.*\|", README, re.MULTILINE)] == []
    assert [name for name in PLAYBOOKS if f"| `{name}` |" not in README] == []


def test_the_readme_shows_the_inventory_that_the_demo_runs() -> None:
    shown = README.partition("<!-- docs/example/inventory.yml -->\n```yaml\n")[2].partition("```")[0]
    example = (TOP / "docs/example/inventory.yml").read_text(encoding="utf-8")
    assert shown and shown in example
