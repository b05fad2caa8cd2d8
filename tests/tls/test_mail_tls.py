# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The life of a certificate, in order: each test goes on where the one before it ended."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._tls import pem
from conftest import SECRET

UNIT = "postmeister-certificate.service"


def test_check_mode_works_on_a_bare_host(bare):
    assert bare.role("resolver", "--check", "--diff") == 2
    assert bare.role("mail_tls", "--check", "--diff", **bare.dns01) == 2
    assert SECRET not in bare.last
    assert bare.sh("ls -d /etc/unbound /etc/ssl/postmeister 2>/dev/null || true") == ""


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("good", "good", ""),
        ("good", "other", "/root/other.key does not belong to the certificate in /root/good.pem"),
        ("www", "good", "/root/www.pem: is for www.example.test, not for mail"),
        ("none", "good", "/root/none.pem: there is no such file on the host"),
    ],
)
def test_a_bare_host_can_tell_a_certificate_that_does_not_fit(bare, certificate, key, words):
    """Before any package is installed, so that the face stops before it touches anything."""
    own, now = pem.new_key(), datetime.now(timezone.utc)
    for name in (bare.hostname, "www.example.test"):
        made = pem.selfsigned(own, name, 30, now)
        bare.put(f"/root/{'www' if name.startswith('www') else 'good'}.pem", pem.dump_certificate(made.leaf))
    bare.put("/root/good.key", pem.dump_key(own), 0o600)
    bare.put("/root/other.key", pem.dump_key(pem.new_key()), 0o600)
    given = {"certificate": f"/root/{certificate}.pem", "private_key": f"/root/{key}.key"}
    mode = {"hostname": bare.hostname, "method": "files", "_ansible_check_mode": True}
    answer = bare.module("mail_certificate", {**mode, **given})
    bare.sh("rm /root/*.pem /root/*.key")
    assert answer["failed"] is bool(words), answer
    assert words in answer.get("msg", "")


def test_the_resolver_validates_and_is_the_only_one(host):
    assert host.role("resolver", "--diff") == 0, host.last
    conf = host.sh("cat /etc/resolv.conf")
    assert "nameserver 127.0.0.1\nnameserver ::1\noptions edns0 trust-ad\n" in conf
    assert conf.count("nameserver") == 2
    listening = {line.split()[4] for line in host.sh("ss -Hlntu").splitlines()}
    assert {item for item in listening if item.endswith(":53")} == {"127.0.0.1:53", "[::1]:53"}
    assert host.address in host.sh(f"getent ahostsv4 {host.hostname}")


def test_a_wrong_anchor_leaves_the_resolver_serving(host):
    digest = "0" * 64
    host.role("resolver", fails=True, resolver_trust_anchor=f". DS 12345 13 2 {digest}")
    assert "answers SERVFAIL" in host.last
    assert "The former files are back" in host.last
    assert host.address in host.sh(f"getent ahostsv4 {host.hostname}")
    assert host.role("resolver") == 0


def test_self_signed_first(host):
    host.role("mail_tls", mail_tls_method="selfsigned")
    host.keys()
    assert host.role("mail_tls", mail_tls_method="selfsigned") == 0


def test_acme_by_http_takes_the_published_next_key(host):
    published = host.keys()
    host.publish(*published)
    before = host.reloads()
    host.role("mail_tls", "-vvv", "--diff", **host.acme)
    current, following = host.keys()
    assert current == published[1]
    assert following not in published
    assert "CN=Pebble" in host.sh("openssl x509 -noout -issuer -in /etc/ssl/postmeister/*/mail.pem").replace(" ", "")
    assert host.reloads() == before + 1
    assert host.role("mail_tls", **host.acme) == 0
    assert "PRIVATE KEY" not in host.last


