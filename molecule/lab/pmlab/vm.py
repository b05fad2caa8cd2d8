# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines, for what a container cannot show: a kernel of its own, with its drivers and its boots.

A machine is User-Mode Linux and a small root file system, both of that release's packages: a kernel that runs as a
program, needs no help of the processor's, and boots in some ten seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from . import images
from .machine import Machine, Run
from .settings import CACHE, RELEASES, LabError, say

PACKAGES = [
    "systemd-sysv", "udev", "kmod", "procps", "iproute2", "e2fsprogs", "zstd", "initramfs-tools",
    "openssh-server", "python3", "debconf",
]  # fmt: skip
#: installed later, by what is tested: they lie in the machine, in an archive of its own
OFFERED = ["mdadm"]
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "unshare": "util-linux",
}
MEMORY = 512  # MiB
PATIENCE = 600  # seconds that a boot, or a command, may take on a busy machine
#: disks beside that of the system, all the same: /dev/ubdc and so on
DISKS, DISK_SIZE = 5, 192  # MiB
#: of the addresses that are for measurements (RFC 2544): each machine has four, and a tap interface of its own
NETWORKS = ipaddress.IPv4Network("198.18.0.0/24")
#: what is on the kernel's command line; a panic ends the program
APPEND = (
    "root=/dev/ubda rw con=null con0=null,fd:1 ssl=null uml_dir=/tmp/ panic=-1 quiet net.ifnames=0 audit=0 selinux=0 "
    "systemd.show_status=no"
)
MASKED = [
    "getty@.service", "serial-getty@.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer",
    "systemd-networkd.service", "systemd-timesyncd.service", "systemd-update-utmp.service", "ldconfig.service",
    "systemd-journal-catalog-update.service", "systemd-binfmt.service", "sys-kernel-tracing.mount",
    "sys-kernel-debug.mount", "dev-hugepages.mount", "dev-mqueue.mount", "sshd-keygen.service", "ssh.socket",
    "modprobe@configfs.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service",
    "modprobe@dm_mod.service", "modprobe@loop.service", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
    "getty-static.service", "systemd-random-seed.service", "systemd-sysusers.service",
]  # fmt: skip

# Runs on this machine, with the new root as its argument.
CUSTOMIZE = r"""set -eu
r=$1
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
work=$r/srv/apt
mkdir -p "$work"
cd "$work"
apt-get -qq download user-mode-linux @OFFERED@
dpkg-deb -x user-mode-linux_*.deb "$OUT/deb"
rm user-mode-linux_*.deb
version=$(ls "$OUT/deb/usr/lib/uml/modules")
# The kernel is a program of this release, which may not start with the library of another.
for folder in lib64 lib/x86_64-linux-gnu dev proc tmp work image; do
    mkdir -p "$OUT/kernel/$folder"
done
cp -L "$r/lib64/ld-linux-x86-64.so.2" "$OUT/kernel/lib64/"
cp -L "$r/lib/x86_64-linux-gnu/libc.so.6" "$OUT/kernel/lib/x86_64-linux-gnu/"
mv "$OUT/deb/usr/bin/linux.uml" "$OUT/kernel/linux"
mkdir -p "$r/usr/lib/modules"
mv "$OUT/deb/usr/lib/uml/modules/$version" "$r/usr/lib/modules/"
gzip -dc "$OUT/deb/usr/share/doc/user-mode-linux/config.gz" >"$r/boot/config-$version"
rm -r "$OUT/deb"
chroot "$r" depmod "$version"

# An initramfs as Debian makes it with mdadm; without one the root file system's own udev loads the md driver.
printf 'MODULES=list\nBUSYBOX=auto\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n' >"$r/etc/initramfs-tools/initramfs.conf"
ln -s /bin/true "$r/usr/local/sbin/update-initramfs"
chroot "$r" env DEBIAN_FRONTEND=noninteractive sh -c 'dpkg -i /srv/apt/mdadm_*.deb'
rm "$r/usr/local/sbin/update-initramfs"
chroot "$r" mkinitramfs -o /boot/initrd-md "$version"
chroot "$r" env DEBIAN_FRONTEND=noninteractive dpkg --purge mdadm initramfs-tools initramfs-tools-core
mv "$r/boot/initrd-md" "$OUT/"
rm -rf "$r/boot"/*

for deb in *.deb; do
    dpkg-deb -f "$deb"
    sum=$(sha256sum "$deb")
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "${sum%% *}"
done >Packages
rm -f "$r"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/apt ./' >"$r/etc/apt/sources.list"

echo vm >"$r/etc/hostname"
printf '127.0.0.1 localhost vm\n' >"$r/etc/hosts"
rm -f "$r/etc/resolv.conf"
echo '/dev/ubda / ext4 defaults,noatime 0 0' >"$r/etc/fstab"
mkdir -p "$r/etc/systemd/journald.conf.d" "$r/etc/ssh/sshd_config.d"
printf '[Journal]\nStorage=volatile\n' >"$r/etc/systemd/journald.conf.d/vm.conf"
cat >"$r/etc/systemd/system/vm-network.service" <<'END'
[Unit]
DefaultDependencies=no
Before=network.target
After=systemd-udevd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'until [ -e /sys/class/net/eth0 ]; do sleep 0.2; done'
ExecStart=/bin/sh -c 'ip addr add $(sed "s/.*vm.address=//;s/ .*//" /proc/cmdline) dev eth0'
ExecStart=/usr/sbin/ip link set eth0 up
[Install]
WantedBy=multi-user.target
END
# The key of the run lies at the beginning of a disk.
cat >"$r/usr/local/sbin/run-key" <<'END'
#!/bin/sh
dd if=/dev/ubdb bs=4096 count=1 iflag=direct status=none | tr -d '\000'
END
chmod 755 "$r/usr/local/sbin/run-key"
cat >"$r/etc/ssh/sshd_config.d/vm.conf" <<'END'
AuthorizedKeysCommand /usr/local/sbin/run-key
AuthorizedKeysCommandUser root
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
END
chroot "$r" systemctl -q enable vm-network.service ssh.service
chroot "$r" systemctl -q mask @MASKED@ 2>/dev/null
"""


