# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates of the role fail2ban, rendered by Ansible's own templar; its filter, tried on the daemons' own lines."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.postmeister.host.plugins.module_utils import _bans

ROLE = Path(__file__).resolve().parents[3] / "roles/fail2ban"
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def read(path: str, **given: Any) -> configparser.RawConfigParser:
    """Render a template and read it."""
    defaults = load("defaults/main.yml")
    options = {name.removeprefix("fail2ban_"): value for name, value in {**defaults, **given}.items()}
    variables = {
        **defaults,
        **given,
        "ansible_managed": "Ansible managed",
        "__fail2ban_checked": _bans.jail(options, "198.51.100.9 50022 198.51.100.25 22"),
    }
    text = trust_as_template((ROLE / f"templates/etc/fail2ban/{path}.j2").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=variables)
    parser = configparser.RawConfigParser(interpolation=None)
    parser.read_string(str(templar.template(text, escape_backslashes=False, overrides=OVERRIDES)))
    return parser


def test_defaults_are_those_of_the_spec() -> None:
    specs = load("meta/argument_specs.yml")["argument_specs"]
    assert specs["main"]["options"] == specs["configure"]["options"]
    assert load("defaults/main.yml") == {name: option["default"] for name, option in specs["main"]["options"].items()}


def test_jail() -> None:
    made = read("jail.d/postmeister.conf")
    assert made["DEFAULT"]["ignoreip"] == "127.0.0.0/8 ::1 198.51.100.9"
    assert (made["sshd"]["enabled"], made["sshd"]["backend"]) == ("true", "systemd")
    mail = {name: made["mail"][name] for name in ("maxretry", "findtime", "bantime", "bantime.maxtime", "port")}
    assert mail == {
        "maxretry": "5",
        "findtime": "600",
        "bantime": "600",
        "bantime.maxtime": "604800",
        "port": "110,143,465,587,993,995,4190",
    }
    assert made["mail"]["bantime.increment"] == "true"
    assert read("fail2ban.d/postmeister.conf")["DEFAULT"]["dbpurgeage"] == "605400"


def test_jail_as_the_operator_wants_it() -> None:
    made = read(
        "jail.d/postmeister.conf",
        fail2ban_ssh=False,
        fail2ban_bantime_max="10m",
        fail2ban_settings={"blocktype": "drop", "maxmatches": 3},
    )
    assert made["sshd"]["enabled"] == "false"
    assert made["mail"]["bantime.increment"] == "false"
    assert (made["mail"]["blocktype"], made["mail"]["maxmatches"]) == ("drop", "3")


def expressions() -> tuple[str, list[str]]:
    """The filter's expressions as fail2ban makes them, but for those of an address and of a line's beginning."""
    made = read("filter.d/postmeister-mail.conf")["Definition"]

    def plain(text: str) -> str:
        for name in ("_name", "_reason"):
            text = text.replace(f"%({name})s", made[name])
        text = text.replace("%(__prefix_line)s", r"\S+ dovecot\[\d+\]: ").replace(
            "<ADDR>", r"(?P<address>[0-9a-fA-F:.]+)"
        )
        text = re.sub(r"<F-([A-Z]+)>", lambda tag: f"(?P<{tag[1].lower()}>", text)
        return re.sub(r"</F-[A-Z]+>", ")", text)

    return plain(made["prefregex"]), [plain(line) for line in made["failregex"].splitlines()]


def found(line: str) -> str:
    """The address that is counted for a line; '' for none."""
    prefix, fails = expressions()
    begun = re.search(prefix, line)
    matches = [re.search(fail, begun["content"]) for fail in fails] if begun else []
    return next((match["address"] for match in matches if match), "")


@pytest.mark.parametrize(
    ("line", "address"),
    [
        # 2.3
        ("auth: passwd-file(alice@example.test,198.18.163.70,<U4hIOtJgvcDGEqNG>): Password mismatch", "198.18.163.70"),
        ("auth: passwd-file(nobody@example.test,198.18.163.70): unknown user", "198.18.163.70"),
        ("auth: passwd-file(alice@example.test,2001:db8:a3:1::66): Password mismatch", "2001:db8:a3:1::66"),
        (
            "auth-worker(812): conn unix:auth-worker (pid=811,uid=112): auth-worker<1>: "
            "sql(a@b.test,198.18.1.7,<U4h>): "
            "Password mismatch",
            "198.18.1.7",
        ),
        # 2.4
        (
            "auth-worker(alice@example.test,198.18.163.70)<4185><tvE2PdJgL77GEqNG>: request [2]: "
            "users: Password mismatch",
            "198.18.163.70",
        ),
        (
            "auth-worker(nobody@elsewhere.test,2001:db8:a3:1::66)<4805>: request [17]: users: unknown user",
            "2001:db8:a3:1::66",
        ),
        # the same login, told by the login process
        (
            "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): "
            "user=<alice@example.test>, "
            "method=PLAIN, rip=198.18.163.70, lip=198.18.163.12, TLS: Connection closed, session=<U4hIOtJgvcDGEqNG>",
            "",
        ),
        (
            "imap-login: Login aborted: Connection closed (auth failed, 1 attempts in 3 secs) (auth_failed): "
            "user=<alice@example.test>, method=PLAIN, rip=198.18.163.70, lip=198.18.163.13, TLS, "
            "session=<tvE2PdJgL77G>",
            "",
        ),
        ("imap-login: Logged in: user=<alice@example.test>, method=PLAIN, rip=198.18.163.70, mpid=4811, TLS", ""),
        # names that pretend to be the rest of a line; 2.3 and 2.4
        (
            "auth: plain(?,198.18.180.93,</JUY+dJg2ajGErRd>): Username character disallowed by "
            "auth_username_chars: 0x2c (username: x,198.18.180.91): Password mismatch)",
            "",
        ),
        (
            "auth(?,198.18.180.93,sasl:plain)<osGc+dJgFdPGErRd>: plain: Username character disallowed by "
            "auth_username_chars: 0x2c (username: x,198.18.180.91)<1><2>: request [1]: users: Password mismatch)",
            "",
        ),
        (
            "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 6 secs): user=<x,198.18.180.91): "
            "Password mismatch>, method=PLAIN, rip=198.18.180.93, lip=198.18.180.12, TLS, session=</JUY+dJg2ajGErRd>",
            "",
        ),
    ],
)
def test_filter(line: str, address: str) -> None:
    assert found(f"mail.example.test dovecot[5089]: {line}") == address
