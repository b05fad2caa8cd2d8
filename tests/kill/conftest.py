# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Debian container with systemd and strace, and the collection's modules in it, run from an args file.

Environment: POSTMEISTER_IMAGE_13, POSTMEISTER_IMAGE_12 (images), POSTMEISTER_APT_13, POSTMEISTER_APT_12 (volumes for
apt's cache), CONTAINERS_CONF (podman's own).
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible
import pytest

COLLECTION = Path(__file__).resolve().parents[2]
MODULES = "/opt/postmeister/ansible_collections/postmeister/host/plugins/modules"
DEFAULTS = {
    "IMAGE_13": "postmeister-lab/trixie",
    "IMAGE_12": "postmeister-lab/bookworm",
    "APT_13": "pm-apt-13",
    "APT_12": "pm-apt-12",
}
#: A folder on a small tmpfs of its own, inside of Postfix's configuration.
SMALL = "/etc/postfix/small"

MAIN = """compatibility_level = 3.6
myhostname = mail.example.test
mydestination =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.2/32
smtpd_recipient_restrictions = reject_unauth_destination
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:x
virtual_mailbox_base = /var/vmail
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_alias_maps = texthash:/etc/postfix/aliases
alias_maps =
alias_database =
"""
MASTER = """smtp      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
"""
CLIENT = """
import smtplib
client = smtplib.SMTP("127.0.0.1", 25, local_hostname="client.example.test", timeout=20)
client.ehlo()
print(client.docmd("MAIL", "FROM:<>")[0], client.docmd("RCPT", "TO:<postmaster@example.test>")[0])
client.docmd("RSET")
client.quit()
"""


def setting(kind: str, release: str) -> str:
    return os.environ.get(f"POSTMEISTER_{kind}_{release}", DEFAULTS[f"{kind}_{release}"])


def podman(*argv: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(["podman", *argv], input=stdin, capture_output=True, check=False, timeout=600)
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(argv)}: {done.returncode}\n{(done.stderr + done.stdout).decode()}")
    return done


