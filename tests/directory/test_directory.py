# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mail directory on real hosts: what Ansible writes there is what Postfix and Dovecot answer.

The tests of a module run in their order: a bare host first, with packages from the fixture `host` on. Where the
module is the subject it is run as a program; how Ansible calls it is seen where there are tasks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Host
from pmlab.modules import TOP
from pmlab.settings import RELEASES

# A hash that nobody knows the password of.
UNKNOWN = "{BLF-CRYPT}$2y$10$" + "a" * 53
HERE = "/etc/postmeister/directory"
LMDB = ("sender_logins", "virtual_aliases", "virtual_domains", "virtual_mailboxes")
MANAGED = (
    "directory.json",
    "directory.json.copy",
    "dovecot-users",
    "dovecot-disabled",
    "sender_logins.map",
    "forwards.map",
    *tuple(f"{name}.lmdb" for name in LMDB),
)

DOMAINS = [{"name": "example.test"}, {"name": "Other.TEST"}]
MAILBOXES: list[dict[str, Any]] = [
    {"address": "Alice@example.test", "password": "CANARY alice", "quota": "1M"},
    {"address": "alice@other.test", "password": "CANARY other"},
    {"address": "b=r_i~e&n-1@example.test", "password": "CANARY brien"},
    {"address": "off@example.test", "password": "CANARY off", "enabled": False},
    {"address": "free@example.test", "password": "CANARY free", "quota": "unlimited"},
]
ALIASES: list[dict[str, Any]] = [
    {"address": "info@example.test", "destinations": ["alice@example.test", "alice@other.test"]},
    {"address": "o'brien@example.test", "destinations": ["b=r_i~e&n-1@example.test"]},
    {"address": "team@example.test", "destinations": ["info@example.test"]},
    {"address": "@other.test", "destinations": ["info@example.test"]},
]


def everything(**more: Any) -> dict[str, Any]:
    return {"domains": DOMAINS, "mailboxes": MAILBOXES, "aliases": ALIASES, **more}


def task(**more: Any) -> dict[str, Any]:
    """A task with everything."""
    return {"postmeister.host.mail_directory": everything(), **more}


def test_bare_host(bare: Host) -> None:
    """In check mode all is well; without Postfix there is nothing to make the tables with."""
    look = {"ansible.builtin.command": "ls -d /etc/postmeister /tmp/postmeister*"}
    foreseen, there, real = bare.tasks(task(check_mode=True, diff=True), look, task()).results
    assert foreseen["changed"]
    assert not foreseen["failed"]
    assert there["stdout"] == ""
    assert real["failed"]
    assert "postmap: not installed; install postfix and postfix-lmdb first" in real["msg"]
    assert bare.sh(f"ls {HERE}") == ""


@pytest.fixture(scope="module")
def host(bare: Host) -> Host:
    bare.install()
    return bare


@pytest.fixture(scope="module")
def filled(host: Host) -> Host:
    """With the directory in place and both daemons running on it."""
    host.directory(**everything())
    host.start_daemons()
    return host


def ask(host: Host, *words: str) -> Any:
    return json.loads(host.sh(f"python3 /root/mail.py {' '.join(map(json.dumps, words))}").splitlines()[-1])


def lookup(host: Host, table: str, *keys: str) -> list[str]:
    """What `postmap -q` says, '' for nothing."""
    return [host.sh(f"postmap -q {key!r} lmdb:{HERE}/{table} || true").strip() for key in keys]


