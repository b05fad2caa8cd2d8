# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._resolver import conf
from ansible_collections.postmeister.host.plugins.module_utils._service import unbound
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError

CONF = b"""server:
    interface: 127.0.0.1
    interface: ::1   # both
    prefetch: yes
    trust-anchor: ". DS 1 8 2 AB"
remote-control:
    control-interface: /run/unbound.ctl
"""


class Resolver:
    """A DNS server of one answer, over UDP and TCP."""

    def __init__(self, flags):
        self.flags, self.queries = flags, []
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for target in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def answer(self, query):
        self.queries.append(query)
        return query[:2] + struct.pack("!H", 0x8180 | self.flags) + query[4:]

    def serve_udp(self):
        while True:
            query, peer = self.udp.recvfrom(512)
            self.udp.sendto(self.answer(query), peer)

    def serve_tcp(self):
        while True:
            link, _peer = self.tcp.accept()
            query = link.recv(512)[2:]
            answer = self.answer(query)
            # in two pieces, as TCP may
            link.sendall(struct.pack("!H", len(answer)) + answer[:5])
            link.sendall(answer[5:])
            link.close()


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("flags", "expected"), [(0x20, ("NOERROR", True)), (0, ("NOERROR", False)), (2, ("SERVFAIL", False))]
)
def test_ask_reads_code_and_ad_bit(tcp, flags, expected):
    server = Resolver(flags)
    assert unbound.ask("127.0.0.1", "mail.test.", "TLSA", tcp, port=server.port) == expected
    assert server.queries[0][2:] == struct.pack("!HHHHH", 0x0120, 1, 0, 0, 0) + b"\4mail\4test\0\0\64\0\1"


def test_the_root_has_no_label():
    server = Resolver(0x20)
    unbound.ask("127.0.0.1", ".", "NS", False, port=server.port)
    assert server.queries[0][12:] == b"\0\0\2\0\1"


@pytest.mark.parametrize(
    ("flags", "options", "words"),
    [
        (2, {}, "answers SERVFAIL"),
        (0, {}, "could not validate"),
        (3, {"name": "x.test", "type": "SOA"}, "asked for x.test SOA, answers NXDOMAIN"),
    ],
)
def test_probe_says_what_is_wrong(monkeypatch, flags, options, words):
    server = Resolver(flags)
    real = unbound.ask
    monkeypatch.setattr(unbound, "PATIENCE", 0.0)
    monkeypatch.setattr(unbound, "ask", lambda *query: real(*query, port=server.port))
    with pytest.raises(ServiceError, match=words):
        unbound.Unbound(13, {"addresses": ["127.0.0.1"], **options}).probe()


def test_probe_asks_over_both_transports(monkeypatch):
    server = Resolver(0x20)
    seen = []
    real = unbound.ask

    def ask(address, name, rrtype, tcp):
        seen.append(tcp)
        return real(address, name, rrtype, tcp, port=server.port)

    monkeypatch.setattr(unbound, "ask", ask)
    unbound.Unbound(13, {"addresses": ["127.0.0.1"]}).probe()
    assert seen == [False, True]


def test_an_ipv6_address_that_is_not_here_is_not_asked(monkeypatch):
    seen = set()

    def ask(address, name, rrtype, tcp):
        seen.add(address)
        return "NOERROR", True

    monkeypatch.setattr(unbound, "ask", ask)
    unbound.Unbound(13, {"addresses": ["127.0.0.1", "2001:db8:51::dead"]}).probe()
    assert seen == {"127.0.0.1"}


def test_settings_are_read_with_repetitions():
    assert unbound.settings(CONF)["interface"] == ["127.0.0.1", "::1"]
    assert unbound.settings(CONF)["trust-anchor"] == [". DS 1 8 2 AB"]
    assert "server" not in unbound.settings(CONF)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"prefetch: yes", b"prefetch: no", None),
        (b"interface: ::1   # both", b"", "interface"),
        (b"/run/unbound.ctl", b"/run/other.ctl", "control-interface"),
    ],
)
def test_what_needs_a_restart(before, after, reason):
    change = Change(unbound.CONFIG, CONF, CONF.replace(before, after))
    assert unbound.Unbound(13, {}).restart_reason([change]) == reason


def test_other_files_need_a_reload_only():
    assert unbound.Unbound(13, {}).restart_reason([Change("/etc/unbound/root.hints", None, b"port: 5")]) is None


def test_the_host_asks_it_only_when_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(conf, "RESOLV_CONF", str(tmp_path / "resolv.conf"))
    for name in ("DHCLIENT", "NETWORK_MANAGER"):
        monkeypatch.setattr(conf, name, (str(tmp_path / "none"), "x"))
    monkeypatch.setattr(conf, "DHCPCD", ())
    monkeypatch.setattr(conf, "_on", lambda unit: False)
    monkeypatch.setattr(_files, "uid_of", lambda owner: os.geteuid())
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: os.getegid())
    for none in ({}, {"resolv_conf": None}):
        assert unbound.Unbound(13, none).afterwards() == []
        unbound.Unbound(13, none).follow_up()
    assert not (tmp_path / "resolv.conf").exists()
    service = unbound.Unbound(13, {"resolv_conf": ["127.0.0.1", "::1"]})
    (told,) = service.afterwards()
    assert told["after_header"] == str(tmp_path / "resolv.conf")
    service.follow_up()
    assert (tmp_path / "resolv.conf").read_text() == told["after"]
    assert "nameserver 127.0.0.1\nnameserver ::1\noptions edns0 trust-ad\n" in told["after"]
    assert service.afterwards() == []


@pytest.mark.parametrize(
    ("addresses", "words"),
    [(["127.0.0.1x"], "'127.0.0.1x' is not an IP address"), (["::1"] * 4, "4 addresses"), ([], "0 addresses")],
)
def test_addresses_that_resolv_conf_cannot_hold(addresses, words):
    with pytest.raises(ServiceError, match=words):
        unbound.Unbound(13, {"resolv_conf": addresses}).afterwards()
