# SPDX-License-Identifier: GPL-3.0-or-later

"""wp_config on real sites, and its PHP program on real PHP of both releases."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress.config_php import PROGRAM
from config_cases import CASES
from pmlab.wordpress import WordPressMachine, both, results

CANARY = "canary'7\\"


def task(*sites: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    """One call of the module."""
    return {"postmeister.host.wp_config": {"sites": list(sites)}, "ignore_errors": True, **keywords}


@pytest.fixture(scope="module")
def sites(machines: dict[int, WordPressMachine]) -> dict[int, tuple[str, str]]:
    """Two sites on each machine."""
    return both(machines, lambda machine: (machine.site("config_a"), machine.site("config_b", user="configb")))


def test_program(machines: dict[int, WordPressMachine]) -> None:
    """Every case of the table: what is code and what is not, values, conditions, places, errors."""
    job = {
        "files": [
            {
                "code": base64.b64encode(case.before.encode(errors="surrogateescape")).decode(),
                "fragment": case.fragment,
                "constants": case.constants,
            }
            for case in CASES
        ]
    }

    def answers(machine: WordPressMachine) -> list[dict[str, Any]]:
        machine.put("/root/program.php", PROGRAM)
        found: list[dict[str, Any]] = json.loads(machine.sh("php /root/program.php", stdin=json.dumps(job).encode()))
        return found

    for release, found in both(machines, answers).items():
        for case, answer in zip(CASES, found, strict=True):
            where = f"Debian {release}: {case.name}"
            if case.error:
                line, words = case.error
                error = answer["errors"][0]
                assert (error["line"], words in error["message"]) == (line, True), f"{where}: {answer}"
                continue
            assert answer["errors"] == [], where
            after = answer["code"] and base64.b64decode(answer["code"]).decode(errors="surrogateescape")
            assert after == case.after, where


def test_sites(machines: dict[int, WordPressMachine], sites: dict[int, tuple[str, str]]) -> None:
    """Two sites in one call: check mode, the change, a second run; owner and mode stay, no secret is shown."""

    def work(machine: WordPressMachine) -> None:
        first, second = sites[machine.release]
        machine.sh(f"mv {second}/wp-config.php /var/www/above.php; ln -s /var/www/above.php {second}/wp-config.php")
        machine.sh(f"chown -h configb: {second}/wp-config.php; chmod 600 /var/www/above.php")
        wanted = (
            {
                "path": first,
                "constants": {
                    "DISABLE_WP_CRON": True,
                    "WP_POST_REVISIONS": 5,
                    "WP_MEMORY_LIMIT": "256M",
                    "DB_HOST": "h",
                },
                "secrets": {"PM_LICENCE": CANARY},
                "raw": {"PM_RAW": "dirname( __FILE__ ) . '/x'", "PM_LATE": "ABSPATH . 'y'"},
                "absent": ["DB_COLLATE"],
            },
            {"path": second, "constants": {"DISABLE_WP_CRON": True, "DB_PASSWORD": CANARY}},
        )
        before = machine.read(f"{first}/wp-config.php")
        checked = machine.play([task(*wanted)], "-v", "--diff", "--check").good()
        assert machine.read(f"{first}/wp-config.php") == before
        run = machine.play([task(*wanted), task(*wanted)], "-v", "--diff").good()
        (dry,), (real, again) = results(checked), results(run)
        assert dry["changed"] and real["changed"] and real["sites"] == dry["sites"], run.output
        assert (again["changed"], again["failed"]) == (False, False)
        assert real["sites"][1] == {
            "path": second,
            "file": "/var/www/above.php",
            "changed": ["DB_PASSWORD", "DISABLE_WP_CRON"],
        }
        for output in (checked.output, run.output):
            assert "canary" not in output and "pw-config" not in output
            assert "+define( 'DISABLE_WP_CRON', true );" in output and "-define( 'DB_COLLATE', '' );" in output
        assert machine.sh(f"stat -c '%U %a' {first}/wp-config.php /var/www/above.php") == "www-data 640\nconfigb 600\n"
        assert (
            machine.sh(f"test -L {second}/wp-config.php; ls -a {first} /var/www | grep -c postmeister; :").strip()
            == "0"
        )
        # What WordPress itself makes of it
        names = "DISABLE_WP_CRON, WP_POST_REVISIONS, WP_MEMORY_LIMIT, PM_LICENCE, PM_RAW, PM_LATE"
        seen = machine.wp(first, f"""eval "echo json_encode([{names}, defined('DB_COLLATE')]);\"""").splitlines()[-1]
        assert json.loads(seen) == [True, 5, "256M", CANARY, f"{first}/x", f"{first}/y", False]

    both(machines, work)


def test_nothing_changes_when_one_site_cannot(
    machines: dict[int, WordPressMachine], sites: dict[int, tuple[str, str]]
) -> None:
    """A broken file, one that is no PHP for php -l, one that may not be read: the other site stays as it was, too."""

    def work(machine: WordPressMachine) -> None:
        good = sites[machine.release][0]
        machine.sh("mkdir -p /srv/broken/wp-includes /srv/late/wp-includes /srv/empty/wp-includes /srv/nothing")
        machine.sh("touch /srv/broken/wp-includes/version.php /srv/late/wp-includes/version.php /srv/nothing/x")
        machine.sh("touch /srv/empty/wp-includes/version.php")
        machine.put("/srv/broken/wp-config.php", "<?php\n$x = 1;\ndefine('A', ;\nrequire 'wp-settings.php';\n")
        # The tokenizer passes it, the compiler does not.
        machine.put("/srv/late/wp-config.php", "<?php\n\nbreak;\nrequire 'wp-settings.php';\n")
        before = machine.sh(f"cat {good}/wp-config.php /srv/late/wp-config.php")
        wanted = {"DISABLE_WP_CRON": False, "PM_NEW": 1}
        said = {
            "/srv/broken": "/srv/broken/wp-config.php:3: syntax error",
            "/srv/late": "/srv/late/wp-config.php:3: 'break' not in the 'loop' or 'switch' context",
            "/srv/nothing": "/srv/nothing: no WordPress here",
            "/srv/empty": "/srv/empty: no wp-config.php here",
            "/srv/missing": "/srv/missing: there is no such folder",
        }
        names = ("1A", "A-B", "true", "A B", "")
        other = {"become": True, "become_user": "configb", "become_method": "ansible.builtin.su"}
        tasks = [task({"path": good, "constants": wanted}, {"path": path, "constants": wanted}) for path in said]
        tasks += [task({"path": good, "constants": {"PM_NEW": 1, name: 1}}) for name in names]
        tasks.append(task({"path": good, "constants": wanted}, **other))
        expected = [*said.values(), *(f"constants: {name} is no name of a PHP constant" for name in names)]
        expected.append(f"{good}/wp-config.php: Permission denied")
        for words, found in zip(expected, results(machine.play(tasks, "-v")), strict=True):
            assert found["failed"] and words in found["msg"], (words, found)
        assert machine.sh(f"cat {good}/wp-config.php /srv/late/wp-config.php") == before
        assert machine.sh("find /srv /var/www -name '*postmeister*'") == ""

    both(machines, work)
