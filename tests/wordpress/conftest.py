# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of each release with PHP, WP-CLI and MariaDB; each file makes sites of its own on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from pmlab.wordpress import WordPressMachine, ready


@pytest.fixture(scope="session")
def machines() -> Iterator[dict[int, WordPressMachine]]:
    """Debian 12 and 13."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    with ready(12, 13) as made:
        yield made
