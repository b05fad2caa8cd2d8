# SPDX-License-Identifier: GPL-3.0-or-later

"""A real cron: real WordPress, WP-CLI and MariaDB on Debian 12 and 13; no web server runs but where a test says so."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pmlab.machine import Machine, Run
from pmlab.wordpress import WordPressMachine, both, far_hour, results

Machines = dict[int, WordPressMachine]

#: name, whether it uses MariaDB, its user
MADE = (
    ("crona", True, "crona"),
    ("cronb", True, "www-data"),
    ("cronnet", True, "www-data"),
    ("cronhang", False, "www-data"),
    ("cronlite", False, "www-data"),
    ("crontab", False, "www-data"),
)
SITES: list[dict[str, Any]] = [
    {"path": "/var/www/crona", "user": "crona"},
    {"path": "/var/www/cronb/", "command": "wp", "install": {"options": {"blogdescription": "by the role"}}},
    {"path": "/var/www/cronnet", "timeout": 3000},
    {"path": "/var/www/cronhang", "timeout": 60},
    {"path": "/var/www/cronlite"},
    {"path": "/var/www/crontab", "scheduler": "crontab", "crontab_guard": True},
]
GIVEN = {"wordpress_mail_wait": 4, "wordpress_upkeep_time": far_hour()}
ROLE = [{"ansible.builtin.import_role": {"name": "postmeister.host.wordpress"}}]
#: seconds that a run may be late on a machine with much to do, beyond the minute that is promised
SLACK = 90
#: tasks for the tests, in each site
LAB = r"""<?php
add_action('lab_note', function ($text) {
    $line = time() . ' ' . get_current_blog_id() . ' ' . posix_getpwuid(posix_geteuid())['name'] . " $text\n";
    file_put_contents(WP_CONTENT_DIR . '/notes', $line, FILE_APPEND);
});
add_action('transition_post_status', function ($new, $old, $post) {
    if ($old === 'future' && $new === 'publish') {
        do_action('lab_note', 'published ' . strtotime("$post->post_date_gmt UTC"));
    }
}, 10, 3);
// wordpress.org, which is not to be had here, is not waited for.
add_filter('pre_http_request', function ($answer, $arguments, $url) {
    return strpos($url, 'wordpress.org') ? new WP_Error('lab', 'not here') : $answer;
}, 10, 3);
add_action('lab_slow', function ($text) {
    do_action('lab_held');
    do_action('lab_note', $text);
});
add_action('lab_hang', function () {
    for (;;) {
        sleep(1);
    }
});
add_action('lab_held', function () {
    while (file_exists(WP_CONTENT_DIR . '/hold')) {
        clearstatcache();
        usleep(200000);
    }
});
add_action('lab_fatal', function () {
    lab_no_such_function();
});
"""
#: a post that is to appear in little more than a minute (what is less far ahead WordPress publishes at once), on each
#: of the sites with these paths; the network's site /stuck/ gets a task that does not end
POSTS = r"""<?php
foreach ($args as $path) {
    if ($path === '/stuck/') {
        switch_to_blog(get_blog_id_from_url('cronnet.test', $path));
        wp_schedule_single_event(time(), 'lab_held') === true || exit(1);
        restore_current_blog();
        continue;
    }
    $path === 'here' || switch_to_blog(get_blog_id_from_url('cronnet.test', $path));
    $post = array('post_title' => 'soon', 'post_content' => 'x', 'post_status' => 'future', 'post_author' => 1,
        'post_date_gmt' => gmdate('Y-m-d H:i:s', time() + 65));
    get_post_status(wp_insert_post($post)) === 'future' || exit(1);
    $path === 'here' || restore_current_blog();
}
"""
#: the sites of the network: 2, 3, 4 and 5
NET = r"""<?php
foreach (array('one', 'two', 'stuck', 'old') as $slug) {
    is_int($id = wpmu_create_blog('cronnet.test', "/$slug/", $slug, 1)) || exit(1);
}
switch_to_blog($id);
wp_schedule_single_event(time(), 'lab_note', array('archived'));
restore_current_blog();
update_blog_status($id, 'archived', 1);
"""
#: the fake sendmail: one file of all mails
MAILS = "/var/tmp/mails"
CRONTAB = "MAILTO=ops@example.org\n# mine\n*/5 * * * * /bin/true\n"


def role(machine: Machine, sites: list[dict[str, Any]], *options: str, **variables: Any) -> Run:
    return machine.play(ROLE, *options, wordpress_sites=sites, **{**GIVEN, **variables}).good()


def alone(machine: WordPressMachine, site: str, arguments: str) -> None:
    """A command of wp while no run of the site's tasks is at work.

    WordPress keeps all events of a site in one row, which each process writes as a whole: of two, one would be lost.
    """
    user = next(user for name, _database, user in MADE if name == site)
    lock = f"flock --wait 300 /var/lib/wp-cron/{site}/lock"
    machine.sh(f"cd /; runuser -u {user} -- {lock} wp --path=/var/www/{site} {arguments}")


def event(machine: WordPressMachine, site: str, hook: str, when: str = "now", **more: str) -> None:
    """Schedule an event; more are options of wp, or text for the hook's first argument."""
    options = " ".join(f"--{name}={value}" for name, value in more.items() if name != "text")
    text = f" --0='{more['text']}'" if "text" in more else ""
    alone(machine, site, f"cron event schedule {hook} '{when}'{text} {options}")


