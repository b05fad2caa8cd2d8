# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian 12 becomes 13 below a mail host: no mail is lost, and one run makes it whole. The last tests of the lab."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from clients import Box, at_remote, from_remote, idle, message, new_subject, read_imap, submit, until, verdicts
from conftest import Run, Site, Story

# As the role's README says. Dovecot 2.4 refuses the configuration of 2.3, so its package cannot be set up yet.
UPGRADE = """
sed -i s/bookworm/trixie/ /etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o Acquire::Retries=3 update
apt-get -qq -y -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold full-upgrade
dpkg --audit
echo "dovecot: $(systemctl is-active dovecot)"
"""


@dataclass(frozen=True)
class Upgrade:
    """What was seen, and the subjects of a mail of before and of one that came while Dovecot was down."""

    said: str
    before: str
    meanwhile: str
    first: Run
    second: Run


@pytest.fixture(scope="module")
def upgrade(
    story: Story, site: Site, boxes: dict[str, Box], remote: Box, accounts: dict[str, tuple[str, str]]
) -> Upgrade:
    mx12, (login, password) = boxes["mx12"], accounts["mx12"]
    before, meanwhile = new_subject(), new_subject()
    submit(mx12.ipv4, 465, login, password, login, [login], message(login, login, before))
    until(lambda: read_imap(mx12.ipv4, login, password, before), 60, before)
    said = mx12.sh(f"exec 2>&1; {UPGRADE}", check=False)
    from_remote(remote, "carol@remote.test", login, message("carol@remote.test", login, meanwhile))
    first = site.play("-l", "mx12")
    return Upgrade(said, before, meanwhile, first, site.play("-l", "mx12"))


def test_one_run_makes_it_whole(upgrade: Upgrade, boxes: dict[str, Box]) -> None:
    mx12 = boxes["mx12"]
    assert mx12.run("cat", "/etc/debian_version").startswith("13."), upgrade.said[-2000:]
    # The control: before the run Dovecot was down, and its package not set up.
    assert "dovecot_config_version" in upgrade.said and "\ndovecot: failed\n" in upgrade.said, upgrade.said[-2000:]
    assert re.search(r"^ dovecot-core\b", upgrade.said, re.MULTILINE), upgrade.said[-2000:]
    assert upgrade.first.rc == 0, upgrade.first.failed_because()
    assert upgrade.second.rc == 0 and upgrade.second.stats["mx12"]["changed"] == 0, upgrade.second.output
    assert mx12.run("dovecot", "--version").startswith("2.4.")
    assert mx12.run("dpkg", "--audit") == ""
    assert mx12.run("systemctl", "--failed", "--no-legend") == ""


def test_mail_of_before_and_of_meanwhile_is_there(
    upgrade: Upgrade, boxes: dict[str, Box], remote: Box, accounts: dict[str, tuple[str, str]]
) -> None:
    mx12, (login, password) = boxes["mx12"], accounts["mx12"]
    assert read_imap(mx12.ipv4, login, password, upgrade.before)

    def delivered() -> bool:
        for box in (remote, mx12):
            box.run("postqueue", "-f")
        return idle(remote, login) and idle(mx12, login)

    until(delivered, 180, f"{upgrade.meanwhile} leaves the queues")
    assert read_imap(mx12.ipv4, login, password, upgrade.meanwhile)


def test_the_other_provider_trusts_it(
    upgrade: Upgrade, boxes: dict[str, Box], remote: Box, accounts: dict[str, tuple[str, str]]
) -> None:
    mx12, (login, password) = boxes["mx12"], accounts["mx12"]
    subject = new_subject()
    text = message(login, "carol@remote.test", subject)
    submit(mx12.ipv4, 465, login, password, login, "carol@remote.test", text)
    found = verdicts(until(lambda: at_remote(remote, "carol", subject), 60, subject), "remote.test")
    assert found.count("dkim=pass") >= 2 and {"spf=pass", "dmarc=pass"} <= {*found}, found