class Host:
    """The container."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.name = f"postmeister-kill-{release}-{uuid.uuid4().hex[:6]}"
        self.count = 0

    def start(self) -> None:
        options = []
        with contextlib.suppress(OSError):  # no network: the image may have a mirror of its own
            options = ["--add-host", f"deb.debian.org:{socket.gethostbyname('deb.debian.org')}"]
        podman(
            "run",
            "--detach",
            f"--name={self.name}",
            "--systemd=always",
            "--dns=none",
            "--hostname=mail.example.test",
            "--cap-add=SYS_PTRACE",
            f"--tmpfs={SMALL}:size=64k,mode=0755",
            f"--volume={setting('APT', self.release)}:/var/cache/apt/archives:O",
            *options,
            setting("IMAGE", self.release),
        )
        self.wait()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:

            def source(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
                return None if "__pycache__" in info.name else info

            target = "opt/postmeister/ansible_collections/postmeister/host/plugins"
            for part in ("module_utils", "modules"):
                tar.add(COLLECTION / "plugins" / part, f"{target}/{part}", filter=source)
            tar.add(
                Path(str(ansible.__file__)).parent / "module_utils",
                "opt/postmeister/ansible/module_utils",
                filter=source,
            )
            tar.addfile(tarfile.TarInfo("opt/postmeister/ansible/__init__.py"))
        podman("exec", "-i", self.name, "tar", "-x", "-C", "/", stdin=archive.getvalue())

    def wait(self) -> None:
        for _turn in range(100):
            state = self.sh("systemctl is-system-running", check=False).strip()
            if state in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: systemd is {state}")

    def sh(self, script: str, check: bool = True) -> str:
        return podman("exec", self.name, "sh", "-c", script, check=check).stdout.decode()

    def read(self, path: str) -> str:
        return self.sh(f"cat {path}")

    def power_cut(self) -> None:
        """SIGKILL to PID 1 and everything else, then a boot."""
        podman("kill", "--signal=KILL", self.name)
        podman("wait", self.name, check=False)
        podman("start", self.name)
        self.wait()

    def answers(self) -> str:
        """The codes for MAIL and RCPT, or why there are none."""
        done = podman("exec", "-i", self.name, "python3", "-", stdin=CLIENT.encode(), check=False)
        return done.stdout.decode().strip() or done.stderr.decode().strip().splitlines()[-1]

    def serves(self) -> bool:
        """Postfix answers a transaction; it gets a moment to come up."""
        for _turn in range(50):
            if self.answers() == "250 250":
                return True
            time.sleep(0.1)
        return False

    def module(self, name: str, arguments: dict[str, Any], strace: str = "", check: bool = True) -> dict[str, Any]:
        """Run a module from an args file; strace holds options for strace. A killed run returns {}."""
        done = self.start_module(name, arguments, strace)
        out, err = done.communicate(timeout=600)
        text = out.decode()
        if not text.strip():
            assert not check, f"{name}: no answer, status {done.returncode}\n{err.decode()}"
            return {}
        result = json.loads(text)
        result["raw"] = text + err.decode()
        assert not (check and result.get("failed")), f"{name}: {result.get('msg')}"
        return result

    def start_module(self, name: str, arguments: dict[str, Any], strace: str = "") -> subprocess.Popen[bytes]:
        self.count += 1
        path = f"/root/args-{self.count}.json"
        podman(
            "exec",
            "-i",
            self.name,
            "sh",
            "-c",
            f"cat > {path}",
            stdin=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(),
        )
        script = f"exec {strace} python3 {MODULES}/{name}.py {path}"
        environment = ["--env=PYTHONPATH=/opt/postmeister", "--env=PYTHONDONTWRITEBYTECODE=1"]
        return subprocess.Popen(
            ["podman", "exec", *environment, self.name, "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def unconfigure(self) -> None:
        """As after the installation of the package, whatever the test before did."""
        self.sh(
            "systemctl mask --now postfix.service; rm -f /etc/postfix/main.cf /var/lib/postmeister/services/postfix/*"
        )
        self.sh("cp /etc/postfix/master.cf.proto /etc/postfix/master.cf")

    def configure(
        self,
        main: str = MAIN,
        master: str = MASTER,
        aliases: str = "",
        more: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        return self.module(
            "service_config", arguments(main, master, aliases, more, **options.pop("arguments", {})), **options
        )

    def leftovers(self, *folders: str) -> str:
        """Files that a change leaves beside the live ones, and what its own folder should not hold."""
        names = r"-name '*.postmeister-*' -o -name 'journal-*' -o -name stage"
        return self.sh(f"find {' '.join(folders or ['/etc', '/usr/local', '/var/lib/postmeister'])} {names}")


def arguments(
    main: str = MAIN, master: str = MASTER, aliases: str = "", more: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    files = [
        {"dest": "/etc/postfix/main.cf", "content": main},
        {"dest": "/etc/postfix/master.cf", "content": master},
        {"dest": "/etc/postfix/aliases", "content": aliases},
        *(more or []),
    ]
    shown = [{key: value for key, value in file.items() if key != "content"} for file in files]
    payload = base64.b64encode(zlib.compress(json.dumps(files).encode())).decode()
    probe = {"hostname": "probe.example.test", "recipient": "postmaster@example.test", "foreign": "a@b.invalid"}
    return {"service": "postfix", "files": shown, "payload": payload, "probe": probe, "_ansible_diff": True, **options}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kill: runs modules in a container and kills them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kill)


def _host(release: str) -> Iterator[Host]:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    host = Host(release)
    try:
        host.start()
        host.module(
            "packages",
            {
                "names": ["postfix", "strace"],
                "hold": ["postfix.service"],
                "preseed": {"postfix": {"postfix/main_mailer_type": "No configuration"}},
            },
        )
        yield host
    finally:
        podman("rm", "--force", "--time=0", host.name, check=False)


@pytest.fixture(scope="session")
def trixie() -> Iterator[Host]:
    yield from _host("13")


@pytest.fixture(scope="session", params=["13", "12"])
def both(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The host of one release after the other, for what may differ between them."""
    if request.param == "13":
        yield request.getfixturevalue("trixie")
    else:
        yield from _host(request.param)
