# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Private DKIM keys in the forms that rspamd reads. Needs python3-cryptography.

rspamd 3.4 and 3.12 sign with RSA keys in PEM (PKCS#8), but with Ed25519 keys in PEM they do not: those are base64 of
the seed and the public key, 64 octets, as `rspamadm dkim_keygen -t ed25519` writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import traceback
from dataclasses import dataclass, field
from typing import Any

from .record import RSA_BITS, DkimError, Wanted, text

CRYPTOGRAPHY_IMPORT_ERROR: str | None = None
try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
except ImportError:
    CRYPTOGRAPHY_IMPORT_ERROR = traceback.format_exc()


@dataclass(frozen=True)
class Key:
    """A key pair; content is the private file and stays out of every message."""

    type: str
    bits: int
    content: bytes = field(repr=False)
    #: base64 as it stands in the record
    public: str
    #: SHA-256 of the public key (SubjectPublicKeyInfo)
    fingerprint: str

    @property
    def record(self) -> str:
        return text(self.type, self.public)


def _key(private: Any, content: bytes) -> Key:
    public = private.public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = "SHA256:" + hashlib.sha256(spki).hexdigest()
    if isinstance(private, rsa.RSAPrivateKey):
        return Key("rsa", private.key_size, content, base64.b64encode(spki).decode(), fingerprint)
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Key("ed25519", 0, content, base64.b64encode(raw).decode(), fingerprint)


def generate(wanted: Wanted) -> Key:
    """Make a new key pair."""
    if wanted.type == "rsa":
        private = rsa.generate_private_key(public_exponent=65537, key_size=wanted.bits)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _key(private, pem)
    seed = ed25519.Ed25519PrivateKey.generate()
    octets = seed.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    ) + seed.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return _key(seed, base64.b64encode(octets) + b"\n")


def load(content: bytes) -> Key:
    """Read a private key file. Raises DkimError for an empty or damaged one, and for a kind that rspamd cannot use."""
    if not content.strip():
        raise DkimError("the file is empty")
    if content.lstrip().startswith(b"-----BEGIN"):
        return _load_pem(content)
    try:
        octets = base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        raise DkimError("the file holds neither PEM nor base64; it is damaged") from None
    if len(octets) not in (32, 64):
        raise DkimError(f"the file holds {len(octets)} octets; an Ed25519 key has 32 or 64. It is damaged")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(octets[:32])
    key = _key(private, content)
    if len(octets) == 64 and base64.b64encode(octets[32:]).decode() != key.public:
        raise DkimError("the public half in the file does not belong to the private one; it is damaged")
    return key


def _load_pem(content: bytes) -> Key:
    try:
        private = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What cryptography says may quote the file.
        raise DkimError("the file holds no private key in PEM that can be read; it is damaged or encrypted") from None
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raise DkimError("the file holds an Ed25519 key in PEM, which rspamd does not sign with; it reads base64")
    if not isinstance(private, rsa.RSAPrivateKey):
        raise DkimError("the file holds a key that is neither RSA nor Ed25519")
    return _key(private, content)


def check(wanted: Wanted, key: Key) -> None:
    """Raise DkimError when a key that is there is not the one that is wanted."""
    if key.type != wanted.type:
        raise DkimError(f"the file holds a key of type {key.type}, {wanted.type} is wanted; take another selector")
    if key.type == "rsa" and key.bits < max(wanted.bits, RSA_BITS[0]):
        raise DkimError(f"the key has {key.bits} bits, {wanted.bits} are wanted; take another selector for a new key")
