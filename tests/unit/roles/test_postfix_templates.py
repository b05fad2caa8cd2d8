# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates of the role postfix, rendered by Ansible's own templar, and the role's defaults held against its specs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.postmeister.host.plugins.module_utils._service.postfix import settings

ROLE = Path(__file__).resolve().parents[3] / "roles" / "postfix"
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}
GIVEN = {
    "postfix_hostname": "mail.example.org",
    "postfix_certificate": "/etc/ssl/mail.pem",
    "postfix_root_recipient": "admin@example.org",
}


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
    return Templar(loader=DataLoader(), variables=variables)


def render(path: str, debian: int = 13, **given: Any) -> str:
    text = trust_as_template((ROLE / "templates" / f"{path}.j2").read_text(encoding="utf-8"))
    return str(templar(debian, given).template(text, escape_backslashes=False, overrides=OVERRIDES))


def main_cf(debian: int = 13, **given: Any) -> dict[str, str]:
    return settings(render("etc/postfix/main.cf", debian, **given).encode())


def master_cf(**given: Any) -> dict[str, str]:
    """Services by name and type, each with its options in one line."""
    result: dict[str, str] = {}
    for line in render("etc/postfix/master.cf", **given).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            result[list(result)[-1]] += " " + line.strip()
        else:
            key = " ".join(line.split()[:2])
            assert key not in result
            result[key] = " ".join(line.split()[2:])
    return result


def problems(**given: Any) -> list[str]:
    return templar(13, given).template(trust_as_template("{{ __postfix_problems }}"))


def test_defaults_are_those_of_the_specs() -> None:
    specs = load("meta/argument_specs.yml")["argument_specs"]
    assert specs["main"]["options"] == specs["configure"]["options"]
    options = specs["main"]["options"]
    assert {name: option["default"] for name, option in options.items() if "default" in option} == load(
        "defaults/main.yml"
    )
    assert {name for name, option in options.items() if option.get("required")} == set(GIVEN)


@pytest.mark.parametrize("debian", [12, 13])
def test_a_setting_is_written_once(debian: int) -> None:
    text = render("etc/postfix/main.cf", debian, postfix_srs=True)
    names = re.findall(r"^(\w+) =", text, re.MULTILINE)
    assert len(names) > 80
    assert sorted(set(names)) == sorted(names)
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    assert not re.search(r"\{\{|\{%|None|True|False", text)


def test_releases_differ_where_they_must() -> None:
    old, new = main_cf(12), main_cf(13)
    assert {name for name in {*old, *new} if old.get(name) != new.get(name)} == {
        "compatibility_level",
        "tls_eecdh_auto_curves",
        "tls_ffdhe_auto_groups",
    }
    assert "X25519MLKEM768" in new["tls_eecdh_auto_curves"]
    assert old["tls_eecdh_auto_curves"] == "X25519 prime256v1 secp384r1"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "protocols"),
    [
        ("198.51.100.25", "", "ipv4"),
        ("", "2001:db8:51::25", "ipv6"),
        ("198.51.100.25", "2001:db8:51::25", "all"),
        ("", "", "all"),
    ],
)
def test_protocols_follow_the_source_addresses(ipv4: str, ipv6: str, protocols: str) -> None:
    found = main_cf(postfix_ipv4=ipv4, postfix_ipv6=ipv6, postfix_srs=True)
    assert (found["inet_protocols"], found["smtp_bind_address"], found["smtp_bind_address6"]) == (protocols, ipv4, ipv6)
    loopback = "[::1]" if protocols == "ipv6" else "127.0.0.1"
    assert found["srs_sender_canonical_maps"] == f"tcp:{loopback}:10001"
    assert f"{loopback}:10026 inet" in master_cf(postfix_ipv4=ipv4, postfix_ipv6=ipv6, postfix_srs=True)


