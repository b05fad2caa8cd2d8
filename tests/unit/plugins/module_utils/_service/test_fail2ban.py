# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, Result
from ansible_collections.postmeister.host.plugins.module_utils._service import fail2ban
from ansible_collections.postmeister.host.plugins.module_utils._service._base import Change, ServiceError, Stage

EXEMPT = ["127.0.0.0/8", "::1", "198.51.100.0/24"]
JAIL = "/etc/fail2ban/jail.d/postmeister.conf"


class Client:
    """fail2ban-client, nft and systemctl as far as the service asks them: words → (exit status, output)."""

    def __init__(self, **answers):
        self.answers = {
            "fail2ban-client get mail ignoreip": (
                0,
                "These IP addresses/networks are ignored:\n|- 127.0.0.0/8\n|- ::1\n`- 198.51.100.0/24",
            ),
            "fail2ban-client get mail banip": (0, ""),
            **{key.replace("_", " "): value for key, value in answers.items()},
        }
        self.orders = []

    def __call__(self, argv, check=True, **_options):
        self.orders.append(" ".join(argv))
        for words, (status, out) in self.answers.items():
            if self.orders[-1].startswith(words):
                if check and status:
                    raise CommandError(f"{self.orders[-1]}: exit status {status}\n{out}")
                return Result(tuple(argv), status, out, "")
        return Result(tuple(argv), 0, "", "")


@pytest.fixture
def made(monkeypatch):
    def make(**answers):
        client = Client(**answers)
        monkeypatch.setattr(fail2ban, "run", client)
        monkeypatch.setattr("ansible_collections.postmeister.host.plugins.module_utils._service._base.run", client)
        monkeypatch.setattr(fail2ban, "PATIENCE", 0.0)
        return client, fail2ban.SERVICE(13, {"jail": "mail", "exempt": EXEMPT})

    return make


def test_probe_bans_and_frees_two_addresses(made):
    client, service = made()
    service.probe()
    assert client.orders == [
        "fail2ban-client ping",
        "fail2ban-client get mail ignoreip",
        "fail2ban-client get mail banip",
        "fail2ban-client set mail banip 192.0.0.8",
        "nft get element inet f2b-table addr-set-mail { 192.0.0.8 }",
        "fail2ban-client set mail unbanip 192.0.0.8",
        "fail2ban-client set mail banip 100::8",
        "nft get element inet f2b-table addr6-set-mail { 100::ffff:9 }",
        "fail2ban-client set mail unbanip 100::8",
    ]


def test_probe_frees_who_became_exempt(made):
    client, service = made(**{"fail2ban-client get mail banip": (0, "198.51.100.7 203.0.113.9\n")})
    service.probe()
    assert "fail2ban-client set mail unbanip 198.51.100.7" in client.orders
    assert "fail2ban-client set mail unbanip 203.0.113.9" not in client.orders


def test_probe_sees_that_no_ban_reaches_the_firewall(made):
    client, service = made(**{"nft get element": (1, "Error: No such file or directory")})
    with pytest.raises(ServiceError, match=r"does not reach the firewall .*No such file"):
        service.probe()
    assert client.orders[-1] == "fail2ban-client set mail unbanip 192.0.0.8"


def test_probe_sees_that_another_file_takes_the_exemption_away(made):
    _client, service = made(**{"fail2ban-client get mail ignoreip": (0, "`- 127.0.0.0/8")})
    with pytest.raises(ServiceError, match=r"mail: ::1, 198.51.100.0/24 would be banned: another file"):
        service.probe()


@pytest.mark.parametrize(
    ("answers", "reasons"),
    [
        ({}, []),
        ({"fail2ban-client get mail banip": (0, "203.0.113.9")}, []),
        ({"fail2ban-client get mail banip": (0, "198.51.100.7")}, ["198.51.100.7: banned, and exempt"]),
        (
            {"fail2ban-client get mail banip": (255, "Sorry but the jail 'mail' does not exist")},
            ["fail2ban-client get mail banip: exit status 255\nSorry but the jail 'mail' does not exist"],
        ),
        # not running is told by others
        ({"fail2ban-client": (255, "no socket"), "systemctl is-active": (3, "")}, []),
    ],
)
def test_missing(made, answers, reasons):
    _client, service = made(**answers)
    assert service.missing() == reasons


def test_check_quotes_the_live_path(made, tmp_path):
    stage = Stage(str(tmp_path))
    _client, service = made(**{"fail2ban-client -c": (255, f"ERROR Unable to read {tmp_path}/etc/fail2ban/filter.d/x")})
    with pytest.raises(ServiceError, match=r"^ERROR Unable to read /etc/fail2ban/filter.d/x"):
        service.check(stage)


@pytest.mark.parametrize(
    ("dest", "before", "after", "reason"),
    [
        (JAIL, b"[mail]\nmaxretry = 5\nport = 993\n", b"[mail]\nmaxretry = 4\nport = 993\n", None),
        (JAIL, b"[mail]\nport = 993\n", b"[mail]\nport = 993,465\n", f"port in {JAIL}"),
        (JAIL, b"[mail]\n", b"[mail]\nblocktype = drop\n", f"blocktype in {JAIL}"),
        ("/etc/fail2ban/action.d/x.conf", b"a", b"b", "/etc/fail2ban/action.d/x.conf"),
        ("/etc/fail2ban/filter.d/x.conf", b"failregex = a", b"failregex = b", None),
    ],
)
def test_restart_reason(made, dest, before, after, reason):
    _client, service = made()
    assert service.restart_reason([Change(dest, before, after)]) == reason
