# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wrong passwords, real daemons, real rules in the kernel; each step on both releases at once."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from conftest import Site

WRONG = "alice@example.test:wrong"
RIGHT = "alice@example.test:right"
LOGINS = ("imap", "pop3", "sieve", "465", "587")
BANS = ["--tags=bans"]
#: where bans are looked up
RULES = "nft list table inet f2b-table 2>/dev/null || true"


def changed(runs: dict) -> dict[int, int]:
    for run in runs.values():
        run.good()
    return {release: run.stats["changed"] for release, run in runs.items()}


@pytest.fixture(scope="module")
def controller(site: Site) -> str:
    """Where Ansible comes from, as the hosts see it: an address of the client, which tries passwords like any other."""
    return site.net.v6(5, 0x66)


@pytest.fixture(scope="module")
def given(site: Site, controller: str) -> dict:
    """Variables of all runs."""
    return {
        "ssh_connection": f"{controller} 50022 {site.net.v6(0, 12)} 22",
        "fail2ban_exempt": [f"{site.net.v4(112)}/28", f"{site.net.v6(6, 0)}/64"],
    }


def test_check_mode_on_a_bare_host(site: Site, given: dict) -> None:
    runs = site.play("--check", "--diff", **given)
    assert all(count > 0 for count in changed(runs).values())
    assert set(site.sh("ls /etc/fail2ban /usr/sbin/postfix 2>&1 | grep -c 'No such file'").values()) == {"2"}


def test_first_run(site: Site, given: dict) -> None:
    assert all(count > 0 for count in changed(site.play(**given)).values())
    assert set(site.sh("fail2ban-client status | grep -o 'mail, sshd'").values()) == {"mail, sshd"}
    # the longest ban and the time before it
    assert all("605400" in text for text in site.sh("fail2ban-client get dbpurgeage").values())


@pytest.fixture(scope="module")
def attacked(site: Site) -> dict[str, str]:
    """Five wrong passwords by each protocol, from an address each; one of each protocol; four from another."""
    sources = {service: site.net.v4(70 + number) for number, service in enumerate(LOGINS)}
    orders = {source: [f"{service}:{WRONG}"] * 5 for service, source in sources.items()}
    orders[site.net.v4(80)] = [f"{service}:{WRONG}" for service in LOGINS]
    orders[site.net.v4(81)] = [f"imap:{WRONG}"] * 4
    # a name that nobody has is a wrong password too
    orders[site.net.v4(82)] = ["imap:nobody@example.test:wrong", "465:who@elsewhere.test:wrong"] * 2 + [f"587:{WRONG}"]
    site.guess(orders)
    return sources


@pytest.mark.parametrize("service", LOGINS)
def test_five_wrong_passwords_close_all_but_port_25(site: Site, attacked: dict[str, str], service: str) -> None:
    assert site.banned(attacked[service], *LOGINS)
    assert site.knock(attacked[service], "25") == ["ok"]


@pytest.mark.parametrize("last", [80, 82], ids=["all protocols count together", "names that nobody has count"])
def test_count(site: Site, attacked: dict[str, str], last: int) -> None:
    assert site.banned(site.net.v4(last), "imap")


def test_four_are_not_enough(site: Site, attacked: dict[str, str]) -> None:
    assert site.banned(attacked["imap"], "imap")
    assert site.free(site.net.v4(81), f"imap:{RIGHT}", f"465:{RIGHT}", f"sieve:{RIGHT}")
    # and who did nothing
    assert site.free(site.net.v4(83), f"pop3:{RIGHT}", f"587:{RIGHT}")


def test_an_ipv6_address_is_banned_with_its_64(site: Site) -> None:
    site.guess({site.net.v6(1, 0x66): [f"imap:{WRONG}"] * 5})
    assert site.banned(site.net.v6(1, 0x66), *LOGINS)
    assert site.knock(site.net.v6(1, 0x67), *LOGINS, "25") == [*["closed"] * 5, "ok"]
    assert site.free(site.net.v6(2, 0x67), f"imap:{RIGHT}", f"465:{RIGHT}")


def test_controller_and_operator_are_never_banned(site: Site, controller: str) -> None:
    sources = [controller, site.net.v6(5, 0x67), site.net.v6(6, 0x66), site.net.v4(113), site.net.v4(90)]
    site.guess({source: [f"imap:{WRONG}"] * 6 for source in sources})
    # the control: the same from anybody else
    assert site.banned(site.net.v4(90), "imap")
    for source in sources[:-1]:
        assert site.free(source, f"imap:{RIGHT}"), source


@pytest.mark.parametrize(
    "name",
    [
        "x,{victim}): Password mismatch",
        "x,{victim})<1><2>: request [1]: users: Password mismatch",
        "x@example.test, rip={victim}, lip=198.18.0.1",
    ],
)
def test_a_name_cannot_have_somebody_else_banned(site: Site, name: str) -> None:
    victim = site.net.v4(91)
    order = f"imap:{quote(name.format(victim=victim))}:wrong"
    for told in site.both(lambda release: site.speak(release, site.net.v4(92), *[order] * 6)).values():
        assert set(told) <= {"refused", "closed"}
    # The control: the attempts are in the journal, the victim's address within
    count = f"journalctl -u dovecot | grep -c -F '{victim}' || true"
    assert site.until(lambda: all(int(text) > 0 for text in site.sh(count).values()))
    assert all(text == "0" for text in site.sh(f"grep -c 'Found {victim}' /var/log/fail2ban.log || true").values())


