# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside the container: what the disk holds where service_config writes.

tree.py          print a digest of it: names, types, modes, owners, contents, and which names are one file; of a stage
                 only whether there is one, since nothing but the run that made it reads what is in it
tree.py keep     remember it
tree.py restore  bring back what was remembered
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import stat
import sys

ROOTS = ("/etc", "/usr/local", "/var/lib/postmeister")
# podman's own; they may change with a boot.
MOUNTED = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
KEPT = "/root/kept"


def look() -> dict[str, tuple]:
    """Type and mode, owner, group, content and the first name of the same file, by name."""
    found: dict[str, tuple] = {}
    first: dict[tuple[int, int], str] = {}
    for root in ROOTS:
        device = os.lstat(root).st_dev
        for folder, names, files in os.walk(root):
            # A file system of its own is empty after a boot.
            names[:] = sorted(name for name in names if os.lstat(os.path.join(folder, name)).st_dev == device)
            for name in sorted([*names, *files]):
                path = os.path.join(folder, name)
                if path in MOUNTED:
                    continue
                info = os.lstat(path)
                content = b""
                if stat.S_ISREG(info.st_mode):
                    with open(path, "rb") as handle:
                        content = handle.read()
                elif stat.S_ISLNK(info.st_mode):
                    content = os.readlink(path).encode()
                same = path if stat.S_ISDIR(info.st_mode) else first.setdefault((info.st_dev, info.st_ino), path)
                found[path] = (info.st_mode, info.st_uid, info.st_gid, content, same)
    return found


def restore(wanted: dict[str, tuple]) -> None:
    found = look()
    wrong = sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))
    for path in reversed(wrong):
        if path not in wanted and path in found and stat.S_ISDIR(found[path][0]):
            shutil.rmtree(path)
        elif os.path.lexists(path) and not (path in wanted and stat.S_ISDIR(wanted[path][0])):
            os.unlink(path)
    for path in wrong:
        if path in wanted:
            mode, uid, gid, content, same = wanted[path]
            assert same == path, f"{path} and {same} are one file"
            if stat.S_ISLNK(mode):
                os.symlink(content, path)
            elif stat.S_ISDIR(mode):
                os.makedirs(path, exist_ok=True)
            else:
                with open(path, "wb") as handle:
                    handle.write(content)
            os.chown(path, uid, gid, follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))
    assert look() == wanted


if sys.argv[1:] == ["keep"]:
    with open(KEPT, "wb") as handle:
        pickle.dump(look(), handle)
elif sys.argv[1:] == ["restore"]:
    with open(KEPT, "rb") as handle:
        restore(pickle.load(handle))  # noqa: S301 (what was written above)
else:
    seen = {path: what for path, what in look().items() if "/stage/" not in path}
    print(hashlib.sha256(repr(seen).encode()).hexdigest())
