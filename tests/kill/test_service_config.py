# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""service_config against a real Postfix that is lied to, starved of disk and cut from power."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Host
from daemons import MAIN, MASTER, SMALL


def with_postfix(host: Host) -> Host:
    """Postfix is configured and serves, whatever the test before did."""
    host.configure()
    assert host.answers() == "250 250"
    return host


@pytest.fixture
def serving(trixie: Host) -> Host:
    return with_postfix(trixie)


@pytest.fixture
def serving_both(both: Host) -> Host:
    return with_postfix(both)


@pytest.fixture
def bare(both: Host) -> Host:
    both.unconfigure()
    return both


def holds_former(host: Host) -> None:
    """The former set is there, complete, and serves."""
    assert host.serves(), host.answers()
    assert host.read("/etc/postfix/main.cf") == MAIN
    assert host.read("/etc/postfix/master.cf") == MASTER
    assert host.leftovers() == ""


def test_first_configuration_that_fails_leaves_the_service_stopped(bare: Host) -> None:
    before = bare.sh("sha256sum /etc/postfix/master.cf")
    assert bare.configure(arguments={"_ansible_check_mode": True})["changed"]
    assert bare.sh("sha256sum /etc/postfix/master.cf") == before

    result = bare.configure(main=MAIN.replace("reject_unauth", "rejct_unauth"), check=False)

    assert 'unknown smtpd restriction: "rejct_unauth_destination"' in result["msg"]
    assert "stopped and masked" in result["msg"]
    assert bare.sh("systemctl is-enabled postfix.service", check=False).strip() == "masked"
    assert "refused" in bare.answers()
    assert bare.sh("sha256sum /etc/postfix/master.cf") == before
    assert bare.sh("ls /etc/postfix/main.cf 2>/dev/null", check=False) == ""
    assert bare.leftovers() == ""


@pytest.mark.parametrize("when", [3, 5])
def test_first_configuration_cut_short(bare: Host, when: int) -> None:
    """The power goes while the first set is swapped in: after the boot nothing serves half a configuration."""
    strace = f"-f -o /dev/null -e trace=rename -e inject=rename:signal=KILL:when={when}"
    assert not bare.configure(strace=strace, check=False)
    bare.power_cut()

    assert "refused" in bare.answers()
    assert bare.sh("ls /etc/postfix/main.cf 2>/dev/null", check=False) == ""
    assert bare.sh("systemctl is-enabled postfix.service", check=False).strip() == "masked"
    assert bare.configure()["action"] == "started"
    assert bare.serves()


def test_first_configuration(bare: Host) -> None:
    bare.configure()

    assert bare.answers() == "250 250"
    assert bare.sh("systemctl is-enabled postfix.service postmeister-recover.service").split() == ["enabled", "enabled"]
    again = bare.configure()
    assert not again["changed"]
    assert again["action"] == ""
    assert bare.leftovers() == ""
    bare.power_cut()
    assert bare.serves()


def test_file_that_the_checker_rejects(serving_both: Host) -> None:
    result = serving_both.configure(main=MAIN + "nonsense\n", check=False)

    line = len(MAIN.splitlines()) + 1
    assert f"/etc/postfix/main.cf, line {line}: missing '=' after attribute name" in result["msg"]
    holds_former(serving_both)


def test_setting_that_postfix_does_not_know(serving: Host) -> None:
    result = serving.configure(main=MAIN + "smtpd_recipent_limit = 3\n", check=False)

    line = len(MAIN.splitlines()) + 1
    assert f"/etc/postfix/main.cf, line {line}: unused parameter: smtpd_recipent_limit=3" in result["msg"]
    holds_former(serving)


def test_misspelt_restriction(serving_both: Host) -> None:
    """The checker accepts it, Postfix greets, and answers 451 to all mail."""
    result = serving_both.configure(main=MAIN.replace("reject_unauth", "rejct_unauth"), check=False)

    assert "is answered 451" in result["msg"]
    assert 'unknown smtpd restriction: "rejct_unauth_destination"' in result["msg"]
    assert "The former files are back, and the service serves with them." in result["msg"]
    holds_former(serving_both)


