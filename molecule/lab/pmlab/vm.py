# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines, for what a container cannot show: a kernel of its own, with its drivers and its boots.

A machine is Debian's kernel and a small root file system, both from Debian's packages, in QEMU. Without KVM it is
emulated, so boots are slow: what a test starts from is the saved state of a machine that has booted already.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

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
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
}
MEMORY = 512  # MiB
PATIENCE = 600  # seconds that a boot, or a command, may take on a busy machine
#: disks beside that of the system, all the same: /dev/vdc and so on
DISKS, DISK_SIZE = 5, 192  # MiB
#: what is on the kernel's command line: no predictable names, no mitigations, which cost much in emulation
APPEND = (
    "root=/dev/vda rw console=ttyS0 panic=-1 quiet net.ifnames=0 mitigations=off nokaslr audit=0 apparmor=0 "
    "random.trust_cpu=on systemd.show_status=no"
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
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^  Depends: \(linux-image-[0-9].*\)/\1/p' | tail -n 1)
apt-get -qq download "$kernel" @OFFERED@
# Unpacked aside: Debian 12's has a folder /lib, which would take the place of the link.
dpkg-deb -x linux-image-*.deb "$OUT/kernel"
rm linux-image-*.deb
version=$(ls "$OUT/kernel/boot" | sed -n 's/^vmlinuz-//p')
mv "$OUT/kernel/boot/vmlinuz-$version" "$OUT/vmlinuz"
mkdir -p "$r/usr/lib/modules"
for modules in "$OUT"/kernel/lib/modules/* "$OUT"/kernel/usr/lib/modules/*; do
    [ ! -d "$modules" ] || mv "$modules" "$r/usr/lib/modules/"
done
cp "$OUT/kernel/boot/config-$version" "$r/boot/"
rm -r "$OUT/kernel"
chroot "$r" depmod "$version"

# Two initramfs: as Debian makes it with mdadm, and without the md driver (as dracut's, or where none is needed).
printf '%s\n' virtio_pci virtio_blk virtio_net ext4 >"$r/etc/initramfs-tools/modules"
printf 'MODULES=list\nBUSYBOX=auto\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n' >"$r/etc/initramfs-tools/initramfs.conf"
chroot "$r" mkinitramfs -o /boot/initrd-plain "$version"
ln -s /bin/true "$r/usr/local/sbin/update-initramfs"
chroot "$r" env DEBIAN_FRONTEND=noninteractive sh -c 'dpkg -i /srv/apt/mdadm_*.deb'
rm "$r/usr/local/sbin/update-initramfs"
chroot "$r" mkinitramfs -o /boot/initrd-md "$version"
chroot "$r" env DEBIAN_FRONTEND=noninteractive dpkg --purge mdadm initramfs-tools initramfs-tools-core
mv "$r/boot/initrd-plain" "$r/boot/initrd-md" "$OUT/"
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
echo '/dev/vda / ext4 defaults,noatime 0 0' >"$r/etc/fstab"
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
ExecStart=/usr/sbin/ip addr add 10.0.2.15/24 dev eth0
ExecStart=/usr/sbin/ip link set eth0 up
[Install]
WantedBy=multi-user.target
END
# The key of the run lies at the beginning of a disk.
cat >"$r/usr/local/sbin/run-key" <<'END'
#!/bin/sh
dd if=/dev/disk/by-id/virtio-key bs=4096 count=1 iflag=direct status=none | tr -d '\000'
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
    match = re.search(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if match and int(match[1]) < 3 * MEMORY * 1024:
        return f"there are only {int(match[1]) // 1024} MiB of free memory"
    return ""


def accelerator() -> list[str]:
    """QEMU's options: KVM where the processor has it, else emulation.

    A /dev/kvm without the processor's own help cannot boot an ordinary kernel. cx16: QEMU 7.2 emulates it wrongly.
    """
    helped = re.search(r"^flags\s*:.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if helped and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,tb-size=256", "-cpu", "qemu64,-cx16,-svm"]


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
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    archive, security = images.mirrors()
    parts = [release, PACKAGES, OFFERED, MASKED, CUSTOMIZE, APPEND, MEMORY, DISKS, DISK_SIZE, archive, security]
    parts += [version, accelerator()]
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
        machine = Vm(release, "image", folder=made)
        try:
            machine.boot("plain")
            # What modules need lies in memory afterwards.
            machine.sh("python3 -c 'import ast, asyncio, ctypes, email.message, http.client, json, tempfile, zipfile'")
            machine.save()
        finally:
            machine.remove()
        made.rename(folder)
    say(f"virtual machine with Debian {release}: {time.monotonic() - started:.0f} s")
    return folder


def _root(release: int, archive: str, security: str, work: Path, made: Path) -> None:
    """Kernel, two initramfs and root.img."""
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


class Vm(Machine):
    """A virtual machine. start() resumes one that has booted; boot() is a boot, from the disks as they are then."""

    def __init__(self, release: int, purpose: str, folder: Path | None = None) -> None:
        """folder: for ensure() alone."""
        super().__init__(release, purpose)
        self.image = folder or ensure(release)
        # Disks are large, and the paths of sockets short.
        self.work = Path(tempfile.mkdtemp(prefix=f"run-{release}-", dir=CACHE / "vm"))
        self.sockets = Path(tempfile.mkdtemp(prefix="pm-vm-"))
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.booted = 0.0
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.work / "key")], check=True)
        key = (self.work / "key.pub").read_bytes()
        (self.work / "key.img").write_bytes(key.ljust(1 << 20, b"\0"))
        # Whole, but for its holes.
        command = ["cp", "--sparse=always", "--reflink=auto", str(self.image / "root.img"), str(self.work / "root.img")]
        subprocess.run(command, check=True)
        for index in range(DISKS):
            with open(self.work / f"disk{index}.img", "wb") as handle:
                handle.truncate(DISK_SIZE << 20)

    def start(self) -> None:
        """Go on where the saved machine was."""
        self._qemu("plain", ["-incoming", f"exec:cat {self.image}/state"])
        self._wait()
        self.sh(f"date -s @{int(time.time())} >/dev/null")

    def boot(self, initramfs: str) -> None:
        """Boot. initramfs: plain, or md for the one that brings the md driver."""
        self.halt()
        started = time.monotonic()
        self._qemu(initramfs, [])
        self._wait()
        self.booted = time.monotonic() - started

    def halt(self) -> None:
        """Take the power away, after what is written is on the disks."""
        if self.process is not None:
            self.sh("sync")
            self._end()

    def save(self) -> None:
        """Keep the state of the running machine, and its disk, beside its image; it ends with that."""
        self.sh("sync")
        self.monitor(f'migrate "exec:cat > {self.image}/state"')
        while "completed" not in (answer := self.monitor("info migrate")):
            if "failed" in answer:
                raise LabError(f"{self.name}: its state could not be saved: {answer}")
            time.sleep(0.2)
        self._end()
        (self.work / "root.img").replace(self.image / "root.img")

    def remove(self) -> None:
        """End it."""
        self._end()
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def sh(self, script: str, check: bool = True, stdin: bytes | str = b"", seconds: float = PATIENCE) -> str:
        """Run a shell script there; what it printed, on both streams."""
        argv = ["ssh", *self._options(), "root@127.0.0.1", f"exec 2>&1\n{script}"]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(argv, input=given, capture_output=True, check=False, timeout=seconds)
        text = (done.stdout + done.stderr).decode(errors="replace")
        if check and done.returncode:
            raise LabError(f"{self.name}: {script}: exit status {done.returncode}\n{text}")
        return text

    def play(self, play: Path | list[dict[str, Any]], *options: str, **variables: Any) -> Run:
        """Run a playbook, or a list of tasks, against it; options are ansible-playbook's."""
        shared = " ".join(self._options("-p"))
        given = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_args": shared,
        }
        return super().play(play, *options, **{**given, **variables})

    def monitor(self, command: str) -> str:
        """An order to QEMU's monitor, and its answer."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(60)
            channel.connect(str(self.sockets / "monitor"))
            self._until_prompt(channel)
            channel.sendall(f"{command}\n".encode())
            return self._until_prompt(channel)

    @staticmethod
    def _until_prompt(channel: socket.socket) -> str:
        text = b""
        while not text.endswith(b"(qemu) "):
            part = channel.recv(65536)
            if not part:
                break
            text += part
        return text.decode(errors="replace")

    def _options(self, *without: str) -> list[str]:
        options = ["-F", "none", "-i", f"{self.work}/key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        options += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.work}/known_hosts"]
        options += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "-o", "KexAlgorithms=curve25519-sha256"]
        options += ["-o", "Ciphers=chacha20-poly1305@openssh.com", "-o", "ControlMaster=auto"]
        options += ["-o", f"ControlPath={self.sockets}/ssh", "-o", "ControlPersist=600"]
        return options if "-p" in without else [*options, "-p", str(self.port)]

    def _qemu(self, initramfs: str, more: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # What runs beside it is waited for by tests; emulation takes each core that it can get.
        argv = ["nice", "-n", "5", "qemu-system-x86_64", *accelerator()]
        argv += ["-M", "q35", "-m", str(MEMORY), "-smp", "1", "-nodefaults"]
        argv += ["-display", "none", "-no-reboot", "-serial", f"file:{self.work}/console"]
        argv += ["-monitor", f"unix:{self.sockets}/monitor,server=on,wait=off"]
        argv += ["-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / f"initrd-{initramfs}")]
        argv += ["-append", APPEND]
        argv += ["-drive", f"if=none,id=root,file={self.work}/root.img,format=raw,cache=unsafe"]
        argv += ["-device", "virtio-blk-pci,drive=root,addr=3"]
        argv += ["-drive", f"if=none,id=key,file={self.work}/key.img,format=raw"]
        argv += ["-device", "virtio-blk-pci,drive=key,serial=key,addr=4"]
        argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        argv += ["-device", "virtio-net-pci,netdev=net,romfile=,addr=5"]
        for index in range(DISKS):
            argv += ["-drive", f"if=none,id=d{index},file={self.work}/disk{index}.img,format=raw,cache=unsafe"]
            argv += ["-device", f"virtio-blk-pci,drive=d{index},addr={index + 6}"]
        with open(self.work / "qemu", "ab") as log:
            self.process = subprocess.Popen([*argv, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise LabError(f"{self.name}: QEMU ended: {(self.work / 'qemu').read_text().strip()}")
            try:
                self.sh("true")
                return
            except (LabError, subprocess.TimeoutExpired):
                time.sleep(1.5)
        console = (self.work / "console").read_text(errors="replace")[-2000:]
        raise LabError(f"{self.name}: no answer by ssh within {PATIENCE} s; its console says:\n{console}")

    def _end(self) -> None:
        if self.process is None:
            return
        subprocess.run(["ssh", *self._options(), "-O", "exit", "root@127.0.0.1"], capture_output=True, check=False)
        self.process.kill()
        self.process.wait()
        self.process = None
