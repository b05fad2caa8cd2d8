# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the report says of real mail, greylisted by a real postgrey; one page for two hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE, Site
from pmlab import connection

ALICE = "alice@example.test"
PLAYBOOK = HERE.parents[1] / "playbooks/mail_policy_report.yml"
#: the states of all that the report might touch
STATE = (
    "find /etc /usr /var/lib /root -xdev -type f -newer /root/before | "
    "grep -v -E '/lib/(postfix|postgrey|fail2ban|systemd)/' || true"
)


@pytest.fixture(scope="module")
def mailed(site: Site) -> None:
    """Mail of all fates, to both."""
    site.sh(
        """echo 'POSTGREY_OPTS="--inet=127.0.0.1:10023 --delay=2"' > /etc/default/postgrey
        systemctl restart postgrey
        for turn in $(seq 100); do ss -Hlnt | grep -q 127.0.0.1:10023 && break; sleep 0.2; done"""
    )
    good = f"mail:good@example.test:{ALICE}:mx.stranger.test"
    assert site.knock(site.net.v4(100), good, f"mail:bot@example.test:{ALICE}:mx.stranger.test") == ["450", "450"]
    assert site.knock(site.net.v4(101), "mail:x@example.test:nobody@example.test:mx.stranger.test") == ["550"]
    assert site.knock(site.net.v4(101), f"mail:x@example.test:{ALICE}:laptop") == ["504"]
    assert site.knock(site.net.v4(101), "mail:x@example.test:bob@elsewhere.test:mx.stranger.test") == ["554"]
    # Without DNS no sender's domain can be looked up, so all claim to be of this one. Another address of its pool;
    # each host has its own clock of whole seconds, and takes the mail once.
    assert site.soon(site.net.v4(102), "250", good)


def run_playbook(site: Site, folder: Path, *options: str) -> str:
    hosts = {
        f"mx{release}": {
            **connection.variables(machine.pid),
            "ansible_become": False,
        }
        for release, machine in site.hosts.items()
    }
    (folder / "inventory.json").write_text(json.dumps({"mailserver": {"hosts": hosts}}))
    program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) or "ansible-playbook"
    argv = [program, "-i", str(folder / "inventory.json"), "-e", f"report_folder={folder}", "-e", "since=1h", *options]
    environment = {**os.environ, **connection.ENVIRONMENT, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1"}
    environment["ANSIBLE_LOCALHOST_WARNING"] = "0"
    done = subprocess.run([*argv, str(PLAYBOOK)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_report(site: Site, mailed: None, tmp_path: Path) -> None:
    site.sh("touch /root/before")
    output = run_playbook(site, tmp_path)
    reports = json.loads((tmp_path / "mail_policy_report.json").read_text())
    assert list(reports) == ["mx12", "mx13"]
    for report in reports.values():
        rules = {(rule["rule"], rule["warning"]): rule for rule in report["rules"]}
        assert rules["reject_unlisted_recipient", False]["codes"] == {"550": 1}
        assert rules["reject_non_fqdn_helo_hostname", False]["codes"] == {"504": 1}
        assert rules["reject_unauth_destination", False]["codes"] == {"554": 1}
        # what the rule on trial would have refused, at each attempt that came as far
        assert rules["reject_unknown_client_hostname", True]["count"] >= 3
        assert rules["greylisting", False]["mails"] >= 2
        greylist = report["greylist"]
        assert (greylist["by"], greylist["new"]) == (["postgrey"], 2)
        assert (greylist["passed_after_retry"], greylist["not_back"]) == (1, 1)
        assert report["accepted"] == 1
        assert report["rejected"] == 3
    page = (tmp_path / "mail_policy_report.html").read_text()
    for words in ("mx12", "mx13", "reject_<wbr>unlisted_<wbr>recipient", "came back and passed"):
        assert page.count(words) >= 2 or words.startswith("mx")
    assert "reject_unknown_client_hostname" in output
    assert "did not come back so far" in output
    assert (tmp_path / "mail_policy_report.html").stat().st_mode & 0o777 == 0o600
    # nothing on the hosts
    assert site.sh(STATE) == {12: "", 13: ""}


def test_period_that_cannot_be(site: Site) -> None:
    tasks = [{"postmeister.host.mail_policy_info": {"since": "yesterday"}}]
    for run in site.both(lambda release: site.hosts[release].play(tasks)).values():
        assert run.rc
        assert "since: 'yesterday' is neither a time before now like 24h or 7d, nor a date" in run.output
