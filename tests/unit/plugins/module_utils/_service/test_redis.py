# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import threading

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._service import redis
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage


class Server:
    """Redis as far as the probe goes; errors are given before the first answers."""

    def __init__(self, path, errors=(), forgets=False):
        self.store, self.errors, self.forgets, self.orders = {}, list(errors), forgets, []
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen(5)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            link, _peer = self.server.accept()
            with link, link.makefile("rb") as reader:
                words = []
                for _turn in range(int(reader.readline()[1:])):
                    words.append(reader.read(int(reader.readline()[1:])).decode())
                    reader.read(2)
                link.sendall(self.answer(words))

    def answer(self, words):
        self.orders.append(words)
        if self.errors:
            return f"-{self.errors.pop(0)}\r\n".encode()
        if words[0] == "SET" and not self.forgets:
            self.store[words[1]] = words[2]
        if words[0] == "GET":
            value = self.store.get(words[1])
            return b"$-1\r\n" if value is None else f"${len(value)}\r\n{value}\r\n".encode()
        return b":1\r\n" if words[0] == "DEL" else b"+OK\r\n"


def service(tmp_path, monkeypatch, running=True):
    monkeypatch.setattr(redis.Redis, "running", lambda self: running)
    monkeypatch.setattr(redis, "PATIENCE", 2.0)
    return redis.Redis(13, {"socket": str(tmp_path / "s")})


def test_probe_writes_reads_and_leaves_nothing(tmp_path, monkeypatch):
    server = Server(tmp_path / "s", errors=["LOADING Redis is loading the dataset in memory"])
    service(tmp_path, monkeypatch).probe()
    assert [order[0] for order in server.orders] == ["SET", "SET", "GET", "DEL"]
    # whatever happens, the key goes by itself
    assert server.orders[1][3:] == ["EX", "60"]


def test_probe_of_a_server_that_forgets(tmp_path, monkeypatch):
    Server(tmp_path / "s", forgets=True)
    with pytest.raises(ServiceError, match="does not return what was written"):
        service(tmp_path, monkeypatch).probe()


def test_probe_quotes_the_server(tmp_path, monkeypatch):
    Server(tmp_path / "s", errors=["MISCONF disk"] * 100)
    with pytest.raises(ServiceError, match="MISCONF disk"):
        service(tmp_path, monkeypatch).probe()


def test_probe_without_a_server(tmp_path, monkeypatch):
    with pytest.raises(ServiceError, match="No such file"):
        service(tmp_path, monkeypatch, running=False).probe()


def test_every_change_restarts():
    change = Change("/etc/redis/redis.conf", b"a", b"b")
    assert redis.Redis(12, {}).restart_reason([change]) == "/etc/redis/redis.conf"
    assert redis.Redis(12, {}).restart_reason([]) is None


def check(tmp_path, monkeypatch, rc, words, start=None):
    """Check a staged redis.conf with a redis-server that answers so; start gets its options."""
    seen = {}

    def run(argv, **_options):
        options = dict(zip(argv[2::2], argv[3::2]))
        seen.update(options, config=argv[1])
        if start:
            start(options)
        return Result(tuple(argv), rc, "", words)

    monkeypatch.setattr(redis, "run", run)
    monkeypatch.setattr(redis, "_end", lambda _pidfile: None)
    (tmp_path / "etc/redis").mkdir(parents=True)
    try:
        redis.Redis(13, {}).check(Stage(str(tmp_path)))
    finally:
        assert not os.path.exists(seen["--dir"])
    return seen


def test_check_starts_a_throwaway_server(tmp_path, monkeypatch):
    seen = check(tmp_path, monkeypatch, 0, "", lambda options: Server(options["--unixsocket"]))
    assert seen["config"] == f"{tmp_path}/etc/redis/redis.conf"
    # it touches nothing of the real one, and listens nowhere else
    for name in ("--dir", "--unixsocket", "--pidfile", "--logfile"):
        assert seen[name].startswith(seen["--dir"])
    assert (seen["--port"], seen["--save"], seen["--appendonly"]) == ("0", "", "no")


def test_check_names_the_line(tmp_path, monkeypatch):
    words = "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 46\n"
    words += ">>> 'x y'\nBad directive"
    with pytest.raises(ServiceError, match=r"^/etc/redis/redis.conf:46: .* >>> 'x y' Bad directive$"):
        check(tmp_path, monkeypatch, 1, words)


def test_check_quotes_the_log_of_a_server_that_ends(tmp_path, monkeypatch):
    def start(options):
        with open(options["--logfile"], "w", encoding="utf-8") as log:
            log.write("9:C 21 Nov 2026 21:09:40.104 # WARNING Memory overcommit must be enabled!\n")
            log.write("9:M 21 Nov 2026 21:09:40.125 * Running mode=standalone, port=0.\n")
            log.write("9:M 21 Nov 2026 21:09:40.125 # >>> 'x y'\n9:M 21 Nov 2026 21:09:40.125 # no call: aborting\n")

    with pytest.raises(
        ServiceError, match=r"^redis-server does not start with /etc/redis/redis.conf:\n>>> 'x y'\nno call: aborting$"
    ):
        check(tmp_path, monkeypatch, 0, "", start)