def query(machine: Machine, sql: str) -> str:
    """Asked of MariaDB itself: a question through WordPress would be a visit."""
    return machine.sh("mariadb --skip-column-names --batch", stdin=sql.encode()).strip()


def notes(machine: Machine, site: str) -> list[str]:
    return machine.sh(f"cat /var/www/{site}/wp-content/notes 2>/dev/null || true").splitlines()


def journal(machine: Machine, unit: str) -> str:
    return machine.sh(f"journalctl --sync; journalctl --unit={unit} --no-pager --output=cat")


def mails(machine: Machine) -> list[str]:
    return machine.sh(f"cat {MAILS} 2>/dev/null || true").split("== mail\n")[1:]


def info(machine: Machine, *names: str) -> dict[str, dict[str, Any]]:
    """What wp_cron_info tells, by site."""
    (answer,) = results(machine.play([{"postmeister.host.wp_cron_info": {"names": list(names)}}], "-v").good())
    return {site["name"]: site for site in answer["sites"]}


def published(machine: Machine, site: str) -> list[tuple[int, int]]:
    """Of each post that appeared, when it was to appear and when it did."""
    found = [line.split() for line in notes(machine, site) if " published " in line]
    return [(int(words[4]), int(words[0])) for words in found]


def told_all(machine: Machine) -> bool:
    """Whether no program that tells of failures is at work any more."""
    units = "systemctl list-units --no-legend --plain --state=active,activating 'wp-failed@*' 'wp-works@*'"
    return machine.sh(f"{units}; find /run/wp-cron/new /run/wp-cron/back -type f 2>/dev/null || true").strip() == ""


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.5)


def pause(machine: Machine, *names: str) -> None:
    """From now on only the test itself starts the tasks of these sites."""
    machine.sh("systemctl stop " + " ".join(f"wp-cron@{name}.timer" for name in names))
    services = " ".join(f"wp-cron@{name}.service" for name in names)
    idle = f"systemctl is-active {services} | grep -q activ.*ing || echo idle"
    until(lambda: "idle" in machine.sh(idle, check=False), 300, f"the end of the runs of {names}")


def resume(machine: Machine, *names: str) -> None:
    """The timers again."""
    machine.sh("systemctl start " + " ".join(f"wp-cron@{name}.timer" for name in names))


def set_up(machine: WordPressMachine) -> None:
    for name, mariadb, user in MADE[:4]:
        path = machine.site(name, mariadb=mariadb, user=user)
        machine.put(f"{path}/wp-content/mu-plugins/lab.php", LAB)
        machine.sh(f"chmod 755 {path}/wp-content/mu-plugins")
    machine.sh("cd /var/www; for name in cronlite crontab; do cp -a cronhang $name; done")
    machine.wp("/var/www/cronnet", "core multisite-convert --title=Net")
    machine.put("/var/tmp/net.php", NET)
    machine.put("/var/tmp/posts.php", POSTS)
    machine.wp("/var/www/cronnet", "eval-file /var/tmp/net.php")
    machine.put("/usr/sbin/sendmail", f"#!/bin/sh\n{{ echo '== mail'; cat; }} >> {MAILS}\n", 0o755)


