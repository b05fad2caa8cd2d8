# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

pytest.importorskip("dns")

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import dns.tsig
from ansible_collections.postmeister.host.plugins.module_utils._tls import hook

SETTINGS = {
    "server": "192.0.2.53",
    "port": 5353,
    "key_name": "acme.",
    "key_secret": "Q0FOQVJZLUNBTkFSWQ==",
    "key_algorithm": "hmac-sha256",
    "wait": 0,
}
OWNER = "_acme-challenge.mail.example.test."


class Dns:
    """Authoritative servers, as far as dns.query.tcp() sees them."""

    def __init__(self):
        self.records, self.updates, self.rcode, self.deaf = set(), [], dns.rcode.NOERROR, set()

    def tcp(self, query, where, timeout=None, port=53):
        if where in self.deaf:
            raise OSError("no route")
        if query.opcode() == dns.opcode.UPDATE:
            self.updates.append((where, port, query))
            answer = dns.message.Message(query.id)
            answer.set_rcode(self.rcode)
            if self.rcode == dns.rcode.NOERROR:
                self.records |= {b"".join(item.strings).decode() for rrset in query.update for item in rrset}
            return answer
        answer = dns.message.make_response(query)
        if query.question[0].rdtype == dns.rdatatype.SOA:
            answer.authority.append(dns.rrset.from_text("example.test.", 9, "IN", "SOA", "ns. h. 1 1 1 1 1"))
        elif self.records:
            answer.answer.append(dns.rrset.from_text(OWNER, 9, "IN", "TXT", *sorted(self.records)))
        return answer


@pytest.fixture
def server(monkeypatch):
    result = Dns()
    monkeypatch.setattr(dns.query, "tcp", result.tcp)
    monkeypatch.setattr(hook, "servers_of", lambda zone: {})
    return result


def run(tmp_path, event, settings=None):
    (tmp_path / "dns.json").write_text(json.dumps(settings or SETTINGS))
    return hook.main([str(tmp_path), event, "mail.example.test", "token", "value"])


def test_the_challenge_is_set_signed_in_its_zone(server, tmp_path):
    assert run(tmp_path, "deploy_challenge") == 0
    where, port, update = server.updates[0]
    assert (where, port, str(update.zone[0].name)) == ("192.0.2.53", 5353, "example.test.")
    assert update.keyring.name == dns.name.from_text("acme.")
    assert update.keyring.algorithm == dns.tsig.HMAC_SHA256
    assert [str(rrset) for rrset in update.update] == [f'{OWNER} 60 IN TXT "value"']


def test_only_that_value_is_taken_back(server, tmp_path):
    assert run(tmp_path, "clean_challenge") == 0
    assert [str(rrset) for rrset in server.updates[0][2].update] == [f'{OWNER} 0 NONE TXT "value"']


def test_a_record_that_was_left_behind_is_taken_back_once(server, tmp_path):
    run(tmp_path, "deploy_challenge")
    hook.clean_up(str(tmp_path))
    hook.clean_up(str(tmp_path))
    assert [str(rrset) for update in server.updates for rrset in update[2].update] == [
        f'{OWNER} 60 IN TXT "value"',
        f'{OWNER} 0 NONE TXT "value"',
    ]


def test_other_events_touch_nothing(server, tmp_path):
    assert run(tmp_path, "deploy_cert") == 0
    assert hook.main([str(tmp_path), "this_hookscript_is_broken"]) == 0
    assert server.updates == []


def test_a_refusal_names_server_zone_and_key_but_no_secret(server, tmp_path, capsys):
    server.rcode = dns.rcode.REFUSED
    assert run(tmp_path, "deploy_challenge") == 1
    told = capsys.readouterr().err
    assert f"192.0.2.53: refuses to change {OWNER} TXT in zone example.test. with key acme.: REFUSED" in told
    assert SETTINGS["key_secret"] not in told


def test_a_server_that_does_not_show_the_record_is_named(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hook, "servers_of", lambda zone: {"ns1.": ["192.0.2.1"], "ns2.": ["192.0.2.2", "192.0.2.3"]})
    server.deaf = {"192.0.2.1", "192.0.2.2"}
    assert run(tmp_path, "deploy_challenge") == 1
    assert capsys.readouterr().err.endswith("is not shown by: ns1.\n")


def test_tlsa_records_of_other_kinds_do_not_count(monkeypatch):
    records = ["3 1 1 " + "ab" * 32, "2 1 1 " + "cd" * 32, "3 0 1 " + "ef" * 32]

    class Answer:
        rrset = dns.rrset.from_text("x.", 9, "IN", "TLSA", *records)

    asked = []
    monkeypatch.setattr(dns.resolver, "resolve", lambda *args, **more: asked.append(args) or Answer)
    assert hook.published_tlsa("mail.example.test") == {"ab" * 32}
    assert asked == [("_25._tcp.mail.example.test.", "TLSA")]


@pytest.mark.parametrize(("problem", "expected"), [(dns.resolver.NXDOMAIN, set()), (dns.resolver.NoNameservers, None)])
def test_no_record_is_not_the_same_as_no_answer(monkeypatch, problem, expected):
    def resolve(*args, **more):
        raise problem

    monkeypatch.setattr(dns.resolver, "resolve", resolve)
    assert hook.published_tlsa("mail.example.test") == expected
