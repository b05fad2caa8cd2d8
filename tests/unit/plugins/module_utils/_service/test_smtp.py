# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._service._base import ServiceError
from ansible_collections.postmeister.host.plugins.module_utils._service._smtp import (
    Listener,
    NoAnswer,
    Wanted,
    transaction,
)

WANTED = Wanted("probe.example.test", "postmaster@example.test", "a@b.invalid")
GOOD = {
    "EHLO": "250-mail.example.test\r\n250 SIZE",
    "MAIL": "250 Ok",
    "RCPT TO:<postmaster@example.test>": "250 Ok",
    "RCPT TO:<a@b.invalid>": "554 5.7.1 Relay access denied",
    "DATA": "354 End data with <CR><LF>.<CR><LF>",
    "RSET": "250 Ok",
    "QUIT": "221 Bye",
}


@contextmanager
def server(
    answers: dict[str, str], tls: ssl.SSLContext | None = None, implicit: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """An SMTP server that answers a line by the longest key that it begins with."""
    heard: list[str] = []

    def serve() -> None:
        with listener.accept()[0] as raw:
            connection: socket.socket = raw
            try:
                if implicit and tls:
                    connection = tls.wrap_socket(raw, server_side=True)
                connection.sendall(b"220 mail.example.test ESMTP\r\n")
                stream = connection.makefile("rb")
                while data := stream.readline():
                    line = data.decode(errors="replace").strip()
                    heard.append(line)
                    if line == "STARTTLS" and tls:
                        connection.sendall(b"220 Ready\r\n")
                        connection = tls.wrap_socket(connection, server_side=True)
                        stream = connection.makefile("rb")
                        continue
                    key = max((key for key in answers if line.upper().startswith(key.upper())), key=len, default="")
                    if answers.get(key) == "close":
                        return
                    connection.sendall(f"{answers.get(key, '502 What?')}\r\n".encode())
            except OSError:
                return
            finally:
                if connection is not raw:
                    connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
    thread.join(5)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path: Path = tmp_path_factory.mktemp("tls") / "mail.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=another.test"]
    subprocess.run([*command, "-keyout", str(path), "-out", f"{path}.crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{path}.crt", str(path))
    return context


def test_healthy_server(tls: ssl.SSLContext) -> None:
    with server(GOOD) as (port, heard):
        transaction(Listener("127.0.0.1", port), WANTED, 5)

    assert heard == [
        "ehlo probe.example.test",
        "MAIL FROM:<>",
        "RCPT TO:<a@b.invalid>",
        "RCPT TO:<postmaster@example.test>",
        "DATA",
    ]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"RCPT": "451 4.3.5 Server configuration error"},
            r"RCPT TO:<a@b\.invalid> is not refused for good: 451 4\.3\.5 Server",
        ),
        (
            {"RCPT TO:<postmaster@example.test>": "451 4.3.5 Server configuration error"},
            r"RCPT TO:<postmaster@example\.test> is answered 451 4\.3\.5 Server configuration error",
        ),
        ({"RCPT TO:<postmaster@example.test>": "550 5.1.1 unknown"}, r"is answered 550"),
        ({"RCPT TO:<a@b.invalid>": "250 Ok"}, r"is an open relay: RCPT TO:<a@b\.invalid> is accepted: 250 Ok"),
        ({"DATA": "451 4.3.5 Server configuration error"}, r"DATA is answered 451 4\.3\.5"),
        ({"MAIL": "451 4.7.1 Service unavailable"}, r"MAIL FROM:<> is answered 451"),
        ({"EHLO": "502 no"}, r"EHLO is answered 502"),
    ],
)
def test_sick_server(answers: dict[str, str], message: str) -> None:
    healthy = {key: value for key, value in GOOD.items() if not any(key.startswith(new) for new in answers)}
    with server({**healthy, **answers}) as (port, _heard), pytest.raises(ServiceError, match=message) as caught:
        transaction(Listener("127.0.0.1", port), WANTED, 5)
    assert not isinstance(caught.value, NoAnswer)
    assert str(caught.value).startswith(f"127.0.0.1:{port}: ")


