# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each module refuses bad input with the name of the item and the value, and shows no secret that came with it.

Run in check mode, so that a module that would take the input touches nothing on the machine of the test. What has a
file of its own here is tested there.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

MODULES = "ansible_collections.postmeister.host.plugins.modules"
CANARY = "canary-in-a-secret"
RECORD = {"name": "example.test", "type": "MX", "values": ["10 mail.example.test"]}
JOB = {"name": "etc", "source": "/etc", "destination": "/srv/backup"}
#: a module, its arguments, parts of its answer
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("dkim_key", {"keys": [{"domain": "example", "selector": "r1"}]}, ["keys[0]", "example"]),
    ("dkim_key", {"keys": [{"domain": "example.test", "selector": "r_1"}]}, ["keys[0]", "r_1"]),
    ("dkim_key", {"keys": [{"domain": "example.test", "selector": "r1", "bits": 1024}]}, ["keys[0]", "1024"]),
    (
        "dns_records",
        {"provider": "rfc2136", "server": "no address", "key_name": "k", "key_secret": CANARY, "records": [RECORD]},
        ["TSIG key 'k'"],
    ),
    ("dns_records", {"provider": "none", "records": [{**RECORD, "values": ["mail"]}]}, ["records[0]", "mail"]),
    ("dns_records", {"provider": "none", "records": [{**RECORD, "ttl": -1}]}, ["records[0]", "-1"]),
    ("dnsbl", {"lists": [{"zone": "no_zone", "replies": "127.0.0.2"}]}, ["lists[0]", "no_zone"]),
    ("dnsbl", {"lists": [{"zone": "list.test", "replies": "127.255.255.254"}]}, ["list.test", "127.255.255"]),
    ("mail_policy_info", {"since": "yesterday"}, ["since", "yesterday"]),
    ("packages", {"names": ["postfix"], "preseed": {"postfix": "none"}}, ["preseed.postfix", "none"]),
    ("postgrey", {"delay": "5"}, ["delay", "5"]),
    ("postgrey", {"retry_window": "1m"}, ["retry_window", "1m"]),
    ("postgrey_info", {"limit": "many"}, ["limit", "many"]),
    ("rsync_time_backup", {"jobs": [{**JOB, "strategy": "1:1 30"}]}, ["etc", "strategy", "1:1 30"]),
    ("rsync_time_backup", {"jobs": [{**JOB, "rsync_options": ["--compress"]}]}, ["etc", "--compress"]),
    ("rsync_time_backup", {"jobs": [JOB, JOB]}, ["etc"]),
    ("rsync_time_backup_info", {"names": ["nothing"]}, ["nothing"]),
    ("rsync_time_backup_restore", {"job": "nothing"}, ["nothing"]),
    ("rsync_time_backup_verify", {"names": ["nothing"]}, ["nothing"]),
    ("rsync_time_backup_verify", {"sample": 0}, ["sample", "0"]),
    ("wp_cli", {"version": "2.12.0", "checksum": "abc", "source": "/x"}, ["abc"]),
    ("wp_config", {"sites": [{"path": "/x", "secrets": {"not a name": CANARY}}]}, ["sites[0]", "not a name"]),
    ("wp_cron", {"sites": [{"path": "/var/www/x", "interval": 7}]}, ["sites[0].interval", "7"]),
    ("wp_cron", {"sites": [{"path": "relative"}]}, ["relative"]),
    ("wp_cron_info", {"names": ["nothing"]}, ["nothing"]),
    ("wp_site", {"sites": [{"path": "/x", "languages": ["../x"]}]}, ["../x"]),
    (
        "wp_site",
        {"sites": [{"path": "/x", "admin": {"name": "a", "password": CANARY, "email": "nobody"}}]},
        ["sites[0]", "nobody"],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "words"), CASES, ids=[f"{case[0]}-{case[2][-1]}" for case in CASES])
def test_refused(name: str, arguments: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"{MODULES}.{name}")
    with patch_module_args({"_ansible_check_mode": True, **arguments}), pytest.raises(SystemExit) as ended:
        module.main()
    output = capsys.readouterr().out
    result = json.loads(output)
    assert ended.value.code and result["failed"]
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]
    assert CANARY not in output


def test_each_module_is_here_or_has_a_file_of_its_own() -> None:
    here = Path(__file__).resolve().parent
    modules = {path.stem for path in (here.parents[3] / "plugins/modules").glob("[a-z]*.py")}
    tested = {path.stem.removeprefix("test_") for path in here.glob("test_*.py")} | {case[0] for case in CASES}
    # A file for three of a family; action plugins without a module's code.
    tested |= {"mdraid_check", "mdraid_info", "mdraid_speed", "mdraid_wait", "mail_plan"}
    assert sorted(modules - tested) == []
