# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess

import pytest

pytest.importorskip("cryptography")

import datetime

from ansible_collections.postmeister.host.plugins.module_utils._tls import acme, pem

SETTINGS = {"directory": "https://ca.test/dir", "challenge": "http-01", "contact": "a@b.test"}


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A folder of its own, and a dehydrated that is a shell script."""
    monkeypatch.setattr(acme, "BASE", str(tmp_path / "acme"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    real = acme.listener
    monkeypatch.setattr(acme, "listener", lambda folder: real(folder, 0))

    def dehydrated(text):
        program = tmp_path / "dehydrated"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    return dehydrated


def test_configuration_is_quoted_for_the_shell():
    text = acme.config({**SETTINGS, "contact": "o'hara$(reboot)@b.test", "ca_file": "/ca.pem"}, "/run/x", "/c")
    shown = subprocess.run(
        ["/bin/sh", "-c", text + 'printf "%s|%s|%s|%s" "$CONTACT_EMAIL" "$CA" "$HOOK" "$CURL_OPTS"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown == ("o'hara$(reboot)@b.test|https://ca.test/dir||--connect-timeout 20 --max-time 120 --cacert /ca.pem")


def test_further_settings_win():
    assert acme.config({**SETTINGS, "settings": {"KEYSIZE": 4096}}, "/x", "/c").count("KEYSIZE=4096\n") == 1


def certificate():
    now = datetime.datetime.now(datetime.timezone.utc)
    return pem.dump_certificate(pem.selfsigned(pem.new_key(), "mail.example.test", 9, now).leaf).decode()


def test_the_certificate_is_what_dehydrated_prints(base, tmp_path):
    text = certificate()
    base(f"echo progress >&2; printf '%s\\n' '# CERT #' '{text}'; echo \"$*\" > {tmp_path}/argv")
    chain = acme.issue(SETTINGS, b"REQUEST")
    assert [pem.dump_certificate(item).decode() for item in chain] == [text]
    assert "--accept-terms --no-lock --signcsr" in (tmp_path / "argv").read_text()
    assert os.listdir(tmp_path / "acme") == []
    assert os.stat(tmp_path / "acme").st_mode & 0o777 == 0o700


def test_the_reason_of_a_failure_is_told_and_nothing_stays(base, tmp_path):
    base(
        "echo '+ progress' >&2; echo 'ERROR: Challenge is invalid!' >&2; "
        "touch $TMPDIR/left $TMPDIR/challenges/left; exit 1"
    )
    with pytest.raises(pem.TlsError, match=r"https://ca.test/dir gave no certificate:\nERROR: Challenge is invalid!$"):
        acme.issue(SETTINGS, b"REQUEST")
    assert os.listdir(tmp_path / "acme") == []


def test_a_bad_nonce_is_tried_again(base, tmp_path):
    base(
        f"echo x >> {tmp_path}/tries\n"
        f"[ $(wc -l < {tmp_path}/tries) -gt 2 ] || {{ echo urn:ietf:params:acme:error:badNonce >&2; exit 1; }}\n"
        f"echo '{certificate()}'"
    )
    acme.issue(SETTINGS, b"REQUEST")
    assert (tmp_path / "tries").read_text() == "x\n" * 3


def test_the_secret_of_dns_is_in_a_private_file_and_in_no_argument(base, tmp_path):
    base(
        f'echo "$*" > {tmp_path}/argv; . $2; cp $(dirname $2)/dns.json {tmp_path}/dns.json; '
        f"stat -c %a $(dirname $2)/dns.json > {tmp_path}/mode; $HOOK unknown_event || exit 3; "
        f"cat $HOOK >> {tmp_path}/argv; echo '{certificate()}'"
    )
    acme.issue({**SETTINGS, "challenge": "dns-01", "dns": {"key_secret": "CANARY"}}, b"REQUEST")
    assert json.loads((tmp_path / "dns.json").read_text()) == {"key_secret": "CANARY"}
    assert (tmp_path / "mode").read_text() == "600\n"
    assert "CANARY" not in (tmp_path / "argv").read_text()


def test_dns_is_cleaned_up_after_a_failure_too(base, monkeypatch):
    cleaned = []
    monkeypatch.setattr(acme.hook, "clean_up", lambda folder: cleaned.append(os.path.exists(f"{folder}/dns.json")))
    base("exit 1")
    with pytest.raises(pem.TlsError):
        acme.issue({**SETTINGS, "challenge": "dns-01", "dns": {}}, b"REQUEST")
    assert cleaned == [True]


def test_a_webroot_that_is_not_there_is_named(base):
    with pytest.raises(pem.TlsError, match=r"/no/where, does not exist"):
        acme.issue({**SETTINGS, "webroot": "/no/where"}, b"REQUEST")


def fetch(port, path, address="127.0.0.1"):
    link = http.client.HTTPConnection(address, port, timeout=60)
    link.request("GET", path)
    answer = link.getresponse()
    return answer.status, answer.read()


def test_the_listener_serves_challenges_on_both_families_and_nothing_else(tmp_path):
    (tmp_path / "token-1_x").write_text("answer")
    (tmp_path.parent / "outside").write_text("secret")
    with acme.listener(str(tmp_path), 0) as port:
        good = "/.well-known/acme-challenge/token-1_x"
        assert fetch(port, good) == (200, b"answer")
        if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
            assert fetch(port, good, "::1") == (200, b"answer")
        for path in ("/", "/token-1_x", good + "/", good + "?x", "/.well-known/acme-challenge/../outside"):
            assert fetch(port, path)[0] == 404
    with pytest.raises(OSError):
        fetch(port, good)


def test_a_port_in_use_is_explained(tmp_path):
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(pem.TlsError, match=rf"port {port} is needed.*webroot"), acme.listener(str(tmp_path), port):
            pass
