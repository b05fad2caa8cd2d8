# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files, _packages
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.module_utils._packages import PackageError


class System:
    """dpkg, apt and systemd, as far as the code asks them."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.stdin: list[str] = []
        self.states: dict[str, str] = {}
        self.query = ""
        self.virtual: set[str] = set()
        self.fail: dict[str, int] = {}
        self.policy: Path | None = None
        self.policies: list[str] = []

    def run(self, argv: Sequence[str], stdin: str | None = None, check: bool = True, **_more: Any) -> Result:
        words = [word for word in argv if not word.startswith("--option")]
        self.calls.append(words)
        if stdin is not None:
            self.stdin.append(stdin)
        if words[0] == "dpkg-query":
            return Result(tuple(argv), 1, self.query, "no packages found")
        if words[:2] == ["systemctl", "show"]:
            return Result(tuple(argv), 0, self.states.get(words[-1], "not-found") + "\n", "")
        if words[0] == "apt-get" and self.policy:
            self.policies.append(self.policy.read_text())
        for part, times in self.fail.items():
            if part in words and times > 0:
                self.fail[part] -= 1
                if check:
                    raise CommandError(f"{part}: failed")
                return Result(tuple(argv), 1, "", "dpkg: error: dpkg frontend lock was locked by another process")
        if words[0] == "apt-get" and "install" in words:
            real = [name for name in words[words.index("--") + 1 :] if name not in self.virtual]
            self.query = "".join(f"{name} installed 1.0\n" for name in real)
        return Result(tuple(argv), 0, "", "")

    def said(self, *words: str) -> list[list[str]]:
        return [call for call in self.calls if call[: len(words)] == list(words)]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> System:
    system = System()
    system.policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(_packages, "run", system.run)
    monkeypatch.setattr(_packages, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(_packages, "lists_are_old", lambda _now: False)
    monkeypatch.setattr(_packages, "_sleep", lambda _seconds: None)
    no_starts, write = _packages.no_starts, _packages.write
    monkeypatch.setattr(_packages, "no_starts", lambda: no_starts(str(system.policy)))

    def as_me(files: Sequence[_files.File]) -> list[str]:
        return write([_files.File(file.path, file.content, file.mode, os.getuid(), os.getgid()) for file in files])

    monkeypatch.setattr(_packages, "write", as_me)
    return system


def test_one_query_whatever_the_number(system: System) -> None:
    system.query = "postfix installed 3.10.13-0+deb13u1\nredis config-files 8.0\n"

    plan = _packages.plan(["postfix", "redis", "unbound"])

    assert sorted(plan.create) == ["redis", "unbound"]
    assert [call[0] for call in system.calls] == ["dpkg-query"]
    assert system.calls[0][-4:] == ["--", "postfix", "redis", "unbound"]


def test_nothing_missing(system: System) -> None:
    system.query = "postfix installed 3.10.13-0+deb13u1\n"
    assert not _packages.plan(["postfix"]).changed
    assert not _packages.plan([]).changed


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("postfix-", "ends in a minus, by which apt removes a package"),
        *(
            (name, "is not the name of a Debian package, without version, release and architecture")
            for name in (
                *("", "a", "foo=1.0", "foo/bookworm", "libfoo:amd64", "Foo", "foo bar", "-foo", "+foo", "foo_1"),
                *("foo\n", "foo*", "~nfoo", "./foo.deb"),
            )
        ),
    ],
)
def test_what_apt_would_take_for_something_else(name: str, reason: str) -> None:
    with pytest.raises(PackageError) as refused:
        _packages.check(["redis", name], {})
    assert str(refused.value) == f"names[1]: {name!r} {reason}"
    with pytest.raises(PackageError) as refused:
        _packages.check(["redis"], {name: {}})
    assert str(refused.value) == f"preseed: {name!r} {reason}"


def test_names_that_look_odd() -> None:
    _packages.check(["g++", "libstdc++6", "0ad", "php8.4-cli", "libgtk2.0-0"], {"7zip": {}})


def test_virtual_package_is_missing_after_all(system: System) -> None:
    system.virtual = {"mail-transport-agent", "awk"}

    with pytest.raises(PackageError, match=r"no package of the name awk, mail-transport-agent: "):
        _packages.install(["awk", "mail-transport-agent", "postfix"], [], {}, 1)

    assert system.policy and not system.policy.exists()


def test_only_units_that_are_not_there_are_masked(system: System) -> None:
    system.states = {"redis-server.service": "loaded"}

    masked = _packages.install(["postfix", "redis"], ["postfix.service", "redis-server.service"], {}, 1)

    assert masked == ["postfix.service"]
    assert system.said("systemctl", "mask") == [["systemctl", "mask", "postfix.service"]]
    install = system.said("apt-get")[0]
    assert install == ["apt-get", "--yes", "--quiet", "install", "--no-install-recommends", "--", "postfix", "redis"]
    assert system.calls.index(["systemctl", "mask", "postfix.service"]) < system.calls.index(install)


def test_answers_for_missing_packages_only(system: System) -> None:
    preseed = {
        "postfix": {"postfix/main_mailer_type": "No configuration", "postfix/chattr": False},
        "redis": {"redis/x": "y"},
    }

    _packages.install(["postfix"], [], preseed, 1)

    assert system.stdin == [
        "postfix postfix/chattr boolean false\npostfix postfix/main_mailer_type string No configuration\n"
    ]


def test_answer_with_a_line_break_is_refused(system: System) -> None:
    with pytest.raises(CommandError, match=r"^preseed\.postfix\.a/b: an answer is one line$"):
        _packages.install(["postfix"], [], {"postfix": {"a/b": "x\nredis redis/x string evil"}}, 1)
    assert system.calls == []


def test_nothing_may_start_during_the_installation(system: System) -> None:
    _packages.install(["postfix"], [], {}, 1)

    assert "exit 101" in system.policies[0]
    assert system.policy and not system.policy.exists()


def test_policy_goes_when_the_installation_fails(system: System) -> None:
    system.fail = {"install": 2}

    with pytest.raises(CommandError):
        _packages.install(["postfix"], [], {}, 1)

    assert system.policy and not system.policy.exists()


def test_somebody_elses_policy_comes_back(system: System) -> None:
    assert system.policy
    system.policy.write_text("#!/bin/sh\nexit 0\n")
    system.policy.chmod(0o750)

    _packages.install(["postfix"], [], {}, 1)

    assert "exit 101" in system.policies[0]
    assert system.policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert system.policy.stat().st_mode & 0o777 == 0o750
    assert sorted(os.listdir(system.policy.parent)) == ["lock", "policy-rc.d"]


@pytest.mark.parametrize("foreign", [False, True])
def test_policy_of_a_killed_run_is_known_by_its_marker(system: System, foreign: bool) -> None:
    assert system.policy
    system.policy.write_bytes(_packages.SCRIPT)
    if foreign:
        (system.policy.parent / ".policy-rc.d.postmeister-old").write_text("foreign")
    assert _packages.leftover(str(system.policy))

    _packages.remove_policy(str(system.policy))

    assert system.policy.exists() == foreign
    assert not foreign or system.policy.read_text() == "foreign"
    assert len(os.listdir(system.policy.parent)) == int(foreign)
    assert not _packages.leftover(str(system.policy))


def test_foreign_policy_is_not_ours(system: System) -> None:
    assert system.policy
    system.policy.write_text("#!/bin/sh\nexit 101\n")

    assert not _packages.leftover(str(system.policy))
    _packages.remove_policy(str(system.policy))
    assert system.policy.exists()


def test_stale_lists_are_a_second_chance(system: System) -> None:
    """A package that is gone from the archive is found again after an update."""
    system.fail = {"install": 1}

    _packages.install(["postfix"], [], {}, 1)

    assert [call[3] for call in system.said("apt-get")] == ["install", "update", "install"]


def test_lists_are_refreshed_first_when_old(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages, "lists_are_old", lambda _now: True)
    system.fail = {"install": 1}

    with pytest.raises(CommandError):
        _packages.install(["postfix"], [], {}, 1)

    assert [call[3] for call in system.said("apt-get")] == ["update", "install"]


def test_dpkg_lock_is_waited_for(system: System) -> None:
    system.fail = {"--configure": 3}
    _packages.install(["postfix"], [], {}, 60)
    assert len(system.said("dpkg", "--configure")) == 4

    system.fail = {"--configure": 3}
    with pytest.raises(CommandError, match="locked by another process"):
        _packages.install(["postfix"], [], {}, 0)


def test_age_of_the_lists(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    assert _packages.lists_are_old(0, [str(lists)])
    lists.mkdir()
    assert _packages.lists_are_old(0, [str(lists)])
    (lists / "deb.debian.org_dists_trixie_main_binary-amd64_Packages.lz4").write_text("")
    now = lists.stat().st_mtime
    assert not _packages.lists_are_old(now + 80000, [str(lists)])
    assert _packages.lists_are_old(now + 90000, [str(lists)])
