# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts recorded from real kernels, as trees of files: trees/NAME.json maps each path to its text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files

HERE = os.path.dirname(os.path.abspath(__file__))
Grow = Callable[..., str]


@pytest.fixture
def grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grow:
    """Make a recorded host below a temporary folder; keywords replace or add files (None removes one)."""
    monkeypatch.setattr(_files, "uid_of", lambda owner: os.geteuid())
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: os.getegid())

    def make(name: str, changes: dict[str, Any] | None = None) -> str:
        root = tmp_path / name
        with open(os.path.join(HERE, "trees", f"{name}.json"), encoding="utf-8") as handle:
            tree = {**json.load(handle), **(changes or {})}
        for path, text in tree.items():
            if text is None:
                continue
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return str(root)

    return make
