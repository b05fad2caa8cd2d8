# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail is not lost while the playbook changes the hosts, fails, is killed, and while the hosts lose power.

One story: another provider's MTA delivers to both hosts without a pause, from before the first change until all is
as the inventory says again. What was seen on the way is kept, and the tests below read it.
"""

from __future__ import annotations

import imaplib
import re
import smtplib
import ssl
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import Box, at_remote, domain_of, idle, message, new_subject, submit, talk, trusting, until
from conftest import CANARY, HOSTS, INVENTORY, Run, Site, Story
from test_runs import secrets_of

Accounts = dict[str, tuple[str, str]]

# Runs at the other provider: a message to each recipient, again and again, until standard input ends.
SENDER = """
import select, subprocess, sys
sender, *recipients = sys.argv[1:]
number = 0
while not select.select([sys.stdin], [], [], 0.6)[0]:
    for recipient in recipients:
        tag = recipient.partition("+")[2].partition("@")[0]
        text = f"From: {sender}\\nTo: {recipient}\\nSubject: {tag}-{number}\\n\\nHello.\\n"
        subprocess.run(["sendmail", "-i", "-f", sender, recipient], input=text.encode(), check=True)
    number += 1
    print(number, flush=True)
"""
# Runs on a mail host: kills the module in the middle of its change, while the new files go in and nothing is proven.
KILLER = """
import os, signal, sys, time
folder = f"/var/lib/postmeister/services/{sys.argv[1]}"
deadline = time.monotonic() + 600
while not os.path.exists(f"{folder}/journal-swap.json"):
    if time.monotonic() > deadline:
        sys.exit("no change began")
    time.sleep(0.005)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if any(os.readlink(f"/proc/{pid}/fd/{fd}") == f"{folder}/lock" for fd in os.listdir(f"/proc/{pid}/fd")):
            os.kill(int(pid), signal.SIGKILL)
            print("killed", pid)
    except OSError:
        pass
