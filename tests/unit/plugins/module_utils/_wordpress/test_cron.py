# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections import Counter

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._wordpress import cron
from ansible_collections.postmeister.host.plugins.module_utils._wordpress.cron import MARKER, Refused, Site

DEFAULTS = {
    "user": "www-data",
    "scheduler": "timer",
    "crontab_guard": False,
    "command": "php",
    "interval": 1,
    "timeout": 600,
    "upkeep_transients": "expired",
    "upkeep_spam": False,
    "upkeep_checksums": True,
    "upkeep_updates": True,
    "upkeep_time": "03:00",
    "php": "php",
    "wp_cli": "/usr/local/bin/wp",
}


def one(**given):
    sites, _gone = cron.sites_from([{"path": "/var/www/blog", **given}], DEFAULTS)
    return next(iter(sites.values()))


def test_a_site_takes_the_defaults_and_its_own():
    assert one() == Site("blog", "/var/www/blog")
    made = one(name="b", user="alice", interval=5, upkeep_spam=True, scheduler=None)
    assert (made.name, made.user, made.interval, made.upkeep.spam, made.scheduler) == ("b", "alice", 5, True, "timer")


def test_what_is_absent_has_no_site():
    sites, gone = cron.sites_from([{"path": "/a/x"}, {"path": "/a/y/", "state": "absent"}], DEFAULTS)
    assert list(sites) == ["x"] and gone == ["y"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "blog"}, "sites[0].path: 'blog' is not a plain absolute path"),
        ({"path": "/var/../blog"}, "is not a plain absolute path"),
        ({"path": "/var/www/a\nb"}, "is not a plain absolute path"),
        ({"path": "/var/www/two words"}, "sites[0].name: 'two words' of /var/www/two words is no name for a timer"),
        ({"name": "../x"}, "is no name for a timer"),
        ({"user": "root"}, "sites[0].user: the tasks of /var/www/blog are PHP code of the site"),
        ({"user": "0"}, "as root it could do anything"),
        ({"user": "www data"}, "sites[0].user: 'www data' holds signs that have no place there"),
        ({"user": "-x"}, "holds signs"),
        ({"interval": 7}, "sites[0].interval: 7 minutes do not divide an hour"),
        ({"interval": 0}, "0 minutes do not divide"),
        ({"timeout": 5}, "sites[0].timeout: 5 is not between 10 and 86400 seconds"),
        ({"upkeep_time": "3:00"}, "sites[0].upkeep_time: '3:00' is not a time of day"),
        ({"upkeep_time": "24:00"}, "is not a time of day"),
        ({"url": "example.org"}, "sites[0].url: 'example.org' is not an address"),
        ({"url": "https://a b/"}, "is not an address"),
    ],
)
def test_bad_input_names_item_value_and_reason(given, words):
    with pytest.raises(Refused) as refused:
        one(**given)
    assert words in str(refused.value)


@pytest.mark.parametrize("entries", [["/srv/a/html", "/srv/b/html"], ["/srv/a", "/srv/a/"]])
def test_two_sites_of_one_name_or_path_are_refused(entries):
    with pytest.raises(Refused, match=r"sites\[0\] and sites\[1\]: .* is given twice"):
        cron.sites_from([{"path": path} for path in entries], DEFAULTS)


def test_one_path_under_two_names_is_refused():
    entries = [{"path": "/srv/a", "name": "x"}, {"path": "/srv/a", "name": "y"}]
    with pytest.raises(Refused, match="/srv/a is given twice"):
        cron.sites_from(entries, DEFAULTS)


def test_many_sites_are_spread_over_the_minute():
    seconds = Counter(Site(f"shop{number}.example.org", "/x").offset for number in range(200))
    assert len(seconds) >= 50 and max(seconds.values()) <= 10
    assert min(seconds) >= 0 and max(seconds) <= 59
    assert Site("a", "/x").offset == Site("a", "/y").offset


@pytest.mark.parametrize(
    ("interval", "pattern"),
    [(1, r"\*:\*:\d\d"), (5, r"\*:[0-4]/5:\d\d"), (60, r"\*:\d+:\d\d")],
)
def test_times_of_a_timer(interval, pattern):
    import re

    assert re.fullmatch(pattern, cron.on_calendar(Site("blog", "/x", interval=interval)))


def test_upkeep_goes_over_midnight():
    times = {cron.upkeep_calendar(Site(f"s{number}", "/x", upkeep_time="23:30"))[6:8] for number in range(50)}
    assert times == {"23", "00"}
    assert all(cron.upkeep_calendar(Site(f"s{number}", "/x"))[6:8] == "03" for number in range(50))


def test_updates_are_told_after_the_first_upkeep():
    assert cron.after_upkeep([Site("a", "/a", upkeep_time="23:15"), Site("b", "/b", upkeep_time="23:30")]) == "01:15"
    assert cron.after_upkeep([]) == "05:00"


