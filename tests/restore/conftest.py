# SPDX-License-Identifier: GPL-3.0-or-later

"""A mail host of Debian 12 is lost; its last backup becomes one of Debian 13.

One story, told once: the tests look at what came of it. The hosts are on the lab's network, whose DNS they ask.
"""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import re
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pmlab import connection
from pmlab.machine import Machine
from pmlab.podman import podman
from pmlab.settings import NETWORK, STATE

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
#: last part of the addresses
OLD, NEW = 30, 31
ALICE, PASSWORD = "alice@example.test", "canary-alice-Rs7tQw2E"
ADHOC, ADHOC_PASSWORD = "adhoc@example.test", "canary-adhoc-Lp4vXc9N"
KNOWN, STRANGER = "friend@big.test", "stranger@big.test"
VAULT, JOB = "/srv/vault/mail", "mail"
ROLE = "postmeister.host.rsync_time_backup"
#: what makes the host this host, and what no run of the playbook could make again
KEYS = "find /etc/postmeister/dkim /etc/ssl/postmeister -type f ! -name state.json | sort | xargs sha256sum"
#: names of all owners, so that numbers do not matter; the folder of logs and locks of Dovecot's is its own affair
OWNERS = (
    "find /var/vmail /var/lib/redis/dump.rdb /etc/postmeister/dkim /var/lib/postgrey/postgrey.db "
    "-printf '%p %u %g\\n' | sort"
)


@dataclass
class Host:
    """A host, as its operator sees it."""

    machine: Machine
    variables: dict[str, Any] = field(default_factory=dict)
    public_key: str = ""

    def __str__(self) -> str:
        return f"debian{self.machine.release}"

    def sh(self, script: str, check: bool = True) -> str:
        return self.machine.sh(script, check)

    def play(self, playbook: Path | list[dict[str, Any]], *options: str, good: bool = True, **variables: Any) -> str:
        """Run a playbook or tasks with this host's inventory; what was said, in one line."""
        given = {
            **connection.variables(self.machine.pid),
            "ansible_become": False,
            **self.variables,
            **variables,
        }
        environment = {**os.environ, **connection.ENVIRONMENT, "ANSIBLE_PIPELINING": "1"}
        environment |= {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "10000"}
        with tempfile.TemporaryDirectory() as folder:
            # Not as extra variables: a task on the controller must not be sent into the container.
            inventory = Path(folder) / "inventory.json"
            inventory.write_text(json.dumps({"all": {"hosts": {self.machine.name: given}}}))
            path = playbook if isinstance(playbook, Path) else Path(folder) / "play.json"
            if not isinstance(playbook, Path):
                path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": playbook}]))
            program = str(Path(sys.executable).parent / "ansible-playbook")
            argv = [program, "-i", str(inventory), "-e", "target=all", *options, str(path)]
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
            )
        said = " ".join((done.stdout + done.stderr).split())
        if (done.returncode == 0) != good:
            raise AssertionError(done.stdout[-6000:] + done.stderr[-2000:])
        return said

    def jobs(self, **variables: Any) -> None:
        """Run the backup's role, and remember the key that its job made."""
        tasks = [
            {"import_role": {"name": ROLE}},
            {"debug": {"msg": "KEYS={{ rsync_time_backup_result.public_keys | to_json }}=KEYS"}},
        ]
        said = self.play(tasks, **{f"rsync_time_backup_{name}": value for name, value in variables.items()})
        found = re.search(r'"KEYS=(.*?)=KEYS"', said)
        assert found, said
        self.public_key = json.loads(json.loads(f'"{found[1]}"')).get(JOB, "")

    def backup(self) -> bool:
        """Run the job as its timer would."""
        return not self.sh(f"systemctl start postmeister-backup-{JOB}.service >/dev/null 2>&1 || echo failed", False)

    def journal(self) -> str:
        return self.sh(f"journalctl --quiet -o cat -n 60 -u postmeister-backup-{JOB}.service", check=False)

    def inbox(self, user: str, password: str, subject: str, folder: str = "INBOX") -> list[bytes]:
        """Messages with this subject, over IMAP."""
        with imaplib.IMAP4_SSL(self.machine.address, ssl_context=trusting(), timeout=60) as client:
            client.login(user, password)
            if client.select(folder)[0] != "OK":
                return []
            numbers = client.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
            return [client.fetch(number.decode(), "(FLAGS BODY.PEEK[])")[1][0][1] for number in numbers]

    def knock(self, sender: str, subject: str = "") -> int:
        """Mail to Alice from this machine, as another provider's server would send it; the reply code to RCPT TO."""
        with smtplib.SMTP(self.machine.address, 25, local_hostname="mail.big.test", timeout=60) as client:
            client.ehlo()
            assert client.mail(sender)[0] == 250
            code = client.rcpt(ALICE)[0]
            if code == 250 and subject:
                text = f"From: {sender}\r\nTo: {ALICE}\r\nSubject: {subject}\r\n\r\nHello.\r\n"
                assert client.data(text)[0] == 250
            return code

    def submit(self, subject: str) -> None:
        """Alice writes to herself."""
        text = f"From: {ALICE}\r\nTo: {ALICE}\r\nSubject: {subject}\r\n\r\nHello.\r\n"
        with smtplib.SMTP_SSL(self.machine.address, 465, timeout=60, context=trusting()) as client:
            client.login(ALICE, PASSWORD)
            assert client.sendmail(ALICE, [ALICE], text) == {}

    def delivered(self, subject: str) -> list[bytes]:
        """Alice's mail with this subject, once it is there; mail from this machine looks like spam, and is mail."""
        found: list[bytes] = []
        deadline = time.monotonic() + 120
        while not found and time.monotonic() < deadline:
            found = self.inbox(ALICE, PASSWORD, subject) or self.inbox(ALICE, PASSWORD, subject, "Junk")
            time.sleep(0.2)
        return found