def trouble() -> str:
    """Why this machine cannot run such machines; '' where it can."""
    if platform.machine() != "x86_64":
        return f"the virtual machines are for x86_64, this is {platform.machine()}"
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            return f"{program} is not there (Debian package {package})"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    match = re.search(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if match and int(match[1]) < 3 * MEMORY * 1024:
        return f"there are only {int(match[1]) // 1024} MiB of free memory"
    return ""


def ensure(release: int) -> Path:
    """The folder with the image of a release, made when it is missing or out of date."""
    reason = trouble()
    if reason:
        raise LabError(f"No virtual machine here: {reason}.")
    (CACHE / "vm").mkdir(parents=True, exist_ok=True)
    with open(CACHE / "vm" / f"{release}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in (CACHE / "vm").glob("run-*"):  # of a run that was killed
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)
        return _ensure(release)


def _ensure(release: int) -> Path:
    archive, security = images.mirrors()
    parts = [release, PACKAGES, OFFERED, MASKED, CUSTOMIZE, archive, security]
    recipe = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    top = CACHE / "vm"
    folder = top / f"{release}-{recipe}"
    if folder.exists():
        return folder
    for old in top.glob(f"{release}-*"):
        shutil.rmtree(old)
    say(f"virtual machine with Debian {release}: being made from {archive}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=top) as name:
        made = Path(name) / "image"
        made.mkdir()
        _root(release, archive, security, Path(name), made)
        # Where such a kernel cannot run (without ptrace, say), there is no image, and whoever asks for one hears why.
        with Vm(release, "image", folder=made):
            pass
        made.rename(folder)
    say(f"virtual machine with Debian {release}: {time.monotonic() - started:.0f} s")
    return folder


def _root(release: int, archive: str, security: str, work: Path, made: Path) -> None:
    """The kernel, an initramfs and root.img."""
    suite, root = RELEASES[release], work / "root"
    hook = work / "customize"
    hook.write_text(CUSTOMIZE.replace("@OFFERED@", " ".join(OFFERED)).replace("@MASKED@", " ".join(MASKED)))
    sources = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    sources.append(f"deb {security} {suite}-security main")
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    argv += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"]
    argv += ["--dpkgopt=path-exclude=/usr/share/locale/*", f'--customize-hook=OUT={made} sh {hook} "$1"']
    if images.apt_proxy():
        argv.append(f'--aptopt=Acquire::http::Proxy "{images.apt_proxy()}"')
    for command in (
        [*argv, suite, str(root), *sources],
        ["mke2fs", "-q", "-t", "ext4", "-F", "-O", "^has_journal", "-d", str(root), str(made / "root.img"), "1200M"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{command[0]} could not make the machine's image: {done.stderr.strip()[-2000:]}")
    shutil.rmtree(root)


# Runs as root of a process tree of its own, which ends with it: image, folder of the run, the kernel's arguments.
START = """
root=$1/kernel
mount --bind "$1" "$root/image"
mount --bind "$2" "$root/work"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
shift 2
exec chroot "$root" /linux "$@"
"""


class Vm(Machine):
    """A virtual machine. boot() is a boot, from the disks as they are then."""

    def __init__(self, release: int, purpose: str, folder: Path | None = None) -> None:
        """folder: for ensure() alone."""
        super().__init__(release, purpose)
        self.image = folder or ensure(release)
        # Disks are large, and the paths of sockets short.
        self.work = Path(tempfile.mkdtemp(prefix=f"run-{release}-", dir=CACHE / "vm"))
        self.sockets = Path(tempfile.mkdtemp(prefix="pm-vm-"))
        self.tap = ""
        self._lock: IO[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.booted = 0.0
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.work / "key")], check=True)
        key = (self.work / "key.pub").read_bytes()
        (self.work / "key.img").write_bytes(key.ljust(1 << 20, b"\0"))
        for index in range(DISKS):
            with open(self.work / f"disk{index}.img", "wb") as handle:
                handle.truncate(DISK_SIZE << 20)

    def start(self) -> None:
        """Boot it for the first time; where that fails, nothing of it stays."""
        try:
            self._network()
            self.boot("plain")
        except BaseException:
            self.remove()
            raise

    def _network(self) -> None:
        """Take the first tap interface that no other process has; one that a killed process left is made anew."""
        for index, network in enumerate(NETWORKS.subnets(new_prefix=30)):
            lock = open(CACHE / "vm" / f"tap{index}.lock", "w")  # noqa: SIM115 (held until remove)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self.tap, self._lock = f"pm-vm{index}", lock
            ours, its = network.hosts()
            self.address = str(its)
            subprocess.run(["ip", "link", "delete", self.tap], capture_output=True, check=False)
            for command in (
                ["tuntap", "add", self.tap, "mode", "tap"],
                ["address", "add", f"{ours}/30", "dev", self.tap],
                ["link", "set", self.tap, "up"],
            ):
                subprocess.run(["ip", *command], check=True)
            return
        raise LabError("No network is left for a virtual machine.")

    def boot(self, initramfs: str) -> None:
        """Boot. initramfs: plain for none, or md for one that brings the md driver."""
        self.halt()
        started = time.monotonic()
        self._linux(initramfs)
        self._wait()
        self.booted = time.monotonic() - started

    def halt(self) -> None:
        """Take the power away, after what is written is on the disks."""
        if self.process is not None:
            self.sh("sync")
            self._end()

    def remove(self) -> None:
        """End it."""
        self._end()
        if self._lock:
            subprocess.run(["ip", "link", "delete", self.tap], capture_output=True, check=False)
            self._lock.close()
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def sh(self, script: str, check: bool = True, stdin: bytes | str = b"", seconds: float = PATIENCE) -> str:
        """Run a shell script there; what it printed, on both streams."""
        argv = ["ssh", *self._options(), f"root@{self.address}", f"exec 2>&1\n{script}"]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(argv, input=given, capture_output=True, check=False, timeout=seconds)
        text = (done.stdout + done.stderr).decode(errors="replace")
        if check and done.returncode:
            raise LabError(f"{self.name}: {script}: exit status {done.returncode}\n{text}")
        return text

    def play(self, play: Path | list[dict[str, Any]], *options: str, **variables: Any) -> Run:
        """Run a playbook, or a list of tasks, against it; options are ansible-playbook's."""
        shared = " ".join(self._options())
        given = {
            "ansible_connection": "ssh",
            "ansible_host": self.address,
            "ansible_user": "root",
            "ansible_ssh_args": shared,
        }
        return super().play(play, *options, **{**given, **variables})

    def _options(self) -> list[str]:
        options = ["-F", "none", "-i", f"{self.work}/key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        options += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.work}/known_hosts"]
        options += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "-o", "KexAlgorithms=curve25519-sha256"]
        options += ["-o", "Ciphers=chacha20-poly1305@openssh.com", "-o", "ControlMaster=auto"]
        options += ["-o", f"ControlPath={self.sockets}/ssh", "-o", "ControlPersist=600"]
        return options

    def _linux(self, initramfs: str) -> None:
        # Killed with this process, or rather with its thread, and all that it started with it.
        argv = ["setpriv", "--pdeathsig=KILL", "nice", "-n", "5"]
        argv += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        argv += ["sh", "-euc", START, "sh", str(self.image), str(self.work), f"mem={MEMORY}M"]
        # What the machine writes lies beside the image, which stays as it is.
        argv += ["ubd0=/work/root.cow,/image/root.img", "ubd1=/work/key.img"]
        argv += [f"ubd{index + 2}=/work/disk{index}.img" for index in range(DISKS)]
        argv += [f"eth0=tuntap,{self.tap}", f"vm.address={self.address}/30", *APPEND.split()]
        if initramfs != "plain":
            argv.append(f"initrd=/image/initrd-{initramfs}")
        with open(self.work / "console", "wb") as console:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise LabError(f"{self.name}: its kernel ended; its console says:\n{self._console()}")
            try:
                self.sh("true")
                return
            except (LabError, subprocess.TimeoutExpired):
                time.sleep(1.5)
        raise LabError(f"{self.name}: no answer by ssh within {PATIENCE} s; its console says:\n{self._console()}")

    def _console(self) -> str:
        return (self.work / "console").read_text(errors="replace")[-2000:]

    def _end(self) -> None:
        if self.process is None:
            return
        argv = ["ssh", *self._options(), "-O", "exit", f"root@{self.address}"]
        subprocess.run(argv, capture_output=True, check=False)
        self.process.kill()
        self.process.wait()
        self.process = None