def login(host: Host, address: str, password: str) -> bool:
    answer = host.sh(f'doveadm auth test "{address}" "{password}"', check=False)
    assert ("auth succeeded" in answer) != ("auth failed" in answer), answer
    return "auth succeeded" in answer


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something holds when Dovecot has looked at its files again."""
    for _turn in range(300):
        if holds():
            return True
        time.sleep(0.2)
    return False


def found_user(host: Host, address: str) -> bool:
    return "home" in host.sh(f'doveadm user "{address}"', check=False)


# --- check, real, check, real -------------------------------------------------------------------------------------


def test_check_real_check_real(host: Host) -> None:
    modes = [{"check_mode": check_mode, "diff": True} for check_mode in (True, False, True, False)]
    results = host.tasks(*(task(**mode) for mode in modes)).results
    assert [each["changed"] for each in results] == [True, True, False, False]
    assert results[0]["mailboxes"] == results[1]["mailboxes"] == {"created": 5, "changed": 0, "deleted": 0}
    assert results[0]["files"] == results[1]["files"]
    assert sorted(results[1]["files"]) == sorted(MANAGED)


def test_modes_and_owners(filled: Host) -> None:
    found = filled.sh(f"cd {HERE}; stat -c '%n %a %U:%G' .* * | sort")
    wanted = [
        *(f"{name} 600 root:root" for name in (".lock", ".state", "directory.json", "directory.json.copy")),
        *(f"dovecot-{name} 640 root:dovecot" for name in ("users", "disabled")),
        *(f"{name}.lmdb 640 root:postfix" for name in LMDB),
        # rspamd is not installed here.
        *(f"{name}.map 640 root:root" for name in ("sender_logins", "forwards")),
        ". 755 root:root",
        ".. 755 root:root",
    ]
    assert sorted(found.splitlines()) == sorted(wanted)


# --- what the daemons say -----------------------------------------------------------------------------------------


def test_logins(filled: Host) -> None:
    assert login(filled, "alice@example.test", "CANARY alice")
    assert login(filled, "ALICE@Example.TEST", "CANARY alice")
    assert login(filled, "alice@other.test", "CANARY other")
    assert login(filled, "b=r_i~e&n-1@example.test", "CANARY brien")
    assert not login(filled, "alice@example.test", "CANARY other")
    assert not login(filled, "nobody@example.test", "CANARY alice")
    assert not login(filled, "info@example.test", "CANARY alice")


def test_disabled_mailbox_gets_mail_and_no_login(filled: Host) -> None:
    assert not login(filled, "off@example.test", "CANARY off")
    assert found_user(filled, "off@example.test")
    assert ask(filled, "rcpt", "off@example.test") == [250]


def test_lmtp_takes_no_utf8_addresses(filled: Host) -> None:
    """The reason why local parts in UTF-8 are refused; when this fails, that decision can be made anew."""
    assert "SMTPUTF8" not in ask(filled, "lhlo")


def test_quota(filled: Host) -> None:
    limits = {
        name: filled.sh(f"doveadm -f tab quota get -u {name} | awk -F'\\t' '/STORAGE/ {{print $4}}'").strip()
        for name in ("alice@example.test", "alice@other.test", "free@example.test")
    }
    assert limits == {"alice@example.test": "1024", "alice@other.test": "5120", "free@example.test": "-"}


def test_recipients(filled: Host) -> None:
    answers = {
        "alice@example.test": 250,
        "ALICE@EXAMPLE.TEST": 250,
        "alice+tag@example.test": 250,
        "info@example.test": 250,
        "anything@other.test": 250,
        "nobody@example.test": 550,
        "nobody+alice@example.test": 550,
        "alice@foreign.test": 554,
    }
    assert dict(zip(answers, ask(filled, "rcpt", *answers))) == answers


def test_mail_lands_where_it_belongs(filled: Host) -> None:
    ask(filled, "send", "Alice+tag@example.test", "alice@other.test", "stray@other.test", "o'brien@example.test")
    # postqueue may miss what moves on while it looks: twice
    script = 'postqueue -f; for try in $(seq 300); do [ -z "$(postqueue -j; postqueue -j)" ] && break; sleep 0.2; done'
    assert "empty" in filled.sh(f"{script}; postqueue -p")
    subjects = filled.sh(
        "cd /var/vmail; grep -rhI ^Subject: example.test/alice other.test/alice 'example.test/b=r_i~e&n-1'"
    )
    # stray@ goes to info@, which is both alices; alice@other.test is not caught by the catch-all of her domain.
    assert sorted(subjects.splitlines()) == sorted(
        f"Subject: to {name}"
        for name in (
            "Alice+tag@example.test",
            "alice@other.test",
            "stray@other.test",
            "stray@other.test",
            "o'brien@example.test",
        )
    )
    assert "to alice@other.test" not in filled.sh("grep -rhI ^Subject: /var/vmail/example.test")


def test_who_may_send_as_whom(filled: Host) -> None:
    senders = {
        "alice@example.test": 250,
        "Alice+tag@example.test": 250,
        "info@example.test": 250,
        "team@example.test": 250,
        "anything@other.test": 250,
        "o'brien@example.test": 553,
        "alice@other.test": 553,
    }
    assert dict(zip(senders, ask(filled, "as", "alice@example.test", "CANARY alice", *senders))) == senders
    senders = {
        "o'brien@example.test": 250,
        "b=r_i~e&n-1@example.test": 250,
        "info@example.test": 553,
        "anything@other.test": 553,
    }
    assert dict(zip(senders, ask(filled, "as", "b=r_i~e&n-1@example.test", "CANARY brien", *senders))) == senders
    assert "alice@example.test,alice@other.test" in filled.sh(f"grep '^info@example.test ' {HERE}/sender_logins.map")


def test_schemes(filled: Host) -> None:
    """bcrypt and SHA512-CRYPT made here, and those that Dovecot's own tool makes."""
    made = {scheme: filled.sh(f"doveadm pw -s {scheme} {more} -p given").strip() for scheme, more in SCHEMES}
    boxes: list[dict[str, Any]] = [
        {"address": f"given{number}@example.test", "password_hash": each} for number, each in enumerate(made.values())
    ]
    filled.directory(mailboxes=[*boxes, {"address": "blf@example.test", "password": "own"}])
    filled.directory(mailboxes=[{"address": "sha@example.test", "password": "own"}], scheme="SHA512-CRYPT")
    assert "{SHA512-CRYPT}$6$rounds=100000$" in filled.sh(f"grep sha@ {HERE}/dovecot-users")
    assert "{BLF-CRYPT}$2y$10$" in filled.sh(f"grep blf@ {HERE}/dovecot-users")
    for name in ("given0", "given1", "given2"):
        assert login(filled, f"{name}@example.test", "given"), name
        assert not login(filled, f"{name}@example.test", "Given"), name
    for name in ("blf", "sha"):
        assert login(filled, f"{name}@example.test", "own"), name
        assert not login(filled, f"{name}@example.test", "Own"), name