@pytest.mark.parametrize("code", ["454 4.7.1 Relay access denied", "550 no"])
def test_ways_to_refuse_a_foreign_recipient(code: str) -> None:
    with server({**GOOD, "RCPT TO:<a@b.invalid>": code}) as (port, _heard):
        transaction(Listener("127.0.0.1", port), WANTED, 5)


def test_no_foreign_address_no_question() -> None:
    with server({**GOOD, "RCPT TO:<a@b.invalid>": "250 Ok"}) as (port, heard):
        transaction(Listener("127.0.0.1", port), Wanted("probe.example.test", "postmaster@example.test"), 5)
    assert not [line for line in heard if "b.invalid" in line]


def test_a_rule_that_spares_the_postmaster_is_reached_with_an_ordinary_address() -> None:
    wanted = Wanted("probe.example.test", "postmaster@example.test", ordinary="alice@example.test")
    for answer in ("250 Ok", "450 4.2.0 Greylisted", "550 5.7.1 no"):
        with server({**GOOD, "RCPT TO:<alice@example.test>": answer}) as (port, _heard):
            transaction(Listener("127.0.0.1", port), wanted, 5)
    broken = {**GOOD, "RCPT TO:<alice@example.test>": "451 4.3.5 Server configuration error"}
    with server(broken) as (port, _heard), pytest.raises(ServiceError, match=r"<alice@example\.test> is answered 451"):
        transaction(Listener("127.0.0.1", port), wanted, 5)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswer, match=f"127.0.0.1:{port}: Connection refused"):
        transaction(Listener("127.0.0.1", port), WANTED, 5)


@pytest.mark.parametrize("at", ["EHLO", "MAIL", "RCPT"])
def test_server_that_hangs_up(at: str) -> None:
    answers = {key: value for key, value in GOOD.items() if not key.startswith(at)}
    with server({**answers, at: "close"}) as (port, _heard), pytest.raises(NoAnswer):
        transaction(Listener("127.0.0.1", port), WANTED, 5)


def test_server_that_hangs() -> None:
    """It accepts the connection and says nothing: SIGSTOP."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(NoAnswer, match="timed out"):
        transaction(Listener("127.0.0.1", listener.getsockname()[1]), WANTED, 0.3)


SUBMISSION = {**GOOD, "EHLO": "250-mail\r\n250-STARTTLS\r\n250 AUTH PLAIN", "RCPT": "554 5.7.1 Access denied"}
del SUBMISSION["RCPT TO:<postmaster@example.test>"]


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_submission(tls: ssl.SSLContext, mode: str) -> None:
    with server(SUBMISSION, tls, mode == "implicit") as (port, heard):
        transaction(Listener("127.0.0.1", port, mode, login=True), WANTED, 5)
    assert ("STARTTLS" in heard) == (mode == "starttls")
    assert "RCPT TO:<postmaster@example.test>" in heard


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"EHLO": "250-mail\r\n250 STARTTLS"}, "AUTH is not offered"),
        ({"EHLO": "250-mail\r\n250 AUTH PLAIN"}, "STARTTLS is not offered"),
        ({"RCPT": "451 4.3.5 Server configuration error"}, "451"),
        ({"MAIL": "451 4.3.5 Server configuration error"}, "451"),
        ({"RCPT TO:<a@b.invalid>": "250 Ok"}, "is an open relay"),
    ],
)
def test_sick_submission(tls: ssl.SSLContext, answers: dict[str, str], message: str) -> None:
    wanted = {key: value for key, value in SUBMISSION.items() if not any(key.startswith(new) for new in answers)}
    with server({**wanted, **answers}, tls) as (port, _heard), pytest.raises(ServiceError, match=message):
        transaction(Listener("127.0.0.1", port, "starttls", login=True), WANTED, 5)


def test_implicit_tls_without_tls() -> None:
    with server(SUBMISSION) as (port, _heard), pytest.raises(ServiceError, match="TLS fails"):
        transaction(Listener("127.0.0.1", port, "implicit", login=True), WANTED, 5)


def test_listener_names_itself() -> None:
    assert str(Listener("2001:db8::1", 25)) == "[2001:db8::1]:25"
