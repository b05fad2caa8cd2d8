# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who greylists: the values of the role postgrey against its specs and the module's, and the face's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.postmeister.host.plugins.module_utils._greylist.settings import SPEC

ROLES = Path(__file__).resolve().parents[3] / "roles"
#: where YAML 1.1 has taken "off" for a truth value
OFF = [False, "off", "False"]


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROLES / role / name).read_text(encoding="utf-8"))


def face(name: str, **given: Any) -> Any:
    """A variable of the face, rendered."""
    variables = {
        **{key: trust_as_template(value) for key, value in load("mailserver", "vars/main.yml").items()},
        "postgrey_port": 10023,
        "mailserver_plan": {"ipv4": "198.51.100.25", "ipv6": "2001:db8:51::25"},
        **given,
    }
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(f"{{{{ {name} }}}}"))


def test_defaults_equal_the_specs_and_the_modules() -> None:
    defaults, specs = (
        load("postgrey", "defaults/main.yml"),
        load("postgrey", "meta/argument_specs.yml")["argument_specs"],
    )
    assert defaults == {f"postgrey_{name}": spec["default"] for name, spec in SPEC.items()}
    assert set(specs) == {"main", "configure"}
    for entry in specs.values():
        assert {name: option["default"] for name, option in entry["options"].items()} == defaults
        assert {name: option["type"] for name, option in entry["options"].items()} == {
            f"postgrey_{name}": spec["type"] for name, spec in SPEC.items()
        }


def test_what_is_checked_is_what_is_configured() -> None:
    checked = load("postgrey", "vars/main.yml")["__postgrey_options"]
    (task,) = load("postgrey", "tasks/configure.yml")
    assert task["postmeister.host.postgrey"] == checked == {name: f"{{{{ postgrey_{name} }}}}" for name in SPEC}


@pytest.mark.parametrize("choice", ["postgrey", "rspamd", *OFF])
def test_never_two_at_once(choice: Any) -> None:
    made = face("__mailserver_greylist", mailserver_greylist=choice)
    assert made == (choice if choice in ("postgrey", "rspamd") else "off")
    service = face("__mailserver_greylist_service", mailserver_greylist=choice)
    assert service.strip() == ("inet:127.0.0.1:10023" if choice == "postgrey" else "")
    tasks = {task["name"]: task for name in ("main", "steps") for task in load("mailserver", f"tasks/{name}.yml")}
    configured = tasks["Set up Dovecot, Redis, rspamd, Postfix and the bans"]["vars"]
    assert configured["rspamd_greylist"] == "{{ __mailserver_greylist == 'rspamd' }}"
    assert tasks["Set up postgrey"]["when"] == "__mailserver_greylist == 'postgrey'"
    assert tasks["Keep postgrey from running beside another greylist"]["when"] == "__mailserver_greylist != 'postgrey'"


def test_a_host_without_ipv4_asks_over_ipv6() -> None:
    plan = {"ipv4": "", "ipv6": "2001:db8:51::25"}
    found = face("__mailserver_greylist_service", mailserver_greylist="postgrey", mailserver_plan=plan)
    assert found.strip() == "inet:[::1]:10023"
    assert face("__mailserver_loopback", mailserver_plan=plan) == "::1"
