# SPDX-License-Identifier: GPL-3.0-or-later

"""Arrays of a real kernel: limits that hold, now and after boots, and rebuilds that they make faster."""

from __future__ import annotations

import re
from collections.abc import Callable

from conftest import BAD, LOW, LOW_MIN, SITE, Moment, Story, told
from pmlab.machine import Machine

OWN = f"""md/sync_speed_max {LOW} (local)
md/sync_speed_min {LOW_MIN} (local)
"""


def test_check_mode_on_a_bare_host(story: Story) -> None:
    run = story["check on a bare host"]
    assert run.stats["changed"] == 2, run.output
    assert "+dev.raid.speed_limit_max = 1250000" in run.output
    after = story["after the check"]
    assert "postmeister" not in after and "no packages found matching mdadm" in after


def test_arrays_made_later_have_the_limits(story: Story) -> None:
    assert story["without arrays"].stats["changed"] == 2
    made = story["arrays made"]
    assert "raid/speed_limit_max 1250000\nraid/speed_limit_min 2000\n" in made
    assert "md/sync_speed_max 1250000 (system)\n" in made


def test_limits_are_applied(story: Story) -> None:
    values = story["values"]
    assert values.startswith("raid/speed_limit_max 1250000\nraid/speed_limit_min 2000\n" + OWN)
    assert "md/sync_speed_max 1250000 (system)\nmd/stripe_cache_size 1024\nmd/group_thread_cnt 1\n" in values
    assert "bitmap/location none" in story["arrays made"]
    assert re.search(r"bitmap/location [+-]\d+\n", values)


def test_the_check_has_its_schedule(story: Story) -> None:
    schedule = story["schedule"]
    assert "OnCalendar=Sat *-*-08..14 01:30:00" in schedule
    assert schedule.count("OnCalendar=") == 1
    assert "ActiveState=active" in schedule
    assert "MDADM_CHECK_DURATION=4 hours" in schedule
    # the job of cron, which only Debian 12 has, leaves it to the timers
    assert ("AUTOCHECK=false" in schedule) == (story.release == 12)


def test_bad_values_change_nothing(story: Story) -> None:
    run = story["info"]
    for _case, words in BAD:
        assert words in run.output
    assert run.stats["ignored"] == len(BAD)
    assert story["values after bad ones"] == story["values"]


def test_what_is_told_of_arrays(story: Story) -> None:
    info = told(story["info"])
    assert info["supported"] and info["loaded"]
    file = "/etc/sysctl.d/zz-postmeister-mdraid.conf"
    assert info["limits"]["now"]["speed_limit_max"] == {"value": 1250000, "source": file}
    data, wide = sorted(info["arrays"], key=lambda array: array["level"])
    assert (data["level"], wide["level"]) == ("raid1", "raid5")
    assert data["speed_limit_max"] == {"value": LOW, "source": "array"}
    assert wide["speed_limit_max"] == {"value": 1250000, "source": "host"}
    assert [member["device"] for member in data["members"]] == ["/dev/ubdc", "/dev/ubdd"]
    assert (data["action"], data["degraded"], data["percent"], wide["bitmap"]) == ("idle", 0, None, "internal")


def test_after_a_boot_without_md_in_the_initramfs(story: Story) -> None:
    # systemd-sysctl was too early: without the udev rule these were the kernel's own limits.
    applied, running = map(float, story["order when booted without md"].split())
    assert applied < running
    # The bitmap is the one thing that lies on the disks.
    assert story["booted without md"] == story["values"]


def test_second_run(story: Story) -> None:
    assert story["second run"].stats["changed"] == 0, story["second run"].output


def moments(story: Story) -> list[Moment]:
    """The trace from the rebuild's beginning on."""
    return [Moment.of(line) for line in story["trace"].splitlines() if re.match(r"\d+\.\d+ \w+ ", line)]


def rate(part: list[Moment]) -> float:
    """KiB/s between the first and the last moment of a part."""
    known = [moment for moment in part if moment.done is not None]
    assert len(known) > 1, part
    first, last = known[0], known[-1]
    return ((last.done or 0) - (first.done or 0)) / (last.uptime - first.uptime)