def test_each_wrong_password_is_counted_once(site: Site, attacked: dict[str, str]) -> None:
    """The daemons' own lines, all of the journal; and why the packaged filter would not do."""
    # What asks on the host itself, such as service_config's probe, comes from no address.
    refused = re.compile(r".*\([^,()]*,[0-9a-f.:]+[,)].*(?:Password mismatch|unknown user)$", re.MULTILINE)
    for release, host in site.hosts.items():
        # one moment for both filters
        host.sh("journalctl -u dovecot -o short-iso > /root/dovecot.log")
        wrong = len(refused.findall(host.read("/root/dovecot.log")))
        script = "fail2ban-regex /root/dovecot.log {} --print-all-missed"
        own, packaged = (host.sh(script.format(name)) for name in ("postmeister-mail", "dovecot"))
        assert refused.findall(own) == []
        assert int(re.findall(r"(\d+) matched", own)[-1]) == wrong > 60
        if release == 12:
            assert int(re.findall(r"(\d+) matched", packaged)[-1]) > wrong
        else:
            assert int(re.findall(r"(\d+) matched", packaged)[-1]) == 0


def test_second_run_with_bans_changes_nothing(site: Site, attacked: dict[str, str], given: dict) -> None:
    assert changed(site.play(*BANS, **given)) == {12: 0, 13: 0}
    assert site.banned(attacked["imap"], "imap")


def test_bans_survive_a_change_and_end(site: Site, attacked: dict[str, str], given: dict) -> None:
    # Long enough that each host can be looked at meanwhile.
    short = {**given, "fail2ban_bantime": "25s", "fail2ban_bantime_max": "25s", "fail2ban_maxretry": 3}
    before = site.sh("fail2ban-client get mail banip | tr ' ' '\\n' | sort")
    assert changed(site.play(*BANS, **short)) == {12: 1, 13: 1}
    assert site.sh("fail2ban-client get mail banip | tr ' ' '\\n' | sort") == before
    assert site.knock(attacked["pop3"], "pop3") == ["closed"]
    # the new rules count for who comes now
    site.guess({site.net.v4(94): [f"imap:{WRONG}"] * 3})
    assert site.banned(site.net.v4(94), "imap")
    assert site.free(site.net.v4(94), f"imap:{RIGHT}")


def test_ports_restart_and_a_late_exemption(site: Site, attacked: dict[str, str], given: dict) -> None:
    other = {**given, "fail2ban_ports": [993, 465], "fail2ban_exempt": [*given["fail2ban_exempt"], attacked["imap"]]}
    runs = site.play(*BANS, "-v", **other)
    assert changed(runs) == {12: 1, 13: 1}
    assert all("port in /etc/fail2ban/jail.d/postmeister.conf" in run.output for run in runs.values())
    # they come back after a restart, on the ports named now
    assert site.banned(attacked["pop3"], "imap", "465")
    assert site.knock(attacked["pop3"], "pop3", "sieve") == ["ok", "ok"]
    assert site.free(attacked["imap"], f"imap:{RIGHT}")


def test_what_is_damaged_is_repaired(site: Site, attacked: dict[str, str], given: dict) -> None:
    changed(site.play(*BANS, **given))
    site.sh(
        "fail2ban-client stop mail; chmod 0600 /etc/fail2ban/filter.d/postmeister-mail.conf; systemctl stop fail2ban"
    )
    assert changed(site.play(*BANS, **given)) == {12: 1, 13: 1}
    assert set(site.sh("stat -c %a /etc/fail2ban/filter.d/postmeister-mail.conf").values()) == {"644"}
    site.sh("fail2ban-client stop mail")
    assert changed(site.play(*BANS, **given)) == {12: 1, 13: 1}
    site.guess({site.net.v4(96): [f"imap:{WRONG}"] * 5})
    assert site.banned(site.net.v4(96), "imap")


def test_bad_input_is_refused_before_anything_changes(site: Site, given: dict) -> None:
    before = site.sh("cat /etc/fail2ban/jail.d/postmeister.conf; stat -c %Y /etc/fail2ban/*/postmeister*")
    runs = site.play(*BANS, **{**given, "fail2ban_exempt": ["198.18.0.0/15", "office.example"]})
    for run in runs.values():
        assert run.rc
        assert "fail2ban_exempt[1]: 'office.example' is neither an address nor a network" in run.output
    assert site.sh("cat /etc/fail2ban/jail.d/postmeister.conf; stat -c %Y /etc/fail2ban/*/postmeister*") == before


def test_taken_away(site: Site, given: dict) -> None:
    assert all("f2b-table" in text for text in site.sh(RULES).values())
    gone = {**given, "fail2ban_state": "absent"}
    assert all(count > 0 for count in changed(site.play(*BANS, "--check", **gone)).values())
    assert all("f2b-table" in text for text in site.sh(RULES).values())
    assert all(count > 0 for count in changed(site.play(*BANS, **gone)).values())
    assert site.sh(RULES) == {12: "", 13: ""}
    assert site.sh("ls /etc/fail2ban/*/postmeister* 2>/dev/null; systemctl is-active fail2ban; true") == {
        12: "inactive",
        13: "inactive",
    }
    assert site.free(site.net.v4(96), f"imap:{RIGHT}")
    assert changed(site.play(*BANS, **gone)) == {12: 0, 13: 0}
