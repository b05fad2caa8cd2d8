# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import Result
from ansible_collections.postmeister.host.plugins.module_utils._service import _base, rspamd
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage

ANSWERS = {
    "sign": [
        (b"i", struct.pack("!I", 1) + b"DKIM-Signature\0v=1; a=rsa-sha256; d=example.test; s=r1; b=x\0"),
        (b"i", struct.pack("!I", 2) + b"DKIM-Signature\0v=1; d=example.test;\n\ts=e1; b=x\0"),
        (b"a", b""),
    ],
    "plain": [(b"h", b"X-Spam\0Yes\0"), (b"m", struct.pack("!I", 2) + b"X-Old\0\0"), (b"c", b"")],
    "reject": [(b"y", b"554 5.7.1 no\0")],
    "tempfail": [(b"t", b"")],
    "odd": [(b"z", b"")],
}


class Filter:
    """The filter's side of the milter protocol: wants no answers to steps, like rspamd, and gives one at the end."""

    def __init__(self, path, answer, silent=0xFF080):
        self.steps, self.answer, self.silent = [], answer, silent
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen(5)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            link, _peer = self.server.accept()
            reader = link.makefile("rb")
            while head := reader.read(4):
                data = reader.read(struct.unpack("!I", head)[0])
                self.steps.append((data[:1], data[1:]))
                replies = []
                if data[:1] == b"O":
                    replies = [(b"O", struct.pack("!III", 6, 0x3F, self.silent))]
                elif data[:1] == b"E":
                    replies = ANSWERS[self.answer]
                elif data[:1] not in (b"D", b"Q") and not self.silent:
                    replies = [(b"c", b"")]
                for code, rest in replies:
                    link.sendall(struct.pack("!I", len(rest) + 1) + code + rest)
                if data[:1] == b"Q":
                    break
            link.close()


class Controller:
    """An HTTP server of one answer on a unix socket."""

    def __init__(self, path, answer):
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen(5)
        self.answer = answer
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            link, _peer = self.server.accept()
            link.recv(4096)
            link.sendall(self.answer)
            # rspamd keeps the connection open
            threading.Timer(20, link.close).start()


def handover(path, **more):
    with rspamd.Milter(str(path), timeout=60) as milter:
        headers = [("From", " a@example.test"), ("Subject", " x")]
        verdict = milter.message("a@example.test", ["b@example.test", "c@example.test"], headers, b"hi\r\n", **more)
        return verdict, milter


@pytest.mark.parametrize("silent", [0xFF080, 0])
def test_milter_sends_every_step_in_order(tmp_path, silent):
    fake = Filter(tmp_path / "s", "sign", silent)
    verdict, milter = handover(tmp_path / "s", login="alice", client=("h.test", "2001:db8::1"), host="mail.test")
    assert verdict == "accept"
    assert [value.split("s=")[1][:2] for _name, value in milter.added] == ["r1", "e1"]
    assert b"".join(code for code, _data in fake.steps[:13]) == b"ODCHDMRRTLLNB"
    sent = dict(fake.steps)
    assert sent[b"C"] == b"h.test\x006\0\x002001:db8::1\0"
    assert sent[b"M"] == b"<a@example.test>\0"
    assert (sent[b"L"], sent[b"B"]) == (b"Subject\0 x\0", b"hi\r\n")
    macros = [data for code, data in fake.steps if code == b"D"]
    assert macros[0].startswith(b"Cj\0mail.test\0")
    assert macros[1] == b"Mi\0probe\0{auth_authen}\0alice\0{auth_type}\0PLAIN\0"


@pytest.mark.parametrize(
    ("answer", "verdict"), [("plain", "continue"), ("reject", "554 5.7.1 no"), ("tempfail", "tempfail")]
)
def test_milter_verdicts(tmp_path, answer, verdict):
    Filter(tmp_path / "s", answer)
    found, milter = handover(tmp_path / "s")
    assert found == verdict
    if answer == "plain":
        assert (milter.added, milter.removed) == ([("X-Spam", "Yes")], [("X-Old", 2)])


def test_milter_that_makes_no_sense(tmp_path):
    Filter(tmp_path / "s", "odd")
    with pytest.raises(rspamd.MilterReply, match="b'z'"):
        handover(tmp_path / "s")


def test_milter_body_in_chunks(tmp_path):
    fake = Filter(tmp_path / "s", "sign")
    with rspamd.Milter(str(tmp_path / "s")) as milter:
        assert milter.message("a@b", ["c@d"], [], b"x" * 150_000) == "accept"
    assert [len(data) for code, data in fake.steps if code == b"B"] == [65535, 65535, 18930]


