# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import config


def test_parse() -> None:
    wanted = config.parse(
        0,
        {
            "path": "/var/www/blog/",
            "constants": {"A": True, "DB_PASSWORD": "x"},
            "secrets": {"B": 5},
            "raw": {"C": " 60 * 60 "},
            "absent": ["D"],
        },
    )
    assert wanted.path == "/var/www/blog"
    assert wanted.constants == (
        {"name": "A", "value": True},
        {"name": "DB_PASSWORD", "value": "x"},
        {"name": "B", "value": 5},
        {"name": "C", "raw": "60 * 60"},
        {"name": "D", "absent": True},
    )
    assert wanted.secret == {"DB_PASSWORD", "B"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"constants": {"1A": 1}}, "sites[3].constants: 1A is no name of a PHP constant"),
        ({"constants": {"A\n": 1}}, "is no name"),
        ({"absent": ["TRUE"]}, "sites[3].absent: TRUE is no name"),
        ({"constants": {"A": 1}, "absent": ["A"]}, "sites[3].absent: A is given twice"),
        ({"constants": {"A": [1]}}, "sites[3].constants.A: a list or dictionary"),
        ({"constants": {"A": float("inf")}}, "not a finite number"),
        ({"constants": {"A": 2**63}}, "beyond 64 bits"),
        ({"raw": {"A": 5}}, "sites[3].raw.A: not a PHP expression"),
        ({"raw": {"A": "  "}}, "not a PHP expression"),
    ],
)
def test_parse_refuses(given: dict[str, object], words: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(3, {"path": "/x", **given})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *[(name, True) for name in ("DB_PASSWORD", "AUTH_KEY", "nonce_salt", "SMTP_PASS", "API_TOKEN", "MY_SECRET")],
        *[(name, False) for name in ("DISABLE_WP_CRON", "WP_CACHE_KEYS", "DB_NAME", "SALTED")],
    ],
)
def test_looks_secret(name: str, secret: bool) -> None:
    assert config.looks_secret(name) is secret


def wordpress(folder: Path) -> Path:
    (folder / "wp-includes").mkdir(parents=True)
    (folder / "wp-includes" / "version.php").touch()
    return folder


def test_locate(tmp_path: Path) -> None:
    inside = wordpress(tmp_path / "a")
    (inside / "wp-config.php").touch()
    assert config.locate(str(inside)) == str(inside / "wp-config.php")
    above = wordpress(tmp_path / "b" / "html")
    (tmp_path / "b" / "wp-config.php").touch()
    assert config.locate(str(above)) == str(tmp_path / "b" / "wp-config.php")
    fragment = tmp_path / "config-default.php"
    fragment.touch()
    assert config.locate(str(fragment)) == str(fragment)


def test_locate_does_not_take_the_file_of_another_wordpress(tmp_path: Path) -> None:
    outer = wordpress(tmp_path)
    (outer / "wp-config.php").touch()
    (outer / "wp-settings.php").touch()
    inner = wordpress(tmp_path / "blog")
    with pytest.raises(config.ConfigError, match=r"no wp-config\.php here, nor in the folder above"):
        config.locate(str(inner))


def test_locate_follows_only_trusted_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = wordpress(tmp_path / "a")
    target = tmp_path / "target.php"
    target.touch()
    (folder / "wp-config.php").symlink_to(target)
    assert config.locate(str(folder)) == str(target)
    real = os.stat(target)
    monkeypatch.setattr(os, "lstat", lambda _path: os.stat_result((*real[:4], 12345, *real[5:])))
    with pytest.raises(config.ConfigError, match="a symlink of another user"):
        config.locate(str(folder))


def test_plan_hides_secrets() -> None:
    changes = [
        {"name": "A", "line": 1, "before": "1", "after": "2"},
        {"name": "DB_PASSWORD", "line": 2, "before": "'old'", "after": "'new'"},
        {"name": "B", "line": 0, "before": None, "after": "'canary'"},
        {"name": "C_KEY", "line": 3, "before": "'canary'", "after": None},
    ]
    plan = config.plan(changes, frozenset({"B"}))
    assert plan.change == {"A": ("1", "2"), "DB_PASSWORD": (config.HIDDEN, config.HIDDEN)}
    assert (plan.create, plan.delete) == ({"B": config.HIDDEN}, {"C_KEY": config.HIDDEN})


def test_planned_says_what_would_be_written() -> None:
    wanted = config.parse(0, {"path": "/x", "constants": {"A": True}, "raw": {"B": "1 + 1"}, "absent": ["C"]})
    assert config.planned("/x/wp-config.php", wanted).diff()["after"] == "define( 'A', true );\ndefine( 'B', 1 + 1 );\n"


def test_absent(tmp_path: Path) -> None:
    assert config.absent(str(tmp_path / "nothing")) and config.absent(str(tmp_path))
    (tmp_path / "x").touch()
    assert not config.absent(str(tmp_path))