def test_the_timer_renews_with_the_current_key_while_the_next_is_not_in_dns(host):
    host.role("mail_tls", **host.acme, mail_tls_renew_before=3000, mail_tls_next_key_age=0)
    keys, serial = host.keys(), host.sh("openssl x509 -noout -serial -in /etc/ssl/postmeister/*/mail.pem")
    before = host.reloads()
    host.sh(f"systemctl start {UNIT}")
    assert host.keys() == keys
    assert host.sh("openssl x509 -noout -serial -in /etc/ssl/postmeister/*/mail.pem") != serial
    assert host.reloads() == before + 1


def test_the_timer_promotes_the_next_key_once_it_is_in_dns(host):
    published = host.keys()
    host.publish(*published)
    host.sh(f"systemctl start {UNIT}")
    current, following = host.keys()
    assert current == published[1]
    assert following not in published
    # Its successor is not published, so it stays.
    host.sh(f"systemctl start {UNIT}")
    assert host.keys() == (current, following)


def test_acme_by_dns(host):
    keys = host.keys()
    host.role("mail_tls", "-vvv", "--diff", **host.dns01, mail_tls_renew_before=3000)
    assert "new certificate: it ends" in host.last
    assert host.keys() == keys
    assert SECRET not in host.last
    host.sh(f"systemctl start {UNIT}")
    assert SECRET not in host.sh("journalctl --sync; journalctl --no-pager")
    assert host.sh(f"grep -rl '{SECRET}' /etc /run /var/lib /usr/local").split() == [
        f"/etc/ssl/postmeister/{host.hostname}/settings.json"
    ]
    assert host.ca.sh(f"kdig +short @{host.ca.address} _acme-challenge.{host.hostname} TXT") == ""


def test_a_refused_dns_key_is_loud_and_leaves_the_certificate(host):
    keys, wrong = host.keys(), "Q0FOQVJZQ0FOQVJZ"
    host.role("mail_tls", **{**host.dns01, "mail_tls_dns_key_secret": wrong}, mail_tls_renew_before=3000)
    assert "refuses to change _acme-challenge." in host.last
    assert "the present one still serves" in host.last
    assert wrong not in host.last
    # On a busy machine systemctl may give up before systemd does.
    wait = f"for turn in $(seq 60); do systemctl is-failed --quiet {UNIT} && break; sleep 1; done"
    said = host.sh(f"systemctl start {UNIT} 2>&1; echo status $?; {wait}; systemctl is-failed {UNIT}", check=False)
    assert said.strip().endswith("failed"), said + host.sh(f"journalctl --no-pager -u {UNIT} | tail -20")
    assert "refuses to change" in host.sh(f"journalctl --sync; journalctl --no-pager -u {UNIT}")
    assert host.keys() == keys
    host.sh(f"systemctl reset-failed {UNIT}")


