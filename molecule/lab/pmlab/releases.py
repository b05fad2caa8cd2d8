# SPDX-License-Identifier: GPL-3.0-or-later

"""A plugin for pytest: --release 12 and --release 13 are the halves of a folder of tests, to be run side by side.

A test belongs to the Debian release among its parameters, one without to 13. What one release's tests are about stays
in one process, in the order in which it is written. (pytest-xdist would start a machine for each of its workers.)
"""

from __future__ import annotations

import pytest

from .settings import RELEASES

DEFAULT = max(RELEASES)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the option."""
    parser.addoption("--release", type=int, choices=list(RELEASES), help="only the tests of this Debian release")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other half."""
    wanted = config.getoption("--release")
    if wanted:
        config.hook.pytest_deselected(items=[item for item in items if release_of(item) != wanted])
        items[:] = [item for item in items if release_of(item) == wanted]


def release_of(item: pytest.Item) -> int:
    """The release that a test is about."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return next((value for value in parameters if isinstance(value, int) and value in RELEASES), DEFAULT)
