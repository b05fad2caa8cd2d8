# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the lists of mail_directory to the host: in one secret option, or for a large source as a private file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import (
    FALLBACK,
    KINDS,
    PayloadError,
    from_csv,
    pack,
)

# Up to here a source travels with the module itself, which saves the connection some round trips.
SMALL = 1 << 20


class ActionModule(ActionBase):
    """Action of postmeister.host.mail_directory."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments, content = self.packed(dict(self._task.args))
        result = self._module(arguments, variables)
        if content is not None and result.pop("source_needed", False):
            result = self._module({**arguments, "src": self._send(content)}, variables)
        return result

    def packed(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """The arguments with the lists in one of them, and the whole source where one is given, should it be needed."""
        if arguments.get("payload") is not None:
            raise AnsibleActionFail("payload: is set by the action plugin, not by a task")
        lists = {kind: arguments.pop(kind, None) for kind in (*KINDS, FALLBACK)}
        for kind, value in lists.items():
            if value is not None and not isinstance(value, list):
                raise AnsibleActionFail(f"{kind}: is no list")
        source = arguments.pop("src", None)
        if source is None:
            return {**arguments, "payload": pack(lists)}, None
        name = str(source)
        content = self._json(name)
        text = content.decode(errors="replace") if len(content) <= SMALL else None
        packed = pack(lists, text, name, hashlib.sha256(content).hexdigest())
        return {**arguments, "payload": packed}, content

    def _module(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(
            module_name="postmeister.host.mail_directory", module_args=arguments, task_vars=variables
        )

    def _json(self, source: str) -> bytes:
        """The source as JSON; the loader decrypts what is in a vault."""
        path = self._find_needle("files", source)
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in (".json", ".csv", ".yml", ".yaml"):
            raise AnsibleActionFail(f"src: {source} ends in neither .json, .csv, .yml nor .yaml")
        real = self._loader.get_real_file(path, decrypt=True)
        try:
            with open(real, "rb") as handle:
                content = handle.read()
        finally:
            self._loader.cleanup_tmp_file(real)
        if suffix == ".json":
            return content
        try:
            text = content.decode("utf-8-sig")
            data = from_csv(io.StringIO(text, newline=""), source) if suffix == ".csv" else self._yaml(text, path)
        except UnicodeDecodeError as exc:
            raise AnsibleActionFail(f"src: {source} is not in UTF-8") from exc
        except PayloadError as exc:
            raise AnsibleActionFail(f"src: {exc}") from exc
        return json.dumps(data, default=str).encode()

    def _yaml(self, text: str, path: str) -> Any:
        return self._loader.load(text, file_name=path, show_content=False)

    def _send(self, content: bytes) -> str:
        """Put the source into a private folder on the host; the module removes the file once it is read."""
        folder = self._connection._shell.tmpdir or self._make_tmp_path()
        remote = self._connection._shell.join_path(folder, "directory.json")
        handle, local = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP)
        try:
            with open(handle, "wb") as out:
                out.write(content)
            self._transfer_file(local, remote)
        finally:
            os.unlink(local)
        self._fixup_perms2((folder, remote), execute=False)
        return remote
