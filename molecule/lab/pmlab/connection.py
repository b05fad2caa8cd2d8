# SPDX-License-Identifier: GPL-3.0-or-later

"""How the tests' playbooks reach containers: see molecule/lab/connection_plugins/lab.py."""

from __future__ import annotations

import tempfile
from typing import Any

from .podman import podman
from .settings import LAB

_MODULES = tempfile.TemporaryDirectory(prefix="pm-modules-")
#: what ansible-playbook needs in its environment to find the plugin, and the plugin to keep modules for all plays
ENVIRONMENT = {"ANSIBLE_CONNECTION_PLUGINS": str(LAB / "connection_plugins"), "LAB_MODULES": _MODULES.name}


def variables(pid: int) -> dict[str, Any]:
    """A host's variables, of the number of its container's first process."""
    return {"ansible_connection": "lab", "ansible_lab_pid": pid, "ansible_python_interpreter": "/usr/bin/python3"}


def lab_variables() -> dict[str, Any]:
    """Extra variables that let inventory/hosts.yml take this way to all running hosts."""
    lines = podman("ps", "--filter=label=postmeister.lab", "--format={{.Names}} {{.Pid}}").splitlines()
    return {"lab_connection": "lab", "lab_pids": {name: int(pid) for name, pid in map(str.split, lines)}}
