# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._service import _base, postfix
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage
from ansible_collections.postmeister.host.plugins.module_utils._service._known import service_class
from ansible_collections.postmeister.host.plugins.module_utils._service._smtp import Listener, NoAnswer, Wanted
from ansible_collections.postmeister.host.plugins.module_utils._service.postfix import Postfix

MAIN = "/etc/postfix/main.cf"
MASTER = "/etc/postfix/master.cf"


class Programs:
    """Answers of Postfix's programs; recorded on Postfix 3.10."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: dict[str, tuple[int, str, str]] = {}

    def run(self, argv: Sequence[str], **_more: Any) -> Result:
        self.calls.append(list(argv))
        rc, out, err = self.answers.get(" ".join(word for word in argv if not word.startswith("/")), (0, "", ""))
        return Result(tuple(argv), rc, out, err)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(postfix, "run", programs.run)
    monkeypatch.setattr(_base, "run", programs.run)
    return programs


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    folder = tmp_path / "etc" / "postfix"
    folder.mkdir(parents=True)
    (folder / "main.cf").write_text(
        "# foo = bar in a comment\nmyhostname = a.test\nfoo = bar\nmydestination =\n $nonexist\n"
    )
    (folder / "master.cf").write_text("smtp inet n - n - - smtpd\n -o foo_bar=x\n")
    return Stage(str(tmp_path))


def test_registry() -> None:
    assert service_class("postfix") is Postfix
    with pytest.raises(KeyError):
        service_class("sendmail")


def test_swap_order() -> None:
    service = Postfix(13, {})
    assert sorted([MAIN, MASTER, "/etc/postfix/maps/a"], key=service.swap_rank) == ["/etc/postfix/maps/a", MASTER, MAIN]


def test_check_reads_the_stage_only(programs: Programs, stage: Stage) -> None:
    Postfix(13, {}).check(stage)

    folder = stage.path("/etc/postfix")
    assert programs.calls == [["postconf", "-c", folder, option] for option in ("-n", "-M", "-P")]


@pytest.mark.parametrize(
    ("rc", "said", "told"),
    [
        (0, "postconf: warning: {}/main.cf: unused parameter: foo=bar", f"{MAIN}, line 3: unused parameter: foo=bar"),
        (
            0,
            "postconf: warning: {}/main.cf: undefined parameter: nonexist",
            f"{MAIN}, line 5: undefined parameter: nonexist",
        ),
        (
            0,
            "postconf: warning: {}/master.cf: unused parameter: foo_bar=x",
            f"{MASTER}, line 2: unused parameter: foo_bar=x",
        ),
        (
            0,
            "postconf: warning: {}/main.cf, line 6: overriding earlier entry: foo=bar",
            f"{MAIN}, line 6: overriding earlier entry: foo=bar",
        ),
        (
            1,
            "postconf: fatal: {}/main.cf, line 6: missing '=' after attribute name: \"x\"",
            f"fatal: {MAIN}, line 6: missing '=' after attribute name: \"x\"",
        ),
        (
            1,
            "postconf: fatal: file {}/master.cf: line 152: bad field count",
            f"fatal: file {MASTER}: line 152: bad field count",
        ),
    ],
)
def test_checkers_words_with_file_and_line(programs: Programs, stage: Stage, rc: int, said: str, told: str) -> None:
    err = said.format(stage.path("/etc/postfix"))
    programs.answers = {"postconf -c -n": (rc, "", f"{err}\n"), "postconf -c -M": (rc, "", f"{err}\n")}

    with pytest.raises(ServiceError) as caught:
        Postfix(13, {}).check(stage)

    assert str(caught.value) == told


def test_checker_that_dies_without_a_word(programs: Programs, stage: Stage) -> None:
    programs.answers = {"postconf -c -P": (-9, "killed", "")}
    with pytest.raises(ServiceError, match=r"^killed$"):
        Postfix(13, {}).check(stage)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"a = 1\n", b"a = 2\n", None),
        (b"inet_interfaces = all\n", b"inet_interfaces = 127.0.0.1\n", f"inet_interfaces in {MAIN}"),
        (b"inet_interfaces = all\n", b"inet_interfaces =\n    all\n", None),
        (b"", b"inet_protocols = ipv4\n", f"inet_protocols in {MAIN}"),
        (None, b"myhostname = a\n", None),
        (b"inet_interfaces = all\n", None, f"inet_interfaces in {MAIN}"),
    ],
)
def test_settings_that_need_a_restart(before: bytes | None, after: bytes | None, reason: str | None) -> None:
    assert Postfix(13, {}).restart_reason([Change(MASTER, b"x", b"y"), Change(MAIN, before, after)]) == reason


def test_main_cf_syntax() -> None:
    text = b"# c = 1\na = 1\n\n # comment inside\n  2\n\t3\nb=x y\na = last\nnoise\n  continued noise\n"
    assert postfix.settings(text) == {"a": "last", "b": "x y"}
    assert postfix.settings(b"a = 1\n# c\n 2\n") == {"a": "1 2"}


TABLE = """smtp       inet  n       -       n       -       -       smtpd
submission inet  n       -       n       -       -       smtpd
198.51.100.25:465 inet n - n - - smtpd
smtp       unix  -       -       n       -       -       smtp
127.0.0.1:10025 inet n - n - - smtpd
"""


@pytest.mark.parametrize(
    ("options", "interfaces", "wanted"),
    [
        ({}, "all", [("127.0.0.1", 25), ("198.51.100.25", 465), ("127.0.0.1", 587)]),
        ({}, "loopback-only", [("127.0.0.1", 25), ("198.51.100.25", 465), ("127.0.0.1", 587)]),
        ({}, "mail.example.test, 198.51.100.7", [("198.51.100.7", 25), ("198.51.100.25", 465), ("198.51.100.7", 587)]),
        ({}, "[2001:db8::1]", [("2001:db8::1", 25), ("198.51.100.25", 465), ("2001:db8::1", 587)]),
        ({"address": "198.51.100.9"}, "all", [("198.51.100.9", 25), ("198.51.100.9", 465), ("198.51.100.9", 587)]),
        ({"ports": [25]}, "all", [("127.0.0.1", 25)]),
        ({"ports": ["25"]}, "all", [("127.0.0.1", 25)]),
    ],
)
def test_listeners(programs: Programs, options: dict[str, Any], interfaces: str, wanted: list[tuple[str, int]]) -> None:
    programs.answers = {"postconf -M": (0, TABLE, ""), "postconf -hx inet_interfaces": (0, f"{interfaces}\n", "")}

    listeners = Postfix(13, options)._listeners()

    assert [(listener.address, listener.port) for listener in listeners] == wanted
    assert {listener.port: (listener.tls, listener.login) for listener in listeners}.items() <= {
        25: ("", False),
        465: ("implicit", True),
        587: ("starttls", True),
    }.items()


def test_no_listener_is_no_mail_host(programs: Programs) -> None:
    programs.answers = {"postconf -M": (0, "smtp unix - - n - - smtp\n", "")}
    with pytest.raises(ServiceError, match="there is no listener for mail"):
        Postfix(13, {})._listeners()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(postfix, "time", clock)
    return clock


def probe(
    monkeypatch: pytest.MonkeyPatch, answers: list[Exception | None], running: bool = True
) -> list[tuple[Listener, Wanted]]:
    asked: list[tuple[Listener, Wanted]] = []

    def transaction(where: Listener, wanted: Wanted) -> None:
        asked.append((where, wanted))
        answer = answers[min(len(asked), len(answers)) - 1]
        if answer:
            raise answer

    monkeypatch.setattr(postfix, "transaction", transaction)
    monkeypatch.setattr(Postfix, "running", lambda _self: running)
    return asked


def test_probe_asks_each_listener(programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.answers = {"postconf -M": (0, TABLE, "")}
    asked = probe(monkeypatch, [None])
    options = {"hostname": "mail.test", "recipient": "postmaster@a.test", "foreign": "x@b.test", "auth": False}

    Postfix(13, options).probe()

    assert [listener.port for listener, _wanted in asked] == [25, 465, 587]
    assert asked[0][1] == Wanted("mail.test", "postmaster@a.test", "x@b.test", False)


def test_probe_waits_for_the_daemon_to_come_up(
    programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answers = {"postconf -M": (0, TABLE, "")}
    probe(monkeypatch, [NoAnswer("refused")] * 20 + [None])
    Postfix(13, {}).probe()
    assert 4 < clock.now < postfix.PATIENCE_SILENT


def test_probe_gives_up_on_wrong_answers_sooner(
    programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answers = {"postconf -M": (0, TABLE, "")}
    asked = probe(monkeypatch, [ServiceError("answers 451")])
    with pytest.raises(ServiceError, match="answers 451"):
        Postfix(13, {}).probe()
    # Each try may cost the postmaster a notice.
    assert 2 <= len(asked) <= 5
    assert clock.now < postfix.PATIENCE_SILENT / 2


def test_probe_does_not_wait_for_the_dead(programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.answers = {"postconf -M": (0, TABLE, "")}
    probe(monkeypatch, [NoAnswer("refused")], running=False)
    with pytest.raises(ServiceError, match=r"refused\npostfix status: the master process is gone"):
        Postfix(13, {}).probe()
    assert clock.now < 3


def test_answers_of_a_daemon_that_then_dies_do_not_count(
    programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.answers = {"postconf -M": (0, TABLE, "")}
    probe(monkeypatch, [None], running=False)
    with pytest.raises(ServiceError, match="the master process is gone"):
        Postfix(13, {}).probe()


def test_reload_waits_until_master_has_acted(programs: Programs, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = iter([10, 10, 10, 11])
    monkeypatch.setattr(Postfix, "_pickup", lambda _self: next(pids))
    Postfix(12, {}).reload()
    assert programs.calls == [["postfix", "reload"]]
    assert not list(pids)


def test_log_lines_since_the_change(programs: Programs) -> None:
    log = 'warning: unknown smtpd restriction: "x"\nwarning: A1: undeliverable postmaster notification discarded\n'
    programs.answers = {
        "journalctl --quiet --no-pager --output=cat --priority=warning --since=@99 SYSLOG_FACILITY=2": (0, log * 2, "")
    }
    assert Postfix(13, {}).words(99.9) == 'warning: unknown smtpd restriction: "x"'


def test_log_lines_name_the_place(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.cf").write_text(
        "# permit_foo in a comment\nsmtpd_client_restrictions =\n permit_mynetworks,\n permit_foo\nx = reject\n"
    )
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n  -o smtpd_helo_restrictions=reject_foo\n")
    monkeypatch.setattr(postfix, "FOLDER", str(tmp_path))
    journal = "journalctl --quiet --no-pager --output=cat --priority=warning --since=@99 SYSLOG_FACILITY=2"
    told = {
        "permit_foo": f" ({tmp_path}/main.cf, line 4: smtpd_client_restrictions)",
        "reject_foo": f" ({tmp_path}/master.cf, line 2: smtpd_helo_restrictions)",
        "reject_fo": "",
    }
    for word, place in told.items():
        warning = f'warning: unknown smtpd restriction: "{word}"'
        programs.answers[journal] = (0, f"{warning}\n", "")
        assert Postfix(13, {}).words(99.9) == warning + place
