# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's modules as programs: for tests whose subject is a module, and not how Ansible calls it."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import ansible

from .settings import LAB

TOP = "/opt/postmeister"
PLUGINS = f"{TOP}/ansible_collections/postmeister/host/plugins"


@functools.cache
def code() -> bytes:
    """The Python code of the collection's modules and of ansible-core's part below them, as a tar file."""
    plugins = LAB.parents[1] / "plugins"
    core = Path(str(ansible.__file__)).parent
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for source, target in (
            (plugins / "module_utils", f"{PLUGINS}/module_utils"),
            (plugins / "modules", f"{PLUGINS}/modules"),
            (core / "module_utils", f"{TOP}/ansible/module_utils"),
        ):
            tar.add(source, target, filter=lambda entry: None if "__pycache__" in entry.name else entry)
        tar.addfile(tarfile.TarInfo(f"{TOP}/ansible/__init__.py"))
    return buffer.getvalue()


def command(name: str, prefix: str = "") -> str:
    """A shell command that runs a module with the arguments on standard input; prefix: a program that runs it."""
    # Errors come after the answer, not in the middle of it.
    errors = "/run/module-errors-$$"
    return f"PYTHONPATH={TOP} {prefix} python3 {PLUGINS}/modules/{name}.py 2>{errors}; cat {errors}; rm {errors}"


def arguments(given: dict[str, Any]) -> str:
    """Arguments as a module reads them."""
    return json.dumps({"ANSIBLE_MODULE_ARGS": given})


def answer(text: str) -> dict[str, Any]:
    """What a module returned, and in "raw" all it printed; failed is always there. Nothing where it was killed."""
    text = text.lstrip()
    if not text.startswith("{"):
        return {}
    result: dict[str, Any] = {"failed": False, **json.JSONDecoder().raw_decode(text)[0], "raw": text}
    return result