def test_open_relay(serving: Host) -> None:
    result = serving.configure(
        main=MAIN.replace("127.0.0.2/32", "127.0.0.0/8").replace(
            "= reject_unauth", "= permit_mynetworks, reject_unauth"
        )
        + "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
        check=False,
    )

    assert "is an open relay" in result["msg"]
    holds_former(serving)


def test_daemon_that_does_not_survive(serving_both: Host) -> None:
    """The checker accepts an address that the host does not have; master dies at the reload."""
    result = serving_both.configure(master=MASTER + "198.51.100.77:smtp inet n - n - - smtpd\n", check=False)

    assert "bind 198.51.100.77 port 25: Cannot assign requested address" in result["msg"]
    assert "The former files are back, and the service serves with them." in result["msg"]
    holds_former(serving_both)


def test_daemon_that_does_not_survive_a_restart(serving: Host) -> None:
    """The same when the change needs a restart: the daemon is down, not only deaf."""
    result = serving.configure(main=MAIN.replace("= 127.0.0.1", "= 198.51.100.77"), check=False)

    assert "198.51.100.77" in result["msg"]
    assert "The former files are back, and the service serves with them." in result["msg"]
    holds_former(serving)


def test_setting_that_needs_a_restart(serving_both: Host) -> None:
    result = serving_both.configure(main=MAIN.replace("= 127.0.0.1", "= all"))

    assert result["action"] == "restarted"
    assert result["restart_reason"] == "inet_interfaces in /etc/postfix/main.cf"
    assert serving_both.configure()["action"] == "restarted"
    assert serving_both.configure(main=MAIN + "smtpd_recipient_limit = 77\n")["action"] == "reloaded"


@pytest.mark.parametrize(
    ("damage", "path"),
    [
        ("echo '# hand' >> /etc/postfix/main.cf", "/etc/postfix/main.cf"),
        ("echo nonsense >> /etc/postfix/main.cf", "/etc/postfix/main.cf"),
        ("chmod 0600 /etc/postfix/master.cf", "/etc/postfix/master.cf"),
        ("chown daemon /etc/postfix/main.cf", "/etc/postfix/main.cf"),
        ("rm /etc/postfix/master.cf", "/etc/postfix/master.cf"),
        ("rm /usr/local/lib/postmeister/recover.py", "/usr/local/lib/postmeister/recover.py"),
    ],
)
def test_hand_damage_is_repaired_and_reported(serving: Host, damage: str, path: str) -> None:
    before = serving.sh(f"stat -c '%a %U %G' {path}; cat {path}")
    serving.sh(damage)

    assert serving.configure(arguments={"_ansible_check_mode": True})["files"] == [path]
    result = serving.configure()

    assert result["changed"]
    assert result["files"] == [path]
    assert serving.sh(f"stat -c '%a %U %G' {path}; cat {path}") == before
    assert not serving.configure()["changed"]


def test_stopped_service_is_started(serving_both: Host) -> None:
    serving_both.sh("systemctl disable --now postfix.service")

    assert serving_both.configure()["action"] == "started"
    assert serving_both.answers() == "250 250"
    assert serving_both.sh("systemctl is-enabled postfix.service").strip() == "enabled"


def test_changed_input_reloads_once(serving: Host) -> None:
    serving.sh("echo one > /etc/input.pem")
    options = {"inputs": ["/etc/input.pem"]}
    serving.configure(arguments=options)
    assert not serving.configure(arguments=options)["changed"]
    serving.sh("echo two > /etc/input.pem")

    result = serving.configure(arguments=options)

    assert (result["inputs"], result["action"]) == (["/etc/input.pem"], "reloaded")
    assert not serving.configure(arguments=options)["changed"]


