# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles resolver and mail_tls on bare machines, beside a signed DNS root (Knot) and an ACME server (Pebble)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pmlab.machine import Machine
from pmlab.podman import podman

SECRET = "Y2FuYXJ5LXRzaWctc2VjcmV0LTEyMzQ1Njc4OTA="
CA_SETUP = r"""
set -e
mkdir -p /var/lib/knot/zones
cat > /etc/knot/knot.conf <<END
server:
    listen: [ {v4}@53, {v6}@53 ]
    rundir: /run/knot
database:
    storage: /var/lib/knot
key:
  - id: acme.
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: update
    key: acme.
    action: update
policy:
  - id: sign
    algorithm: ecdsap256sha256
template:
  - id: default
    storage: /var/lib/knot/zones
    file: "%s.zone"
    dnssec-signing: on
    dnssec-policy: sign
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    acl: update
zone:
  - domain: .
    file: root.zone
  - domain: example.test.
END
cat > /var/lib/knot/zones/root.zone <<END
. 60 SOA ns.nic.lab. h.nic.lab. 1 60 60 3600 1
. 60 NS ns.nic.lab.
ns.nic.lab. 60 A {v4}
ns.nic.lab. 60 AAAA {v6}
example.test. 60 NS ns.nic.lab.
END
printf 'example.test. 60 SOA ns.nic.lab. h.nic.lab. 1 60 60 3600 1\nexample.test. 60 NS ns.nic.lab.\n' \
    > /var/lib/knot/zones/example.test.zone
chown -R knot:knot /var/lib/knot
systemctl restart knot
for i in $(seq 600); do keymgr example.test. ds | grep -q ' 13 2 ' && break; sleep 0.2; done
DS=$(keymgr example.test. ds | grep ' 13 2 ' | head -1 | cut -d' ' -f3-)
knotc zone-begin . && knotc zone-set . example.test. 60 DS $DS && knotc zone-commit .

mkdir -p /root/pebble && cd /root/pebble
openssl ecparam -genkey -name prime256v1 -noout -out ca.key
openssl req -x509 -new -key ca.key -days 30 -subj '/CN=Lab root' -out ca.pem
openssl ecparam -genkey -name prime256v1 -noout -out key.pem
openssl req -new -key key.pem -subj /CN=pebble -out request.pem
printf 'subjectAltName=IP:{v4}\n' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out cert.pem
cat > pebble.json <<END
{{"pebble": {{"listenAddress": "{v4}:14000", "managementListenAddress": "{v4}:15000", "certificate": "cert.pem",
  "privateKey": "key.pem", "httpPort": 80, "tlsPort": 443}}}}
END
systemd-run --quiet --unit=pebble --working-directory=/root/pebble --setenv=PEBBLE_VA_NOSLEEP=1 \
    --setenv=PEBBLE_WFE_NONCEREJECT=0 --setenv=PEBBLE_AUTHZREUSE=0 pebble -config pebble.json -dnsserver {v4}:53
for i in $(seq 600); do curl -s --cacert ca.pem https://{v4}:14000/dir >/dev/null && break; sleep 0.2; done
"""
KEYS = """
import glob, json, subprocess
def spki(path, kind):
    public = ["openssl", "x509", "-pubkey", "-noout"] if kind == "x509" else ["openssl", "pkey", "-pubout"]
    pem = subprocess.run([*public, "-in", path], capture_output=True, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem, capture_output=True, check=True)
    return subprocess.run(["sha256sum"], input=der.stdout, capture_output=True).stdout.decode().split()[0]
folder = glob.glob("/etc/ssl/postmeister/*/")[0]
mail = folder + "mail.pem"
print(json.dumps([spki(mail, "x509"), spki(mail, "pkey"), spki(folder + "next.key", "pkey")]))
"""