"""
UNITS = ("unbound", "redis-server", "rspamd", "dovecot", "postfix", "postmeister-certificate.timer")
FORWARDS = {"mx12": ("postsrsd",)}
# Where each host's run is killed: mx with Postfix half changed, mx12 with Dovecot half changed.
KILLED = {"mx": "postfix", "mx12": "dovecot"}
MISSPELT = "permit_mynetwork"


class Flow:
    """The other provider's MTA, its queue and its log of what happened to our messages."""

    def __init__(self, remote: Box, logins: dict[str, str]) -> None:
        self.remote = remote
        self.tag = uuid.uuid4().hex[:10]
        self.sender = f"flow-{self.tag}@remote.test"
        self.recipients = {name: login.replace("@", f"+{self.tag}@") for name, login in logins.items()}
        self.since = f"@{time.time():.3f}"
        argv = ["podman", "exec", "-i", "pm-remote", "python3", "-c", SENDER, self.sender, *self.recipients.values()]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pool = ThreadPoolExecutor(1)
        self.sent = 0
        self._counting = self._pool.submit(self._count)

    def _count(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.sent = int(line)

    def stop(self, hosts: Iterable[Box]) -> None:
        """End the sending, and wait until the queues gave their last messages away: the MTA's, then the hosts' own."""
        assert self._process.stdin
        if not self._process.stdin.closed:
            self._process.stdin.close()
            try:
                assert self._process.wait(120) == 0
            except subprocess.TimeoutExpired:
                doing = self.remote.run("ps", "-eo", "pid,ppid,etime,stat,wchan:24,args")
                raise AssertionError(f"the other provider goes on sending, after {self.sent}:\n{doing}") from None
            self._counting.result()
            self._pool.shutdown()
            for box in hosts:
                recipient = self.recipients[box.name]
                until(partial(idle, self.remote, recipient), 180, f"no mail for {recipient} waits")
                # What came while Dovecot restarted waits on the host for Postfix's next try, in some minutes.
                box.run("postqueue", "-f")
                until(partial(idle, box, recipient), 60, f"no mail for {recipient} waits on {box.name}")

    def log(self, name: str) -> list[str]:
        """What the MTA wrote of each try to deliver to this host."""
        lines = self.remote.journal("postfix@-", "postfix", since=self.since).splitlines()
        return [line for line in lines if f"to=<{self.recipients[name]}>" in line and "status=" in line]

    def doubts(self, box: Box) -> int:
        """How often the MTA does not know whether the host took a message."""
        lines = self.remote.journal("postfix@-", "postfix", since=self.since).splitlines()
        return sum("message may be sent more than once" in line and f" {box.fqdn}[" in line for line in lines)

    def passes(self, box: Box) -> None:
        """A message that was sent from now on arrives."""
        user, domain = self.recipients[box.name].split("@")
        wanted = self.sent + 1
        until(lambda: self.sent > wanted, 60, "the other provider goes on sending")
        search = f"grep -rls 'Subject: {self.tag}-{wanted}$' /var/vmail/{domain}/{user.partition('+')[0]} || true"
        until(lambda: box.sh(search), 120, f"{self.tag}-{wanted} at {box.name}")


@dataclass
class Session:
    """An IMAP session that somebody left open, waiting for mail (RFC 2177)."""

    box: Box
    client: imaplib.IMAP4_SSL

    @classmethod
    def open(cls, box: Box, login: str, password: str) -> Session:
        client = imaplib.IMAP4_SSL(box.ipv4, ssl_context=trusting(), timeout=60)
        client.login(login, password)
        client.select("INBOX", readonly=True)
        client.send(b"i1 IDLE\r\n")
        assert client.readline().startswith(b"+")
        return cls(box, client)

    def certificate(self) -> bytes:
        return self.client.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined, no-any-return]

    def processes(self) -> str:
        """Who holds the connection on the host."""
        wanted = f"( sport = :993 and dport = :{self.client.sock.getsockname()[1]} )"
        # To see whose a socket is takes more rights than root has in a container.
        argv = ["podman", "exec", "--privileged", f"pm-{self.box.name}", "ss", "-Htnp", "state", "established", wanted]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        return shown.partition("users:")[2].strip()

    def close(self) -> list[bytes]:
        """End the waiting; what the server said in the meantime."""
        self.client.send(b"DONE\r\n")
        said = [self.client.readline()]
        while not said[-1].startswith(b"i1 "):
            assert said[-1], said
            said.append(self.client.readline())
        self.client.logout()
        return said


@dataclass
class Seen:
    """What was noted of one host on the way."""

    old_certificate: bytes = b""
    new_certificates: set[bytes] = field(default_factory=set)
    old_session_certificate: bytes = b""
    holders: list[str] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    banner: str = ""
    banner_after_failure: str = ""
    banner_after_boot: str = ""
    recipients: list[str] = field(default_factory=list)
    dovecot_starts: list[str] = field(default_factory=list)
    killed: str = ""
    journals_before_boot: str = ""
    journals_after_boot: str = ""
    recovered: str = ""
    state_after_boot: str = ""
    units_after_boot: dict[str, str] = field(default_factory=dict)
    failed_units: str = ""
    resolver_before: str = ""
    resolver_after_boot: str = ""
    sent_after_boot: str = ""
    #: answers to the same suspicious message, and who greylists, under rspamd's greylist and afterwards
    suspicious: list[str] = field(default_factory=list)
    greylists: list[str] = field(default_factory=list)


@dataclass
class Change:
    flow: Flow
    changed: Run
    broken: Run
    killed: Run
    restored: Run
    second: Run
    hosts: dict[str, Seen]


