# SPDX-License-Identifier: GPL-3.0-or-later

"""Sites of WordPress: all in one call of each module against WP-CLI in a loop, a task for each question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from figures import Result, figure
from lab import BenchError
from plays import median, play, scratch
from pmlab.settings import LabError
from pmlab.wordpress import WORDPRESS, WordPressMachine

SITES = 50
PLUGINS = {"akismet": "active", "hello": "inactive", "sqlite-database-integration": "active"}
CONSTANTS = {"DISABLE_WP_CRON": True, "WP_POST_REVISIONS": 5}
OPTIONS = {"blogname": "Bench", "posts_per_page": "7"}
STARTS = "/tmp/starts"


@contextmanager
def host() -> Iterator[WordPressMachine]:
    """A machine with the sites, which are copies of one: only their databases and configurations are their own."""
    try:
        with WordPressMachine(13, "bench-wp") as machine:
            machine.prepare()
            first = machine.site("site00")
            machine.sh(
                "cd /var/www\n"
                f"for number in $(seq -w 1 {SITES - 1}); do\n"
                "  cp -al site00 site$number; rm -r site$number/wp-content/database\n"
                "  cp -rp site00/wp-content/database site$number/wp-content/\n"
                f"  cp -p --remove-destination {first}/wp-config.php site$number/\n"
                "done\n"
                f"printf '#!/bin/sh\\necho >> {STARTS}\\nexec wp \"$@\"\\n' > /usr/local/bin/wp-counted\n"
                f"chmod 755 /usr/local/bin/wp-counted; touch {STARTS}; chmod 666 {STARTS}"
            )
            yield machine
    except LabError as problem:
        raise BenchError(str(problem)) from problem


@figure("ratio", "≥ 5")
def wordpress_bulk_vs_loop() -> Result:
    """50 unchanged sites: a loop of wp, a task per question, ÷ one call of wp_site and one of wp_config."""
    paths = [f"/var/www/site{number:02}" for number in range(SITES)]
    variables = {
        "ansible_connection": "containers.podman.podman",
        "ansible_python_interpreter": "/usr/bin/python3",
        "bench_paths": paths,
        "bench_sites": [
            {
                "path": path,
                "core": {"version": WORDPRESS},
                "plugins": [{"name": name, "state": state} for name, state in PLUGINS.items()],
                "options": OPTIONS,
            }
            for path in paths
        ],
        "bench_configurations": [{"path": path, "constants": CONSTANTS} for path in paths],
        "bench_version": WORDPRESS,
        "bench_plugins": PLUGINS,
        "bench_constants": CONSTANTS,
        "bench_options": OPTIONS,
    }
    path = scratch("wordpress") / "variables.json"
    with host() as machine:
        given = {**variables, "bench_wp": "/usr/local/bin/wp"}
        path.write_text(json.dumps(given))
        inventory = ("-i", f"{machine.name},")
        extra = ("--extra-vars", f"@{path}")
        play("wordpress_bulk", *extra, inventory=inventory)
        counted = play(
            "wordpress_bulk", *extra, "--extra-vars", "bench_wp=/usr/local/bin/wp-counted", inventory=inventory
        )
        starts = len(machine.read(STARTS).splitlines())
        if counted.changed or starts != SITES:
            raise BenchError(f"unchanged sites: changed={counted.changed}, WordPress started {starts} times")
        bulk = median(3, lambda: play("wordpress_bulk", *extra, inventory=inventory).seconds)
        loop = play("wordpress_loop", *extra, inventory=inventory).seconds
    return Result(round(loop / bulk, 1), f"{loop:.0f} s ÷ {bulk:.2f} s, {starts} starts of WordPress")