SCHEMES = (("BLF-CRYPT", "-r 10"), ("SHA512-CRYPT", ""), ("ARGON2ID", ""))


def test_a_new_password_counts_at_once(filled: Host) -> None:
    """Dovecot compares the file's time, in whole seconds, once a second: each change is seen, however fast it comes."""
    for number in range(4):
        filled.directory(mailboxes=[{"address": "fast@example.test", "password": f"secret {number}"}])
        assert soon(partial(login, filled, "fast@example.test", f"secret {number}"))
        assert not login(filled, "fast@example.test", f"secret {number - 1}")


def test_thousand_entries(filled: Host) -> None:
    box = {"password_hash": UNKNOWN}
    boxes = [{"address": f"user{number}@example.test", **box} for number in range(1000)]
    aliases = [
        {"address": f"alias{number}@example.test", "destinations": [f"user{number}@example.test"]}
        for number in range(1000)
    ]
    result = filled.directory(mailboxes=boxes, aliases=aliases)
    assert result["mailboxes"]["created"] == 1000
    for number in (0, 500, 999):
        user, alias = f"user{number}@example.test", f"alias{number}@example.test"
        assert lookup(filled, "virtual_mailboxes", user) == ["ok"]
        assert lookup(filled, "virtual_aliases", alias) == [user]
        assert lookup(filled, "sender_logins", user, alias) == [user, user]
        assert soon(partial(found_user, filled, user))
        assert ask(filled, "rcpt", user, alias) == [250, 250]
    gone = [{"address": each["address"], "state": "absent"} for each in [*boxes, *aliases]]
    filled.directory(mailboxes=gone[:1000], aliases=gone[1000:])
    assert ask(filled, "rcpt", "user0@example.test", "alias999@example.test") == [550, 550]
    assert soon(lambda: not found_user(filled, "user500@example.test"))