def schedule(machine: WordPressMachine) -> None:
    """What the next two minutes are to bring when nobody does anything."""
    # The first runs, with what WordPress itself has to do on a new site; they also make the folders of the locks.
    units = " ".join(f"wp-cron@{name}" for name, _database, _user in MADE[:5])
    machine.sh(f"for turn in 1 2 3; do systemctl start {units}; done")
    event(machine, "cronhang", "lab_hang")
    event(machine, "crontab", "lab_note", text="by-cron")
    machine.sh("touch /var/www/cronnet/wp-content/hold")
    alone(machine, "cronnet", "eval-file /var/tmp/posts.php /one/ /two/ /stuck/")
    for site in ("cronb", "cronlite"):
        alone(machine, site, "eval-file /var/tmp/posts.php here")


@pytest.fixture(scope="module")
def hosts(machines: Machines) -> Iterator[Machines]:
    """The sites, and the role over them."""
    both(machines, set_up)
    first = both(machines, lambda machine: role(machine, SITES, "--diff"))
    assert all(run.stats["changed"] for run in first.values())
    both(machines, schedule)
    yield machines
    both(machines, lambda machine: machine.sh("systemctl disable --now 'wp-*.timer'", check=False))


def test_second_run_changes_nothing(hosts: Machines) -> None:
    runs = both(hosts, lambda machine: role(machine, SITES))
    assert [run.stats["changed"] for run in runs.values()] == [0, 0]
    assert all(run.stats["ok"] <= 6 for run in runs.values())
    for machine in hosts.values():
        told = query(machine, "select option_value from cronb.wp_options where option_name = 'blogdescription'")
        assert told == "by the role"


def test_overlapping_starts_run_an_event_once(hosts: Machines) -> None:
    def overlap(machine: WordPressMachine) -> None:
        hold, lock = "/var/www/crona/wp-content/hold", "/var/lib/wp-cron/crona/lock"
        pause(machine, "crona")
        machine.sh(f"touch {hold}")
        event(machine, "crona", "lab_slow", text="once")
        run = "runuser -u crona -- python3 -I /usr/local/lib/postmeister/wordpress/run.py cron crona"
        machine.sh(f"{run} >/dev/null 2>&1 &")
        is_held = f"flock --nonblock {lock} true || echo held"
        until(lambda: "held" in machine.sh(is_held, check=False), 60, "the first run's lock")
        before = journal(machine, "wp-cron@crona").count("another run is still at work")
        said = machine.sh(
            f"{run}; {run}; systemctl start wp-cron@crona; runuser -u crona -- php /var/www/crona/wp-cron.php"
        )
        assert said.count("another run is still at work") == 2, said
        assert journal(machine, "wp-cron@crona").count("another run is still at work") == before + 1
        machine.sh(f"rm {hold}")
        until(lambda: "held" not in machine.sh(is_held, check=False), 60, "the first run's end")
        machine.sh("systemctl start wp-cron@crona")
        resume(machine, "crona")
        (line,) = [line for line in notes(machine, "crona") if line.endswith(" once")]
        assert line.split()[2] == "crona"

    both(hosts, overlap)


def test_fatal_error_is_told_in_its_own_words(hosts: Machines) -> None:
    def fatal(machine: WordPressMachine) -> None:
        event(machine, "crona", "lab_fatal")
        # systemd refuses a sixth start within ten seconds; the tests' own come fast.
        start = "systemctl reset-failed wp-cron@crona; systemctl start wp-cron@crona || true"
        machine.sh(start)
        assert "Call to undefined function lab_no_such_function()" in journal(machine, "wp-cron@crona")
        until(lambda: "lab_no_such_function()" in "".join(mails(machine)), 120, "a mail")
        # So is a configuration that is broken, with file and line.
        config = "/var/www/crona/wp-config.php"
        machine.sh(f"sed -i '2i $x = ;' {config}; {start}; sed -i 2d {config}")
        assert f"{config} on line 2" in journal(machine, "wp-cron@crona")

    both(hosts, fatal)