def test_a_port_in_use_is_explained_and_a_webroot_serves(host):
    host.sh(
        "mkdir -p /srv/web/.well-known/acme-challenge; systemd-run --quiet --unit=web "
        "--working-directory=/srv/web python3 -m http.server 80 --bind ::\n"
        "until ss -Hlnt 'sport = :80' | grep -q .; do sleep 0.1; done"
    )
    try:
        host.role("mail_tls", **host.acme, mail_tls_renew_before=3000)
        assert "port 80 is needed for a moment" in host.last
        webroot = "/srv/web/.well-known/acme-challenge"
        host.role("mail_tls", "--diff", **host.acme, mail_tls_renew_before=3000, mail_tls_acme_webroot=webroot)
        assert "new certificate: it ends" in host.last
        assert host.sh(f"ls {webroot}") == ""
    finally:
        host.sh("systemctl stop web")


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("good.pem", "other.key", "/root/other.key does not belong to the certificate in /root/good.pem"),
        ("name.pem", "good.key", "is for www.example.test, not for mail"),
        ("none.pem", "good.key", "/root/none.pem: there is no such file on the host"),
        ("good.pem", "", "neither the current nor the next key"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(host, certificate, key, words):
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=x"
    host.sh(
        f"cd /root; umask 077; test -e good.pem || {{ {make} -addext subjectAltName=DNS:{host.hostname} "
        f"-keyout good.key -out good.pem; "
        f"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out other.key; "
        f"openssl req -x509 -key good.key -days 90 -subj /CN=x -addext subjectAltName=DNS:www.example.test "
        f"-out name.pem; }} 2>/dev/null"
    )
    keys = host.keys()
    host.role(
        "mail_tls",
        fails=True,
        mail_tls_method="files",
        mail_tls_certificate=f"/root/{certificate}",
        mail_tls_private_key=key and f"/root/{key}",
    )
    assert words in host.last
    assert host.keys() == keys


def test_files_as_text_wait_until_their_key_is_in_dns(host):
    text, key = host.sh("cat /root/good.pem"), host.sh("cat /root/good.key")
    given = {"mail_tls_method": "files", "mail_tls_certificate": text, "mail_tls_private_key": key}
    given["mail_tls_next_key_age"] = 0
    former, before = host.keys(), host.reloads()
    host.publish(*former)
    host.role("mail_tls", "-vvv", "--diff", **given)
    assert key.splitlines()[1] not in host.last
    assert "the new certificate waits, the present one still serves" in host.last
    waiting = host.keys()
    assert waiting[0] == former[0] and waiting[1] not in former
    assert host.role("mail_tls", **given) == 0
    # The timer has no text, and knows the certificate nevertheless; that it waits is no failure.
    host.sh(f"systemctl start {UNIT}")
    assert "the new certificate waits" in host.sh(f"journalctl --sync; journalctl --no-pager -u {UNIT}")
    assert (host.keys(), host.reloads()) == (waiting, before)
    host.publish(*waiting)
    host.sh(f"systemctl start {UNIT}")
    assert host.keys()[0] == waiting[1]
    assert host.reloads() == before + 1
    assert host.role("mail_tls", **given) == 0


def test_from_files_back_to_acme(host):
    published = host.keys()
    host.publish(*published)
    host.role("mail_tls", **host.acme)
    assert host.keys()[0] == published[1]


DAMAGE = """
chmod 644 /etc/ssl/postmeister/*/mail.pem /etc/ssl/postmeister/*/settings.json
chmod 755 /etc/ssl/postmeister/*/
rm /etc/ssl/postmeister/*/next.key
echo >> /etc/systemd/system/postmeister-certificate.timer
echo >> /etc/systemd/system/postmeister-certificate.service
echo >> /usr/local/lib/postmeister/certificate/_tls/renew.py
systemctl disable --now postmeister-certificate.timer 2>/dev/null
"""
MANAGED = """
cd /; sha256sum etc/ssl/postmeister/*/mail.pem etc/systemd/system/postmeister-certificate*
find usr/local/lib/postmeister/certificate -name '*.py' | sort | xargs sha256sum
stat -c '%a %n' etc/ssl/postmeister/*/ etc/ssl/postmeister/*/*
"""


def test_damage_is_repaired_and_reported(host):
    before, keys = host.sh(MANAGED), host.keys()
    host.sh(DAMAGE)
    assert host.role("mail_tls", "--check", "--diff", **host.acme) == 1
    for path in ("/etc/ssl/postmeister/", "system/postmeister-certificate.timer", "certificate/_tls/renew.py"):
        assert path in host.last
    assert host.role("mail_tls", **host.acme) == 1
    assert host.role("mail_tls", **host.acme) == 0
    assert host.sh(MANAGED) == before
    assert host.keys()[0] == keys[0]
    assert host.sh("find /etc/ssl/postmeister /var/lib/postmeister/acme -type f -perm /077") == ""
    assert host.sh("systemctl is-active postmeister-certificate.timer").strip() == "active"


def test_a_lost_certificate_comes_back_with_a_published_key(host):
    published = host.keys()
    host.sh("echo x | tee /etc/ssl/postmeister/*/mail.pem")
    assert host.role("mail_tls", **host.acme) == 1
    assert host.keys()[0] == published[1]