PONG = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npong\r\n"


def service(tmp_path, monkeypatch, running=True, **options):
    monkeypatch.setattr(rspamd.Rspamd, "running", lambda self: running)
    sockets = {"milter": str(tmp_path / "m"), "controller": str(tmp_path / "c")}
    return rspamd.Rspamd(13, {**sockets, **options})


def test_probe(tmp_path, monkeypatch):
    Filter(tmp_path / "m", "sign")
    Controller(tmp_path / "c", PONG)
    service(tmp_path, monkeypatch, domain="example.test", selectors=["r1", "e1"]).probe()
    service(tmp_path, monkeypatch, domain="").probe()


def test_probe_misses_a_signature(tmp_path, monkeypatch):
    Filter(tmp_path / "m", "sign")
    with pytest.raises(ServiceError, match="not signed with the selector new"):
        service(tmp_path, monkeypatch, domain="example.test", selectors=["r1", "new"]).probe()


@pytest.mark.parametrize("answer", ["reject", "tempfail"])
def test_probe_of_a_filter_that_refuses(tmp_path, monkeypatch, answer):
    Filter(tmp_path / "m", answer)
    with pytest.raises(ServiceError, match="to an ordinary message"):
        service(tmp_path, monkeypatch).probe()


def test_probe_waits_for_the_start(tmp_path, monkeypatch):
    threading.Timer(0.5, lambda: (Filter(tmp_path / "m", "sign"), Controller(tmp_path / "c", PONG))).start()
    service(tmp_path, monkeypatch).probe()


def test_probe_gives_up_when_it_does_not_run(tmp_path, monkeypatch):
    begin = time.monotonic()
    with pytest.raises(ServiceError, match="does not answer"):
        service(tmp_path, monkeypatch, running=False).probe()
    assert time.monotonic() - begin < 5


def test_controller_that_refuses(tmp_path):
    Controller(tmp_path / "c", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(OSError, match="403"):
        rspamd.ask_controller(str(tmp_path / "c"), "/ping")


def stage(tmp_path, monkeypatch, answers):
    """A stage and a rspamadm that answers by subcommand; returns the calls."""
    calls = []

    def run(argv, **_options):
        calls.append(list(argv))
        name = next((word for word in argv if word in answers), "")
        rc, out, err = answers.get(name, (0, "", ""))
        return Result(tuple(argv), rc, out, err)

    monkeypatch.setattr(rspamd, "run", run)
    (tmp_path / "etc/rspamd").mkdir(parents=True)
    return Stage(str(tmp_path)), calls


def test_check_reads_the_stage_only(tmp_path, monkeypatch):
    staged, calls = stage(tmp_path, monkeypatch, {"configdump": (0, "{}", "")})
    rspamd.Rspamd(13, {}).check(staged)
    root = f"{tmp_path}/etc/rspamd"
    for call in calls:
        assert call[:3] == ["rspamadm", f"--var=CONFDIR={root}", f"--var=LOCAL_CONFDIR={root}"]
        assert f"{root}/rspamd.conf" in call
    assert [call[3] for call in calls] == ["configtest", "configdump"]


@pytest.mark.parametrize(
    "answer", [(1, "syntax BAD", "bad line"), (0, "syntax OK", "unknown worker attribute: x; bad line")]
)
def test_check_quotes_the_checker(tmp_path, monkeypatch, answer):
    staged, _calls = stage(tmp_path, monkeypatch, {"configtest": answer})
    with pytest.raises(ServiceError, match="bad line"):
        rspamd.Rspamd(13, {}).check(staged)


def test_check_makes_the_groups_first(tmp_path, monkeypatch):
    staged, calls = stage(tmp_path, monkeypatch, {"configdump": (0, "{}", "")})
    (tmp_path / "etc/sysusers.d").mkdir()
    (tmp_path / "etc/sysusers.d/postmeister-rspamd.conf").write_text("g vmail -\n")
    rspamd.Rspamd(13, {}).check(staged)
    assert calls[0] == ["systemd-sysusers", f"{tmp_path}/etc/sysusers.d/postmeister-rspamd.conf"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("garbage!", "not a private key"),
        ("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKx\n", "in base64, not in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n", ""),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n", ""),
        ("Zzus5rZSwgNXrwfiSpiX76gN8WxQMs7CM4MXAKstwi9iXbLhjyyCyEpkFLFLRbpV1AGBeOL+B+veY7aOySavNg==\n", ""),
    ],
)
def test_check_of_keys(tmp_path, monkeypatch, content, words):
    key = tmp_path / "s.key"
    if content is not None:
        key.write_text(content)
    selectors = [{"selector": "s", "path": str(key)}]
    dump = json.dumps({"domain": {"a.test": {"selectors": selectors}}, "path": "/x/$domain.key"})
    staged, _calls = stage(tmp_path, monkeypatch, {"configdump": (0, dump, "")})
    if not words:
        rspamd.Rspamd(13, {}).check(staged)
        return
    with pytest.raises(ServiceError, match=words):
        rspamd.Rspamd(13, {}).check(staged)