def test_bad_input_is_refused_before_anything_changes(hosts: Machines) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "root": ({"path": "/var/www/crona", "user": "root"}, "as root it could do anything to the host"),
        "alias": ({"path": "/var/www/crona", "user": "toor"}, "toor is root by another name"),
        "nobody": ({"path": "/var/www/crona", "user": "nosuch"}, "there is no user nosuch"),
        "path": ({"path": "/var/www"}, "there is no WordPress in /var/www"),
        "interval": ({"path": "/var/www/crona", "interval": 7}, "7 minutes do not divide an hour"),
    }

    def refuse(machine: WordPressMachine) -> None:
        machine.sh("id toor >/dev/null 2>&1 || useradd --non-unique --uid 0 --no-create-home toor")
        tasks = [
            {
                "postmeister.host.wp_cron": {"sites": [site, {"path": "/var/www/cronb", "interval": 30}]},
                "ignore_errors": True,
            }
            for site, _words in cases.values()
        ]
        before = machine.sh("find /etc/systemd/system /etc/postmeister -type f | xargs sha256sum")
        output = machine.play(tasks).good().output
        for _site, words in cases.values():
            assert words in output, output
        assert machine.sh("find /etc/systemd/system /etc/postmeister -type f | xargs sha256sum") == before
        run = "python3 -I /usr/local/lib/postmeister/wordpress/run.py"
        assert "refused" in machine.sh(f"{run} cron crona; test $? = 2")

    both(hosts, refuse)


def test_posts_appear_at_their_minute_without_a_visitor(hosts: Machines) -> None:
    """By PHP and by WP-CLI, with MariaDB and SQLite, on two sites of a network while a third of it hangs."""
    sites = {"cronb": 1, "cronlite": 1, "cronnet": 2}

    def watch(machine: WordPressMachine) -> None:
        until(lambda: all(len(published(machine, name)) >= posts for name, posts in sites.items()), 400, "the posts")
        for name, posts in sites.items():
            found = published(machine, name)
            assert len(found) == posts, (name, found)
            assert all(due <= appeared < due + 60 + SLACK for due, appeared in found), (name, found)
        assert {line.split()[1] for line in notes(machine, "cronnet") if " published " in line} == {"2", "3"}
        # Nobody can have visited.
        assert machine.sh("ss -Htln 'sport = :80'") == ""
        assert machine.sh("systemctl is-active wp-cron@cronnet.service || true").strip() == "activating"
        machine.sh("rm /var/www/cronnet/wp-content/hold")

    both(hosts, watch)


def test_hanging_task_is_ended(hosts: Machines) -> None:
    def ended(machine: WordPressMachine) -> None:
        words = "the scheduled tasks failed: ended after 60 s"
        until(lambda: words in journal(machine, "wp-cron@cronhang"), 200, "the end of the hanging task")
        # With all that it started.
        left = "pgrep -f /var/www/cronhang/[w]p-cron.php || true"
        until(lambda: machine.sh(left).strip() == "", 60, "no process of it")
        # The network's runs left out what its archived site had to do.
        assert published(machine, "cronnet")
        assert not any("archived" in line for line in notes(machine, "cronnet"))

    both(hosts, ended)


def test_crontab_with_guard_runs_under_cron(hosts: Machines) -> None:
    def ran(machine: WordPressMachine) -> None:
        (line,) = until(lambda: notes(machine, "crontab"), 300, "the event of a crontab's site")
        assert re.fullmatch(r"\d+ 1 www-data by-cron", line), line

    both(hosts, ran)