# --- harm, cuts, changes under load -------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["printf x >> {}", "chmod 644 {}", "chown daemon {}", "rm {}", ": > {}"])
def test_harm_by_hand_is_repaired_and_reported(filled: Host, harm: str) -> None:
    """Every file in turn."""
    filled.directory(**everything())
    sums = f"cd {HERE}; sha256sum {' '.join(MANAGED)}; stat -c '%n %a %U:%G' {' '.join(MANAGED)}"
    before = filled.sh(sums)
    # Two at once, far apart in the order of writing, halve the time.
    for names in (MANAGED[0::2], MANAGED[1::2]):
        filled.sh("\n".join(harm.format(f"{HERE}/{name}") for name in names))
        result = filled.directory(**everything())
        assert result["changed"]
        assert not result["failed"], result
        assert sorted(result["files"]) == sorted(names)
        assert filled.sh(sums) == before
    assert not filled.directory(**everything())["changed"]


def test_killed_at_every_write(filled: Host) -> None:
    """Killed at each rename, fsync and write in turn: the daemons go on answering, and the next run gets there."""
    if filled.release != max(RELEASES):
        pytest.skip("the code is the same on each release, and the daemons only read: four minutes on one of them")
    box = {"address": "swing@example.test", "password_hash": UNKNOWN}
    stay = [{"address": f"stay{number}@example.test", "password_hash": UNKNOWN} for number in range(3)]
    old = {"address": "old@example.test", "password_hash": UNKNOWN}
    new = {"address": "new@example.test", "password_hash": UNKNOWN}
    swing = {"address": "swing@example.test", "destinations": ["new@example.test"]}
    back = {"address": "back@example.test", "destinations": ["old@example.test"]}
    absent = {"state": "absent"}
    before = {
        "mailboxes": [*stay, box, old, {**new, **absent}],
        "aliases": [back, {"address": "swing@example.test", **absent}],
    }
    after = {
        "mailboxes": [*stay, {**box, **absent}, {**old, **absent}, new, {**old, "address": "back@example.test"}],
        "aliases": [swing, {"address": "back@example.test", **absent}],
    }
    before["mailboxes"].append({**old, **absent, "address": "back@example.test"})
    filled.put("/root/before.json", json.dumps(before))
    filled.put("/root/after.json", json.dumps(after))
    filled.directory(**everything())
    stays = ["stay0@example.test", "swing@example.test", "back@example.test", "any@other.test"]
    command = f"PYTHONPATH={TOP}:/root python3 /root/kill.py"
    points = json.loads(filled.sh(command, stdin=json.dumps([stays, ["stay0@example.test", "alice@other.test"]])))
    assert points["rename"] >= 10
    assert points["fsync"] >= 20
    assert points["write"] >= 12
    assert points["cases"] >= points["rename"]
    print(points)


def test_nothing_fails_during_changes(filled: Host) -> None:
    """Postfix is asked without a pause while mailboxes and aliases come, go and change places."""
    filled.directory(**everything())
    steady = ("alice@example.test", "info@example.test", "any@other.test", "off@example.test", "swing@example.test")
    box = {"address": "swing@example.test", "password_hash": UNKNOWN}
    alias = {"address": "swing@example.test", "destinations": ["alice@example.test"]}
    filled.directory(mailboxes=[box])
    absent = {"address": "swing@example.test", "state": "absent"}
    filled.sh("touch /root/watch")
    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(ask, filled, "watch", "/root/watch", *steady)
        try:
            until = time.monotonic() + 10
            rounds = 0
            while rounds < 6 or time.monotonic() < until:
                rounds += 1
                filled.directory(mailboxes=[absent], aliases=[alias])
                filled.directory(mailboxes=[box], aliases=[absent])
        finally:
            filled.sh("rm /root/watch")
        asked, bad = watcher.result()
    assert asked >= 2
    assert bad == []


def test_two_runs_at_once_lose_nothing(filled: Host) -> None:
    boxes = [{"address": f"twin{number}@example.test", "password_hash": UNKNOWN} for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda box: filled.module("mail_user", box), boxes))
    assert [result["changed"] for result in results] == [True] * 6
    assert filled.sh(f"grep -c ^twin {HERE}/dovecot-users").strip() == "6"
    info = filled.tasks({"postmeister.host.mail_directory_info": {}}).results[0]
    assert sum(1 for box in info["mailboxes"] if box["origin"] == "adhoc") == 6


