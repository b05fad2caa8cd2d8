# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import site


def wanted(**given: Any) -> site.Wanted:
    for kind in ("plugins", "themes"):
        given[kind] = [{"state": "present", **one} for one in given.get(kind, [])]
    return site.parse(0, {"path": "/var/www/blog", "user": "www-data", **given})


def answer(**given: Any) -> dict[str, Any]:
    """Of a site with two plugins and two themes."""
    return {
        "core": "6.8.1",
        "older": False,
        "offers": ["6.8.3", "6.9", "7.1.1"],
        "database": "1",
        "database_new": "1",
        "multisite": False,
        "languages": ["de_DE"],
        "translations": ["plugin akismet de_DE"],
        "plugins": {
            "akismet": {"version": "5.7", "use": "active", "new": "5.8"},
            "hello": {"version": "1.7", "use": "inactive", "new": ""},
            "wide": {"version": "1.0", "use": "network", "new": ""},
        },
        "themes": {
            "one": {"version": "1.0", "use": "active", "new": ""},
            "two": {"version": "1.0", "use": "inactive", "new": "1.1"},
        },
        "options": {},
        "unknown": {},
        "failed": {},
        **given,
    }


def way(given: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The commands from one to the other."""
    one = wanted(**given)
    return [" ".join(step.argv) for step in site.steps(one, site.plan(one, found), found)]


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ({}, []),
        ({"core": {"version": "6.8.1"}}, []),
        ({"core": {"version": "6.9"}}, ["core update --version=6.9", "core update-db"]),
        ({"core": {"version": "latest"}}, ["core update --version=7.1.1", "core update-db"]),
        ({"core": {"version": "minor"}}, ["core update --version=6.8.3", "core update-db"]),
        ({"core": {"version": "6.9", "source": "/a.zip"}}, ["core update /a.zip", "core update-db"]),
        ({"plugins": [{"name": "akismet"}, {"name": "hello"}]}, []),
        ({"plugins": [{"name": "hello", "state": "active"}]}, ["plugin activate hello"]),
        ({"plugins": [{"name": "akismet", "state": "inactive"}]}, ["plugin deactivate akismet"]),
        ({"plugins": [{"name": "akismet", "state": "absent"}]}, ["plugin uninstall akismet --deactivate"]),
        ({"plugins": [{"name": "wide", "state": "active"}]}, []),
        ({"plugins": [{"name": "wide", "state": "inactive"}]}, ["plugin deactivate wide --network"]),
        (
            {"plugins": [{"name": "wide", "state": "absent"}]},
            ["plugin deactivate wide --network", "plugin uninstall wide --deactivate"],
        ),
        ({"plugins": [{"name": "new", "state": "absent"}]}, []),
        ({"plugins": [{"name": "new", "state": "active"}]}, ["plugin install new --force", "plugin activate new"]),
        ({"plugins": [{"name": "new", "version": "1.0"}]}, ["plugin install new --version=1.0 --force"]),
        ({"plugins": [{"name": "new", "version": "latest"}]}, ["plugin install new --force"]),
        ({"plugins": [{"name": "new", "source": "/n.zip"}]}, ["plugin install /n.zip --force"]),
        ({"plugins": [{"name": "hello", "version": "1.6"}]}, ["plugin install hello --version=1.6 --force"]),
        (
            {"plugins": [{"name": "hello", "version": "1.6", "source": "/h.zip"}]},
            ["plugin install /h.zip --force"],
        ),
        ({"plugins": [{"name": "akismet", "version": "latest"}]}, ["plugin update akismet"]),
        ({"plugins": [{"name": "hello", "version": "latest"}]}, []),
        ({"update_plugins": True}, ["plugin update akismet"]),
        ({"update_plugins": True, "plugins": [{"name": "akismet", "version": "5.7"}]}, []),
        (
            {"update_plugins": True, "plugins": [{"name": "akismet", "state": "absent"}]},
            ["plugin uninstall akismet --deactivate"],
        ),
        ({"themes": [{"name": "two", "state": "active"}]}, ["theme activate two"]),
        ({"themes": [{"name": "two", "state": "absent"}]}, ["theme delete two"]),
        ({"themes": [{"name": "one", "state": "inactive"}]}, []),
        ({"update_themes": True}, ["theme update two"]),
        ({"languages": ["de_DE", "en_US", "fr_FR"]}, ["language core install fr_FR"]),
        ({"update_translations": True}, ["language plugin update --all"]),
    ],
)
def test_steps(given: dict[str, Any], commands: list[str]) -> None:
    assert way(given, answer()) == commands


def test_database_follows_the_files() -> None:
    assert way({}, answer(database_new="2")) == ["core update-db"]
    assert way({}, answer(database_new="2", multisite=True)) == ["core update-db --network"]


@pytest.mark.parametrize(
    ("plugins", "commands"),
    [
        ([{"name": "akismet", "state": "network"}], ["plugin activate akismet --network"]),
        ([{"name": "wide", "state": "network"}], []),
        (
            [{"name": "new", "state": "network"}, {"name": "hello", "state": "active"}],
            ["plugin install new --force", "plugin activate hello", "plugin activate new --network"],
        ),
    ],
)
def test_plugins_of_a_network(plugins: list[dict[str, Any]], commands: list[str]) -> None:
    assert way({"plugins": plugins}, answer(multisite=True)) == commands


def test_active_theme_may_go_when_another_takes_over() -> None:
    given = {"themes": [{"name": "two", "state": "active"}, {"name": "one", "state": "absent"}]}
    assert way(given, answer()) == ["theme activate two", "theme delete one"]


@pytest.mark.parametrize(
    ("given", "found", "words"),
    [
        ({}, {"older": True}, "core: 6.8.1 is there"),
        (
            {},
            {"unknown": {"plugins.x": "Plugin not found."}},
            "/var/www/blog: plugins.x: wordpress.org: Plugin not found.",
        ),
        ({"core": {"version": "latest"}}, {"failed": {"https://api": "timed out"}}, "https://api: timed out"),
        ({"themes": [{"name": "one", "state": "absent"}]}, {}, "the active theme cannot be removed"),
        ({"plugins": [{"name": "hello", "state": "network"}]}, {}, "plugin hello: state network, but the site is no"),
    ],
)
def test_plan_refuses(given: dict[str, Any], found: dict[str, Any], words: str) -> None:
    with pytest.raises(site.SiteError) as caught:
        site.plan(wanted(**given), answer(**found))
    assert words in str(caught.value)


def test_trouble_of_wordpress_org_counts_only_where_it_was_needed() -> None:
    assert not site.plan(wanted(), answer(failed={"https://api": "timed out"})).changed


def test_options() -> None:
    one = wanted(options={"a": "x", "b": True, "c": {"k": 1}, "d": 5}, secret_options={"s": "canary", "t": "canary"})
    found = {
        "a": {"same": True, "found": "x"},
        "b": {"same": False, "found": ""},
        "c": {"same": False, "found": None},
        "d": {"same": False, "found": "5"},
        "s": {"same": False, "found": "canary"},
        "t": {"same": False, "found": None},
    }
    plan = site.plan(one, answer(options=found))
    assert plan.create == {"option c": '{"k": 1}', "option t": site.HIDDEN}
    assert plan.change == {
        "option b": ("", "1"),
        "option d": ("5", "5 (another)"),
        "option s": (site.HIDDEN, f"{site.HIDDEN} (another)"),
    }


def test_no_password_in_a_command_line() -> None:
    admin = {"name": "alice", "password": "canary", "email": "a@example.test"}
    database = {"name": "d", "user": "u", "password": "canary", "host": "localhost", "prefix": "wp_"}
    one = wanted(url="http://x.test", admin=admin, database=database, core={"locale": "de_DE"})
    for step in (site.create_config(one), site.install(one)):
        assert "canary" not in " ".join(step.argv) and step.stdin == "canary\n"
    assert "canary" not in str(site.new_plan(one))


def test_new_site_needs_all() -> None:
    with pytest.raises(site.SiteError, match="a new site needs admin, database"):
        site.can_install(wanted(url="http://x.test"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": "-x"}, "is no name of a user"),
        ({"core": {"version": "../7"}}, "sites[0].core.version: '../7' is no version"),
        ({"core": {"locale": "x/y"}}, "'x/y' is no locale"),
        ({"languages": ["--x"]}, "'--x' is no locale"),
        ({"admin": {"name": "a", "password": "x", "email": "a@localhost"}}, "admin.email: 'a@localhost' is no address"),
        ({"admin": {"name": "a", "password": "x\ny", "email": "e"}}, "sites[0].admin.password: a control character"),
        ({"options": {"a": 1}, "secret_options": {"a": 2}}, "option a is given twice"),
        ({"options": {"a": None}}, "option a has no value"),
        ({"plugins": [{"name": "a"}, {"name": "a"}]}, "sites[0].plugins[1]: a is given twice"),
        ({"plugins": [{"name": "../a"}]}, "is no name of a folder"),
        ({"plugins": [{"name": "a", "version": "-1"}]}, "'-1' is no version"),
        ({"plugins": [{"name": "a", "state": "absent", "version": "1"}]}, "is to be absent, but has"),
        ({"themes": [{"name": n, "state": "active"} for n in "ab"]}, "only one theme can be active, not a and b"),
    ],
)
def test_parse_refuses(given: dict[str, Any], words: str) -> None:
    with pytest.raises(site.SiteError) as caught:
        wanted(**given)
    assert words in str(caught.value)
    assert "x\ny" not in str(caught.value)