def test_settings_of_the_inventory_replace_and_add() -> None:
    text = render(
        "etc/postfix/main.cf",
        postfix_settings={
            "smtpd_banner": "$myhostname hello",
            "biff": True,
            "recipient_delimiter": None,
            "mynetworks": ["127.0.0.1", "198.51.100.0/24"],
            "smtp_destination_concurrency_limit": 5,
            "relayhost": "[relay.example.org]\n:587",
        },
    )
    found = settings(text.encode())
    assert found["smtpd_banner"] == "$myhostname hello"
    assert found["biff"] == "yes"
    assert "recipient_delimiter" not in found
    assert found["mynetworks"] == "127.0.0.1 198.51.100.0/24"
    assert found["smtp_destination_concurrency_limit"] == "5"
    # a line break in a value cannot begin a setting of its own
    assert found["relayhost"] == "[relay.example.org] :587"
    assert text.count("\nsmtpd_banner =") == 1


def test_services_of_the_inventory_replace_and_add() -> None:
    own = master_cf()
    found = master_cf(
        postfix_services=["smtp inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd\n    -o syslog_name=postfix/x"]
    )
    assert found["smtp inet"] == "n - n - 1 postscreen"
    assert found["smtpd pass"] == "- - n - - smtpd -o syslog_name=postfix/x"
    assert found["smtp unix"] == own["smtp unix"]
    assert {*found} - {*own} == {"smtpd pass"}


def test_every_daemon_runs_without_chroot() -> None:
    for name, line in master_cf(postfix_srs=True).items():
        assert line.split()[2] == "n", name


def test_master_refers_to_what_main_defines() -> None:
    defined = main_cf(postfix_srs=True)
    names = set(re.findall(r"\$(\w+)", " ".join(master_cf(postfix_srs=True).values()))) - {"service_name"}
    assert len(names) > 8
    assert names <= set(defined)


def test_submission_is_for_those_who_log_in() -> None:
    found = main_cf()
    for kind in ("client", "data"):
        assert found[f"submission_{kind}_restrictions"].endswith(
            "permit_sasl_authenticated check_client_access static:{530 5.7.0 Authentication required}"
        )
    assert found["submission_sender_restrictions"] == "reject_sender_login_mismatch"
    services = master_cf()
    for name, level in (
        ("submission", "smtpd_tls_security_level=encrypt"),
        ("submissions", "smtpd_tls_wrappermode=yes"),
    ):
        line = services[f"{name} inet"]
        assert level in line
        for kind in ("client", "helo", "sender", "relay", "recipient", "data"):
            assert f"-o smtpd_{kind}_restrictions=$submission_{kind}_restrictions" in line
    assert "smtpd_sasl_auth_enable" not in services["smtp inet"]
    assert found["smtpd_sasl_auth_enable"] == "no"


def test_ports_can_be_turned_off() -> None:
    assert {"submission inet", "submissions inet"} <= {*master_cf()}
    assert "submission inet" not in master_cf(postfix_starttls_submission=False)
    assert "submissions inet" in master_cf(postfix_starttls_submission=False)
    assert not [name for name in master_cf(postfix_sasl_socket="") if name.startswith("subm")]


def test_recipients_are_checked_before_blocklists_and_postmaster_is_spared() -> None:
    found = main_cf(postfix_recipient_restrictions_extra=["reject_rbl_client bl.example"])[
        "smtpd_recipient_restrictions"
    ]
    order = [
        "reject_unlisted_recipient",
        "postfix-quota",
        "postmaster@=OK",
        "reject_unknown_sender_domain",
        "reject_rbl_client bl.example",
    ]
    places = [found.index(word) for word in order]
    assert places == sorted(places)
    assert "default_action=DUNNO" in found
    assert "check_policy_service" not in main_cf(postfix_quota_socket="")["smtpd_recipient_restrictions"]


