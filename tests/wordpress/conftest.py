# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of each release with PHP, WP-CLI and MariaDB; each test makes sites of its own on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from pmlab.wordpress import WordPressMachine, both


@pytest.fixture(scope="session")
def machines() -> Iterator[dict[int, WordPressMachine]]:
    """Debian 12 and 13, set up side by side."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    made = {release: WordPressMachine(release) for release in (12, 13)}

    def set_up(machine: WordPressMachine) -> None:
        machine.start()
        machine.prepare(database=True)

    try:
        both(made, set_up)
        yield made
    finally:
        both(made, WordPressMachine.remove)


@pytest.fixture(params=[12, 13])
def machine(request: pytest.FixtureRequest, machines: dict[int, WordPressMachine]) -> WordPressMachine:
    """One of them."""
    return machines[request.param]
