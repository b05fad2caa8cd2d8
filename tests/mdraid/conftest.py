# SPDX-License-Identifier: GPL-3.0-or-later

"""One story per Debian release, told by a virtual machine with arrays of its own; both at once, for rebuilds are slow.

The tests only read what was seen. A step that failed fails the tests of what it, and the steps after it, were to show.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pmlab import vm
from pmlab.machine import Machine, Run
from pmlab.settings import LabError

RELEASES = (12, 13)
SITE = Path(__file__).resolve().parents[2] / "playbooks/mdraid.yml"

#: a rebuild at LOW lasts far longer than a playbook needs to raise it, KiB/s for each device
LOW, LOW_MIN = 200, 100
#: times the length of a run that a rebuild with the raised limit is to last, so that a run sees its progress however
#: slow the machine is. The kernel looks at the mean of the last half minute: so long a part of it is done at once. And
#: between which rates that may be, KiB/s
LASTS, AT_ONCE, SLOWEST, FASTEST = 1.3, 30, 6 * LOW, 32 * LOW
FIRST = {"mdraid_speed_limit_max": 1250000, "mdraid_speed_limit_min": 2000}
ARRAYS = {
    **FIRST,
    "mdraid_arrays": [
        {"name": "/dev/md/data", "speed_limit_max": LOW, "speed_limit_min": LOW_MIN},
        {"name": "wide", "stripe_cache_size": 1024, "group_thread_cnt": 1, "bitmap": "internal"},
    ],
    "mdraid_check_schedule": "Sat *-*-8..14 01:30",
    "mdraid_check_duration": "4 hours",
}
RESYNCING = {
    **ARRAYS,
    "mdraid_mode": "while_resyncing",
    "mdraid_normal_speed_limit_max": LOW,
    "mdraid_normal_speed_limit_min": LOW_MIN,
    "mdraid_arrays": [ARRAYS["mdraid_arrays"][1]],
}
#: each with a part of the answer
BAD: list[tuple[dict[str, Any], str]] = [
    ({"arrays": [{"name": "md7", "speed_limit_max": 5000}]}, "arrays[0] (md7): no such array on this host"),
    ({"arrays": [{"name": "data", "stripe_cache_size": 4096}]}, "only RAID 4, 5 and 6 have it, this is raid1"),
]

CREATE = """
mdadm --create /dev/md/data --run --homehost=vm --level=1 --raid-devices=2 --assume-clean --bitmap=none \
    /dev/ubdc /dev/ubdd
mdadm --create /dev/md/wide --run --homehost=vm --level=5 --raid-devices=3 --assume-clean --bitmap=none \
    /dev/ubde /dev/ubdf /dev/ubdg