def test_full_disk(filled: Host) -> None:
    """On a small file system: an error that says so, and the former files."""
    filled.directory(path="/small/d", **everything())
    sums = "cd /small/d; sha256sum * | sort"
    before = filled.sh(sums)
    boxes = [{"address": f"u{n}@example.test", "password_hash": UNKNOWN} for n in range(5000)]
    result = filled.directory(path="/small/d", mailboxes=boxes)
    assert result["failed"]
    assert "the disk is full" in result["msg"] or "No space left" in result["msg"]
    assert filled.sh(sums) == before
    assert filled.sh("ls -A /small/d | grep -e build -e new || true") == ""
    assert not filled.directory(path="/small/d", **everything())["changed"]


# --- sources, origins, secrets ------------------------------------------------------------------------------------


def test_sources(filled: Host) -> None:
    """JSON, YAML, CSV and a vault say the same; what was sent is gone from the host."""
    work = filled.work
    box = {"address": "src@example.test", "password_hash": "{BLF-CRYPT}$2y$10$" + "b" * 53, "quota": "2G"}
    (work / "s.json").write_text(json.dumps({"mailboxes": [box]}))
    (work / "s.yml").write_text(
        "".join(f"- {k}: {v!r}\n" if k == "address" else f"  {k}: {v!r}\n" for k, v in box.items())
    )
    (work / "s.csv").write_text(",".join(box) + "\n" + ",".join(box.values()) + "\n")
    (work / "v.json").write_text((work / "s.json").read_text())
    (work / "pass").write_text("secret\n")
    tool = Path(sys.executable).parent / "ansible-vault"
    subprocess.run(
        [tool, "encrypt", "--vault-password-file", "pass", "v.json"], cwd=work, check=True, capture_output=True
    )
    assert "ANSIBLE_VAULT" in (work / "v.json").read_text()
    (work / "bad.json").write_text(json.dumps({"mailboxes": [box, {"address": "bad"}]}))
    (work / "cut.json").write_text(json.dumps({"mailboxes": [box]})[:-5])
    names = ("s.json", "s.yml", "s.csv", "v.json", "bad.json", "cut.json")
    tasks = ({"postmeister.host.mail_directory": {"src": name}} for name in names)
    *good, bad, cut = filled.tasks(*tasks, options=("-v", f"--vault-password-file={work}/pass")).results
    assert [result["changed"] for result in good] == [True, False, False, False]
    assert "2147483648" in filled.sh(f"grep ^src@ {HERE}/dovecot-users")
    assert "mailboxes[1] in bad.json: 'bad' is no mail address" in bad["msg"]
    assert "cut.json: is no JSON, or was cut off" in cut["msg"]
    assert filled.sh("ls /root/.ansible/tmp 2>/dev/null || true") == ""


def test_large_source_is_removed_from_the_host(filled: Host) -> None:
    boxes = [{"address": f"big{n}@example.test", "password_hash": UNKNOWN} for n in range(15000)]
    source = filled.work / "big.json"
    source.write_text(json.dumps(boxes))
    assert source.stat().st_size > 1 << 20
    given = {"postmeister.host.mail_directory": {"src": "big.json"}}
    damage = {"ansible.builtin.command": f"sed -i '/^big7000@/s/^big/bog/' {HERE}/dovecot-users"}
    first, second, _damage, third = filled.tasks({**given}, {**given}, damage, {**given, "diff": True}).results
    assert first["mailboxes"]["created"] == 15000
    assert not second["changed"]
    assert third["repaired"] == ["dovecot-users"]
    assert found_user(filled, "big7000@example.test")
    assert filled.sh("find /root/.ansible /tmp -name '*directory*' 2>/dev/null") == ""
    purge = {"postmeister.host.mail_directory": everything(purge=True, purge_limit=100)}
    text = filled.tasks(purge, options=("--diff",)).output
    assert "more mailboxes" in text
    assert len(text) < 10_000
    assert not found_user(filled, "big7000@example.test")