def inventories(folder: Path) -> tuple[Path, Path]:
    """What the operator changes: first all that can change, then a restart of Dovecot and a mistake."""
    mailboxes: dict[str, dict[str, Any]] = {
        # dora comes and bob goes
        "mx": {
            "mailserver_mailboxes": [
                {"address": "alice@example.test", "password": "{{ vault_alice }}", "quota": "5G"},
                {"address": "dora@example.test", "password": "{{ vault_alice }}"},
            ],
            "mailserver_aliases": [{"address": "info@example.test", "destinations": ["alice@example.test"]}],
        },
        # dora comes and small goes, and the alias that led there
        "mx12": {
            "mailserver_mailboxes": [
                {"address": "alice@example12.test", "password": "{{ vault_alice }}"},
                {"address": "alice@second12.test", "password": "{{ vault_alice }}-second"},
                {"address": "dora@example12.test", "password": "{{ vault_alice }}"},
            ],
            "mailserver_aliases": [],
        },
    }
    restarts = {
        "mx": "import_environment {\n  LAB = 1\n}\n",
        "mx12": "import_environment = $import_environment LAB=1\n",
    }
    # What the lab's inventory says, which this replaces
    settings = yaml.safe_load((INVENTORY / "group_vars/mailserver.yml").read_text())["postfix_settings"]
    for kind in ("changed", "broken"):
        (folder / kind / "host_vars").mkdir(parents=True)
        (folder / kind / "hosts.yml").write_text("all: {hosts: {mx: , mx12: }}\n")
    for name in HOSTS:
        values = {
            **mailboxes[name],
            "mailserver_purge_limit": 100,
            "mailserver_tls_method": "selfsigned",
            "postfix_settings": {**settings, "smtpd_banner": "$myhostname ESMTP changed"},
            "dovecot_user_connections": 25,
            "rspamd_junk_score": 7,
            "mailserver_greylist": "rspamd",
            "rspamd_files": {"override.d/greylist.conf": "timeout = 5s;"},
        }
        (folder / "changed" / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(values))
        values["dovecot_settings"] = restarts[name]
        values["redis_memory"] = "65mb"
        mistake = {"smtpd_banner": "$myhostname ESMTP broken", "smtpd_client_restrictions": MISSPELT}
        values["postfix_settings"] = {**settings, **mistake}
        (folder / "broken" / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(values))
    return folder / "changed", folder / "broken"


def certificate(address: str, port: int) -> bytes:
    """What a new session sees."""
    if port == 993:
        with imaplib.IMAP4_SSL(address, ssl_context=trusting(), timeout=60) as client:
            shown = client.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    else:
        with smtplib.SMTP(address, port, local_hostname="client.test", timeout=60) as smtp:
            smtp.starttls(context=trusting())
            assert isinstance(smtp.sock, ssl.SSLSocket)
            shown = smtp.sock.getpeercert(binary_form=True)
    assert isinstance(shown, bytes)
    return shown


def banner(address: str) -> str:
    with smtplib.SMTP(timeout=60) as client:
        return client.connect(address, 25)[1].decode()


def dovecot_start(box: Box) -> str:
    return box.run("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", "dovecot")


def journals(box: Box) -> str:
    return box.sh("ls /var/lib/postmeister/services/*/journal-* 2>/dev/null || true").strip()


def suspicious(box: Box, client: Box, tag: str) -> str:
    """What a stranger's message is answered that lacks all that a mail program writes."""
    lines = [f"MAIL FROM:<{tag}@client.test>", f"RCPT TO:<postmaster@{box.domain}>", "DATA"]
    text = "From: x@evil.test\r\nSubject: money\r\n\r\nhi\r\n"
    return talk(box.ipv4, 25, [*lines, text], at=client, source=client.ipv4)[0][-1]


def until_let_in(box: Box, client: Box, tag: str) -> list[str]:
    """The same stranger tries again and again; more than once where Redis forgot the first try."""
    answers: list[str] = []

    def let_in() -> bool:
        answers.append(suspicious(box, client, tag))
        return answers[-1].startswith("250 ")

    until(let_in, 60, f"{box.name} takes what comes back")
    return answers


def greylist(box: Box) -> str:
    """postgrey's state, at the next boot and now, and whether Postfix asks it."""
    asks = "postconf -n greylist | grep -o 'inet:127.0.0.1:10023' || echo nobody"
    return box.sh(f"echo $(systemctl is-enabled postgrey; systemctl is-active postgrey; {asks})").strip()


def kill_and_cut_power(box: Box, seen: Seen) -> None:
    """The module dies in the middle of its change, and then the machine."""
    seen.killed = box.run("python3", "-c", KILLER, KILLED[box.name])
    seen.journals_before_boot = journals(box)
    subprocess.run(["podman", "restart", "--time=0", f"pm-{box.name}"], check=True, capture_output=True)


