# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.postmeister.host.plugins.action.service_config import ActionModule


class Action:
    """The plugin, told what a task of a role says; keeps what it would send to the host."""

    def __init__(self, role: Path | None) -> None:
        self.role = role
        self.sent: dict[str, Any] = {}

    def run(self, files: Any, variables: dict[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
        """The files that are sent for one service."""
        (found,) = self.send({"service": "postfix", "files": files, **more}, variables)
        return found

    def send(self, args: dict[str, Any], variables: dict[str, Any] | None = None) -> list[list[dict[str, Any]]]:
        """The files that are sent, service by service."""
        loader = DataLoader()
        role = None if self.role is None else SimpleNamespace(_role_path=str(self.role))
        task = SimpleNamespace(args=args, _role=role, async_val=0, check_mode=False, diff=False)
        plugin = ActionModule(
            task=task,
            connection=SimpleNamespace(_shell=SimpleNamespace(tmpdir=None)),
            play_context=SimpleNamespace(check_mode=False),
            loader=loader,
            templar=Templar(loader=loader, variables=variables or {}),
            shared_loader_obj=None,
        )
        plugin._execute_module = lambda **options: self.sent.update(options) or {}
        plugin.run(task_vars=variables or {})
        return json.loads(zlib.decompress(base64.b64decode(self.sent["module_args"]["payload"])))


@pytest.fixture
def action(tmp_path: Path) -> Action:
    (tmp_path / "role" / "templates" / "etc").mkdir(parents=True)
    (tmp_path / "role" / "templates" / "etc" / "main.cf.j2").write_text(
        "{# comment #}\n{{ ansible_managed | comment }}\n{% if true %}\nport = {{ port }}\n{% endif %}\n"
        "{% include 'etc/part.j2' %}\n"
    )
    (tmp_path / "role" / "templates" / "etc" / "part.j2").write_text("back\\slash \\n {{ name }}\n")
    (tmp_path / "role" / "templates" / "number.j2").write_text("{{ port }}")
    (tmp_path / "role" / "templates" / "nope.j2").write_text("{{ nowhere }}")
    (tmp_path / "outside.j2").write_text("outside")
    (tmp_path / "role" / "templates" / "link.j2").symlink_to("../../outside.j2")
    return Action(tmp_path / "role")


def test_template_is_rendered_as_the_role_expects(action: Action) -> None:
    files = [{"template": "etc/main.cf.j2", "dest": "/etc/main.cf", "mode": "0640"}]

    sent = action.run(files, {"port": 25, "name": "ä"})

    assert sent == [
        {"dest": "/etc/main.cf", "mode": "0640", "content": "#\n# Ansible managed\n#\nport = 25\nback\\slash \\n ä\n"}
    ]


def test_number_stays_text(action: Action) -> None:
    assert action.run([{"template": "number.j2", "dest": "/x"}], {"port": 25})[0]["content"] == "25"


def test_content_travels_in_the_payload_alone(action: Action) -> None:
    files = [{"content": "CANARY", "dest": "/x", "secret": True}, {"dest": "/y", "state": "absent"}]

    sent = action.run(files, inputs=["/z"])

    assert sent == [{"content": "CANARY", "dest": "/x", "secret": True}, {"dest": "/y", "state": "absent"}]
    arguments = dict(action.sent["module_args"])
    assert arguments.pop("payload")
    assert arguments == {
        "service": "postfix",
        "inputs": ["/z"],
        "files": [{"dest": "/x", "secret": True}, {"dest": "/y", "state": "absent"}],
    }
    # What the task was given stays as it was: a loop or a retry runs it again.
    assert files[0]["content"] == "CANARY"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("x", "files: is not a list of dictionaries"),
        (["x"], "files: is not a list of dictionaries"),
        ([{"dest": "/x"}], r"files\[0\]: exactly one of template and content must be given"),
        ([{"dest": "/x", "template": "number.j2", "content": "x"}], r"files\[0\]: exactly one of template and content"),
        ([{"dest": "/x", "content": "x", "state": "absent"}], r"files\[0\]: state is absent, so"),
        (
            [{"dest": "/x", "template": "missing.j2"}],
            r"files\[0\]\.template: there is no missing\.j2 below .*/role/templates",
        ),
        ([{"dest": "/x", "template": "../../outside.j2"}], r"there is no \.\./\.\./outside\.j2 below"),
        ([{"dest": "/x", "template": "link.j2"}], r"there is no link\.j2 below"),
        ([{"dest": "/x", "template": "nope.j2"}], r"files\[0\]\.template: nope\.j2: .*nowhere"),
    ],
)
def test_refused(action: Action, files: Any, message: str) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        action.run(files)
    assert action.sent == {}


def test_template_outside_of_a_role_is_refused() -> None:
    with pytest.raises(AnsibleActionFail, match=r"number\.j2 needs a role; outside of one give content"):
        Action(None).run([{"dest": "/x", "template": "number.j2"}])


def test_several_services_have_templates_of_roles_beside_the_tasks_own(action: Action, tmp_path: Path) -> None:
    (tmp_path / "other" / "templates").mkdir(parents=True)
    (tmp_path / "other" / "templates" / "number.j2").write_text("other {{ port }}")
    services = [
        {"service": "redis", "role": "other", "files": [{"template": "number.j2", "dest": "/x"}], "probe": {"a": 1}},
        {"service": "postfix", "files": [{"template": "number.j2", "dest": "/y"}, {"content": "CANARY", "dest": "/z"}]},
    ]

    sent = action.send({"services": services}, {"port": 25})

    assert sent == [
        [{"dest": "/x", "content": "other 25"}],
        [{"dest": "/y", "content": "25"}, {"dest": "/z", "content": "CANARY"}],
    ]
    arguments = action.sent["module_args"]
    assert arguments["services"][0] == services[0]
    assert arguments["services"][1]["files"] == [{"template": "number.j2", "dest": "/y"}, {"dest": "/z"}]
    # What the task was given stays as it was: a loop or a retry runs it again.
    assert services[1]["files"][1]["content"] == "CANARY"


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ("postfix", "services: is not a list of dictionaries"),
        ([{"service": "redis"}], r"services\[0\]\.files: is not a list of dictionaries"),
        ([{"service": "redis", "files": [{"dest": "/x"}]}], r"services\[0\]\.files\[0\]: exactly one of"),
        (
            [{"service": "redis", "role": "nowhere", "files": [{"dest": "/x", "template": "number.j2"}]}],
            r"services\[0\]\.files\[0\]\.template: there is no number\.j2 below .*/nowhere/templates",
        ),
    ],
)
def test_refused_among_several(action: Action, services: Any, message: str) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        action.send({"services": services})
    assert action.sent == {}


def test_one_or_several(action: Action) -> None:
    with pytest.raises(AnsibleActionFail, match="services and files: only one of them"):
        action.send({"services": [], "service": "redis", "files": [{"dest": "/x", "content": "CANARY"}]})
    assert action.sent == {}


def test_payload_is_not_for_users(action: Action) -> None:
    with pytest.raises(AnsibleActionFail, match="payload: is set by the action plugin"):
        action.run([], payload="x")