def test_absent_file_is_removed_and_comes_back_on_failure(serving: Host) -> None:
    serving.sh("echo x > /etc/postfix/old-map")
    more = [{"dest": "/etc/postfix/old-map", "state": "absent"}]

    failed = serving.configure(main=MAIN.replace("reject_unauth", "rejct_unauth"), more=more, check=False)
    assert failed["failed"]
    assert serving.read("/etc/postfix/old-map") == "x\n"

    assert serving.configure(more=more)["files"] == ["/etc/postfix/old-map"]
    assert serving.sh("ls /etc/postfix/old-map 2>/dev/null", check=False) == ""
    assert not serving.configure(more=more)["changed"]


def test_secret_is_never_shown(serving: Host) -> None:
    """Neither in the diff nor when the checker quotes it."""
    more = [{"dest": "/etc/postfix/key", "content": "CANARY-eins\n", "secret": True}]
    first = serving.configure(more=more)
    more[0]["content"] = "CANARY-zwei\n"
    second = serving.configure(more=more)
    quoted = serving.configure(main=MAIN + "CANARY-zwei\n", more=more, check=False)

    assert serving.sh("stat -c %a /etc/postfix/key").strip() == "600"
    assert "secret content" in second["raw"]
    assert "missing '='" in quoted["msg"]
    for result in (first, second, quoted):
        assert "CANARY" not in result["raw"]
    serving.configure(more=[{"dest": "/etc/postfix/key", "state": "absent"}])


def test_what_a_killed_installation_left_is_removed(serving: Host) -> None:
    """Its policy-rc.d would keep every daemon from starting after an upgrade."""
    serving.sh("printf '#!/bin/sh\\n# Made by postmeister.host.packages\\nexit 101\\n' > /usr/sbin/policy-rc.d")
    options = {"names": ["postfix"]}

    assert serving.run("packages", {**options, "_ansible_check_mode": True})["changed"]
    assert serving.run("packages", options)["changed"]
    assert serving.sh("ls /usr/sbin/policy-rc.d 2>/dev/null", check=False) == ""
    assert not serving.run("packages", options)["changed"]


def test_two_runs_at_once(serving: Host) -> None:
    """The second waits for the first, or says who is at work; neither sees a half of the other."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(serving.configure, main=f"{MAIN}# {word}\n") for word in ("one", "two")]
    assert [run.result()["changed"] for run in runs] == [True, True]

    assert serving.read("/etc/postfix/main.cf") in (MAIN + "# one\n", MAIN + "# two\n")
    assert serving.leftovers() == ""
    lock = "/var/lib/postmeister/services/postfix/lock"
    serving.sh(f"systemd-run --quiet --unit=holder flock {lock} sleep 60")
    serving.sh(f"while flock --nonblock {lock} true; do sleep 0.1; done")
    try:
        refused = serving.configure(arguments={"lock_timeout": 1}, check=False)
    finally:
        serving.sh("systemctl stop holder")
    assert "another run is at work and did not end within 1 s" in refused["msg"]


def test_full_disk(serving_both: Host) -> None:
    """The tmpfs below /etc/postfix is full: nothing of the set changes, not even what lies on another disk."""
    serving_both.sh(f"dd if=/dev/zero of={SMALL}/fill bs=1k 2>/dev/null", check=False)
    try:
        more = [{"dest": f"{SMALL}/map", "content": "a@example.test b@example.test\n" * 50}]
        result = serving_both.configure(main=MAIN + "# new\n", more=more, check=False)
        assert f"{SMALL}/map: the disk is full" in result["msg"]
        holds_former(serving_both)
    finally:
        serving_both.sh(f"rm {SMALL}/fill")


def test_disk_full_at_any_write(serving: Host) -> None:
    """ENOSPC injected at each write in turn: a clear error, and the former set."""
    for when in range(1, 50):
        result = serving.configure(
            main=MAIN + "# new\n",
            strace=f"-o /dev/null -e inject=write:error=ENOSPC:when={when}",
            check=False,
        )
        if not result or not result.get("failed"):
            break
        assert "the disk is full" in result["msg"]
        holds_former(serving)
    # Files, journal and state are at least that many writes; the last one that fails is the answer itself.
    assert when > 4