def test_database_that_is_down_is_told_once_and_the_events_run_afterwards(hosts: Machines) -> None:
    def outage(machine: WordPressMachine) -> None:
        names = ("crona", "cronb", "cronnet")
        units = tuple(f"wp-cron@{name}" for name in names)
        pause(machine, *names)
        for site in ("crona", "cronb"):
            event(machine, site, "lab_note", text="after-the-outage")
        until(lambda: told_all(machine), 120, "all told of before")
        machine.sh(f"systemctl stop mariadb; rm -f {MAILS}")
        for _run in range(2):
            machine.sh(f"systemctl start {' '.join(units)} || true")
        assert machine.sh("systemctl is-failed wp-cron@crona || true").strip() == "failed"
        assert "Error establishing a database connection" in journal(machine, "wp-cron@crona")
        sites = info(machine)
        assert "Error establishing a database connection" in sites["crona"]["error"]
        assert "Error establishing a database connection" in sites["crona"]["last_failed"][0]
        assert sites["cronlite"]["error"] == ""
        until(lambda: all(f"{unit}.service fails:" in "".join(mails(machine)) for unit in units), 120, "the mails")
        # It goes on failing, and nobody hears of it again.
        machine.sh(f"systemctl start {' '.join(units)} || true")
        until(lambda: told_all(machine), 120, "all told")
        text = "".join(mails(machine))
        assert [text.count(f"{unit}.service fails:") for unit in units] == [1, 1, 1], text
        assert not any("after-the-outage" in line for site in ("crona", "cronb") for line in notes(machine, site))

        machine.sh("systemctl start mariadb")

        def ran() -> bool:
            machine.sh(f"systemctl start {' '.join(units)} || true")
            return all("after-the-outage" in "".join(notes(machine, site)) for site in ("crona", "cronb"))

        # A run that broke off may have left WordPress's own lock, for a minute.
        until(ran, 200, "the events of before the outage")
        for site in ("crona", "cronb"):
            assert len([line for line in notes(machine, site) if line.endswith("after-the-outage")]) == 1
        again = r"works? again"
        until(
            lambda: len(re.findall(again, "".join(mails(machine)))) > 0 and told_all(machine), 120, "a mail of its end"
        )
        good = "".join(mail for mail in mails(machine) if re.search(again, mail.splitlines()[1]))
        assert all(good.count(f"{unit}.service") >= 1 for unit in units), good
        assert machine.sh("systemctl is-failed wp-cron@crona || true").strip() == "inactive"
        resume(machine, *names)

    both(hosts, outage)