def test_files_of_a_site():
    files = cron.site_files(one(user="alice"))
    assert files["/etc/systemd/system/wp-cron@blog.service.d/site.conf"].splitlines()[1:3] == [
        "[Service]",
        "User=alice",
    ]
    assert json.loads(files["/etc/postmeister/wordpress/blog.json"])["path"] == "/var/www/blog"
    assert set(files) == set(cron.all_files_of("blog"))


def test_a_crontab_has_no_timer_and_no_chores_no_upkeep():
    bare = one(scheduler="crontab", upkeep_transients="none", upkeep_checksums=False, upkeep_updates=False)
    assert list(cron.site_files(bare)) == ["/etc/postmeister/wordpress/blog.json"]
    assert bare.timers == []
    assert one().timers == ["wp-cron@blog.timer", "wp-upkeep@blog.timer"]


def test_an_address_of_mails_is_no_specifier():
    text = cron.common_files("100%i@example.org", 60, "05:00")["/etc/systemd/system/wp-failed@.service"]
    assert '"100%%i@example.org"' in text


# --- crontabs -------------------------------------------------------------------------------------------------------

LINE = "*/1 * * * * php /var/www/wordpress/wp-cron.php"
WORDPRESS = Site("wordpress", "/var/www/wordpress", scheduler="crontab")
OURS = f"{MARKER}wordpress\n{LINE}\n"
#: our line after somebody's changes
CHANGED = (
    "0 3 * * * php /var/www/wordpress/wp-cron.php",
    "*/1 * * * * nice php -d memory_limit=1G '/var/www/wordpress/wp-cron.php' >/dev/null 2>&1",
    "@hourly php /var/www/wordpress/wp-cron.php>/dev/null",
    "*/2 * * * * cd /; wp cron event run --due-now --path=/var/www/wordpress --quiet",
    "*/2 * * * * /usr/bin/python3 -I /usr/local/lib/postmeister/wordpress/run.py crontab wordpress",
)
#: jobs of his own that have to do with the site
HIS = (
    "0 4 * * * wp --path=/var/www/wordpress plugin update --all",
    "0 4 * * * wp --path=/var/www/wordpress cron event run his_hook",
    "0 4 * * * php /srv/var/www/wordpress/wp-cron.php",
    "0 4 * * * /usr/bin/python3 -I /usr/local/lib/postmeister/wordpress/run.py crontab wordpress2",
    "# 0 4 * * * php /var/www/wordpress/wp-cron.php",
    "0 4 * * * echo it's /var/www/wordpress/wp-cron.php",
)
OTHERS = "MAILTO=x@example.org\n\n# */1 * * * * php /var/www/wordpress/wp-cron.php\n0 5 * * * /bin/true\n"


def test_the_plain_line():
    assert cron.edit_crontab("", [WORDPRESS], {}) == OURS


@pytest.mark.parametrize(
    ("site", "line"),
    [
        (Site("b", "/srv/a b", interval=5), "*/5 * * * * php '/srv/a b/wp-cron.php'"),
        (Site("b", "/srv/50%", interval=60), "0 * * * * php /srv/50\\%/wp-cron.php"),
        (Site("b", "/srv/b", php="/usr/bin/php8.4"), "*/1 * * * * /usr/bin/php8.4 /srv/b/wp-cron.php"),
        (
            Site("b", "/srv/b", command="wp"),
            "*/1 * * * * /usr/local/bin/wp --path=/srv/b cron event run --due-now --quiet",
        ),
        (
            Site("b", "/srv/b", scheduler="crontab", guard=True),
            "*/1 * * * * /usr/bin/python3 -I /usr/local/lib/postmeister/wordpress/run.py crontab b",
        ),
    ],
)
def test_lines(site, line):
    assert cron.crontab_line(site) == line


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OTHERS, OTHERS + OURS),
        (OURS + OTHERS, OURS + OTHERS),
        (OTHERS + OURS + "1 2 3 4 5 /bin/false\n", OTHERS + OURS + "1 2 3 4 5 /bin/false\n"),
        # by hand, at other times, twice: one of ours, where the first was
        (f"A=1\n*/15 * * * *  php /var/www/wordpress/wp-cron.php \nB=2\n{LINE}\n", f"A=1\n{OURS}B=2\n"),
        ("@hourly php /var/www/wordpress/wp-cron.php\n", OURS),
        # our job was taken away, and the mark was left
        (f"{MARKER}wordpress\n0 0 * * * /bin/other\n", f"{OURS}0 0 * * * /bin/other\n"),
        (f"{MARKER}wordpress\n", OURS),
        # changed below our mark: other times, other options, another way
        *((f"A=1\n{MARKER}wordpress\n{job}\nB=2\n", f"A=1\n{OURS}B=2\n") for job in CHANGED),
        # a variable that is to count for our job; the mark follows the job
        (f"{MARKER}wordpress\nMAILTO=x\n\n*/5{LINE[3:]}\n", f"MAILTO=x\n\n{OURS}"),
        # his own beside ours: other options above it, and what is not all that is due
        (
            f"{MARKER}wordpress\n{CHANGED[1]}\n{LINE}\n{CHANGED[2]}\n",
            f"{CHANGED[1]}\n{OURS}{CHANGED[2]}\n",
        ),
        *((f"{MARKER}wordpress\n{job}\n", f"{OURS}{job}\n") for job in HIS),
        # another site's, and a file name that only begins alike
        (f"{MARKER}shop\n1 * * * * x\n", f"{MARKER}shop\n1 * * * * x\n{OURS}"),
        (
            "*/1 * * * * php /var/www/wordpress/wp-cron.php.old\n",
            f"*/1 * * * * php /var/www/wordpress/wp-cron.php.old\n{OURS}",
        ),
    ],
)
def test_other_lines_stay(before, after):
    assert cron.edit_crontab(before, [WORDPRESS], {}) == after
    assert cron.edit_crontab(after, [WORDPRESS], {}) == after


