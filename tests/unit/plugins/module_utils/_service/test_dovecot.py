# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import threading

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.module_utils._service import dovecot
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage

NOBODY = dovecot.NOBODY


class Server:
    """Answers each line whose beginning it knows; an answer of None is no answer at all."""

    def __init__(self, path, greeting, answers, ending="\r\n"):
        self.greeting, self.answers, self.ending, self.heard = greeting, answers, ending, []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        link, _peer = self.socket.accept()
        if self.greeting:
            link.sendall((self.greeting + self.ending).encode())
        # The probe may hang up in the middle; that ends the conversation here as well.
        with contextlib.suppress(ConnectionError):
            for line in link.makefile("r", newline="\n"):
                self.heard.append(line)
                for start, answer in self.answers.items():
                    if line.startswith(start) and answer is not None:
                        link.sendall((answer + self.ending).encode())


class Commands:
    """Stands in for run(): argv beginnings and what they answer; a list is answered one after the other."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", " "): answer for name, answer in answers.items()}
        self.calls = []

    def __call__(self, argv, check=True, **_options):
        text = " ".join(argv)
        self.calls.append(text)
        for start, answer in self.answers.items():
            if text.startswith(start):
                answer = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer
                rc, out, err = answer[0] if isinstance(answer, list) else answer
                if check and rc:
                    raise CommandError(f"{text}: exit status {rc}")
                return Result(tuple(argv), rc, out, err)
        raise AssertionError(f"not expected: {text}")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(dovecot, "TIMEOUT", 0.3)
    monkeypatch.setattr(dovecot, "PATIENCE", 0.3)
    return tmp_path


def line(tmp_path, greeting, answers, ending="\r\n"):
    server = Server(tmp_path / "socket", greeting, answers, ending)
    return dovecot._connect("it", str(tmp_path / "socket"), ending=ending), server


def service(**options):
    return dovecot.Dovecot(13, options)


IMAP = {
    "a CAPABILITY": "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\na OK done",
    "b AUTHENTICATE": "+ ",
    "*": "b BAD aborted",
}


@pytest.mark.parametrize(
    ("greeting", "change", "error"),
    [
        ("* OK ready.", {}, None),
        ("* BYE Auth process broken", {}, r"answered \* BYE Auth process broken"),
        ("* OK ready.", {"a CAPABILITY": "* CAPABILITY IMAP4rev1 LOGINDISABLED\r\na OK done"}, "offers no login"),
        ("* OK ready.", {"a CAPABILITY": "a BAD what?"}, "CAPABILITY is answered a BAD what?"),
        ("* OK ready.", {"b AUTHENTICATE": "b NO [UNAVAILABLE] later"}, r"b NO \[UNAVAILABLE\] later"),
        ("* OK ready.", {"b AUTHENTICATE": None}, "no answer after 0.3 s"),
        ("", {}, "no answer after 0.3 s"),
    ],
)
def test_imap(host, greeting, change, error):
    talk, _server = line(host, greeting, {**IMAP, **change})
    if error is None:
        service()._probe_imap(talk)
    else:
        with pytest.raises(ServiceError, match=error):
            service()._probe_imap(talk)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (f"550 5.1.1 <{NOBODY}> User doesn't exist: {NOBODY}", None),
        ("451 4.3.0 Temporary internal error", "451 4.3.0 Temporary internal error"),
        ("250 2.1.5 OK", "is answered 250 2.1.5 OK"),
    ],
)
def test_delivery_knows_a_fault_from_an_unknown_user(host, answer, error):
    talk, server = line(
        host,
        "220 ready",
        {"LHLO": "250-mail\r\n250 PIPELINING", "MAIL": "250 2.1.0 OK", "RCPT": answer, "QUIT": "221 bye"},
    )
    if error is None:
        service()._probe_delivery(talk)
    else:
        with pytest.raises(ServiceError, match=error):
            service()._probe_delivery(talk)
    assert f"RCPT TO:<{NOBODY}>\r\n" in server.heard


OFFER = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nDONE"


@pytest.mark.parametrize(
    ("offer", "answer", "error"),
    [
        (OFFER, f"FAIL\t1\tuser={NOBODY}", None),
        (OFFER, f"FAIL\t1\tuser={NOBODY}\ttemp", "nobody can log in"),
        (OFFER, f"FAIL\t1\tuser={NOBODY}\tcode=temp_fail", "nobody can log in"),
        (OFFER, f"OK\t1\tuser={NOBODY}", "is answered OK"),
        ("VERSION\t1\t2\nMECH\tLOGIN\tplaintext\nDONE", "", "does not offer PLAIN"),
    ],
)
def test_login_is_refused_and_not_for_a_fault(host, offer, answer, error):
    talk, server = line(host, "", {"CPID": offer, "AUTH": answer}, ending="\n")
    if error is None:
        service()._probe_login(talk)
        # An address would count as an attack, and as one of fail2ban's.
        assert not any("rip=" in text for text in server.heard)
    else:
        with pytest.raises(ServiceError, match=error):
            service()._probe_login(talk)


@pytest.mark.parametrize(
    ("answer", "error"),
    [("action=DUNNO\n", None), ("action=OK\n", "action=OK"), ("action=DEFER_IF_PERMIT fault\n", "DEFER_IF_PERMIT")],
)
def test_policy_lets_other_rules_decide(host, answer, error):
    talk, _server = line(host, "", {"\n": answer}, ending="\n")
    if error is None:
        service()._probe_policy(talk)
    else:
        with pytest.raises(ServiceError, match=error):
            service()._probe_policy(talk)


def test_pop3_and_managesieve_offer_what_they_should(host):
    (host / "p").mkdir()
    (host / "m").mkdir()
    talk, _server = line(host / "p", "+OK ready.", {"CAPA": "+OK\r\nUIDL\r\nSASL PLAIN LOGIN\r\n."})
    service()._probe_pop3(talk)
    talk, _server = line(host / "m", '"SIEVE" "fileinto"\r\n"STARTTLS"\r\nOK "ready."', {})
    service()._probe_managesieve(talk)


def test_managesieve_without_tls_is_a_fault(host):
    talk, _server = line(host, '"SASL" "PLAIN"\r\nOK "ready."', {})
    with pytest.raises(ServiceError, match="offers no TLS"):
        service()._probe_managesieve(talk)


def test_a_socket_that_never_appears_is_named(host):
    with pytest.raises(ServiceError, match="LMTP: No such file or directory"):
        dovecot._connect("LMTP", str(host / "nothing"))


@pytest.mark.parametrize(
    ("home", "listed", "error"),
    [
        ("/var/vmail/one.test/a", (0, "INBOX\nJunk\n", ""), None),
        ("/var/vmail/%d/%n", (0, "INBOX\n", ""), "lies in /var/vmail/%d/%n, not in /var/vmail/one.test/a"),
        ("/var/vmail/one.test/a", (75, "", "Permission denied"), "cannot be opened: Permission denied"),
    ],
)
def test_the_mailbox_is_the_users_own(monkeypatch, home, listed, error):
    monkeypatch.setattr(dovecot, "run", Commands(doveadm_user=(0, home + "\n", ""), doveadm_mailbox=listed))
    if error is None:
        service()._probe_mailbox("a@one.test")
    else:
        with pytest.raises(ServiceError, match=error):
            service()._probe_mailbox("a@one.test")


STATUS = "name   pid available\nconfig {} 1000\nauth 7 1\n"


def test_reload_waits_for_the_new_configuration(host, monkeypatch):
    commands = Commands(
        doveadm_process=[(0, STATUS.format(41), ""), (0, STATUS.format(41), ""), (0, STATUS.format(42), "")],
        systemctl_reload=(0, "", ""),
    )
    monkeypatch.setattr(dovecot, "run", commands)
    service().reload()
    assert [call.split()[0] for call in commands.calls] == ["doveadm", "systemctl", "doveadm", "doveadm"]


def test_reload_that_did_not_happen_is_an_error(host, monkeypatch):
    monkeypatch.setattr(
        dovecot, "run", Commands(doveadm_process=(0, STATUS.format(41), ""), systemctl_reload=(0, "", ""))
    )
    with pytest.raises(ServiceError, match="kept its former configuration"):
        service().reload()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    folder = tmp_path / "stage/etc/dovecot/sieve"
    folder.mkdir(parents=True)
    (folder / "junk.sieve").write_text("keep;\n")
    (folder / "junk.svbin").write_text("not a script")
    live = tmp_path / "dovecot.conf"
    live.write_text("")
    monkeypatch.setattr(dovecot, "CONFIG", str(live))
    return Stage(str(tmp_path / "stage"))


@pytest.mark.parametrize(
    ("doveconf", "sievec", "error"),
    [
        ((0, "", ""), (0, "", ""), None),
        (
            (89, "", "doveconf: Fatal: Error in configuration file {} line 3: Unknown setting: x\n"),
            None,
            "line 3: Unknown",
        ),
        ((0, "", "doveconf: Warning: please do not\n"), None, "Warning: please do not"),
        ((0, "", ""), (1, "", "junk: line 1: error: unknown command 'x'"), "sieve/junk.sieve:\njunk: line 1: error"),
    ],
)
def test_check(stage, monkeypatch, doveconf, sievec, error):
    commands = Commands(
        **{"doveconf_-n": doveconf, "sievec": sievec, "doveconf_-c": (0, "maildir\n", "")},
    )
    monkeypatch.setattr(dovecot, "run", commands)
    if error is None:
        service().check(stage)
        assert [call.split()[3].rsplit("/", 1)[1] for call in commands.calls if call.startswith("sievec")] == [
            "junk.sieve"
        ]
    else:
        with pytest.raises(ServiceError, match=error):
            service().check(stage)


@pytest.mark.parametrize(
    ("debian", "former", "wanted", "trace", "refused"),
    [
        (13, "maildir", "mbox", "Maildir", True),
        (13, "mbox", "maildir", "inbox", True),
        (12, "maildir:~/Maildir", "mbox:~/mail:INBOX=~/inbox", "Maildir", True),
        (13, "maildir", "mbox", "sieve", False),
        (13, "maildir", "mbox", "inbox", False),
        (13, "maildir", "maildir", "inbox", False),
    ],
)
def test_another_format_is_refused_while_mail_lies_there(
    stage, tmp_path, monkeypatch, debian, former, wanted, trace, refused
):
    (tmp_path / "mail/one.test/a" / trace).mkdir(parents=True)
    (tmp_path / "mail/.sieve/junk/Maildir").mkdir(parents=True)

    def run(argv, **_options):
        text = "" if argv[0] == "sievec" or "-n" in argv else wanted if "/stage/" in argv[2] else former
        return Result(tuple(argv), 0, text, "")

    monkeypatch.setattr(dovecot, "run", run)
    checked = dovecot.Dovecot(debian, {"mail_root": str(tmp_path / "mail")})
    if refused:
        with pytest.raises(ServiceError, match=r"one\.test/a holds mail in the format"):
            checked.check(stage)
    else:
        checked.check(stage)


@pytest.mark.parametrize("text", [b"import_environment = $x A=b\n", b"import_environment {\n  A = b\n}\n"])
def test_a_new_environment_needs_a_restart(text):
    before = b"protocols = imap\n"
    assert service().restart_reason([Change(dovecot.CONFIG, before, before + text)]) == "import_environment"
    assert service().restart_reason([Change(dovecot.CONFIG, before + text, b"x = y\n" + text)]) is None


def test_base_dir_needs_a_restart_and_protocols_do_not():
    before = b"protocols = imap\nbase_dir = /run/dovecot\n"
    assert service().restart_reason([Change(dovecot.CONFIG, before, b"protocols = pop3\n")]) is None
    assert service().restart_reason([Change(dovecot.CONFIG, before, b"base_dir = /run/other\n")]) == "base_dir"
    assert service().restart_reason([Change("/etc/dovecot/sieve/junk.sieve", before, b"keep;")]) is None


def test_dovecot_conf_is_swapped_last():
    ranks = [service().swap_rank(dest) for dest in (dovecot.CONFIG, "/etc/dovecot/sieve/junk.sieve")]
    assert ranks[0] > ranks[1]


def test_first_user_skips_what_is_no_user(tmp_path):
    users = tmp_path / "dovecot-users"
    users.write_text("# comment\n\na@one.test:{SHA512-CRYPT}x::::::\nb@one.test:y\n")
    assert dovecot._first_user(str(users)) == "a@one.test"
    users.write_text("")
    assert dovecot._first_user(str(users)) == ""


@pytest.fixture
def mail(tmp_path, monkeypatch):
    """Dovecot for a user who is not there yet, and what useradd and usermod would make of it."""
    root, made = tmp_path / "vmail", {}

    def getpwnam(name):
        return pwd.struct_passwd((name, "x", os.getuid(), os.getgid(), "", *made[name]))

    def run(argv, check=True, **_options):
        if argv[0] == "getent":
            return Result(tuple(argv), 2, "", "")
        home, shell = argv.index("--home-dir" if argv[0] == "useradd" else "--home"), argv.index("--shell")
        made[argv[-1]] = (argv[home + 1], argv[shell + 1])
        return Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(dovecot.pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(dovecot, "run", run)
    service = dovecot.Dovecot(13, {"owner": "vmail", "mail_root": str(root)})
    service.root, service.made = root, made
    return service


def test_owner_and_folder_of_all_mail_are_made_once(mail):
    assert mail.missing() == ["user vmail: is not there", f"{mail.root}: is not there"]
    mail.provide()
    assert mail.made == {"vmail": (str(mail.root), "/usr/sbin/nologin")}
    assert mail.root.stat().st_mode & 0o7777 == 0o770
    assert mail.missing() == []


@pytest.mark.parametrize(("known", "options"), [(True, []), (False, ["--uid", str(os.getuid())])])
def test_mail_of_another_host_keeps_the_number_of_its_owner(mail, monkeypatch, known, options):
    def getpwuid(number):
        if not known:
            raise KeyError(number)

    monkeypatch.setattr(dovecot.pwd, "getpwuid", getpwuid)
    assert dovecot._former_number(str(mail.root)) == []
    mail.root.mkdir()
    assert dovecot._former_number(str(mail.root)) == options
    seen = []
    inner = dovecot.run
    monkeypatch.setattr(dovecot, "run", lambda argv, **given: seen.append(list(argv)) or inner(argv, **given))
    mail.provide()
    useradd = next(argv for argv in seen if argv[0] == "useradd")
    assert useradd[2 : 2 + len(options)] == options and ("--uid" in useradd) is bool(options)


def test_damage_to_owner_or_folder_is_named_and_repaired(mail):
    mail.provide()
    mail.root.chmod(0o755)
    mail.made["vmail"] = ("/home/vmail", "/bin/bash")
    assert mail.missing() == [
        f"user vmail: home /home/vmail and shell /bin/bash, not {mail.root} and /usr/sbin/nologin",
        f"{mail.root}: mode 0755, not 0770",
    ]
    mail.provide()
    assert mail.missing() == []
    mail.root.rmdir()
    assert mail.missing() == [f"{mail.root}: is not there"]
    mail.provide()
    assert mail.missing() == []


def test_without_an_owner_nothing_is_looked_for(tmp_path):
    service = dovecot.Dovecot(13, {"mail_root": str(tmp_path / "none")})
    assert service.missing() == []
    service.provide()
    assert not (tmp_path / "none").exists()
