# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role wordpress: defaults against its specs and the module's, and what each module gets of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.postmeister.host.plugins.modules import wp_cron

ROLE = Path(__file__).resolve().parents[3] / "roles" / "wordpress"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


SPECS = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_defaults_are_those_of_the_specs():
    assert load("defaults/main.yml") == {name: spec["default"] for name, spec in SPECS.items()}


def test_defaults_are_those_of_the_module():
    for name, spec in wp_cron.PER_SITE.items():
        ours = next(f"wordpress_{prefix}{name}" for prefix in ("", "cron_") if f"wordpress_{prefix}{name}" in SPECS)
        assert SPECS[ours]["default"] == spec["default"]


def test_a_site_may_have_what_the_module_knows():
    assert set(SPECS["wordpress_sites"]["options"]) - {"install"} == set(wp_cron.SITE)


def given(*sites: dict[str, Any], **more: Any) -> Templar:
    values = {key: trust_as_template(value) for key, value in load("vars/main.yml").items()}
    return Templar(
        loader=DataLoader(), variables={**load("defaults/main.yml"), **values, "wordpress_sites": list(sites), **more}
    )


def test_each_module_gets_its_own():
    made = given(
        {"path": "/a", "install": {"url": "http://a", "plugins": [{"name": "p"}]}},
        {"path": "/b", "user": "bob", "install": {"url": "http://b"}, "state": "present", "interval": 5},
        {"path": "/c", "install": {"url": "http://c"}, "state": "absent"},
        {"path": "/d"},
    )
    assert made.template(trust_as_template("{{ __wordpress_installs }}")) == [
        {"path": "/a", "user": "www-data", "url": "http://a", "plugins": [{"name": "p"}]},
        {"path": "/b", "user": "bob", "url": "http://b"},
    ]
    assert made.template(trust_as_template("{{ __wordpress_crons }}")) == [
        {"path": "/a"},
        {"path": "/b", "user": "bob", "state": "present", "interval": 5},
        {"path": "/c", "state": "absent"},
        {"path": "/d"},
    ]


def test_cron_is_installed_where_a_crontab_is_wanted():
    packages = trust_as_template("{{ __wordpress_packages }}")
    assert given({"path": "/a"}).template(packages) == ["php-cli"]
    assert given({"path": "/a", "scheduler": "crontab"}).template(packages) == ["php-cli", "cron"]
    assert given(wordpress_cron_scheduler="crontab").template(packages) == ["php-cli", "cron"]
    assert given().template(trust_as_template("{{ __wordpress_installs }}")) == []
