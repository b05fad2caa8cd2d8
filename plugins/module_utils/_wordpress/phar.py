# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""WP-CLI's own program file: verified by checksum and signature, tried, put in place, tried again."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from .._command import CommandError, run
from .._files import File, FileError, equal, look, prepare
from .._recover import aside, fsync_folders, remove

#: who tries a program that the host has not run before
NOBODY = "nobody"


class PharError(Exception):
    """The file is not what was pinned, or it does not run; what was there before is there still."""


@dataclass(frozen=True)
class Pin:
    """The one version that is wanted. checksum: SHA-512, hexadecimal."""

    version: str
    checksum: str
    path: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{128}", self.checksum):
            raise PharError(f"checksum: {self.checksum!r} is no SHA-512 in hexadecimal digits")

    def installed(self) -> bool:
        """Whether it is there already, with its owner and mode."""
        found = look(self.path)
        if found is None or found.content is None:
            return False
        return equal(self.file(found.content), found) and _sum(found.content) == self.checksum

    def file(self, content: bytes) -> File:
        """The file as it should be."""
        return File(self.path, content, 0o755)


def _sum(content: bytes) -> str:
    return hashlib.sha512(content).hexdigest()


def verify_checksum(pin: Pin, content: bytes, source: str) -> None:
    """Raises PharError."""
    found = _sum(content)
    if found != pin.checksum:
        told = f"SHA-512 {found} ({len(content)} bytes), not the {pin.checksum} of WP-CLI {pin.version}"
        raise PharError(f"{source}: wrong checksum: {told}")


def verify_signature(content: bytes, signature: bytes, key: str, source: str) -> None:
    """By gpgv with just this key (ASCII armour); raises PharError with gpgv's own words."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in ("key.gpg", "file.asc", "file")}
        for name, data in (("key.gpg", dearmour(key)), ("file.asc", signature), ("file", content)):
            with open(paths[name], "wb") as handle:
                handle.write(data)
        argv = ["gpgv", "--keyring", paths["key.gpg"], paths["file.asc"], paths["file"]]
        result = run(argv, check=False, env={"GNUPGHOME": folder})
    if result.rc:
        said = [line.removeprefix("gpgv: ") for line in result.err.splitlines()]
        raise PharError(f"{source}: wrong signature: {'; '.join(said)}")


def dearmour(text: str) -> bytes:
    """A key's bytes out of its ASCII armour (RFC 9580, 6.2), as gpgv wants them; raises PharError."""
    match = re.search(
        r"^-----BEGIN PGP PUBLIC KEY BLOCK-----\s*\n(?:[^\n]+: [^\n]*\n)*\s*\n(.*?)^(?:=\S{4}|-----END)",
        text,
        re.M | re.S,
    )
    if not match:
        raise PharError("key: not an OpenPGP public key in ASCII armour")
    try:
        return base64.b64decode("".join(match[1].split()), validate=True)
    except ValueError as exc:
        raise PharError(f"key: {exc}") from exc


def install(pin: Pin, content: bytes, user: str = NOBODY) -> None:
    """Replace the program by one that runs; where the new one does not, the former stays or comes back.

    Raises PharError and FileError.
    """
    new, old = aside(pin.path, "new"), aside(pin.path, "old")
    try:
        prepare(pin.file(content))
        answers(new, pin.version, user)
        _forget(old)
        had = os.path.lexists(pin.path)
        if had:
            os.link(pin.path, old, follow_symlinks=False)
        os.rename(new, pin.path)
        try:
            answers(pin.path, pin.version, user)
        except PharError as problem:
            if had:
                os.rename(old, pin.path)
            else:
                remove(pin.path)
            state = "the former one is back" if had else "it was removed"
            raise PharError(f"{problem}; {state}") from problem
        fsync_folders([os.path.dirname(pin.path)])
    except OSError as exc:
        raise FileError(f"{pin.path}: {exc.strerror}") from exc
    finally:
        _forget(new)
        _forget(old)


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        remove(path)


def answers(path: str, version: str, user: str = NOBODY) -> None:
    """Whether "wp --info" works and is of this version; raises PharError."""
    argv = [
        *(["runuser", "-u", user, "--"] if os.geteuid() == 0 else []),
        "env",
        "-C",
        "/",
        "HOME=/nonexistent",
        path,
        "--info",
    ]
    try:
        result = run(argv, check=False)
    except CommandError as exc:
        raise PharError(str(exc)) from exc
    found = re.search(r"^WP-CLI version:\s*(\S+)", result.out, re.MULTILINE)
    if result.rc or not found:
        raise PharError(f"{path} --info does not work: exit status {result.rc}: {result.words[-500:]}")
    if found[1] != version:
        raise PharError(f"{path}: is WP-CLI {found[1]}, not {version}")


def read(source: str, download: Callable[[str], bytes]) -> bytes:
    """A URL, or a file of this host; raises PharError."""
    try:
        if re.match(r"https?://", source):
            return download(source)
        with open(source, "rb") as handle:
            return handle.read()
    except (OSError, ValueError) as exc:
        raise PharError(f"{source}: {getattr(exc, 'strerror', None) or exc}") from exc
