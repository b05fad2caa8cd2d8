# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._service import _postgrey_watch as watch
from ansible_collections.postmeister.host.plugins.module_utils._service import postgrey
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage

DEFAULTS = 'POSTGREY_OPTS="--inet=127.0.0.1:10023 --delay=300"\n'


@contextmanager
def policy(exempt: set[str], answer: str = "action=DUNNO\n\n") -> Iterator[int]:
    """A policy service that knows some clients; yields its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked: dict[str, str] = {}
            for raw in self.rfile:
                name, sep, value = raw.decode().rstrip("\n").partition("=")
                if sep:
                    asked[name] = value
                else:
                    assert asked["request"] == "smtpd_access_policy"
                    known = asked["client_name"] in exempt
                    self.wfile.write(answer.encode() if known else b"action=DEFER_IF_PERMIT 4.2.0 Greylisted\n\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def service(port: int, token: str = "") -> postgrey.Postgrey:
    return postgrey.Postgrey(13, {"port": port, "token": token})


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgrey, "PATIENCE", 0.2)
    monkeypatch.setattr(postgrey.Postgrey, "running", lambda _self: True)


def test_a_daemon_with_the_new_lists_passes() -> None:
    with policy({watch.NAME, "s1.postgrey.invalid"}) as port:
        service(port, "s1.postgrey.invalid").probe()
        service(port).probe()


@pytest.mark.usefixtures("hurry")
def test_a_daemon_with_the_former_lists_does_not() -> None:
    with policy({watch.NAME, "s1.postgrey.invalid"}) as port, pytest.raises(ServiceError, match="the former lists"):
        service(port, "s2.postgrey.invalid").probe()


@pytest.mark.usefixtures("hurry")
def test_nobody_listens() -> None:
    with policy(set()) as port:
        pass
    with pytest.raises(ServiceError, match="does not answer: Connection refused"):
        service(port).probe()


STARTED = "2026/11/21-23:58:49 postgrey (type Net::Server::Multiplex) starting! pid(959)\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (f"{STARTED}ERROR: can't open lock file: {{}}/none/postgrey.lock\n", ""),
        # what Debian 13 says at each start
        (f"Attempt to call undefined import method\n{STARTED}ERROR: can't open lock file: {{}}/none\n", ""),
        ("Unknown option: dealy\n", "Unknown option: dealy"),
        ("Unmatched ( in regex at /usr/sbin/postgrey line 87\n", "Unmatched ( in regex"),
        (
            f"{{}}/etc/postgrey/whitelist_clients.local line 7: doesn't look like a hostname\n{STARTED}"
            "ERROR: can't open lock file: x\n",
            "/etc/postgrey/whitelist_clients.local line 7: doesn't look like a hostname",
        ),
        ("", "postgrey says nothing"),
    ],
)
def test_postgrey_reads_the_staged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/postgrey").write_text(DEFAULTS)
    asked: list[list[str]] = []

    def run(argv: list[str], check: bool) -> Result:
        assert not check
        asked.append(argv)
        return Result(tuple(argv), 2, "", words.replace("{}", str(tmp_path)))

    monkeypatch.setattr(postgrey, "run", run)
    if expected:
        with pytest.raises(ServiceError) as caught:
            service(1).check(Stage(str(tmp_path)))
        assert expected in str(caught.value) and str(tmp_path) not in str(caught.value)
    else:
        service(1).check(Stage(str(tmp_path)))
    (argv,) = asked
    # neither the port nor the database of the daemon that runs
    assert not [word for word in argv if word.startswith("--inet") or "/var/lib/postgrey" in word]
    assert "--delay=300" in argv
    assert f"--whitelist-recipients={tmp_path}/etc/postgrey/whitelist_recipients.local" in argv
    assert f"--whitelist-clients={tmp_path}/etc/postgrey/whitelist_clients" in argv


def test_options_need_a_restart_and_lists_do_not() -> None:
    lists = [Change("/etc/postgrey/whitelist_clients.local", b"", b"x")]
    assert service(1).restart_reason(lists) is None
    assert service(1).restart_reason([*lists, Change(watch.DEFAULTS, b"", b"x")]) == watch.DEFAULTS


def test_the_watch_is_a_program_of_its_own() -> None:
    source = postgrey.companions()[postgrey.PROGRAM]
    compile(source, postgrey.PROGRAM, "exec")
    assert "ansible_collections" not in source and "from ." not in source


# --- the watch ---------------------------------------------------------------------------------------------------


class Told:
    """What the watch did; its world answers as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.problems: list[str] = []
        self.state = "active"
        self.mails: list[str] = []
        self.commands: list[tuple[str, ...]] = []
        monkeypatch.setattr(watch, "STATE", str(tmp_path / "watch.json"))
        monkeypatch.setattr(watch, "DEFAULTS", str(tmp_path / "none"))
        monkeypatch.setattr(watch, "problem", lambda *_asked: self.problems.pop(0))
        monkeypatch.setattr(watch, "systemctl", self.systemctl)
        monkeypatch.setattr(watch, "tell", lambda subject, text: self.mails.append(f"{subject}\n{text}"))

    def systemctl(self, *argv: str) -> str:
        if argv[0] == "show":
            return self.state
        self.commands.append(argv)
        return ""

    def look(self, *problems: str) -> int:
        self.problems = list(problems)
        status = watch.main()
        assert self.problems == []
        return status


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    return Told(monkeypatch, tmp_path)


