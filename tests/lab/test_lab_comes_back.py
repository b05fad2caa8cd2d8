# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself: what a newcomer's second day does to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import Box
from conftest import lab

HOST = "single13"


@pytest.fixture
def spare(boxes: dict[str, Box]) -> Iterator[str]:
    lab("fresh", HOST)
    yield f"pm-{HOST}"
    lab("rm", HOST)


def test_a_host_killed_with_its_watcher_is_made_anew(spare: str) -> None:
    """podman still calls it running, but can neither stop it nor start it."""
    text = subprocess.run(["podman", "inspect", spare], capture_output=True, text=True, check=True).stdout
    state = json.loads(text)[0]["State"]
    for process in (state["ConmonPid"], state["Pid"]):
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{state['Pid']}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert f"{spare:<14} dead" in status()
    assert f"{HOST}: started" in lab("up", HOST)
    assert f"{spare:<14} running" in status()
    subprocess.run(["podman", "exec", spare, "true"], check=True)


def status() -> str:
    return lab("status")