def look_after_boot(box: Box, flow: Flow, remote: Box, login: str, password: str, seen: Seen) -> None:
    """Nobody did anything; does the host serve?"""
    done = until(lambda: box.run("systemctl", "is-system-running", "--wait", check=False).strip(), 300, "the boot")
    seen.state_after_boot = done
    flow.passes(box)
    subject, carol = new_subject(), "carol@remote.test"

    def submitted() -> bool:
        # The scanner may still be reading its lists, and the submission port says 451 then.
        try:
            submit(box.ipv4, 465, login, password, login, carol, message(login, carol, subject))
        except (smtplib.SMTPException, OSError):
            return False
        return True

    until(submitted, 120, f"{box.name} takes a message from {login}")
    seen.sent_after_boot = until(lambda: at_remote(remote, "carol", subject), 60, f"{subject} at the other provider")
    units = (*UNITS, *FORWARDS.get(box.name, ()))
    states = box.run("systemctl", "is-active", *units, check=False).split()
    seen.units_after_boot = dict(zip(units, states, strict=True))
    seen.failed_units = box.run("systemctl", "--failed", "--no-legend").strip()
    seen.resolver_after_boot = box.run("cat", "/etc/resolv.conf")
    seen.journals_after_boot = journals(box)
    seen.recovered = box.run("journalctl", "-b", "--no-pager", "-o", "cat", "-u", "postmeister-recover")
    seen.banner_after_boot = banner(box.ipv4)


@pytest.fixture(scope="module")
def change(
    story: Story,
    site: Site,
    boxes: dict[str, Box],
    remote: Box,
    accounts: Accounts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Change]:
    hosts = {name: boxes[name] for name in HOSTS}
    seen = {name: Seen() for name in HOSTS}
    changed_inventory, broken_inventory = inventories(tmp_path_factory.mktemp("inventories"))
    restored = None
    flow = Flow(remote, {name: accounts[name][0] for name in HOSTS})
    try:
        sessions = {}
        for name, box in hosts.items():
            sessions[name] = Session.open(box, *accounts[name])
            seen[name].old_certificate = certificate(box.ipv4, 993)
            seen[name].holders = [sessions[name].processes()]
            seen[name].resolver_before = box.run("cat", "/etc/resolv.conf")
            flow.passes(box)

        # Users, certificate, and the configuration of Postfix, Dovecot and rspamd.
        changed = site.play("--diff", "-i", str(changed_inventory))
        assert changed.rc == 0, changed.failed_because()
        for name, box in hosts.items():
            domain = domain_of(accounts[name][0])
            seen[name].banner = banner(box.ipv4)
            seen[name].new_certificates = {certificate(box.ipv4, port) for port in (25, 993)}
            seen[name].holders.append(sessions[name].processes())
            seen[name].old_session_certificate = sessions[name].certificate()
            flow.passes(box)
            seen[name].said = sessions[name].close()
            asked = [f"RCPT TO:<{user}@{domain}>" for user in ("alice", "dora", "bob", "small")]
            answers = talk(box.ipv4, 25, ["MAIL FROM:<carol@remote.test>", *asked], at=remote)[0]
            seen[name].recipients = [answer[:3] for answer in answers[1:]]
            seen[name].greylists = [greylist(box)]
            seen[name].suspicious = [suspicious(box, boxes["client"], flow.tag)]

        # A restart of Dovecot and of Redis, and a mistake that Postfix answers with 451 to everybody.
        starts = {name: dovecot_start(box) for name, box in hosts.items()}
        broken = site.play("--diff", "-i", str(broken_inventory))
        for name, box in hosts.items():
            seen[name].dovecot_starts = [starts[name], dovecot_start(box)]
            seen[name].banner_after_failure = banner(box.ipv4)
            seen[name].suspicious += until_let_in(box, boxes["client"], flow.tag)
            flow.passes(box)

        # Back to the inventory; on the way the module is killed on each host, then the host loses power.
        with ThreadPoolExecutor(1 + len(HOSTS)) as pool:
            run = pool.submit(site.play, extra={"mailserver_purge_limit": 100})
            cuts = [pool.submit(kill_and_cut_power, box, seen[name]) for name, box in hosts.items()]
            for cut in cuts:
                cut.result()
            killed = run.result()
        for name, box in hosts.items():
            look_after_boot(box, flow, remote, *accounts[name], seen[name])

        restored = site.play()
        for name, box in hosts.items():
            seen[name].greylists.append(greylist(box))
        flow.stop(hosts.values())
        yield Change(flow, changed, broken, killed, restored, site.play(), seen)
    finally:
        flow.stop(hosts.values())
        if restored is None or restored.rc != 0:
            site.play(extra={"mailserver_purge_limit": 100})
        for name in HOSTS:
            arrived(boxes[name], *accounts[name], flow.tag, remove=True)