def test_the_greylist_is_asked_last_and_only_where_wanted() -> None:
    plain = main_cf()
    assert "smtpd_restriction_classes" not in plain
    assert "greylist" not in plain["smtpd_recipient_restrictions"]
    assert "greylist-spf unix" not in master_cf(postfix_never_delay=["big.test"])
    found = main_cf(
        postfix_greylist="inet:127.0.0.1:10023", postfix_recipient_restrictions_extra=["reject_rbl_client x"]
    )
    assert found["smtpd_recipient_restrictions"].endswith("reject_rbl_client x greylist")
    assert found["smtpd_restriction_classes"] == "greylist"
    service = "check_policy_service { inet:127.0.0.1:10023, timeout=3s, try_limit=1, default_action=DUNNO }"
    assert found["greylist"] == service


@pytest.mark.parametrize("own", ["mine, other", ["mine", "other"]])
def test_spf_is_asked_before_the_greylist_and_for_listed_senders_only(own: Any) -> None:
    given = {"postfix_greylist": "inet:127.0.0.1:10023", "postfix_never_delay": ["Big.test", "bank.test"]}
    found = main_cf(**given, postfix_settings={"smtpd_restriction_classes": own})
    assert found["smtpd_restriction_classes"] == "greylist greylist_spf mine other"
    assert found["greylist"].startswith(
        "check_sender_access texthash:/etc/postfix/greylist_senders check_policy_service"
    )
    assert "default_action=DUNNO" in found["greylist_spf"]
    assert "greylist-spf unix" in master_cf(**given)
    lines = render("etc/postfix/greylist_senders", **given).splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [
        "big.test greylist_spf",
        "bank.test greylist_spf",
    ]
    options = render("etc/postfix/greylist_spf.conf", **given).splitlines()
    assert {"Mail_From_pass_restriction = OK", "HELO_reject = No_Check", "TestOnly = 1"} <= set(options)


def test_srs_only_where_asked() -> None:
    plain = main_cf()
    assert not [name for name in plain if "canonical" in name or name.startswith("srs") or name == "default_transport"]
    assert "srs unix" not in master_cf()
    services = master_cf(postfix_srs=True)
    # sender_canonical_maps only where forwarded mail comes by: delivered mail keeps its sender
    assert [name for name, line in services.items() if "sender_canonical_maps" in line] == ["srs-cleanup unix"]
    assert "sender_canonical_maps" not in main_cf(postfix_srs=True)


def test_milters_fail_closed_and_see_the_hosts_own_mail() -> None:
    found = main_cf(postfix_milters=["/run/rspamd/milter.sock", "inet:127.0.0.1:8891"])
    assert found["smtpd_milters"] == "unix:/run/rspamd/milter.sock inet:127.0.0.1:8891"
    assert found["milter_default_action"] == "tempfail"
    assert found["non_smtpd_milters"] == "$smtpd_milters"
    assert found["internal_mail_filter_classes"] == "bounce"


def test_the_hosts_accounts_write_to_one_mailbox() -> None:
    line = render("etc/postfix/host_users").splitlines()[-1]
    pattern, recipient = line.rsplit(" ", 1)
    assert recipient == "admin@example.org"
    expression = re.compile(pattern.strip("/"))
    assert expression.match("www-data@mail.example.org")
    assert expression.match("backup@localhost")
    assert not expression.match("x@mailxexample.org")
    # the host name as a mail domain has mailboxes of its own
    other = re.compile(
        render("etc/postfix/host_users", postfix_host_domain=False).splitlines()[-1].rsplit(" ", 1)[0].strip("/")
    )
    assert not other.match("www-data@mail.example.org")
    assert main_cf(postfix_host_domain=False)["virtual_alias_domains"] == ""


