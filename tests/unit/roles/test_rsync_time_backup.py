# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's variables, its defaults and the module's options say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.postmeister.host.plugins.module_utils._backup import upstream
from ansible_collections.postmeister.host.plugins.modules import rsync_time_backup

ROLE = Path(__file__).resolve().parents[3] / "roles/rsync_time_backup"


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROLE / name).read_text(encoding="utf-8")))


SPECS = load("meta/argument_specs.yml")["argument_specs"]
OPTIONS = SPECS["main"]["options"]


def test_defaults_are_the_specs() -> None:
    assert load("defaults/main.yml") == {name: option["default"] for name, option in OPTIONS.items()}
    assert SPECS["configure"]["options"] == OPTIONS


def test_jobs_and_peers_are_the_modules() -> None:
    for variable, spec in (("jobs", rsync_time_backup.JOB), ("peers", rsync_time_backup.PEER)):
        role = OPTIONS[f"rsync_time_backup_{variable}"]["options"]
        assert list(role) == list(spec)
        for name, option in role.items():
            for key in ("type", "elements", "choices", "default", "required"):
                assert option.get(key) == spec[name].get(key), (name, key)


def test_the_pinned_versions() -> None:
    found = load("vars/main.yml")
    assert found["__rsync_time_backup_checksums"] == upstream.CHECKSUMS