def test_origins(filled: Host) -> None:
    """Ad hoc entries survive a purge; the inventory wins; a purge has its limit."""
    filled.directory(purge=True, purge_limit=100, **everything())
    secret = {"password_hash": UNKNOWN}
    played = filled.tasks(
        {"postmeister.host.mail_user": {"address": "guest@example.test", **secret}},
        {"postmeister.host.mail_user": {"address": "guest@example.test", "quota": "7M"}},
        {"postmeister.host.mail_user": {"address": "guest@example.test", "quota": "7M"}},
        {"postmeister.host.mail_alias": {"address": "g@example.test", "destinations": ["guest@example.test"]}},
        {"postmeister.host.mail_user": {"address": "alice@example.test", "enabled": False}},
        {"postmeister.host.mail_user": {"address": "guest@unknown.test", **secret}},
        {"postmeister.host.mail_alias": {"address": "out@example.test", "destinations": ["me@outside.example"]}},
    )
    assert [each["changed"] for each in played.results] == [True, True, False, True, False, False, False]
    assert "stands in the inventory" in played.results[4]["msg"]
    assert "unknown.test" in played.results[5]["msg"]
    assert "SRS" in played.results[6]["msg"]
    assert not filled.directory(purge=True, **everything())["changed"]
    assert found_user(filled, "guest@example.test")
    refused = filled.directory(purge=True, **{**everything(), "mailboxes": MAILBOXES[:3]})
    assert "would remove 2 of 5 mailboxes" in refused["msg"]
    assert "would remove 5 of 5" in filled.directory(purge=True, **{**everything(), "mailboxes": []})["msg"]
    gone = filled.directory(mailboxes=[{"address": "guest@example.test", "state": "absent"}])
    assert "g@example.test" in gone["msg"]
    for name, gone in (
        ("mail_alias", {"address": "g@example.test"}),
        ("mail_user", {"address": "guest@example.test", "remove_mail": True}),
    ):
        assert filled.module(name, {**gone, "state": "absent"})["changed"]
    assert not found_user(filled, "guest@example.test")


def test_domain_absent_keeps_the_mail(filled: Host) -> None:
    filled.directory(**everything())
    assert ask(filled, "rcpt", "any@other.test") == [250]
    mail = filled.sh("find /var/vmail/other.test -type f | wc -l")
    result = filled.directory(
        domains=[{"name": "other.test", "state": "absent"}],
        aliases=[{"address": "info@example.test", "destinations": ["alice@example.test"]}],
    )
    assert result["domains"]["deleted"] == 1
    # Postfix's address resolver looks for a changed table of domains every 10 s.
    assert ask(filled, "rcpt", "alice@other.test") in ([550], [554])
    assert filled.sh("find /var/vmail/other.test -type f | wc -l") == mail != "0\n"
    filled.directory(**everything())
    for _try in range(240):
        if ask(filled, "rcpt", "alice@other.test") == [250]:
            break
        time.sleep(0.5)
    assert ask(filled, "rcpt", "alice@other.test") == [250]


def test_no_secret_in_any_output(filled: Host) -> None:
    """Passwords and hashes, in runs that work and in runs that fail, as loud as Ansible can be."""
    stored = filled.sh(f"grep -o '[$]2y[$].*' {HERE}/dovecot-users | cut -d: -f1").splitlines()
    assert len(stored) >= 5
    filled.sh("journalctl --rotate --vacuum-time=1s >/dev/null 2>&1 || true")
    bad = [*MAILBOXES, {"address": "bad@@example.test", "password": "CANARY bad"}]
    again = [{**MAILBOXES[0], "password": "CANARY again"}]
    arguments = [{**everything(), "mailboxes": mailboxes} for mailboxes in (again, bad, MAILBOXES)]
    tasks = ({"postmeister.host.mail_directory": each} for each in arguments)
    run = filled.tasks(*tasks, options=("-vvvvv", "--diff"))
    assert (run.stats["changed"], run.stats["ignored"]) == (2, 1)
    assert "CANARY" not in run.output
    assert not any(each in run.output for each in stored)
    journal = filled.sh("journalctl --no-pager 2>/dev/null; cat /var/log/*.log 2>/dev/null || true")
    assert "CANARY" not in journal
    for name in filled.sh(
        "grep -rlE 'CANARY|[$]2y[$]' /etc /tmp /var/tmp /root/.ansible /run 2>/dev/null || true"
    ).split():
        assert name.startswith(HERE)
        assert filled.sh(f"stat -c %a {name}").strip() in ("600", "640")