def test_all_is_well(told: Told) -> None:
    assert told.look("") == 0
    assert (told.mails, told.commands) == ([], [])


def test_a_daemon_that_was_stopped_stays_so_and_root_hears_of_it_once(told: Told) -> None:
    told.state = "inactive"
    assert told.look("Connection refused") == 1
    assert told.look("Connection refused") == 1
    assert told.commands == []
    (mail,) = told.mails
    assert mail.startswith("postgrey does not answer\nThe reason: Connection refused.")
    assert "postgrey.service is stopped" in mail
    assert told.look("") == 0
    assert told.mails[1].startswith("postgrey answers again")
    assert told.look("") == 0
    assert len(told.mails) == 2


def test_a_daemon_that_hangs_is_restarted(told: Told) -> None:
    assert told.look("timed out", "timed out", "") == 0
    assert [command[0] for command in told.commands] == ["kill", "restart"]
    (mail,) = told.mails
    assert mail.startswith("postgrey did not answer and was restarted\nThe reason: timed out.")
    assert told.look("") == 0
    assert len(told.mails) == 1


def test_a_daemon_that_was_only_busy_is_left_alone(told: Told) -> None:
    assert told.look("timed out", "") == 0
    assert (told.mails, told.commands) == ([], [])


def test_root_hears_of_the_end_although_the_first_question_came_too_early(told: Told) -> None:
    told.state = "inactive"
    assert told.look("Connection refused") == 1
    told.state = "active"
    assert told.look("Connection refused", "") == 0
    assert [mail.partition("\n")[0] for mail in told.mails] == ["postgrey does not answer", "postgrey answers again"]
    assert told.commands == []


def test_a_restart_that_does_not_help(told: Told) -> None:
    assert told.look("timed out", "timed out", "Connection refused") == 1
    (mail,) = told.mails
    assert "It was restarted." in mail and "Connection refused. Until it answers" in mail
    # the next looks try again, without a word
    assert told.look("timed out", "timed out", "timed out") == 1
    assert len(told.mails) == 1


def test_the_answer_is_what_counts() -> None:
    with policy({watch.NAME}) as port:
        assert watch.problem("127.0.0.1", port) == ""
    with policy(set()) as port:
        assert "DEFER_IF_PERMIT" in watch.problem("127.0.0.1", port)
    assert "refused" in watch.problem("127.0.0.1", port)
