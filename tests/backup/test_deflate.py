# SPDX-License-Identifier: GPL-3.0-or-later

"""The file that breaks rsync's zlib, with the rsync of Debian's main archive and of its security archive.

A large incompressible file of which a few bytes changed: the matched blocks are put into zlib's history, and an rsync
before 3.4.4 that is built with the system's zlib then dies (RsyncProject/rsync issue 951). Two new ones agree on zstd.
With one that does not negotiate, such as an older appliance, --compress means zlib: RSYNC_COMPRESS_LIST does here.
"""

from __future__ import annotations

import re

import pytest
from conftest import First, Host, both

#: suites by Debian release
SUITES = {13: ("trixie", "trixie-security"), 12: ("bookworm", "bookworm-security")}
#: upstream as it is, with a key that may do all there, since it asks a shell for much
CONTROL = """
cd /root && rm -rf control && mkdir control && cd control
{take}
ssh root@{address} "rm -rf /srv/control; mkdir /srv/control; touch /srv/control/backup.marker"
"""
UPSTREAM = """
cd /root/control
RSYNC_COMPRESS_LIST=zlib {program} --log-dir /root/control/log \\
    --rsync-append-flags '--block-size=131072 --no-whole-file' /srv/dump root@{address}:/srv/control; echo status $?
"""


UNPATCHED = {
    "script": ("cp /root/upstream.file rsync_tmbackup.sh", "bash rsync_tmbackup.sh"),
    "python": ("python3 -m zipfile -e /root/upstream.file .", "python3 rsync_time_machine.py"),
}


def version(host: Host) -> tuple[int, ...]:
    found = re.search(r"version ([0-9.]+)", host.sh("rsync --version"))
    assert found
    return tuple(int(part) for part in found[1].split("."))


def a_shell_there(host: Host) -> None:
    """What upstream needs, and the role does not."""
    assert host.other is not None
    host.sh("[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    host.machine.put("/root/.ssh/config", "Host *\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n")
    key = host.sh("cut -d' ' -f1,2 /root/.ssh/id_ed25519.pub").strip()
    host.other.sh(f"grep -q control /root/.ssh/authorized_keys || echo '{key} control' >> /root/.ssh/authorized_keys")


def change(host: Host, turn: int) -> None:
    """New content the first time, then four other bytes in the middle of it."""
    host.sh(
        "[ -e /srv/dump/image ] && printf 'wxyz' | dd of=/srv/dump/image bs=1 seek=4000000 conv=notrunc status=none"
        if turn
        else "mkdir -p /srv/dump; head -c 8000000 /dev/urandom > /srv/dump/image"
    )


@pytest.mark.parametrize("archive", [0, 1], ids=["main", "security"])
def test_the_file_that_breaks_deflate(pair: tuple[Host, Host], first: First, archive: int) -> None:
    """The role's job passes; upstream with --compress dies in the versions that have the fault."""

    def install(host: Host) -> None:
        suite = SUITES[host.machine.release][archive]
        host.sh(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --allow-downgrades rsync/{suite}")
        a_shell_there(host)

    def check(host: Host) -> None:
        assert host.other is not None
        address = host.other.machine.address
        take, program = UNPATCHED[host.implementation]
        host.sh(CONTROL.format(take=take, address=address))
        told = ""
        for turn in (0, 1):
            change(host, turn)
            host.good("dump")
            told = host.sh("sleep 1;" + UPSTREAM.format(program=program, address=address))
        log = host.sh("cat /root/control/log/*.log")
        broken = version(host) < (3, 4, 4)
        assert ("rsync error" in log) is broken, (version(host), log, told)
        wanted = host.sh("sha256sum < /srv/dump/image")
        assert host.other.sh("sha256sum < /srv/vault/dump/latest/image") == wanted
        if broken:
            assert "code 12" in log
            # Nobody would notice.
            assert ("status 0" in told) is (host.implementation == "python")
            assert "Matched data: 7" in host.machine.read("/var/lib/postmeister/backup/dump/rsync.log").replace(",", "")

    for host in pair:
        host.machine.put("/root/upstream.file", host.source.read_bytes())
    both(install, *pair)
    if archive == 0:
        assert any(version(host) < (3, 4, 4) for host in pair), "both main archives are repaired: nothing is shown here"
    both(check, *pair)
