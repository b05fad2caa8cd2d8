# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""service_config killed at each write, fsync and rename of a change, and the power cut there.

What is real: Debian with systemd as PID 1, the daemon, the module, SIGKILL in the middle of a system call, a boot.
What is not: a container shares its host's page cache, so a lost write of an unsynced page cannot be seen here; that
every file and folder is fsynced before the step that relies on it is held by the unit tests.

A power cut leaves nothing but what is on the disk. So two points that leave the same tree, whatever the system call,
are one case after it, and one boot shows what comes of both. Trees are the same where names, types, modes, owners,
contents and links are, in all folders that a change writes to. Nothing at boot, nor the next run, reads a stage: of
what is in it the first point's boot says all there is to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
from conftest import Host
from daemons import Files

CALLS = ("write", "fsync", "rename")
#: how many such calls there are in the module at the least
LEAST = {"write": 8, "fsync": 10, "rename": 5}
#: The last writes and fsyncs lie after the change held; the last rename is what makes it hold.
HELD = {"write": {False, True}, "fsync": {False, True}, "rename": {False}}


class Sweep:
    """A change of a daemon's files, from one set that serves to another, on one machine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.former, self.wanted = (host.daemon.files(letter, host.release) for letter in "ab")
        #: trees that a power cut left, and whether the change held
        self.booted: dict[str, bool] = {}
        host.change(self.wanted)
        self.goal = host.tree()
        host.change(self.former)
        assert host.serves(), host.answers()
        host.tree("keep")
        #: system calls of the module, and the most that any program does that it starts
        self.own, self.others = self.trace()

    def trace(self) -> tuple[Counter[str], Counter[str]]:
        """Let the change through, and count its system calls."""
        self.host.change(self.wanted, f"-f -o /root/trace -e trace=execve,{','.join(CALLS)}")
        calls: dict[str, Counter[str]] = {}
        for process, call in re.findall(r"^(\d+) +(\w+)\(", self.host.read("/root/trace"), re.MULTILINE):
            calls.setdefault(process, Counter())[call] += 1
        own, *others = calls.values()
        self.restore()
        return own, Counter({call: max(counter[call] for counter in others) for call in CALLS})

    def restore(self) -> None:
        self.host.tree("restore")
        self.host.sh(self.host.daemon.reload)

    def cut(self, call: str, when: int, options: str) -> bool:
        """Kill at a point, and cut the power. Whether the change held.

        With -f a program may die whose end harms nothing, or that makes fewer calls this time: then all is as wanted.
        """
        inject = f"-o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={when}"
        result = self.host.change(self.wanted, f"{options} {inject}", check=False)
        tree = self.host.tree()
        if result and not result["failed"]:
            assert options, f"{call} {when}: was not killed"
            assert tree == self.goal, f"{call} {when} {options}"
        elif tree not in self.booted:
            self.booted[tree] = self.boot(f"{call} {when} {options}")
        self.restore()
        return self.booted.get(tree, True)

    def boot(self, point: str) -> bool:
        """After the boot, before any further run, the daemon serves; the next run brings what is wanted."""
        host = self.host
        host.power_cut()
        assert host.serves(), f"{point}: {host.answers()}"
        sets = [contents(files) for files in (self.former, self.wanted)]
        found = {path: host.sh(f"cat {path} 2>/dev/null", check=False) for path in sets[1]}
        assert found in sets, f"{point}: a mixture"
        assert host.leftovers("/etc") == "", point
        host.change(self.wanted)
        assert host.leftovers() == "", point
        assert host.tree() == self.goal, point
        return found == sets[1]


def contents(files: Files) -> dict[str, str]:
    """Content by name; nothing for a file that is not to be there."""
    return {file["dest"]: file.get("content", "") for file in files}


@pytest.fixture(scope="module")
def sweeps(hosts: Callable[[int, str], Host]) -> Callable[[int, str], Sweep]:
    """One for each machine: what is known of a tree holds for all its points."""
    return cache(lambda release, service: Sweep(hosts(release, service)))


# The code is the same on each release. What a release's daemons and boot make of it, the renames show: they are few,
# and each leaves a tree of its own.
@pytest.mark.parametrize(("release", "call"), [*((13, call) for call in CALLS), (12, "rename")])
@pytest.mark.parametrize("service", ["postfix", "dovecot"])
def test_killed_at_every_point(sweeps: Callable[[int, str], Sweep], release: int, service: str, call: str) -> None:
    """SIGKILL at the first, second, … such call of the module, until none is left."""
    sweep = sweeps(release, service)
    held = [sweep.cut(call, when, "") for when in range(1, sweep.own[call] + 1)]
    print(f"{len(held)} points, {sweep.others[call]} in other programs, {len(sweep.booted)} different trees")
    assert len(held) >= LEAST[call]
    assert set(held) == HELD[call]
    assert held == sorted(held), "what held does not come undone"


@pytest.mark.parametrize("service", ["postfix", "dovecot"])
@pytest.mark.parametrize("release", [13, 12])
def test_a_program_that_the_module_starts_is_killed(
    sweeps: Callable[[int, str], Sweep], release: int, service: str
) -> None:
    """strace counts for each process: killed is the first that comes to so many calls, be it the module or another."""
    sweep = sweeps(release, service)
    assert sweep.others["write"]
    for call in CALLS:
        for when in range(1, sweep.others[call] + 1):
            sweep.cut(call, when, "-f")
