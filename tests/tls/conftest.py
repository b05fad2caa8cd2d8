# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles resolver and mail_tls on bare containers, beside a signed DNS root (Knot) and an ACME server (Pebble).

Environment: POSTMEISTER_IMAGE_13, POSTMEISTER_IMAGE_12 (images), POSTMEISTER_APT_13, POSTMEISTER_APT_12 (volumes for
apt's cache), CONTAINERS_CONF (podman's own).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COLLECTION = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "IMAGE_13": "postmeister-lab/trixie",
    "IMAGE_12": "postmeister-lab/bookworm",
    "APT_13": "pm-apt-13",
    "APT_12": "pm-apt-12",
}
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
for i in $(seq 50); do keymgr example.test. ds | grep -q ' 13 2 ' && break; sleep 0.2; done
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
    --setenv=PEBBLE_AUTHZREUSE=0 pebble -config pebble.json -dnsserver {v4}:53
for i in $(seq 50); do curl -s --cacert ca.pem https://{v4}:14000/dir >/dev/null && break; sleep 0.2; done
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


def setting(kind: str, release: str) -> str:
    return os.environ.get(f"POSTMEISTER_{kind}_{release}", DEFAULTS[f"{kind}_{release}"])


def podman(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(["podman", *argv], input=stdin, capture_output=True, text=True, check=False, timeout=600)
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(argv)}: {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


class Machine:
    """A container."""

    def __init__(self, release: str, network: str) -> None:
        self.release, self.name = release, f"postmeister-tls-{release}-{uuid.uuid4().hex[:6]}"
        options = []
        with contextlib.suppress(OSError):  # no network: the image may have a mirror of its own
            options = ["--add-host", f"deb.debian.org:{socket.gethostbyname('deb.debian.org')}"]
        podman(
            "run",
            "--detach",
            f"--name={self.name}",
            "--systemd=always",
            "--dns=none",
            f"--network={network}",
            *options,
            setting("IMAGE", release),
        )
        for _turn in range(100):
            if self.sh("systemctl is-system-running", check=False).strip() in ("running", "degraded"):
                break
            time.sleep(0.1)
        found = json.loads(podman("inspect", self.name))[0]["NetworkSettings"]["Networks"][network]
        self.v4, self.v6 = found["IPAddress"], found["GlobalIPv6Address"]

    def sh(self, script: str, check: bool = True, stdin: str | None = None) -> str:
        return podman("exec", "-i", self.name, "sh", "-c", script, stdin=stdin, check=check)

    def remove(self) -> None:
        podman("rm", "--force", "--time=0", self.name, check=False)


class Host(Machine):
    """A mail host, brought to its roles by ansible-playbook."""

    def __init__(self, release: str, network: str, ca: Machine, folder: Path) -> None:
        super().__init__(release, network)
        self.ca, self.folder = ca, folder
        self.hostname = f"mail{release}.example.test"
        self.last = ""
        ca.dns(f"add {self.hostname}. 60 A {self.v4}", f"add {self.hostname}. 60 AAAA {self.v6}")
        self.sh("cat > /etc/ssl/lab-ca.pem", stdin=ca.sh("cat /root/pebble/ca.pem"))
        collections = folder / "ansible_collections" / "postmeister"
        collections.mkdir(parents=True)
        (collections / "host").symlink_to(COLLECTION)
        self.variables: dict[str, Any] = {
            "ansible_connection": "containers.podman.podman",
            "ansible_python_interpreter": "/usr/bin/python3",
            "resolver_trust_anchor": ca.anchor,
            "resolver_root_hints": f". 9 NS ns.nic.lab.\nns.nic.lab. 9 A {ca.v4}\nns.nic.lab. 9 AAAA {ca.v6}\n",
            "resolver_nodefault_zones": ["test."],
            "mail_tls_hostname": self.hostname,
            "mail_tls_reload": ["reader.service"],
        }
        self.acme = {
            "mail_tls_method": "acme",
            "mail_tls_acme_directory": f"https://{ca.v4}:14000/dir",
            "mail_tls_acme_ca_file": "/etc/ssl/lab-ca.pem",
        }
        self.dns01 = {
            **self.acme,
            "mail_tls_acme_challenge": "dns-01",
            "mail_tls_dns_server": "ns.nic.lab",
            "mail_tls_dns_key_name": "acme.",
            "mail_tls_dns_key_secret": SECRET,
        }
        self.sh(
            "cat > /etc/systemd/system/reader.service; systemctl start reader",
            stdin="[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo x >> /run/reloaded'\n",
        )

    def play(self, role: str, *options: str, fails: bool = False, **variables: Any) -> int:
        """Run a role; returns the number of changed tasks. Everything that was printed is in last."""
        playbook = self.folder / f"{role}.yml"
        roles = [f"postmeister.host.{role}"]
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
        given = self.folder / "variables.json"
        given.write_text(json.dumps({**self.variables, **variables}))
        argv = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            f"{self.name},",
            f"--extra-vars=@{given}",
        ]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            [*argv, *options, str(playbook)], env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        self.last = done.stdout + done.stderr
        assert bool(done.returncode) is fails, self.last
        recap = re.search(r"changed=(\d+)", self.last)
        assert recap, self.last
        return int(recap.group(1))

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


class Ca(Machine):
    """Knot and Pebble."""

    def __init__(self, network: str) -> None:
        super().__init__("13", network)
        self.sh(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -q >/dev/null && apt-get install -y -q "
            "--no-install-recommends pebble knot knot-dnsutils openssl curl >/dev/null"
        )
        self.sh(CA_SETUP.format(v4=self.v4, v6=self.v6, secret=SECRET))
        self.anchor = next(line for line in self.sh("keymgr . ds").splitlines() if " 13 2 " in line)

    def dns(self, *lines: str) -> None:
        text = [f"server {self.v4}", "zone example.test.", f"key hmac-sha256:acme. {SECRET}", *lines, "send"]
        self.sh("knsupdate", stdin="\n".join(text) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tls: runs roles against an ACME server in containers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.tls)


@pytest.fixture(scope="session")
def ca() -> Iterator[Ca]:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    network = f"postmeister-tls-{uuid.uuid4().hex[:6]}"
    podman("network", "create", "--ipv6", network)
    machine = None
    try:
        machine = Ca(network)
        machine.network = network
        yield machine
    finally:
        if machine:
            machine.remove()
        podman("network", "rm", "--force", network, check=False)


@pytest.fixture(scope="session", params=["13", "12"])
def bare(request: pytest.FixtureRequest, ca: Ca, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A bare host of both releases, one after the other."""
    host = Host(request.param, ca.network, ca, tmp_path_factory.mktemp(f"host{request.param}"))
    try:
        yield host
    finally:
        host.remove()


@pytest.fixture(scope="session")
def host(bare: Host) -> Host:
    """The same host once the resolver answers."""
    bare.play("resolver")
    return bare
