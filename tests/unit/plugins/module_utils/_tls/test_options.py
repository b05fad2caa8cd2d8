# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._tls import manage, options, pem

DNS = {
    "server": "192.0.2.1",
    "port": 53,
    "key_name": "k",
    "key_secret": "Q0FOQVJZ",
    "key_algorithm": "hmac-sha256",
    "wait": 9,
}
ACME = {
    "directory": "https://ca.test/dir",
    "ca_file": None,
    "contact": "",
    "challenge": "http-01",
    "webroot": None,
    "eab_kid": None,
    "eab_hmac_key": None,
    "settings": None,
    "dns": None,
}
PARAMS = {
    "hostname": "Mail.Example.test",
    "method": "acme",
    "certificate": "/c",
    "certificate_content": None,
    "private_key": None,
    "private_key_content": "CANARY",
    "validity": 365,
    "renew_before": 0,
    "next_key_age": 0,
    "reload": ["postfix", "foo@bar.service"],
    "acme": ACME,
}


def test_only_what_the_method_needs_is_kept():
    result = options.settings(PARAMS)
    assert result.hostname == "mail.example.test"
    assert result.acme == {"directory": "https://ca.test/dir", "challenge": "http-01"}
    assert (result.certificate, result.private_key_content) == ("", "")


def test_settings_survive_the_file_without_the_private_key():
    given = options.settings({**PARAMS, "method": "files", "acme": None})
    assert "CANARY" not in given.text
    read = manage.Settings.from_text(given.text)
    assert (read.hostname, read.method, read.reload) == (given.hostname, "files", given.reload)


def test_dns_is_kept_for_its_challenge_only():
    both = {**ACME, "dns": DNS, "webroot": "/w"}
    assert "dns" not in options.settings({**PARAMS, "acme": both}).acme
    kept = options.settings({**PARAMS, "acme": {**both, "challenge": "dns-01"}}).acme
    assert kept["dns"] == DNS
    assert "webroot" not in kept


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": "mail"}, "hostname: 'mail' is not"),
        ({"hostname": "../etc.test"}, "hostname: '../etc.test' is not"),
        ({"hostname": "a..test"}, "hostname"),
        ({"hostname": "-a.test"}, "hostname"),
        ({"validity": 0}, "validity: 0 is less than 1"),
        ({"renew_before": -1}, "renew_before: -1"),
        ({"method": "selfsigned", "validity": 30, "renew_before": 30}, "renew_before: 30 days is as long"),
        ({"reload": ["a b"]}, "reload: 'a b'"),
        ({"reload": ["--now"]}, "reload: '--now'"),
        ({"acme": {**ACME, "directory": "http://ca.test/dir"}}, "acme.directory: 'http://ca.test/dir' is not an https"),
        ({"acme": {**ACME, "ca_file": "/a b"}}, "acme.ca_file: '/a b'"),
        ({"acme": {**ACME, "contact": "nobody"}}, "acme.contact: 'nobody'"),
        ({"acme": {**ACME, "settings": {"x; reboot": 1}}}, "acme.settings: 'x; reboot'"),
        ({"acme": {**ACME, "challenge": "dns-01"}}, "acme.dns: is needed"),
    ],
)
def test_bad_options_are_named(change, words):
    with pytest.raises(pem.TlsError) as told:
        options.settings({**PARAMS, **change})
    assert words in str(told.value)


def test_a_bad_secret_is_not_shown():
    acme = {**ACME, "challenge": "dns-01", "dns": {**DNS, "key_secret": "CANARY!"}}
    with pytest.raises(pem.TlsError, match=r"acme.dns.key_secret: is not base64$"):
        options.settings({**PARAMS, "acme": acme})
