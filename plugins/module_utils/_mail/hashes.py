# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Password hashes: judged, made and verified.

They are written as Dovecot knows them, `{SCHEME}hash`. libcrypt (libxcrypt, on every Debian) makes and verifies
bcrypt and SHA512-CRYPT in the process, so that no password stands in a command line; it lets go of the GIL, so
threads use all cores. ARGON2ID is verified by Dovecot only: such hashes are taken as given.
"""

from __future__ import annotations

import ctypes
import hmac
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Callable, TypeVar

BLF_CRYPT = "BLF-CRYPT"
SHA512_CRYPT = "SHA512-CRYPT"
ARGON2ID = "ARGON2ID"

#: schemes that are made here, with the cost used unless told: 2^10 rounds and 100,000 rounds, each about 50 ms
DEFAULT_COST = {BLF_CRYPT: 10, SHA512_CRYPT: 100_000}
COST_RANGE = {BLF_CRYPT: (10, 15), SHA512_CRYPT: (5_000, 5_000_000)}

# OWASP's list of equal ARGON2ID settings (19 MiB with t=2, 12 MiB with t=3, …) in one line: memory by passes.
_ARGON_LEAST = 35_840
_ARGON_LEAST_MEMORY = 7_168
# KiB. Each login takes that much of the memory of Dovecot's auth process.
_ARGON_MOST_MEMORY = 131_072

_BLF = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_SHA512 = re.compile(r"\$6\$(?:rounds=(\d{1,9})\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}")
_ARGON = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,3})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,172}"
)
# What most hashes look like; nothing else about them is left to be judged.
_COMMON = re.compile(r"\{BLF-CRYPT\}\$2[by]\$1\d\$[./A-Za-z0-9]{53}")
_PREFIX = re.compile(r"\{([^{}]*)\}")
_ALLOWED = f"allowed are {BLF_CRYPT} (cost 10 or more), {SHA512_CRYPT} (5,000 rounds or more) and {ARGON2ID}"

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class HashError(ValueError):
    """The hash or password is refused; the text is the reason and holds no part of either."""


@lru_cache(maxsize=1024)
def _prefix_scheme(prefix: str) -> str:
    return prefix.upper()


def parse_hash(value: str) -> str:
    """Bring a hash to the form `{SCHEME}hash`; without a scheme in front it is told by its own start.

    Raises HashError where the scheme is weak or unknown, or the hash is not well-formed.
    """
    if _COMMON.fullmatch(value):
        return value
    text = value
    named = ""
    if text.startswith("{"):
        prefix = _PREFIX.match(text)
        if not prefix:
            raise HashError("has an unclosed { in front of the hash")
        named = _prefix_scheme(prefix.group(1))
        text = text[prefix.end() :]
    # {CRYPT} is whatever libcrypt takes: the hash itself tells.
    if named not in ("", "CRYPT", BLF_CRYPT, SHA512_CRYPT, ARGON2ID):
        raise HashError(f"is in the scheme {named}, which is weak or unknown; {_ALLOWED}")
    if text.startswith("$2"):
        scheme = BLF_CRYPT
        match = _BLF.fullmatch(text)
        if match and int(match.group(1)) < COST_RANGE[BLF_CRYPT][0]:
            raise HashError(f"has the bcrypt cost {int(match.group(1))}; 10 is the least")
    elif text.startswith("$6$"):
        scheme = SHA512_CRYPT
        match = _SHA512.fullmatch(text)
        if match and int(match.group(1) or 5000) < COST_RANGE[SHA512_CRYPT][0]:
            raise HashError(f"has {int(match.group(1))} rounds of SHA512-CRYPT; 5,000 are the least")
    elif text.startswith("$argon2id$"):
        scheme = ARGON2ID
        match = _ARGON.fullmatch(text)
        if match:
            _judge_argon(int(match.group(1)), int(match.group(2)))
    else:
        raise HashError(f"is in no scheme that is known here, or is no hash at all; {_ALLOWED}")
    if not match:
        raise HashError(f"looks like {scheme}, but is not well-formed (cut off?)")
    if named not in ("", "CRYPT", scheme):
        raise HashError(f"says {named}, but is a hash of {scheme}")
    return f"{{{scheme}}}{text}"


def _judge_argon(memory: int, passes: int) -> None:
    if memory < _ARGON_LEAST_MEMORY or memory * passes < _ARGON_LEAST:
        raise HashError(f"has ARGON2ID with m={memory},t={passes}; m=19456,t=2 or as much work is the least")
    if memory > _ARGON_MOST_MEMORY:
        raise HashError(
            f"has ARGON2ID with m={memory} (KiB); above {_ARGON_MOST_MEMORY} few logins exhaust Dovecot's auth process"
        )


def check_password(password: str, scheme: str) -> None:
    """Refuse a plain password that the scheme cannot hold; raises HashError."""
    if not password:
        raise HashError("is empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in password):
        raise HashError("holds a control character (a line break at its end?)")
    if scheme == BLF_CRYPT and len(password.encode()) > 72:
        raise HashError("is longer than 72 bytes, and bcrypt ignores what follows; take SHA512-CRYPT or a shorter one")


def check_cost(scheme: str, cost: int | None) -> int:
    """The cost to use for new hashes; raises HashError where it is out of range."""
    if scheme not in DEFAULT_COST:
        raise HashError(f"{scheme} cannot be made here; use one of {', '.join(DEFAULT_COST)}")
    if cost is None:
        return DEFAULT_COST[scheme]
    least, most = COST_RANGE[scheme]
    if not least <= cost <= most:
        raise HashError(f"{cost} is out of range: {scheme} takes {least} to {most}")
    return cost


class _Libcrypt:
    """crypt(3), the reentrant functions of libxcrypt."""

    def __init__(self) -> None:
        for name in ("libcrypt.so.1", "libcrypt.so.2"):
            try:
                library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise HashError("cannot be hashed: this host has no libcrypt; give password_hash instead")
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None
        self._crypt = library.crypt_ra
        self._crypt.argtypes = [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(ctypes.c_int),
        ]
        self._crypt.restype = ctypes.c_char_p
        self._salt = library.crypt_gensalt_ra
        self._salt.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int]
        self._salt.restype = ctypes.c_void_p

    def crypt(self, password: str, setting: str) -> str:
        data = ctypes.c_void_p()
        size = ctypes.c_int()
        try:
            answer = self._crypt(password.encode(), setting.encode(), ctypes.byref(data), ctypes.byref(size))
            if not answer or answer.startswith(b"*"):
                raise HashError("cannot be hashed: libcrypt refuses the setting of the hash")
            return bytes(answer).decode()
        finally:
            if data.value:  # pylint: disable=using-constant-test  # libcrypt has filled it
                ctypes.memset(data.value, 0, size.value)
                self._free(data)

    def salt(self, prefix: str, cost: int) -> str:
        """A new setting; libxcrypt takes the salt from the kernel."""
        pointer = self._salt(prefix.encode(), cost, None, 0)
        if not pointer:
            raise HashError("cannot be hashed: libcrypt makes no salt for this scheme and cost")
        try:
            return ctypes.string_at(pointer).decode()
        finally:
            self._free(pointer)


@lru_cache(maxsize=1)
def _libcrypt() -> _Libcrypt:
    return _Libcrypt()


def make_hash(password: str, scheme: str = BLF_CRYPT, cost: int | None = None) -> str:
    """Hash a plain password; raises HashError. cost: bcrypt's exponent of 2, or rounds of SHA512-CRYPT."""
    check_password(password, scheme)
    rounds = check_cost(scheme, cost)
    library = _libcrypt()
    return f"{{{scheme}}}{library.crypt(password, library.salt('$2y$' if scheme == BLF_CRYPT else '$6$', rounds))}"


def verify(password: str, stored: str) -> bool:
    """Is this the password of the stored hash? False as well where the scheme cannot be verified here."""
    scheme, _sep, text = stored[1:].partition("}")
    if scheme not in DEFAULT_COST or "\0" in password:
        return False
    return hmac.compare_digest(_libcrypt().crypt(password, text), text)


def serves(password: str, stored: str, scheme: str, cost: int | None = None) -> bool:
    """Can the stored hash stay: of this scheme, at least this cost, and of this password."""
    if not stored.startswith(f"{{{scheme}}}"):
        return False
    text = stored.partition("}")[2]
    match = (_BLF if scheme == BLF_CRYPT else _SHA512).fullmatch(text)
    if not match or int(match.group(1) or 5000) < check_cost(scheme, cost):
        return False
    return verify(password, stored)


def over_cores(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """Do the work for each item in threads, as many as there are cores for us; results in order."""
    jobs = list(items)
    if len(jobs) < 2:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work, jobs))
