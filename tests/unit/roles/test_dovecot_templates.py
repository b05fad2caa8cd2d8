# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates of the role dovecot, rendered by Ansible's own templar, and the role's defaults held against its specs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "dovecot"
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}
GIVEN = {"dovecot_hostname": "mail.example.org", "dovecot_certificate": "/etc/ssl/mail.pem"}
SOCKET = "/run/rspamd/controller.sock"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, list):
        return [trusted(item) for item in value]
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return value


def templar(debian: int, given: dict[str, Any]) -> Templar:
    variables = {
        **trusted(load("defaults/main.yml")),
        **trusted(load("vars/main.yml")),
        **GIVEN,
        **given,
        "ansible_managed": "Ansible managed",
        "ansible_facts": {"distribution_major_version": str(debian)},
    }
    made = Templar(loader=DataLoader(), variables=variables)
    return made.copy_with_new_env(searchpath=[str(ROLE / "templates")], available_variables=variables)


def conf(debian: int, **given: Any) -> str:
    """dovecot.conf without its comments."""
    text = trust_as_template((ROLE / "templates/etc/dovecot/dovecot.conf.j2").read_text(encoding="utf-8"))
    made = str(templar(debian, given).template(text, escape_backslashes=False, overrides=OVERRIDES))
    return "\n".join(line for line in made.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def files(**given: Any) -> dict[str, str]:
    (service,) = templar(13, given).template(trust_as_template("{{ __dovecot_services }}"))
    return {entry["dest"]: entry.get("state", "present") for entry in service["files"]}


def test_24_begins_with_the_version_of_its_language():
    assert conf(13).splitlines()[0] == "dovecot_config_version = 2.4.1"
    assert "dovecot_config_version" not in conf(12)


@pytest.mark.parametrize("mail_format", ["maildir", "mbox"])
def test_24_has_no_variable_that_it_would_take_literally(mail_format):
    text = conf(13, dovecot_mail_format=mail_format, dovecot_managesieve=True, dovecot_rspamd_socket=SOCKET)
    assert re.search(r"%(?!\{)", text) is None
    assert "mail_home = /var/vmail/%{user | domain | lower}/%{user | username | lower}" in text


@pytest.mark.parametrize("debian", [12, 13])
def test_ports_without_tls_are_closed(debian):
    text = conf(debian)
    for name in ("imap", "pop3"):
        assert re.search(rf"inet_listener {name} {{\s+port = 0\s+}}", text)
        assert re.search(rf"inet_listener {name}s {{\s+port = \d+\s+ssl = yes\s+}}", text)
    assert "4190" not in text
    assert "ssl = required" in text


@pytest.mark.parametrize("debian", [12, 13])
def test_what_is_switched_off_is_no_protocol(debian):
    text = conf(debian, dovecot_imap=False, dovecot_pop3=False, dovecot_managesieve=True)
    assert "protocols = lmtp sieve\n" in text
    assert "993" not in text
    assert "995" not in text


@pytest.mark.parametrize("debian", [12, 13])
def test_only_suites_with_ecdhe_and_aead(debian):
    (suites,) = re.findall(r"^ssl_cipher_list = (.*)", conf(debian), re.MULTILINE)
    assert all(
        re.fullmatch(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA\d+|CHACHA20-POLY1305)", s) for s in suites.split(":")
    )


@pytest.mark.parametrize("debian", [12, 13])
def test_openssl_signs_with_sha_2_alone(debian):
    assert "OPENSSL_CONF" in conf(debian)
    text = trust_as_template((ROLE / "templates/etc/dovecot/tls.cnf.j2").read_text(encoding="utf-8"))
    made = str(templar(debian, {}).template(text, escape_backslashes=False, overrides=OVERRIDES))
    (names,) = re.findall(r"^SignatureAlgorithms = (.+)$", made, re.MULTILINE)
    others = [name for name in names.split(":") if not name.endswith(("_sha256", "_sha384", "_sha512"))]
    assert others == ["ed25519", "ed448"]


def test_the_hybrid_group_only_where_openssl_knows_it():
    assert "ssl_curve_list = X25519:" in conf(12)
    assert "ssl_curve_list = X25519MLKEM768:X25519:" in conf(13)


@pytest.mark.parametrize("debian", [12, 13])
def test_sockets_belong_to_postfix_alone(debian):
    text = conf(debian, dovecot_postfix_user="postfix")
    for name in ("auth", "lmtp", "quota"):
        assert re.search(rf"unix_listener postfix-{name} {{\s+mode = 0600\s+user = postfix\s+}}", text)


@pytest.mark.parametrize("debian", [12, 13])
def test_policy_never_overrides_postfix(debian):
    text = conf(debian)
    assert "quota_status_success = DUNNO" in text
    assert "quota_status_nouser = DUNNO" in text
    assert "quota_status_overquota = 552 5.2.2" in text


def test_what_sieve_sends_may_leave_in_a_container():
    """Dovecot 2.4 starts sendmail as root and needs no setgid."""
    path = ROLE / "templates/etc/systemd/system/dovecot.service.d/postmeister.conf.j2"
    # The filter of its first line needs a collection around it.
    text = trust_as_template(path.read_text(encoding="utf-8").replace("{{ ansible_managed | comment }}", ""))
    made = [str(templar(debian, {}).template(text, overrides=OVERRIDES)) for debian in (12, 13)]
    assert ["\nPrivateDevices=no\n" in unit for unit in made] == [True, False]


@pytest.mark.parametrize("debian", [12, 13])
def test_without_rspamd_there_is_no_training(debian):
    assert "imapsieve" not in conf(debian)
    assert "imapsieve" in conf(debian, dovecot_rspamd_socket=SOCKET)


def test_scripts_of_the_training_go_with_it():
    trained, plain = files(dovecot_rspamd_socket=SOCKET), files()
    assert trained.keys() == plain.keys()
    assert [name for name in plain if plain[name] == "absent"] == [
        "/etc/dovecot/sieve/learn-spam.sieve",
        "/etc/dovecot/sieve/learn-ham.sieve",
        "/etc/dovecot/sieve/bin/learn",
    ]
    assert set(trained.values()) == {"present"}


@pytest.mark.parametrize(("debian", "line"), [(12, "quota_rule = *:storage=5G"), (13, "quota_storage_size = 5G")])
def test_default_quota(debian, line):
    assert line in conf(debian, dovecot_quota_default="5G")
    assert line.replace("5G", "5000B") in conf(debian, dovecot_quota_default="5000")
    for none in ("", "0", "unlimited"):
        assert line.split(" = ")[0] + " =" not in conf(debian, dovecot_quota_default=none)


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize("settings", ["mail_debug = yes\n", {"mail_debug": "yes"}])
def test_own_settings_come_last(debian, settings):
    assert conf(debian, dovecot_settings=settings).splitlines()[-1] == "mail_debug = yes"


@pytest.mark.parametrize("debian", [12, 13])
def test_braces_are_balanced(debian):
    for given in ({}, {"dovecot_managesieve": True, "dovecot_rspamd_socket": SOCKET, "dovecot_mail_format": "mbox"}):
        text = re.sub(r"%\{[^}]*\}", "", conf(debian, **given))
        assert len(re.findall(r"\{$", text, re.MULTILINE)) == len(re.findall(r"^\s*\}$", text, re.MULTILINE))


def test_defaults_are_those_of_the_specs():
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items() if "default" in option} == load(
        "defaults/main.yml"
    )
    assert {name for name, option in options.items() if option.get("required")} == set(GIVEN)