@pytest.mark.parametrize(
    ("dest", "restart"),
    [
        ("/etc/rspamd/override.d/worker-proxy.inc", True),
        ("/etc/rspamd/local.d/worker-controller.inc", True),
        ("/etc/sysusers.d/postmeister-rspamd.conf", True),
        ("/etc/rspamd/rspamd.local.lua", False),
        ("/etc/rspamd/local.d/dkim_signing.conf", False),
    ],
)
def test_restart(dest, restart):
    assert rspamd.Rspamd(12, {}).restart_reason([Change(dest, b"a", b"b")]) == (dest if restart else None)


def reloads(monkeypatch, tmp_path, states):
    """A service whose processes are as in states, one after the other; the last one stays."""
    left = list(states)
    monkeypatch.setattr(rspamd, "run", lambda argv, **_options: Result(tuple(argv), 0, "7\n", ""))
    monkeypatch.setattr(rspamd, "workers", lambda parent: left.pop(0) if len(left) > 1 else left[0])
    monkeypatch.setattr(rspamd, "PATIENCE", 1.0)
    return service(tmp_path, monkeypatch)


OLD = {10: "rspamd_proxy", 11: "controller", 12: "hs_helper"}


def test_reload_waits_for_new_processes(tmp_path, monkeypatch):
    half = {**OLD, 20: "rspamd_proxy"}
    both = {**OLD, 20: "rspamd_proxy", 21: "controller"}
    # The old proxy is there for some seconds, and takes nothing new any more.
    full = {10: "", 20: "rspamd_proxy", 21: "controller"}
    reloads(monkeypatch, tmp_path, [OLD, OLD, half, both, full]).reload()
    for last in (half, both):
        with pytest.raises(ServiceError, match="goes on with the former"):
            reloads(monkeypatch, tmp_path, [OLD, last]).reload()


@pytest.mark.parametrize(
    ("before", "ahead", "compiles"),
    [(True, 0, False), (False, 0, True), (False, 2, False)],
    ids=["warm", "cold", "ahead"],
)
def test_the_domain_suffixes_are_compiled_once_and_not_by_the_daemon(tmp_path, monkeypatch, before, ahead, compiles):
    state, calls = tmp_path / "state", []
    state.mkdir()

    def run(argv, **_options):
        calls.append(list(argv))
        active = calls.count(argv) <= ahead if "is-active" in argv else True
        if argv == rspamd.COMPILE or ("is-active" in argv and ahead and not active):
            (state / "0123.hsmp").write_bytes(b"x" * 100)
        return Result(tuple(argv), 0 if active else 3, "", "")

    if before:
        (state / "0123.hsmp").write_bytes(b"x" * 100)
    # configtest makes these
    (state / "4567.hsmp").write_bytes(b"x" * 50)
    monkeypatch.setattr(rspamd, "SUFFIXES", 99)
    monkeypatch.setattr(rspamd, "STATE", str(state))
    monkeypatch.setattr(rspamd.time, "sleep", lambda _seconds: None)
    for module in (_base, rspamd):
        monkeypatch.setattr(module, "run", run)
    service(tmp_path, monkeypatch).restart()
    assert (rspamd.COMPILE in calls) is compiles
    assert calls.count(["systemctl", "restart", "rspamd.service"]) == 1 and calls[-1][1] == "restart"


def test_workers_are_children():
    assert rspamd.workers(os.getppid())[os.getpid()] == ""
    assert os.getpid() not in rspamd.workers(os.getpid())


@pytest.mark.parametrize(("blocked", "kind"), [("[]", "controller"), ("[signal.SIGUSR2]", "")])
def test_a_worker_that_was_told_to_end_serves_no_more(blocked, kind):
    """It blocks SIGUSR2 (rspamd's worker_util.c), and takes no connections from then on."""
    block = f"signal.pthread_sigmask(signal.SIG_BLOCK, {blocked})"
    code = f"import signal, time; {block}; print(flush=True); time.sleep(60)"
    argv = ["bash", "-c", 'exec -a "$0" "$@"', "rspamd: controller process (x)", sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        found = rspamd.workers(os.getpid())
        process.kill()
    assert found[process.pid] == kind
