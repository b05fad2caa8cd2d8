# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The ready-made job of a mail host: what of it is backed up, and what a run prepares so that it can be restored.

Two things cannot be taken as they lie there, so each run puts them into the folder STAGE, which is backed up, too:

accounts.json: names of the users and groups that own the data. Snapshots keep numbers, and a new host gives its system
users others.
postgrey/: a copy of postgrey's database. Its files change while they are read, and belong together.
"""

from __future__ import annotations

import glob
import grp
import json
import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from .._command import CommandError, run

MAIL = "/var/vmail"
STAGE = "/var/backups/postmeister"
ACCOUNTS = f"{STAGE}/accounts.json"
POSTGREY = "/var/lib/postgrey"
#: there once a run of the role mailserver came to its end. Not backed up: a new host's first run is careful, too.
COMPLETE = "/etc/ansible/facts.d/postmeister_mailserver.fact"
PATHS = (
    "/etc/ansible/facts.d/postmeister_dns.fact",  # what was published, to be withdrawn one day
    "/etc/postmeister",  # the directory, DKIM keys
    "/etc/postsrsd.secret",  # bounces to forwarded mail come back to addresses made with it
    "/etc/ssl/postmeister",  # certificate, its key and the next one
    STAGE,
    "/var/lib/postmeister/acme",  # the account at the certificate authority
    "/var/lib/redis",  # what the spam filter learnt
    MAIL,
)
EXCLUDES = ("/etc/postmeister/backup/", "/var/lib/redis/temp-*")
#: which service must not run while its data is replaced
SERVICES = {"/var/lib/redis": "redis-server.service", STAGE: "postgrey.service"}
#: postgrey's own language has the library (Berkeley DB, "Hot backup": the copy is brought to its last transaction)
RECOVER = r"""
use strict; use warnings; use BerkeleyDB;
BerkeleyDB::Env->new(-Home => $ARGV[0],
    -Flags => DB_CREATE|DB_RECOVER_FATAL|DB_INIT_TXN|DB_INIT_MPOOL|DB_INIT_LOG) or die "$BerkeleyDB::Error\n";
"""


class StageError(Exception):
    """There is no mail host to back up; the message says why."""


def astray(paths: Sequence[str]) -> str:
    """What is wrong where a symbolic link leads out of all paths, as its target would be left out silently; or ''."""
    for path in paths:
        real = os.path.realpath(path)
        others = [other for other in paths if other != path]
        if os.path.lexists(path) and real != path and not any(f"{real}/".startswith(f"{one}/") for one in others):
            return f"{path} leads to {real}, and a snapshot keeps the link only; name {real} in paths as well"
    return ""


def stage(paths: Sequence[str], complete: str = COMPLETE, mail: str = MAIL, folder: str = STAGE) -> list[str]:
    """Prepare a backup; returns what will be amiss. Raises StageError, OSError.

    An empty host is never backed up: its snapshot would be the latest, which the next restore takes.
    """
    if not os.path.exists(complete):
        raise StageError(
            f"this host is no mail host yet ({complete} is not there): bring its data back from a snapshot, if it is a "
            "new one, then run the playbook mailserver"
        )
    if not os.path.isdir(mail) and set(paths) <= set(PATHS):
        raise StageError(
            f"there is no {mail}; where mail lies elsewhere (dovecot_mail_root), list that folder in paths"
        )
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    amiss = []
    try:
        copy_postgrey(POSTGREY, f"{folder}/postgrey")
    except (OSError, CommandError) as exc:
        # The rest of a mail host is worth more than its greylist.
        amiss.append(f"postgrey's database could not be copied, so the snapshot has no new copy of it: {exc}")
    with open(f"{folder}/accounts.json.new", "w", encoding="utf-8") as handle:
        # After the copy, which has an owner, too.
        json.dump(accounts(paths), handle, indent=1)
    os.replace(f"{folder}/accounts.json.new", f"{folder}/accounts.json")
    return amiss


def accounts(paths: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Users and groups that own what lies there (looking two levels deep: below, all is of the same owners)."""
    found = [entry for path in paths for entry in _entries(path, 2)]
    users, groups = [], {entry.st_gid for entry in found}
    for uid in sorted({entry.st_uid for entry in found} - {0}):
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            continue  # has no name here, either
        groups.add(user.pw_gid)
        users.append(
            {"name": user.pw_name, "uid": uid, "gid": user.pw_gid, "home": user.pw_dir, "shell": user.pw_shell}
        )
    named = []
    for gid in sorted(groups - {0}):
        try:
            named.append({"name": grp.getgrgid(gid).gr_name, "gid": gid})
        except KeyError:
            continue
    return {"users": users, "groups": named}


def _entries(path: str, depth: int) -> Iterator[os.stat_result]:
    try:
        yield os.lstat(path)
        if depth and os.path.isdir(path) and not os.path.islink(path):
            for name in os.listdir(path):
                yield from _entries(os.path.join(path, name), depth - 1)
    except (FileNotFoundError, NotADirectoryError):
        return  # an option that this host does not use, or gone meanwhile


def copy_postgrey(source: str, target: str) -> None:
    """Copy the database while postgrey goes on writing; none where there is none. Raises OSError, CommandError."""
    tables = sorted(glob.glob(f"{source}/postgrey*.db"))
    new = f"{target}.new"
    shutil.rmtree(new, ignore_errors=True)
    if not tables:
        shutil.rmtree(target, ignore_errors=True)
        return
    for turn in (1, 2, 3):
        os.mkdir(new, 0o700)
        try:
            # The order matters: the log has to reach further than the tables.
            for path in [*tables, *sorted(glob.glob(f"{source}/log.*"))]:
                shutil.copyfile(path, os.path.join(new, os.path.basename(path)))
            break
        except FileNotFoundError:
            # postgrey removes old logs once an hour.
            shutil.rmtree(new)
            if turn == 3:
                raise
    run(["perl", "-e", RECOVER, new], timeout=300)
    for path in glob.glob(f"{new}/__db.*"):
        os.unlink(path)
    owner = os.stat(source)
    for path in glob.glob(f"{new}/*"):
        os.chown(path, owner.st_uid, owner.st_gid)
        os.chmod(path, 0o600)
    os.chown(new, owner.st_uid, owner.st_gid)
    os.chmod(new, owner.st_mode & 0o7777)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(new, target)