def test_what_is_overdue_is_told(hosts: Machines) -> None:
    def overdue(machine: WordPressMachine) -> None:
        pause(machine, "crona", "cronnet")
        event(machine, "crona", "lab_note", "-30 minutes", text="late")
        event(machine, "cronnet", "lab_note", "-20 minutes", text="late", url="http://cronnet.test/one/")
        sites = info(machine, "crona", "cronnet")
        assert list(sites) == ["crona", "cronnet"]
        for name, seconds, url in (("crona", 1800, "http://crona.test"), ("cronnet", 1200, "http://cronnet.test/one/")):
            site = sites[name]
            late = next(entry for entry in site["overdue"] if entry["hook"] == "lab_note")
            assert (late["url"], late["count"]) == (url, 1), late
            assert seconds - 2 <= late["seconds"] <= seconds + 600 and site["overdue_seconds"] >= late["seconds"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", site["last_run"])
            assert site["network"] == (name == "cronnet") and site["error"] == "" and site["events"] > 1
        machine.sh("systemctl start wp-cron@crona wp-cron@cronnet")
        now = info(machine, "crona", "cronnet")
        for name in ("crona", "cronnet"):
            assert len([line for line in notes(machine, name) if line.endswith(" late")]) == 1
            assert "lab_note" not in [entry["hook"] for entry in now[name]["overdue"]]
        resume(machine, "crona", "cronnet")

    both(hosts, overdue)


def test_visit_starts_no_tasks(hosts: Machines) -> None:
    """One with PHP's own web server; the control, with the pseudo-cron on, calls wp-cron.php."""

    def visit(machine: WordPressMachine) -> None:
        pause(machine, "cronb")
        machine.sh(
            "echo 127.0.0.1 cronb.test >> /etc/hosts\n"
            "systemd-run --quiet --unit=web --uid=www-data --property=AmbientCapabilities=CAP_NET_BIND_SERVICE"
            " --property=KillSignal=KILL --setenv=PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:80 -t /var/www/cronb"
        )
        event(machine, "cronb", "lab_note", text="visit")
        page = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://cronb.test/\").status)'"
        for _visit in range(2):
            until(lambda: machine.sh(page, check=False).strip() == "200", 120, "a page")
        time.sleep(3)
        assert "GET /" in journal(machine, "web") and "wp-cron.php" not in journal(machine, "web")
        assert not any(line.endswith(" visit") for line in notes(machine, "cronb"))
        machine.sh("sed -i '/DISABLE_WP_CRON/s/true/false/' /var/www/cronb/wp-config.php")

        def called() -> bool:
            time.sleep(5)
            machine.sh(page)
            return "wp-cron.php" in journal(machine, "web")

        # WordPress calls it once a minute at most.
        until(called, 200, "a call of wp-cron.php")
        until(lambda: any(line.endswith(" visit") for line in notes(machine, "cronb")), 120, "the event")
        machine.sh("sed -i '/DISABLE_WP_CRON/s/false/true/' /var/www/cronb/wp-config.php\nsystemctl stop web")
        resume(machine, "cronb")

    both(hosts, visit)


def test_crontab_line_is_the_plain_one_and_other_lines_stay(hosts: Machines) -> None:
    def change(machine: WordPressMachine) -> None:
        machine.sh("crontab -u crona -", stdin=CRONTAB.encode())
        # crona by a plain line, cronb not at all, the others as they are.
        now = [
            {"path": "/var/www/crona", "user": "crona", "scheduler": "crontab", "upkeep_transients": "none",
             "upkeep_checksums": False, "upkeep_updates": False},
            {"path": "/var/www/cronb", "state": "absent"},
            *SITES[2:],
        ]  # fmt: skip
        role(machine, now)
        lines = machine.sh("crontab -u crona -l").splitlines()
        assert lines[:3] == CRONTAB.splitlines()
        assert lines[-1] == "*/1 * * * * php /var/www/crona/wp-cron.php"
        assert len(lines) == 5
        # Cron compares whole seconds: what is written in the second of its start it would never notice.
        folder, file = machine.sh("cd /var/spool/cron/crontabs; stat -c %Y .; stat -c %Z crona").split()
        assert int(folder) > int(file)
        timers = machine.sh("systemctl list-timers --all --no-legend 'wp-*'")
        assert "crona" not in timers and "cronb" not in timers and "wp-cron@cronnet.timer" in timers
        assert "cronb" not in machine.sh("ls -R /etc/systemd/system /etc/postmeister/wordpress /var/lib/wp-cron")
        assert "DISABLE_WP_CRON" not in machine.read("/var/www/cronb/wp-config.php")
        assert "DISABLE_WP_CRON" in machine.read("/var/www/crona/wp-config.php")
        assert role(machine, now).stats["changed"] == 0
        # And back.
        role(machine, SITES)
        assert machine.sh("crontab -u crona -l") == CRONTAB
        assert "wp-cron@crona.timer" in machine.sh("systemctl list-timers --all --no-legend 'wp-*'")

    both(hosts, change)


def test_fifty_sites_in_one_run(hosts: Machines) -> None:
    """Fifty copies of one site; they start at seconds of their own, all within a minute."""
    machine = hosts[13]
    names = [f"many{number}" for number in range(50)]
    sites = [{"path": f"/var/www/{name}"} for name in names]
    given = {"wordpress_purge": True, "wordpress_upkeep_updates": False}
    # WordPress itself is shared by hard links, its database is each site's own.
    machine.sh(
        "set -e; cd /var/www; for n in $(seq 0 49); do cp -al cronlite many$n;"
        " rm -r many$n/wp-content/database many$n/wp-content/notes many$n/wp-config.php;"
        " cp -a cronlite/wp-content/database many$n/wp-content/; cp -a cronlite/wp-config.php many$n/; done"
    )
    assert role(machine, sites, **given).stats["ok"] <= 6
    left = machine.sh("systemctl list-timers --all --no-legend 'wp-cron@*' | grep -o 'wp-cron@[a-z0-9]*.timer'")
    assert sorted(left.split()) == sorted(f"wp-cron@{name}.timer" for name in names)
    starts = machine.sh("grep -h OnCalendar /etc/systemd/system/wp-cron@many*.timer.d/site.conf").split()
    assert len(set(starts)) >= 25
    assert role(machine, sites, **given).stats["changed"] == 0
    # Not waiting for the rest of the minute, and not all at once: other tests want something of this machine, too.
    machine.sh("systemctl stop 'wp-*.timer'")
    machine.sh("xargs -n 1 -P 3 systemctl start", stdin=" ".join(f"wp-cron@{name}" for name in names).encode())
    left = machine.sh("cat /var/lib/wp-cron/many*/last.json")
    assert left.count('"failed": []') == 50, left
