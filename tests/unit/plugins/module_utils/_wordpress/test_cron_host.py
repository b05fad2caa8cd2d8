# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import json
import os

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron, cron_host
from ansible_collections.postmeister.host.plugins.module_utils._wordpress.cron import Site, Upkeep

NOTHING = Upkeep("none", False, False, False)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host below tmp_path without a systemd that answers; crontabs by user."""
    for name in ("SYSTEMD", "SITES", "LIBRARY", "STATE"):
        for module in (cron, cron_host):
            monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    crontabs = {}

    def run(argv, **_more):
        if argv[0] == "crontab":
            text = crontabs.get(argv[2])
            return Result(tuple(argv), int(text is None), text or "", "" if text is not None else "no crontab for x")
        return Result(tuple(argv), 3, "inactive\n" * (len(argv) - 2), "")

    monkeypatch.setattr(cron_host, "run", run)
    (tmp_path / "sites").mkdir()
    return crontabs


def wordpress(folder, config="<?php\n"):
    folder.mkdir(parents=True)
    for name in ("wp-load.php", "wp-cron.php"):
        (folder / name).write_text("")
    (folder / "wp-config.php").write_text(config)
    return str(folder)


def left(tmp_path, **sites):
    """What an earlier run left of these sites: the settings."""
    for name, settings in sites.items():
        (tmp_path / "sites" / f"{name}.json").write_text(json.dumps(settings))


def plan(sites=(), gone=(), purge=False):
    return cron_host.plan({site.name: site for site in sites}, gone, purge, "root", 60)


def test_a_new_site(host):
    todo = plan([Site("a", "/srv/a")])
    assert todo.start == ["wp-cron@a.timer", "wp-upkeep@a.timer", "wp-updates.timer"]
    assert not todo.stop and not todo.restart and not todo.crontabs and not todo.folders
    assert all(file.content for file in todo.files)
    assert "OnCalendar" in json.dumps(todo.diff())


def test_others_stay_unless_purged(host, tmp_path):
    left(tmp_path, old={"scheduler": "timer"})
    assert not any("old" in file.path for file in plan([Site("a", "/srv/a")]).files)
    removed = plan([Site("a", "/srv/a")], purge=True).files
    assert [file.path for file in removed if file.content is None] == [str(tmp_path / "sites" / "old.json")]
    # The programs go with the last site only.
    assert plan().files == []


def test_a_crontab_that_moves_to_a_timer_or_another_user(host, tmp_path):
    site = Site("a", "/srv/a", user="alice", scheduler="crontab", upkeep=NOTHING)
    other = "0 5 * * * /bin/true\n"
    host["alice"] = other
    todo = plan([site])
    assert todo.crontabs["alice"][1].endswith("*/1 * * * * php /srv/a/wp-cron.php\n")
    assert todo.start == ["wp-updates.timer", "cron.service"]
    host["alice"] = todo.crontabs["alice"][1]
    left(tmp_path, a={"scheduler": "crontab", "user": "alice", "path": "/srv/a"})
    assert plan([site]).crontabs == {}
    assert plan([Site("a", "/srv/a", user="alice")]).crontabs["alice"][1] == other
    moved = plan([Site("a", "/srv/a", user="bob", scheduler="crontab")]).crontabs
    assert moved["alice"][1] == other and "wp-cron.php" in moved["bob"][1]
    assert plan(gone=["a"]).crontabs["alice"][1] == other


@pytest.fixture
def killing(host, monkeypatch):
    """A systemd whose timers all are at work, and that kills the run at the calls that are in deadly."""
    calls, deadly = [], {"daemon-reload"}
    ask = cron_host.run

    def run(argv, stdin=None, **more):
        if argv[0] == "crontab" and argv[-1] in ("-", "-r"):
            host[argv[2]] = stdin or ""
            return Result(tuple(argv), 0, "", "")
        if argv[0] != "systemctl":
            return ask(argv, **more)
        if argv[1] == "is-active":
            return Result(tuple(argv), 0, "active\n" * (len(argv) - 2), "")
        calls.append(argv[1:])
        if argv[1] in deadly:
            raise KeyboardInterrupt
        return Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(cron_host, "run", run)
    monkeypatch.setattr(cron_host, "poke", lambda _folder: None)
    monkeypatch.setattr(cron_host._files, "uid_of", lambda _owner: os.getuid())
    monkeypatch.setattr(cron_host._files, "gid_of", lambda _group, missing=None: os.getgid())
    return calls, deadly


@pytest.mark.parametrize("step", ["daemon-reload", "restart"])
def test_what_a_run_that_was_cut_short_left_undone_is_done_by_the_next(killing, tmp_path, step):
    calls, deadly = killing
    wants = tmp_path / "systemd" / "timers.target.wants"
    wants.mkdir(parents=True)
    for name in ("wp-cron@a.timer", "wp-upkeep@a.timer", "wp-updates.timer"):
        (wants / name).touch()
    deadly.clear()
    deadly.add(step)
    for _turn in range(2):
        with pytest.raises(KeyboardInterrupt):
            cron_host.apply(plan([Site("a", "/srv/a")]))
    deadly.clear()
    calls.clear()
    todo = plan([Site("a", "/srv/a")])
    assert todo.changed and not todo.files
    cron_host.apply(todo)
    assert calls == [["daemon-reload"], ["restart", "wp-cron@a.timer", "wp-upkeep@a.timer", "wp-updates.timer"]]
    todo = plan([Site("a", "/srv/a")])
    assert not todo.changed
    cron_host.apply(todo)
    assert len(calls) == 2


@pytest.mark.parametrize("then", [(), [Site("a", "/srv/b", user="bob", scheduler="crontab")]])
def test_crontab_line_of_a_run_that_was_cut_short_is_taken_away_by_the_next(host, killing, then):
    _calls, deadly = killing
    deadly.clear()
    cron_host.apply(plan([Site("a", "/srv/a", user="alice", scheduler="crontab")]))
    assert "/srv/a/wp-cron.php" in host["alice"]
    deadly.add("daemon-reload")
    for _turn in range(2):
        with pytest.raises(KeyboardInterrupt):
            cron_host.apply(plan(then, [] if then else ["a"]))
    deadly.clear()
    cron_host.apply(plan(then, [] if then else ["a"]))
    assert host["alice"] == ""
    assert ("/srv/b/wp-cron.php" in host.get("bob", "")) == bool(then)
    todo = plan(then, [] if then else ["a"])
    assert not todo.again and not todo.crontabs


def test_a_crontab_with_guard_needs_a_folder(host, tmp_path):
    site = Site("a", "/srv/a", user=getpass.getuser(), scheduler="crontab", guard=True)
    assert plan([site]).folders == [(str(tmp_path / "state" / "a"), site.user)]
    os.makedirs(tmp_path / "state" / "a")
    assert plan([site]).folders == []


@pytest.mark.parametrize("missing", ["wp-load.php", "wp-cron.php"])
def test_a_folder_without_wordpress(tmp_path, missing):
    path = wordpress(tmp_path / "www")
    os.unlink(os.path.join(path, missing))
    assert f"there is no WordPress in {path}" in cron_host.missing(Site("a", path))


def test_the_configuration_may_lie_above(tmp_path):
    path = wordpress(tmp_path / "www" / "site")
    os.unlink(os.path.join(path, "wp-config.php"))
    assert f"there is no wp-config.php in {path}" in cron_host.missing(Site("a", path))
    (tmp_path / "www" / "wp-config.php").write_text("")
    assert not any("wp-config" in words for words in cron_host.missing(Site("a", path)))
    # It is that of another WordPress.
    (tmp_path / "www" / "wp-settings.php").write_text("")
    assert any("wp-config" in words for words in cron_host.missing(Site("a", path)))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("<?php\ndefine( 'MULTISITE', true );\n", True),
        ("<?php\n// define( 'MULTISITE', true );\n", False),
        ("<?php\ndefine( 'MULTISITE', false );\n", False),
    ],
)
def test_a_network_and_a_plain_line(tmp_path, config, found):
    path = wordpress(tmp_path / "www", config)
    assert cron_host.network_by_plain_line(Site("a", path, scheduler="crontab")) is found
    assert not cron_host.network_by_plain_line(Site("a", path, scheduler="crontab", guard=True))
    assert not cron_host.network_by_plain_line(Site("a", path))


def test_what_wp_config_is_to_be_given(tmp_path):
    gone = wordpress(tmp_path / "gone")
    entries = [{"path": gone, "state": "absent"}, {"path": str(tmp_path / "away"), "state": "absent"}]
    sites = {"a": Site("a", "/srv/a"), "b": Site("b", "/srv/b", scheduler="none")}
    assert cron_host.constants(entries, sites) == [
        {"path": "/srv/a", "constants": {"DISABLE_WP_CRON": True}},
        {"path": gone, "absent": ["DISABLE_WP_CRON"]},
    ]


def test_cron_is_told_of_a_crontab_written_in_the_second_of_its_start(tmp_path):
    before = int(tmp_path.stat().st_mtime)
    cron_host.poke(str(tmp_path))
    assert int(tmp_path.stat().st_mtime) > before
    cron_host.poke(str(tmp_path / "missing"))