class Ca(Machine):
    """Knot and Pebble, on a network that is removed with them."""

    def __init__(self) -> None:
        self.network = f"pm-tls-{uuid.uuid4().hex[:6]}"
        super().__init__(13, "tls-ca", f"--network={self.network}")
        self.anchor = ""

    def start(self) -> None:
        podman("network", "create", "--ipv6", self.network)
        super().start()
        self.sh(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
            "apt-get install -o Acquire::Retries=5 -y -q --no-install-recommends "
            "pebble knot knot-dnsutils openssl curl"
        )
        self.sh(CA_SETUP.format(v4=self.address, v6=self.address6, secret=SECRET))
        self.anchor = next(line for line in self.sh("keymgr . ds").splitlines() if " 13 2 " in line)

    def remove(self) -> None:
        super().remove()
        podman("network", "rm", "--force", self.network, check=False)

    def dns(self, *lines: str) -> None:
        text = [f"server {self.address}", "zone example.test.", f"key hmac-sha256:acme. {SECRET}", *lines, "send"]
        self.sh("knsupdate", stdin="\n".join(text) + "\n")


class Host(Machine):
    """A mail host, brought to its roles by ansible-playbook."""

    def __init__(self, release: int, ca: Ca) -> None:
        super().__init__(release, "tls", f"--network={ca.network}")
        self.ca = ca
        self.hostname = f"mail{release}.example.test"
        #: what the last run printed
        self.last = ""
        servers = f"ns.nic.lab. 9 A {ca.address}\nns.nic.lab. 9 AAAA {ca.address6}\n"
        self.variables: dict[str, Any] = {
            "resolver_trust_anchor": ca.anchor,
            "resolver_root_hints": f". 9 NS ns.nic.lab.\n{servers}",
            "resolver_nodefault_zones": ["test."],
            "mail_tls_hostname": self.hostname,
            "mail_tls_reload": ["reader.service"],
        }
        self.acme = {
            "mail_tls_method": "acme",
            "mail_tls_acme_directory": f"https://{ca.address}:14000/dir",
            "mail_tls_acme_ca_file": "/etc/ssl/lab-ca.pem",
        }
        self.dns01 = {
            **self.acme,
            "mail_tls_acme_challenge": "dns-01",
            "mail_tls_dns_server": "ns.nic.lab",
            "mail_tls_dns_key_name": "acme.",
            "mail_tls_dns_key_secret": SECRET,
        }

    def start(self) -> None:
        super().start()
        self.ca.dns(f"add {self.hostname}. 60 A {self.address}", f"add {self.hostname}. 60 AAAA {self.address6}")
        self.put("/etc/ssl/lab-ca.pem", self.ca.read("/root/pebble/ca.pem"))
        reader = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo x >> /run/reloaded'\n"
        self.put("/etc/systemd/system/reader.service", reader)
        self.sh("systemctl start reader")

    def role(self, role: str, *options: str, fails: bool = False, **variables: Any) -> int:
        """Run a role; returns the number of changed tasks."""
        tasks = [{"ansible.builtin.import_role": {"name": f"postmeister.host.{role}"}}]
        run = self.play(tasks, *options, **{**self.variables, **variables})
        self.last = run.output
        assert bool(run.rc) is fails, run.output
        return run.stats["changed"]

    def keys(self) -> tuple[str, str]:
        """SPKI hashes of the certificate in use and of the next key, computed by openssl alone."""
        certificate, current, following = json.loads(self.sh("python3 -", stdin=KEYS))
        assert certificate == current
        return current, following

    def publish(self, *spki: str) -> None:
        owner = f"_25._tcp.{self.hostname}."
        self.ca.dns(f"del {owner} TLSA", *(f"add {owner} 60 TLSA 3 1 1 {item}" for item in spki))
        self.sh("unbound-control flush_zone example.test", check=False)

    def reloads(self) -> int:
        return int(self.sh("cat /run/reloaded 2>/dev/null | wc -l"))


@pytest.fixture(scope="session")
def ca() -> Iterator[Ca]:
    with Ca() as machine:
        yield machine


@pytest.fixture(scope="session", params=[13, 12])
def bare(request: pytest.FixtureRequest, ca: Ca) -> Iterator[Host]:
    """A bare host of each release."""
    with Host(request.param, ca) as host:
        yield host


@pytest.fixture(scope="session")
def host(bare: Host) -> Host:
    """The same host once the resolver answers."""
    bare.role("resolver")
    return bare