def test_a_rebuild_is_faster_with_the_high_limit(story: Story, record_property: Callable[[str, object], None]) -> None:
    recovering = [moment for moment in moments(story) if moment.action == "recover"]
    slow = [moment for moment in recovering if moment.limit.startswith(f"{LOW} ")]
    fast = [moment for moment in recovering if moment.limit == f"{story.high} (local)"]
    # From the last moment with the low limit: much is done at once when it is lifted, and the kernel pauses after that.
    rates = rate(slow), rate([slow[-1], *fast])
    record_property("KiB/s", [round(each) for each in rates])
    assert rates[0] > 0
    assert rates[1] > 4 * rates[0], rates


def test_its_progress_is_shown_until_its_end(story: Story) -> None:
    output = story["rebuild"].output
    shown = [float(text) for text in re.findall(r"recover (\d+\.\d) %, \d+ KiB/s, .* left", output)]
    assert shown and shown == sorted(shown), output
    assert re.search(r": md\d+: done$", output, re.MULTILINE), output


def test_the_limit_goes_back_by_itself_and_a_check_keeps_it(story: Story) -> None:
    trace = moments(story)
    last = max(index for index, moment in enumerate(trace) if moment.action == "recover")
    limits = [moment.limit for moment in trace[last:]]
    back = limits.index(f"{LOW} (system)")
    assert set(limits[:back]) == {f"{story.high} (local)"}
    assert set(limits[back:]) == {f"{LOW} (system)"}
    checking = [moment for moment in trace[last:] if moment.action == "check"]
    assert rate(checking) < 4 * LOW, checking


def test_after_a_boot_with_md_in_the_initramfs(story: Story) -> None:
    # The driver is there before systemd-sysctl; on a busy machine the arrays may come after it all the same.
    values = story["booted with md"]
    assert values.startswith(f"raid/speed_limit_max {LOW}\nraid/speed_limit_min {LOW_MIN}\n")
    assert f"md/sync_speed_max {LOW} (system)\nmd/stripe_cache_size 1024\nmd/group_thread_cnt 1\n" in values
    assert story["watched after a boot"] == "active\n"


def test_a_container_is_said_clearly(container: Machine) -> None:
    for options in (["--check", "--diff"], [], []):
        run = container.play(SITE, *options, target="all", ansible_become=False, mdraid_wait=True).good()
        assert "this is a container" in run.output
        assert run.stats["changed"] == 0
    assert "postmeister" not in container.sh("ls /etc/sysctl.d /etc/udev/rules.d 2>&1", check=False)


def test_the_role_refuses_bad_values_everywhere(container: Machine) -> None:
    cases = [
        ({"mdraid_speed_limit_max": 0}, "speed_limit_max: 0 is no limit"),
        ({"mdraid_speed_limit_min": -5}, "speed_limit_min: -5 is no limit"),
        ({"mdraid_speed_limit_min": 5000, "mdraid_speed_limit_max": 4000}, "5000 is above speed_limit_max, 4000"),
        ({"mdraid_arrays": [{"name": "x", "speed_limit_max": 0}]}, "arrays[0] (x): speed_limit_max: 0 is no limit"),
        ({"mdraid_check_schedule": "every now and then"}, "is no calendar expression"),
        ({"mdraid_check_duration": "long"}, "is no time like '6 hours'"),
    ]
    tasks = []
    for variables, _words in cases:
        role = {"ansible.builtin.include_role": {"name": "postmeister.host.mdraid"}, "vars": variables}
        said = {"ansible.builtin.debug": {"msg": "REFUSED {{ ansible_failed_result.msg }}"}}
        tasks.append({"block": [role], "rescue": [said]})
    run = container.play(tasks).good()
    refused = re.findall(r"REFUSED (.*)", run.output)
    assert len(refused) == len(cases), run.output
    for text, (_variables, words) in zip(refused, cases):
        assert words in text
    assert run.stats["changed"] == 0