udevadm settle
"""
#: limits, and what udev was to set, wherever the arrays' names lead after a boot
VALUES = """
data=/sys/block/$(basename $(readlink -f /dev/md/*data))/md
wide=/sys/block/$(basename $(readlink -f /dev/md/*wide))/md
for file in /proc/sys/dev/raid/speed_limit_max /proc/sys/dev/raid/speed_limit_min $data/sync_speed_max \
    $data/sync_speed_min $wide/sync_speed_max $wide/stripe_cache_size $wide/group_thread_cnt $wide/bitmap/location
do
    echo $(basename $(dirname $file))/$(basename $file) $(cat $file)
done
"""
#: when systemd-sysctl had ended, and when the first array ran, in seconds since the kernel's start
ORDER = """
systemctl show --value --property=ExecMainExitTimestampMonotonic systemd-sysctl | sed 's/......$/.&/'
journalctl -b -k -o short-monotonic | sed -n 's/^\\[ *\\([0-9.]*\\)\\].* md\\/raid.*active with.*/\\1/p' | head -n 1
"""
#: a line every second: uptime, what the array does, KiB done, its limit
TRACE = """
data=/sys/block/$(basename $(readlink -f /dev/md/*data))/md
cat >/run/trace.sh <<'END'
while sleep 0.8; do
    far=$(sed -n 's/.* = *[0-9.]*% (\\([0-9]*\\)\\/.*/\\1/p' /proc/mdstat)
    read up _ </proc/uptime; read action <$1/sync_action; read limit <$1/sync_speed_max
    echo "$up $action ${far:-none} $limit"
done >/run/trace
END
systemd-run --quiet --unit=trace sh /run/trace.sh $data
"""
#: with the low limit until something moves: what the kernel does at once in the beginning takes its limit ten seconds
REBUILD = """
mdadm --quiet /dev/md/*data --fail /dev/ubdd
until mdadm --quiet /dev/md/*data --remove /dev/ubdd 2>/dev/null; do sleep 0.1; done
mdadm --zero-superblock /dev/ubdd
mdadm --quiet /dev/md/*data --add /dev/ubdd
for turn in $(seq 120); do
    [ $(sed -n 's/^[0-9.]* recover \\([0-9]*\\) .*/\\1/p' /run/trace | sort -u | wc -l) -ge 2 ] && break
    sleep 1
done
"""
#: until enough of it was seen, however slow the machine
CHECK = """
data=$(readlink -f /dev/md/*data); echo check >/sys/block/$(basename $data)/md/sync_action
for turn in $(seq 60); do
    [ $(grep -c '^[0-9.]* check [0-9]' /run/trace) -ge 6 ] && break
    sleep 1
done
"""


@dataclass(frozen=True)
class Moment:
    """One line of the trace."""

    uptime: float
    action: str
    done: int | None  # KiB
    limit: str

    @classmethod
    def of(cls, line: str) -> Moment:
        uptime, action, done, limit = line.split(" ", 3)
        return cls(float(uptime), action, int(done) if done.isdigit() else None, limit)


@dataclass
class Story:
    """What a machine went through; seen holds, by name, what each step showed."""

    release: int
    seen: dict[str, Any] = field(default_factory=dict)
    problem: BaseException | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    high: int = 0  # the limit during the rebuild, KiB/s for each device

    def __getitem__(self, name: str) -> Any:
        if name not in self.seen:
            raise AssertionError(f"Debian {self.release} did not come to '{name}'") from self.problem
        return self.seen[name]

    def live(self) -> None:
        """The whole story."""
        try:
            with vm.Vm(self.release, "mdraid") as machine:
                self._steps(machine)
        except BaseException as problem:  # whatever it is, the tests are to show it
            self.problem = problem

    def _steps(self, machine: vm.Vm) -> None:
        def play(name: str, variables: dict[str, Any], *options: str) -> Run:
            started = time.monotonic()
            run = machine.play(SITE, *options, target="all", **variables)
            self.seen[name] = run.good()
            self.seconds[name] = time.monotonic() - started
            return run

        def look(name: str, script: str) -> None:
            self.seen[name] = machine.sh(script, check=False)

        def boot(name: str, initramfs: str) -> None:
            machine.boot(initramfs)
            self.seconds[name] = machine.booted
            look(name, f"udevadm settle; {VALUES}")
            look(f"order when {name}", ORDER)

        play("check on a bare host", FIRST, "--check", "--diff")
        look("after the check", "ls /etc/sysctl.d /etc/udev/rules.d /usr/local/lib; dpkg-query -W mdadm")
        play("without arrays", FIRST)
        look("arrays made", CREATE + VALUES)
        play("arrays set", ARRAYS)
        look("values", VALUES)
        look("schedule", "systemctl show --property=TimersCalendar,ActiveState mdcheck_start.timer; "
             "systemctl show --property=Environment mdcheck_start.service; cat /etc/default/mdadm")  # fmt: skip
        tasks: list[dict[str, Any]] = [
            *({"postmeister.host.mdraid_speed": case, "ignore_errors": True} for case, _words in BAD),
            {"postmeister.host.mdraid_info": None, "register": "raid"},
            {"ansible.builtin.debug": {"msg": "INFO {{ raid | to_json }}"}},
        ]
        self.seen["info"] = machine.play(tasks)
        look("values after bad ones", VALUES)
        boot("booted without md", "plain")
        play("second run", ARRAYS, "--diff")
        high = round(vm.DISK_SIZE * 1024 / (LASTS * self.seconds["second run"] + AT_ONCE))
        self.high = min(max(high, SLOWEST), FASTEST)
        machine.sh(TRACE + REBUILD)
        rates = {"mdraid_speed_limit_max": self.high, "mdraid_speed_limit_min": LOW_MIN}
        play("rebuild", {**RESYNCING, **rates, "mdraid_wait": True})
        machine.sh(CHECK)
        look("trace", "systemctl stop trace; cat /run/trace; journalctl -b -o cat -u postmeister-mdraid >&2")
        boot("booted with md", "md")
        look("watched after a boot", "systemctl is-active postmeister-mdraid")


def told(run: Run) -> dict[str, Any]:
    """What the task mdraid_info said in a run."""
    match = re.search(r'"msg": "INFO (.*)"$', run.output, re.MULTILINE)
    if not match:
        raise AssertionError(run.output)
    answer: dict[str, Any] = json.loads(json.loads(f'"{match[1]}"'))
    return answer


@pytest.fixture(scope="session")
def stories() -> Iterator[dict[int, Story]]:
    """Both machines' stories, told."""
    if vm.trouble():
        pytest.skip(f"no virtual machine here: {vm.trouble()}")
    try:
        for release in RELEASES:
            vm.ensure(release)
    except LabError as problem:
        pytest.skip(str(problem))
    result = {release: Story(release) for release in RELEASES}
    threads = [threading.Thread(target=story.live) for story in result.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for story in result.values():
        print(f"Debian {story.release}:", {name: round(seconds, 1) for name, seconds in story.seconds.items()})
    yield result


@pytest.fixture(params=RELEASES)
def story(request: pytest.FixtureRequest, stories: dict[int, Story]) -> Story:
    """The story of one release."""
    return stories[request.param]


@pytest.fixture(scope="session", params=RELEASES)
def container(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A container, which has no arrays."""
    with Machine(request.param, "mdraid") as machine:
        yield machine
