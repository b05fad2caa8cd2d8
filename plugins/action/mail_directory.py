# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the lists of mail_directory to the host: those of the task in one secret option, a source as a private file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import KINDS, PayloadError, from_csv, pack


class ActionModule(ActionBase):
    """Action of postmeister.host.mail_directory."""

    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for name in ("payload", "src_name"):
            if arguments.get(name) is not None:
                raise AnsibleActionFail(f"{name}: is set by the action plugin, not by a task")
        lists = {kind: arguments.pop(kind, None) for kind in KINDS}
        for kind, value in lists.items():
            if value is not None and not isinstance(value, list):
                raise AnsibleActionFail(f"{kind}: is no list")
        arguments["payload"] = pack(lists)
        source = arguments.pop("src", None)
        if source is None:
            return self._module(arguments, task_vars)
        arguments["src_name"] = str(source)
        with self._json_file(str(source)) as local:
            folder = self._connection._shell.tmpdir or self._make_tmp_path()
            remote = self._connection._shell.join_path(folder, "directory.json")
            self._transfer_file(local, remote)
            self._fixup_perms2((folder, remote), execute=False)
        # The folder is private to the remote user; the module removes the file once it is read, cleanup() the folder.
        return self._module({**arguments, "src": remote}, task_vars)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return self._execute_module(
            module_name="postmeister.host.mail_directory", module_args=arguments, task_vars=task_vars or {}
        )

    @contextlib.contextmanager
    def _json_file(self, source: str) -> Iterator[str]:
        """A private local file with the source as JSON; the source itself where it is that already."""
        path = self._find_needle("files", source)
        suffix = os.path.splitext(path)[1].lower()
        real = self._loader.get_real_file(path, decrypt=True)
        try:
            if suffix == ".json":
                os.chmod(real, 0o600) if real != path else None
                yield real
                return
            with open(real, encoding="utf-8-sig") as handle:
                text = handle.read()
            if suffix == ".csv":
                data = from_csv(io.StringIO(text), source)
            elif suffix in (".yml", ".yaml"):
                data = self._loader.load(text, file_name=path, show_content=False)
            else:
                raise AnsibleActionFail(f"src: {source} ends in neither .json, .csv, .yml nor .yaml")
            handle_, local = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP)
            try:
                with open(handle_, "w", encoding="utf-8") as out:
                    json.dump(data, out, default=str)
                yield local
            finally:
                os.unlink(local)
        except UnicodeDecodeError as exc:
            raise AnsibleActionFail(f"src: {source} is not in UTF-8") from exc
        except PayloadError as exc:
            raise AnsibleActionFail(f"src: {exc}") from exc
        finally:
            self._loader.cleanup_tmp_file(real)