def trusting() -> ssl.SSLContext:
    """The certificate is self-signed; whether it is the same one is looked at elsewhere."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def mailserver(address: str) -> dict[str, Any]:
    """The inventory, the same for all but the address."""
    return {
        "mailserver_hostname": "mx.example.test",
        "mailserver_ipv4": address,
        "mailserver_domains": [{"name": "example.test"}],
        "mailserver_postmaster": ALICE,
        "mailserver_mailboxes": [{"address": ALICE, "password": PASSWORD}],
        "mailserver_dns_provider": "none",
        "mailserver_tls_method": "selfsigned",
        "mailserver_policy": {"preset": "open"},
        "mailserver_bans": False,
        "postgrey_delay": "1s",
        "resolver_trust_anchor": (STATE / "root.key").read_text(),
        "resolver_root_hints": (STATE / "root.hints").read_text(),
        "resolver_nodefault_zones": ["test", "100.51.198.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"],
    }


@dataclass
class Story:
    """The old host's last state, the new host, and what was said on the way."""

    old: Host
    new: Host
    keys: str = ""
    owners: str = ""
    uids: dict[str, str] = field(default_factory=dict)
    snapshot: str = ""
    said: dict[str, str] = field(default_factory=dict)

    # The steps, in their order

    def live_on_the_old_host(self) -> None:
        """A mail host with a password that only it knows, mail, a sender it knows, and something learnt."""
        old = self.old
        old.play(PLAYBOOKS / "mailserver.yml")
        made = {"address": ADHOC, "password": ADHOC_PASSWORD, "state": "present"}
        old.play([{"postmeister.host.mail_user": made}])
        deadline = time.monotonic() + 60
        while old.knock(KNOWN, "From a friend") != 250:
            assert time.monotonic() < deadline
            time.sleep(1)
        old.submit("An old mail")
        assert old.delivered("From a friend") and old.delivered("An old mail")
        with imaplib.IMAP4_SSL(old.machine.address, ssl_context=trusting(), timeout=60) as client:
            client.login(ALICE, PASSWORD)
            client.create("Kept")
            client.select("INBOX")
            assert client.copy("1", "Kept")[0] == "OK"
        # At its end Redis writes what it holds; in service at the latest after a quarter of an hour.
        old.sh("redis-cli -s /run/redis/redis-server.sock set learnt kept; systemctl restart redis-server")

    def back_up(self) -> None:
        old = self.old
        self.job = {"name": JOB, "preset": "mail_host", "schedule": "", "nice": 0, "ionice": "none"}
        self.upstream = {"implementation": "python", "source": str(self.wheel)}
        old.jobs(jobs=[{**self.job, "destination": VAULT}], **self.upstream)
        if not old.backup():
            raise AssertionError(old.journal())
        self.snapshot = old.sh(f"readlink {VAULT}/latest").strip()
        self.keys, self.owners = old.sh(KEYS), old.sh(OWNERS)
        self.uids = {name: old.sh(f"id -u {name}").strip() for name in ("vmail", "redis", "postgrey")}
        # Nothing of the old host is of use from here on but the folder that stands for a vault.
        old.sh("systemctl disable --now postfix dovecot redis-server postgrey rspamd 2>&1")

    wheel: Path = Path()
    job: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)

    def let_the_new_host_in(self) -> None:
        """The new host gets the job of the old one; its snapshots lie on another host now."""
        old, new = self.old, self.new
        host_key = old.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()
        job = {**self.job, "destination": f"root@{old.machine.address}:{VAULT}", "host_keys": [host_key]}
        new.jobs(jobs=[job], **self.upstream)
        peer = {"name": "new", "public_key": new.public_key, "path": VAULT, "access": "write"}
        old.jobs(jobs=[{**self.job, "destination": VAULT}], peers=[peer], **self.upstream)
        # Others have the numbers already that the old owners had.
        new.sh("; ".join(f"useradd --system --uid {uid} taken-{name}" for name, uid in self.uids.items()))

    def restore(self) -> None:
        """As the README says: look, bring back, run the playbook."""
        new, playbook = self.new, PLAYBOOKS / "backup_restore.yml"
        self.said["backup of an empty host"] = f"{new.backup()} {new.journal()}"
        self.said["look"] = new.play(playbook, "--check", "--diff", backup_job=JOB)
        self.said["without confirmation"] = new.play(playbook, good=False, backup_job=JOB)
        new.play(playbook, backup_job=JOB, backup_confirm=f"{JOB} {self.snapshot}")
        new.play(PLAYBOOKS / "mailserver.yml")


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The whole story."""
    # The lab's DNS; does nothing where it runs.
    subprocess.run([sys.executable, "-m", "pmlab", "up", "dns"], check=True, stdin=subprocess.DEVNULL)
    # What a run that was killed left has these addresses.
    for name in podman("ps", "--all", "--format={{.Names}}", "--filter=name=^pm-restore-").split():
        podman("rm", "--force", "--time=0", "--volumes", name)
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
    argv += ["--disable-pip-version-check", "rsync-time-machine==1.4.2"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    def machine(release: int, number: int) -> Host:
        # A firewall of its own, as any machine has.
        options = [f"--network={NETWORK}:ip=198.51.100.{number},ip=2001:db8:51::{number}", "--cap-add=NET_ADMIN"]
        found = Machine(release, "restore", *options, hostname="mx.example.test")
        return Host(found, mailserver(f"198.51.100.{number}"))

    tale = Story(machine(12, OLD), machine(13, NEW))
    tale.wheel = sorted(folder.glob("*.whl"))[0]
    hosts = [tale.old, tale.new]
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.callback(host.machine.remove)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: host.machine.start(), hosts))
        tale.old.sh("apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y openssh-server")
        tale.old.sh("systemctl start ssh")
        tale.live_on_the_old_host()
        tale.back_up()
        tale.let_the_new_host_in()
        tale.restore()
        yield tale


@pytest.fixture
def host(story: Story) -> Host:
    """The new host."""
    return story.new
