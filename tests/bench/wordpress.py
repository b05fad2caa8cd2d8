# SPDX-License-Identifier: GPL-3.0-or-later

"""Sites of WordPress: all in one call of each module against WP-CLI in a loop, a task for each question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from figures import Result, figure
from lab import WORK, BenchError
from plays import Run, median, play
from pmlab.settings import LabError
from pmlab.wordpress import WORDPRESS, WordPressMachine

SITES, LOOPED = 50, 10
PLUGINS = {"akismet": "active", "hello": "inactive", "sqlite-database-integration": "inactive"}
CONSTANTS = {"DISABLE_WP_CRON": True, "WP_POST_REVISIONS": 5}
OPTIONS = {"blogname": "Bench", "posts_per_page": "7"}
PATHS = [f"/var/www/site{number:02}" for number in range(SITES)]
#: in the place of WP-CLI: writes down each start
COUNTED, STARTS = "/usr/local/bin/wp-counted", "/tmp/starts"


@contextmanager
def host() -> Iterator[WordPressMachine]:
    """A machine with the sites, which are copies of one: only their databases and configurations are their own."""
    try:
        with WordPressMachine(13, "bench-wp") as machine:
            machine.prepare()
            first = machine.site("site00")
            machine.wp(first, "plugin activate akismet")
            for name, value in OPTIONS.items():
                machine.wp(first, f"option update {name} {value}")
            for name, constant in CONSTANTS.items():
                machine.wp(first, f"config set {name} {json.dumps(constant)} --raw")
            machine.sh(
                "set -e; cd /var/www\n"
                f"for number in $(seq -f %02g 1 {SITES - 1}); do\n"
                "  cp -al site00 site$number; rm -r site$number/wp-content/database\n"
                "  cp -rp site00/wp-content/database site$number/wp-content/\n"
                f"  cp -p --remove-destination {first}/wp-config.php site$number/\n"
                "done\n"
                f"printf '#!/bin/sh\\necho >> {STARTS}\\nexec wp \"$@\"\\n' > {COUNTED}\n"
                f"chmod 755 {COUNTED}; touch {STARTS}; chmod 666 {STARTS}"
            )
            yield machine
    except LabError as problem:
        raise BenchError(str(problem)) from problem


def variables(paths: list[str], wp: str = "/usr/local/bin/wp") -> str:
    """A file with what both plays are given."""
    state = {
        "core": {"version": WORDPRESS},
        "plugins": [{"name": name, "state": state} for name, state in PLUGINS.items()],
        "options": OPTIONS,
    }
    given: dict[str, Any] = {
        "ansible_connection": "containers.podman.podman",
        "ansible_python_interpreter": "/usr/bin/python3",
        "bench_wp": wp,
        "bench_paths": paths,
        "bench_sites": [{"path": path, **state} for path in paths],
        "bench_configurations": [{"path": path, "constants": CONSTANTS} for path in paths],
        "bench_version": WORDPRESS,
        "bench_plugins": PLUGINS,
        "bench_constants": CONSTANTS,
        "bench_options": OPTIONS,
    }
    WORK.mkdir(parents=True, exist_ok=True)
    file = WORK / "wordpress.json"
    file.write_text(json.dumps(given))
    return f"@{file}"


@figure("ratio", "≥ 5")
def wordpress_bulk_vs_loop() -> Result:
    """50 unchanged sites: a loop of wp, a task per question (10 measured, scaled), ÷ one wp_site and one wp_config."""
    with host() as machine:

        def run(name: str, given: str) -> Run:
            found = play(name, "--extra-vars", given, inventory=("-i", f"{machine.name},"))
            if found.changed:
                raise BenchError(f"{name}: unchanged sites changed: {found.output[-1500:]}")
            return found

        run("wordpress_bulk", variables(PATHS, COUNTED))
        starts = len(machine.read(STARTS).splitlines())
        if starts > SITES:
            raise BenchError(f"{SITES} unchanged sites: WordPress started {starts} times")
        bulk = median(3, lambda: run("wordpress_bulk", variables(PATHS)).seconds)
        start = median(3, lambda: run("wordpress_loop", variables([])).seconds)
        loop = run("wordpress_loop", variables(PATHS[:LOOPED])).seconds
        # A loop that asks the wrong question would be no measure.
        machine.wp(PATHS[0], "option update blogname Other")
        try:
            play("wordpress_loop", "--extra-vars", variables(PATHS[:1]), inventory=("-i", f"{machine.name},"))
        except BenchError:
            pass
        else:
            raise BenchError("the loop does not see that a site is not as wanted")
    # What a play takes to start is not multiplied.
    whole = start + (loop - start) * SITES / LOOPED
    detail = f"{loop:.1f} s for {LOOPED}, so {whole:.0f} s for {SITES} ÷ {bulk:.2f} s, {starts} starts of WordPress"
    return Result(round(whole / bulk, 1), detail)