def test_a_site_that_goes_takes_its_line_along():
    former = {"wordpress": "/var/www/wordpress"}
    assert cron.edit_crontab(OTHERS + OURS, [], former) == OTHERS
    assert cron.edit_crontab(OTHERS + OURS, [], {"shop": "/srv/shop"}) == OTHERS + OURS
    assert cron.edit_crontab(OTHERS, [], former) == OTHERS
    mark = f"{MARKER}wordpress\n"
    for job in (LINE, *CHANGED):
        assert cron.edit_crontab(f"{mark}MAILTO=x\n{job}\n{OTHERS}", [], former) == f"MAILTO=x\n{OTHERS}"
    for job in HIS:
        assert cron.edit_crontab(f"{mark}{job}\n", [], former) == f"{job}\n"
    # Only one for each mark.
    assert cron.edit_crontab(f"{OURS}{CHANGED[1]}\n", [], former) == f"{CHANGED[1]}\n"


def test_a_site_that_moves_takes_its_line_along():
    before = f"A=1\n{MARKER}wordpress\n*/1 * * * * php /srv/old/wp-cron.php\nB=2\n"
    assert cron.edit_crontab(before, [WORDPRESS], {"wordpress": "/srv/old"}) == f"A=1\n{OURS}B=2\n"


def test_a_site_that_gets_another_name_keeps_its_line():
    before = OURS.replace("wordpress\n", "former\n", 1) + OTHERS
    assert cron.edit_crontab(before, [WORDPRESS], {"former": "/var/www/wordpress"}) == OURS + OTHERS


@pytest.mark.parametrize(
    "site",
    [
        Site("b", "/srv/a b's", interval=5),
        Site("b", "/srv/50%", command="wp"),
        Site("b", "/srv/a b's", command="wp"),
        Site("crontab", "/srv/b", scheduler="crontab", guard=True),
    ],
)
def test_each_of_our_lines_is_known_again(site):
    other = f"0 0 * * * /usr/bin/python3 -I {cron.LIBRARY}/run.py crontab other\n"
    text = cron.edit_crontab("", [site], {}).replace(" * * * * ", " 1 * * * ")
    assert cron.edit_crontab(other + text + other, [], {site.name: site.path}) == other + other


# --- what wp_cron_info tells ----------------------------------------------------------------------------------------


def test_overdue_events_longest_first():
    told = {
        "last": {"began": 1000, "seconds": 0.5, "failed": ["x"]},
        "error": "",
        "events": {
            "network": True,
            "time": 5000,
            "sites": [
                {"url": "http://a", "events": 3, "due": [{"hook": "h", "time": 4900, "count": 1}]},
                {"url": "http://b", "events": 2, "due": [{"hook": "g", "time": 4000, "count": 2}]},
            ],
        },
    }
    made = cron.describe("n", {"path": "/p", "user": "u", "scheduler": "timer"}, told, 1795305911)
    assert [(entry["hook"], entry["seconds"]) for entry in made["overdue"]] == [("g", 1000), ("h", 100)]
    assert (made["overdue_seconds"], made["events"], made["network"]) == (1000, 5, True)
    assert (made["last_run"], made["next_run"]) == ("1970-01-01T00:16:40Z", "2026-11-22T00:05:11Z")
    assert made["last_failed"] == ["x"]


def test_a_site_that_never_ran_and_does_not_answer():
    made = cron.describe("n", {}, {"last": {}, "events": {}, "error": "no database"}, None)
    assert (made["last_run"], made["next_run"], made["overdue_seconds"], made["error"]) == (
        None,
        None,
        0,
        "no database",
    )
