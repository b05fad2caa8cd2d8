# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._resolver import conf

WANTED = f"# {conf.MARK}\nnameserver 127.0.0.1\nnameserver ::1\noptions edns0 trust-ad\nsearch .\n"


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """A host whose files lie below a temporary folder, and whose units answer as told."""
    for folder in ("dhcp", "nm", "dhcpcd", "libdhcpcd"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(conf, "RESOLV_CONF", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(conf, "DHCLIENT", (str(tmp_path / "none"), "zz"))
    monkeypatch.setattr(conf, "NETWORK_MANAGER", (str(tmp_path / "none"), "zz.conf"))
    monkeypatch.setattr(conf, "DHCPCD", (str(tmp_path / "none"),))
    monkeypatch.setattr(conf, "DHCPCD_HOOK", str(tmp_path / "dhcpcd.enter-hook"))
    monkeypatch.setattr(conf, "_on", lambda unit: False)
    monkeypatch.setattr(_files, "uid_of", lambda owner: os.geteuid())
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: os.getegid())
    return tmp_path


def bring():
    todo = conf.plan(["127.0.0.1", "::1"])
    conf.apply(todo)
    return todo


def test_it_is_written_once(etc):
    assert bring().files
    assert (etc / "resolv.conf").read_text() == WANTED
    assert bring().diff() == []


def test_a_symlink_is_replaced_and_its_target_left_alone(etc):
    (etc / "stub").write_text("nameserver 127.0.0.53\n")
    (etc / "resolv.conf").symlink_to(etc / "stub")
    bring()
    assert not (etc / "resolv.conf").is_symlink()
    assert (etc / "stub").read_text() == "nameserver 127.0.0.53\n"


def test_even_a_symlink_to_the_right_text_is_replaced(etc):
    (etc / "stub").write_text(WANTED)
    (etc / "resolv.conf").symlink_to(etc / "stub")
    assert bring().files


def test_a_bind_mount_is_written_in_place(etc, monkeypatch):
    path = etc / "resolv.conf"
    path.write_text("nameserver 10.255.255.53\n" * 20)
    inode = path.stat().st_ino
    monkeypatch.setattr(conf, "is_mounted", lambda name: name == str(path))
    monkeypatch.setattr(os, "fchown", lambda *args: None)
    bring()
    assert path.read_text() == WANTED
    assert path.stat().st_ino == inode
    assert path.stat().st_mode & 0o777 == 0o644
    assert bring().diff() == []


def test_a_mount_is_told_from_its_parent(tmp_path):
    (tmp_path / "info").write_text(
        "1 2 0:1 / / rw - overlay x rw\n3 1 0:9 /y /etc/resolv.conf rw,relatime - tmpfs x rw\n"
    )
    assert conf.is_mounted("/etc/resolv.conf", str(tmp_path / "info"))
    assert not conf.is_mounted("/etc/resolv", str(tmp_path / "info"))
    assert not conf.is_mounted("/etc/resolv.conf", str(tmp_path / "missing"))


def test_dhclient_is_kept_off(etc, monkeypatch):
    monkeypatch.setattr(conf, "DHCLIENT", (str(etc / "dhcp"), "zz"))
    bring()
    assert "make_resolv_conf() {" in (etc / "dhcp" / "zz").read_text()
    assert bring().diff() == []


def test_dhcpcd_is_kept_off_and_its_hook_kept(etc, monkeypatch):
    (etc / "libdhcpcd" / "dhcpcd-run-hooks").touch()
    monkeypatch.setattr(conf, "DHCPCD", (str(etc / "libdhcpcd"),))
    (etc / "dhcpcd.enter-hook").write_text("echo mine")
    bring()
    assert (etc / "dhcpcd.enter-hook").read_text() == f"echo mine\n{conf.DHCPCD_LINE}\n"
    assert bring().diff() == []


def test_network_manager_is_kept_off_and_told(etc, monkeypatch):
    told = []
    monkeypatch.setattr(conf, "NETWORK_MANAGER", (str(etc / "nm"), "zz.conf"))
    monkeypatch.setattr(conf, "run", lambda argv, **more: told.append(argv))
    bring()
    assert (etc / "nm" / "zz.conf").read_text().endswith("[main]\ndns=none\n")
    assert told == [["systemctl", "try-reload-or-restart", "NetworkManager.service"]]


def test_resolved_goes_after_resolv_conf_is_there(etc, monkeypatch):
    seen = []
    monkeypatch.setattr(conf, "_on", lambda unit: not seen)
    monkeypatch.setattr(conf, "run", lambda argv, **more: seen.append((argv, (etc / "resolv.conf").read_text())))
    assert bring().disable == [conf.RESOLVED]
    assert seen == [(["systemctl", "disable", "--now", conf.RESOLVED], WANTED)]
    assert bring().diff() == []


def test_what_is_missing_is_not_made(etc):
    assert [file.path for file in conf.plan(["::1"]).files] == [str(etc / "resolv.conf")]
