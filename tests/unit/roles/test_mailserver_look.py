# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The look of mailserver asks each module with the very options of its task: another would leave a change undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
COLLECTION = "postmeister.host."


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROLES / role / name).read_text(encoding="utf-8"))


def options_of(module: str, role: str, name: str) -> dict[str, Any]:
    """Of the one task with this module that changes something."""
    tasks = [task for task in load(role, name) if f"{COLLECTION}{module}" in task and not task.get("check_mode")]
    found = [task[f"{COLLECTION}{module}"] for task in tasks]
    # What keeps a greylist from running has its own task.
    (options,) = [options for options in found if options.get("state") != "stopped"]
    return dict(options)


def asked() -> dict[str, Any]:
    modules: dict[str, Any] = options_of("mail_host_facts", "mailserver", "tasks/main.yml")["modules"]
    return modules


@pytest.mark.parametrize("module", ["packages", "mail_directory", "dkim_key"])
def test_the_face_s_own_tasks(module: str) -> None:
    assert asked()[module] == options_of(module, "mailserver", "tasks/steps.yml")


@pytest.mark.parametrize(
    ("module", "role"), [("mail_certificate", "mail_tls"), ("dnsbl", "dnsbl"), ("postgrey", "postgrey")]
)
def test_the_tasks_of_other_roles(module: str, role: str) -> None:
    name = f"__{role}_options"
    assert name in asked()[module]
    assert load(role, "vars/main.yml")[name] == options_of(module, role, "tasks/configure.yml")


def test_the_resolver_s_task() -> None:
    assert asked()["service_config"] == options_of("service_config", "resolver", "tasks/configure.yml")


def test_every_step_is_looked_at() -> None:
    """A module in the steps that the look does not ask would be left out where all others are settled."""
    steps = load("mailserver", "tasks/steps.yml")
    modules = {key.removeprefix(COLLECTION) for task in steps for key in task if key.startswith(COLLECTION)}
    roles = {
        task[key]["name"].removeprefix(COLLECTION)
        for task in steps
        for key in ("ansible.builtin.import_role", "ansible.builtin.include_role")
        if key in task
    }
    # DNS was compared before, and rspamd is prepared in a first run only.
    named = {"mail_tls": "mail_certificate", "resolver": "service_config"}
    assert modules | {named.get(role, role) for role in roles - {"mail_dns", "rspamd"}} == set(asked())