def arrived(box: Box, login: str, password: str, tag: str, remove: bool = False) -> list[str]:
    """The subjects of all messages of the flow."""
    with imaplib.IMAP4_SSL(box.ipv4, ssl_context=trusting(), timeout=60) as client:
        client.login(login, password)
        client.select("INBOX", readonly=not remove)
        numbers = client.search(None, "HEADER", "Subject", tag)[1][0].replace(b" ", b",").decode()
        if not numbers:
            return []
        parts = client.fetch(numbers, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        if remove:
            client.store(numbers, "+FLAGS.SILENT", r"(\Deleted)")
            client.expunge()
        return [part[1].decode().partition(":")[2].strip() for part in parts if isinstance(part, tuple)]


@pytest.mark.parametrize("name", HOSTS)
def test_every_message_arrives_exactly_once(
    change: Change, boxes: dict[str, Box], accounts: Accounts, name: str
) -> None:
    wanted = [f"{change.flow.tag}-{number}" for number in range(change.flow.sent)]
    assert len(wanted) > 50
    found = Counter(arrived(boxes[name], *accounts[name], change.flow.tag))
    assert sorted(found) == sorted(wanted)
    twice = {subject: times for subject, times in found.items() if times > 1}
    # The power is cut once. Where that is after a message was taken and before the sender heard so, it sends it again
    # (RFC 1047), and says so in its log.
    assert len(twice) <= change.flow.doubts(boxes[name]) <= 2, twice
    assert all(times == 2 for times in twice.values()), twice


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_was_refused_for_good_and_nothing_came_back(
    change: Change, remote: Box, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = change.flow.log(name)
    outcomes = Counter(re.findall(r"status=(\w+)", "\n".join(tries)))
    reasons = Counter(re.findall(r"status=deferred \((.{0,110})", "\n".join(tries)))
    with capsys.disabled():
        print(f"\n{name}: {change.flow.sent} messages, tries to deliver: {dict(outcomes)}")
        for reason, count in reasons.most_common():
            print(f"  put off {count} times: {reason}")
    assert outcomes.keys() <= {"sent", "deferred"}
    assert outcomes["sent"] == change.flow.sent
    assert [line for line in tries if re.search(r"dsn=5|said: 5\d\d|refused to talk to me: 5", line)] == []
    # A bounce would lie in the sender's mailbox.
    assert remote.sh(f"ls /srv/mail/{change.flow.sender.partition('@')[0]} 2>/dev/null || true") == ""


@pytest.mark.parametrize("name", HOSTS)
def test_the_sender_trusts_the_host_all_the_time(change: Change, remote: Box, boxes: dict[str, Box], name: str) -> None:
    """DANE holds with each of the three certificates: their keys were in DNS before."""
    log = remote.journal("postfix@-", "postfix", since=change.flow.since)
    trust = Counter(re.findall(rf"(\w+) TLS connection established to {re.escape(boxes[name].fqdn)}\[", log))
    assert trust.keys() == {"Verified"}, trust


@pytest.mark.parametrize("name", HOSTS)
def test_new_sessions_see_the_new_certificate_and_an_open_one_survives(change: Change, name: str) -> None:
    seen = change.hosts[name]
    assert len(seen.new_certificates) == 1
    assert seen.new_certificates != {seen.old_certificate}
    assert seen.old_session_certificate == seen.old_certificate
    assert "pid=" in seen.holders[0] and seen.holders[0] == seen.holders[1]
    # It learned of new mail, and ended as it should.
    assert any(line.endswith(b" EXISTS\r\n") for line in seen.said), seen.said
    assert seen.said[-1].startswith(b"i1 OK")


@pytest.mark.parametrize("name", HOSTS)
def test_a_user_comes_and_another_goes(change: Change, name: str) -> None:
    codes = dict(zip(("alice", "dora", "bob", "small"), change.hosts[name].recipients))
    assert codes == {"alice": "250", "dora": "250", "bob": "550", "small": "550"}


@pytest.mark.parametrize("name", HOSTS)
def test_the_new_configuration_serves(change: Change, name: str) -> None:
    assert change.hosts[name].banner.endswith("ESMTP changed")


@pytest.mark.parametrize("name", HOSTS)
def test_dovecot_is_restarted_when_only_that_helps(change: Change, name: str) -> None:
    before, after = change.hosts[name].dovecot_starts
    assert before != after


@pytest.mark.parametrize("name", HOSTS)
def test_a_mistake_that_only_shows_in_service_is_undone_and_named(change: Change, name: str) -> None:
    assert change.broken.rc != 0
    assert change.broken.stats[name]["failed"] == 1
    message = next(line for line in change.broken.output.splitlines() if line.startswith(f"fatal: [{name}]"))
    for word in (MISSPELT, "smtpd_client_restrictions", "/etc/postfix/main.cf", "line "):
        assert word in message, message
    assert change.hosts[name].banner_after_failure.endswith("ESMTP changed")


def test_runs_that_fail_show_no_secret(change: Change, boxes: dict[str, Box]) -> None:
    kept = [secret for name in HOSTS for secret in secrets_of(boxes[name])]
    for run in (change.broken, change.killed):
        assert CANARY.findall(run.output) == []
        assert [secret for secret in kept if secret in run.output] == []


@pytest.mark.parametrize("name", HOSTS)
def test_a_killed_run_and_a_power_cut_need_no_person(change: Change, name: str) -> None:
    seen = change.hosts[name]
    assert change.killed.rc != 0
    assert seen.killed.startswith("killed ")
    assert f"/{KILLED[name]}/journal-swap.json" in seen.journals_before_boot
    # The former set serves: the killed run was on its way back from it.
    assert seen.banner_after_boot.endswith("ESMTP changed")
    assert seen.journals_after_boot == ""
    assert KILLED[name] in seen.recovered


@pytest.mark.parametrize("name", HOSTS)
def test_all_services_come_up_after_a_power_cut(change: Change, name: str) -> None:
    seen = change.hosts[name]
    assert set(seen.units_after_boot.values()) == {"active"}, seen.units_after_boot
    assert (seen.state_after_boot, seen.failed_units) == ("running", "")
    assert seen.resolver_after_boot == seen.resolver_before
    assert "nameserver 127.0.0.1\n" in seen.resolver_before
    assert seen.sent_after_boot


def test_in_the_end_the_hosts_are_as_the_inventory_says(change: Change, boxes: dict[str, Box]) -> None:
    assert change.restored.rc == 0, change.restored.failed_because()
    assert all(change.restored.stats[name]["changed"] > 0 for name in HOSTS)
    assert change.second.rc == 0, change.second.failed_because()
    assert {name: change.second.stats[name]["changed"] for name in HOSTS} == dict.fromkeys(HOSTS, 0)
    for name in HOSTS:
        assert banner(boxes[name].ipv4).endswith("ESMTP")


@pytest.mark.parametrize("name", HOSTS)
def test_rspamd_greylists_in_place_of_postgrey_and_never_both(change: Change, name: str) -> None:
    """The flow is the control: what is not suspicious never waits."""
    seen = change.hosts[name]
    assert seen.greylists == ["disabled inactive nobody", "enabled active inet:127.0.0.1:10023"]
    assert seen.suspicious[0] == "451 4.7.1 Try again later"
    assert seen.suspicious[-1].startswith("250 2.0.0 Ok: queued as"), seen.suspicious
