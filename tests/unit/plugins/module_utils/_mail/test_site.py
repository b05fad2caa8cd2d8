# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._mail.site import SiteError, derive

SITE: dict[str, Any] = {
    "hostname": "mx.example.test",
    "ipv4": "198.51.100.25",
    "ipv6": "2001:db8:51::25",
    "domains": [{"name": "example.test"}],
    "mailboxes": [
        {"address": "alice@example.test", "password": "canary-password"},
        {"address": "bob@example.test", "password": "canary-password"},
    ],
    "aliases": [{"address": "info@example.test", "destinations": ["alice@example.test"]}],
    "postmaster": "alice@example.test",
    "role_addresses": ["abuse", "postmaster"],
    "forwarding": False,
    "pop3": True,
    "starttls_submission": True,
    "managesieve": False,
    "mail_format": "maildir",
    "queue_lifetime": "5d",
    "quota": "",
    "dkim_selectors": [{"selector": "rsa1", "type": "rsa"}, {"selector": "ed1", "type": "ed25519"}],
    "dmarc_policy": "quarantine",
    "tls_method": "acme",
    "acme_issuers": ["ca.test"],
    "acme_challenge": "http-01",
    "dns_provider": "none",
    "dns_ttl": 3600,
}


def site(**changes: Any) -> dict[str, Any]:
    return {**SITE, **changes}


def aliases(plan: dict[str, Any]) -> dict[str, list[str]]:
    directory = plan["directory"]
    every = [*directory["aliases"], *directory["fallback_aliases"]]
    return {entry["address"]: entry["destinations"] for entry in every}


def test_role_addresses_of_every_domain_lead_to_the_postmaster() -> None:
    plan = derive(site(domains=[{"name": "example.test"}, {"name": "second.test", "postmaster": "bob@example.test"}]))
    assert aliases(plan) == {
        "info@example.test": ["alice@example.test"],
        "abuse@example.test": ["alice@example.test"],
        "postmaster@example.test": ["alice@example.test"],
        "abuse@second.test": ["bob@example.test"],
        "postmaster@second.test": ["bob@example.test"],
    }
    assert plan["probe_recipient"] == "postmaster@example.test"


def test_a_role_address_of_an_international_domain_may_be_somebodys() -> None:
    domains = [{"name": "bücher.example", "postmaster": "abuse@bücher.example"}]
    boxes = [*SITE["mailboxes"], {"address": "abuse@bücher.example", "password": "x"}]
    plan = derive(site(domains=[{"name": "example.test"}, *domains], mailboxes=boxes))
    assert aliases(plan)["postmaster@xn--bcher-kva.example"] == ["abuse@xn--bcher-kva.example"]
    assert "abuse@xn--bcher-kva.example" not in aliases(plan)


def test_a_role_address_of_its_own_is_kept() -> None:
    boxes = [*SITE["mailboxes"], {"address": "Abuse@example.test", "password": "x"}]
    plan = derive(
        site(
            mailboxes=boxes,
            postmaster="postmaster@example.test",
            aliases=[{"address": "postmaster@example.test", "destinations": ["bob@example.test"]}],
        )
    )
    assert aliases(plan) == {"postmaster@example.test": ["bob@example.test"]}


def test_every_domain_and_the_host_have_every_key_and_absent_domains_none() -> None:
    plan = derive(
        site(
            domains=[
                {"name": "example.test"},
                {"name": "later.test", "state": "staged"},
                {"name": "old.test", "state": "absent"},
            ]
        )
    )
    assert [(key["domain"], key["selector"]) for key in plan["dkim_keys"]] == [
        ("example.test", "rsa1"),
        ("example.test", "ed1"),
        ("later.test", "rsa1"),
        ("later.test", "ed1"),
        ("mx.example.test", "rsa1"),
        ("mx.example.test", "ed1"),
    ]
    assert [domain["name"] for domain in plan["publish"]["domains"]] == ["example.test"]
    assert plan["directory"]["domains"][2] == {"name": "old.test", "state": "absent"}


def test_the_plan_holds_no_secret() -> None:
    assert "canary" not in json.dumps(derive(SITE))