def test_the_clients_address_is_taken_out_of_our_own_line_only() -> None:
    lines = render("etc/postfix/submission_header_checks").splitlines()
    pattern, action = next(
        (line, lines[number + 1].strip()) for number, line in enumerate(lines) if line.startswith("/")
    )
    expression = re.compile(pattern.strip("/").replace("[[:space:]]", r"\s").replace("[^[:space:]]", r"\S"), re.DOTALL)
    own = (
        "Received: from [10.1.2.3] (unknown [198.51.100.7])\n"
        "\tby mail.example.org (Postfix) with ESMTPSA id 4jX for <b@example.net>; Sat"
    )
    match = expression.match(own)
    assert match
    assert action.startswith("REPLACE Received: by mail.example.org (Postfix) with $1 id $2$3")
    assert "198.51" not in match.expand(r"\1 \2\3")
    assert not expression.match(own.replace("by mail.example.org", "by mail.example.net"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("postfix_hostname", "mail"),
        ("postfix_hostname", "Mail.example.org"),
        ("postfix_hostname", "mail.example.org\nx = y"),
        ("postfix_ipv4", "2001:db8::1"),
        ("postfix_ipv6", "198.51.100.25"),
        ("postfix_root_recipient", "root"),
        ("postfix_root_recipient", "root@mail.example.org"),
        ("postfix_queue_lifetime", "five days"),
        ("postfix_bounce_queue_lifetime", ""),
        ("postfix_delay_warning_time", "4 h"),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    found = problems(**{name: value})
    assert [problem.partition(":")[0] for problem in found] == [name]
    assert value in found[0]


def test_good_values_pass() -> None:
    assert problems(postfix_ipv4="198.51.100.25", postfix_ipv6="2001:db8:51::25", postfix_queue_lifetime="48h") == []


@pytest.mark.parametrize(
    ("given", "address", "foreign"),
    [
        ({}, "", False),
        ({"postfix_ipv4": "198.51.100.25", "postfix_ipv6": "2001:db8::1"}, "198.51.100.25", True),
        ({"postfix_ipv6": "2001:db8::1"}, "2001:db8::1", True),
        ({"postfix_ipv4": "198.51.100.25", "postfix_networks": ["198.51.100.0/24"]}, "198.51.100.25", False),
        ({"postfix_ipv4": "198.51.100.25", "postfix_interfaces": ["127.0.0.1"]}, "", False),
    ],
)
def test_the_probe_comes_from_outside_mynetworks_where_it_can(
    given: dict[str, Any], address: str, foreign: bool
) -> None:
    probe = templar(13, given).template(trust_as_template("{{ __postfix_probe }}"))
    assert (probe["address"], probe["foreign"] != "") == (address, foreign)
    assert probe["recipient"] == "postmaster@mail.example.org"


@pytest.mark.parametrize(
    ("given", "protocols"),
    [
        ({"postfix_ipv4": "198.51.100.25", "postfix_ipv6": "2001:db8:51::25"}, "all"),
        ({"postfix_ipv4": "198.51.100.25", "postfix_ipv6": "2001:db8:51::25", "postfix_outgoing_ipv6": False}, "ipv4"),
        ({"postfix_outgoing_ipv6": False}, "ipv4"),
        ({"postfix_settings": {"inet_protocols": "ipv4"}}, "ipv4"),
        # It has no other way out.
        ({"postfix_ipv6": "2001:db8:51::25", "postfix_outgoing_ipv6": False}, "ipv6"),
    ],
)
def test_mail_leaves_over_ipv6_where_it_may(given: dict[str, Any], protocols: str) -> None:
    assert main_cf(**given)["outgoing_protocols"] == protocols
    waits = given.get("postfix_outgoing_ipv6") is False and protocols == "ipv4"
    assert main_cf(**given)["smtp_defer_if_no_mx_address_found"] == ("yes" if waits else "no")
    clients = re.findall(
        r"^(?:smtp|relay) +unix .*\n((?:    .*\n)*)", render("etc/postfix/master.cf", **given), re.MULTILINE
    )
    assert [text.count("inet_protocols=$outgoing_protocols") for text in clients] == [1, 1]