def test_a_selfsigned_host_says_nothing_about_who_may_issue() -> None:
    assert derive(site(tls_method="selfsigned"))["publish"]["caa"] == []
    assert derive(SITE)["publish"]["caa"] == ["ca.test"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hostname": "mx"}, ["mailserver_hostname", "'mx'", "no dot"]),
        ({"hostname": "mx_1.example.test"}, ["mailserver_hostname", "mx_1"]),
        (
            {"ipv4": "2001:db8:51::25"},
            ["mailserver_ipv4", "'2001:db8:51::25'", "IPv6 address where an IPv4 address is due"],
        ),
        (
            {"ipv6": "198.51.100.25"},
            ["mailserver_ipv6", "'198.51.100.25'", "IPv4 address where an IPv6 address is due"],
        ),
        ({"ipv4": "198.51.100.256"}, ["mailserver_ipv4", "is no IPv4 address"]),
        ({"ipv4": "127.0.0.1"}, ["mailserver_ipv4", "cannot reach"]),
        ({"ipv4": "", "ipv6": ""}, ["mailserver_ipv4", "neither"]),
        ({"domains": []}, ["mailserver_domains", "at least one"]),
        (
            {"domains": [{"name": "example.test"}, {"name": "Example.test"}]},
            ["mailserver_domains[1].name", "mailserver_domains[0] already"],
        ),
        ({"domains": [{"name": "exa mple.test"}]}, ["mailserver_domains[0].name", "'exa mple.test'"]),
        ({"domains": [{"name": "example.test", "state": "gone"}]}, ["mailserver_domains[0].state", "'gone'", "staged"]),
        (
            {"domains": [{"name": "example.test"}, {"name": "mx.example.test"}]},
            ["mailserver_domains[1].name", "host's own name"],
        ),
        ({"domains": [{"name": "example.test", "spf": ["-all"]}]}, ["mailserver_domains[0].spf", "'-all'"]),
        (
            {"domains": [{"name": "example.test", "catch_all": "nobody@example.test"}]},
            ["mailserver_domains[0].catch_all"],
        ),
        ({"postmaster": ""}, ["mailserver_postmaster", "not set"]),
        ({"postmaster": "nobody@example.test"}, ["mailserver_postmaster", "nobody@example.test"]),
        (
            {"mailboxes": [*SITE["mailboxes"], {"address": "ALICE@example.test", "password": "x"}]},
            ["mailserver_mailboxes[2]", "ALICE@example.test", "twice"],
        ),
        (
            {"mailboxes": [*SITE["mailboxes"], {"address": "eve@other.test", "password": "x"}]},
            ["mailserver_mailboxes[2]", "other.test"],
        ),
        (
            {"mailboxes": [*SITE["mailboxes"], {"address": "eve", "password": "x"}]},
            ["mailserver_mailboxes[2]", "'eve'"],
        ),
        (
            {
                "mailboxes": [
                    *SITE["mailboxes"],
                    {"address": "eve@example.test", "password_hash": "{MD5}rL0Y20zC+Fzt72VPzMSk2A=="},
                ]
            },
            ["mailserver_mailboxes[2]", "eve@example.test", "MD5"],
        ),
        (
            {"aliases": [{"address": "a@example.test", "destinations": ["b@example.test"]}]},
            ["mailserver_aliases[0]", "b@example.test"],
        ),
        (
            {
                "aliases": [
                    {"address": "a@example.test", "destinations": ["b@example.test"]},
                    {"address": "b@example.test", "destinations": ["a@example.test"]},
                ]
            },
            ["mailserver_aliases[", "loop"],
        ),
        (
            {"aliases": [{"address": "a@example.test", "destinations": ["eve@remote.test"]}]},
            ["mailserver_aliases[0]", "eve@remote.test", "SRS"],
        ),
        (
            {"dkim_selectors": [{"selector": "under_score", "type": "rsa"}]},
            ["mailserver_dkim_selectors[0].selector", "'under_score'"],
        ),
        ({"dkim_selectors": [{"selector": "a" * 64, "type": "rsa"}]}, ["mailserver_dkim_selectors[0].selector"]),
        (
            {"dkim_selectors": [{"selector": ".".join(["a" * 63] * 4), "type": "rsa"}]},
            ["mailserver_dkim_selectors[0].selector", "longer"],
        ),
        (
            {"dkim_selectors": [{"selector": "s", "type": "rsa"}, {"selector": "S", "type": "ed25519"}]},
            ["mailserver_dkim_selectors[1].selector", "twice"],
        ),
        ({"dkim_selectors": [{"selector": "s", "type": "ed25519"}]}, ["mailserver_dkim_selectors", "no rsa key"]),
        ({"quota": "5 furlongs"}, ["mailserver_quota", "5 furlongs"]),
        ({"postmaster": "alice@mx.example.test"}, ["mailserver_postmaster", "own name"]),
        ({"role_addresses": [], "postmaster": "nobody@example.test"}, ["mailserver_postmaster", "neither a mailbox"]),
        ({"role_addresses": []}, ["mailserver_role_addresses", "postmaster@example.test"]),
        ({"dkim_selectors": [{"selektor": "s", "type": "rsa"}]}, ["mailserver_dkim_selectors[0].selektor", "unknown"]),
        ({"dkim_selectors": [{"type": "rsa"}]}, ["mailserver_dkim_selectors[0].selector"]),
        ({"dkim_selectors": [{"selector": "s", "type": "dsa"}]}, ["mailserver_dkim_selectors[0].type", "'dsa'"]),
        ({"queue_lifetime": "five days"}, ["mailserver_queue_lifetime", "five days"]),
        ({"tls_method": "files"}, ["mailserver_tls_certificate", "is not set"]),
        (
            {"dns_provider": "rfc2136"},
            ["mailserver_dns_server", "mailserver_dns_key_name", "mailserver_dns_key_secret"],
        ),
        ({"acme_challenge": "dns-01"}, ["mailserver_acme_challenge", "rfc2136"]),
        ({"hostname": "mx", "ipv4": "x"}, ["mailserver_hostname", "mailserver_ipv4"]),
    ],
)
def test_bad_input_is_refused_by_name_value_and_reason(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SiteError) as caught:
        derive(site(**changes))
    for word in words:
        assert word in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("given", "plan"), [("5G", "5368709120B"), ("5000", "5000B"), ("unlimited", ""), ("", "")])
def test_the_default_quota_has_a_unit(given: str, plan: str) -> None:
    assert derive(site(quota=given))["quota"] == plan
