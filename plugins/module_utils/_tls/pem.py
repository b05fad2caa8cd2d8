# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Keys and certificates: made, read, and held against each other. Works with cryptography 38 (Debian 12) and newer."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAVE_CRYPTOGRAPHY = True
except ImportError:
    HAVE_CRYPTOGRAPHY = False

BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.S)
#: curves that mail servers everywhere know
CURVES = ("secp256r1", "secp384r1", "secp521r1")
RSA_BITS = 2048


class TlsError(Exception):
    """A key or certificate cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, followed by the issuers' certificates."""

    key: Any
    chain: tuple[Any, ...]

    @property
    def leaf(self) -> Any:
        return self.chain[0]

    @property
    def pem(self) -> bytes:
        """Key, certificate, chain: one file, so that a reader never gets a key and a certificate of two pairs."""
        return dump_key(self.key) + b"".join(dump_certificate(item) for item in self.chain)


def new_key() -> Any:
    """Make an ECDSA key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def dump_key(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def dump_certificate(certificate: Any) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_key(data: bytes, what: str) -> Any:
    """Read the first private key of a PEM text; raises TlsError, naming what, when there is none or it is too weak."""
    for match in BLOCK.finditer(data):
        label = match.group(1)
        if not label.endswith(b"PRIVATE KEY"):
            continue
        if label.startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in match.group(0):
            raise TlsError(f"{what}: the private key is protected by a passphrase, and no daemon could ask for it")
        try:
            key = serialization.load_pem_private_key(match.group(0), None)
        except (ValueError, TypeError) as exc:
            raise TlsError(f"{what}: the private key cannot be read") from exc
        if isinstance(key, rsa.RSAPrivateKey):
            if key.key_size < RSA_BITS:
                raise TlsError(f"{what}: an RSA key of {key.key_size} bits is too weak; {RSA_BITS} is the least")
        elif not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
            raise TlsError(f"{what}: other mail servers cannot use this kind of key; take ECDSA (P-256) or RSA")
        return key
    raise TlsError(f"{what}: holds no private key in PEM format")


def load_certificates(data: bytes, what: str) -> tuple[Any, ...]:
    """Read all certificates of a PEM text, in order; raises TlsError, naming what."""
    found = []
    for match in BLOCK.finditer(data):
        if match.group(1) in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            try:
                found.append(x509.load_pem_x509_certificate(match.group(0)))
            except ValueError as exc:
                raise TlsError(f"{what}: certificate {len(found) + 1} cannot be read") from exc
    if not found:
        raise TlsError(f"{what}: holds no certificate in PEM format")
    return tuple(found)


def spki(item: Any) -> str:
    """SHA-256 of the public key of a key or certificate, in hex: what TLSA 3 1 1 holds (RFC 6698 §2.1)."""
    der = item.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def tlsa(item: Any) -> str:
    return f"3 1 1 {spki(item)}"


def fingerprint(certificate: Any) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def not_before(certificate: Any) -> datetime.datetime:
    return _moment(certificate, "not_valid_before")


def not_after(certificate: Any) -> datetime.datetime:
    return _moment(certificate, "not_valid_after")


def _moment(certificate: Any, name: str) -> datetime.datetime:
    # cryptography 42 added the variants with a time zone, and warns of the others
    if hasattr(certificate, f"{name}_utc"):
        return getattr(certificate, f"{name}_utc")
    return getattr(certificate, name).replace(tzinfo=datetime.timezone.utc)


def names(certificate: Any) -> list[str]:
    """DNS names of the certificate; the common name does not count (RFC 9525 §2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name).lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def covers(certificate: Any, hostname: str) -> bool:
    """Whether the certificate is for this host name; a wildcard stands for one label (RFC 9525 §6.3)."""
    hostname = hostname.lower()
    return any(name in (hostname, "*." + hostname.partition(".")[2]) for name in names(certificate))


def self_issued(certificate: Any) -> bool:
    return certificate.subject == certificate.issuer


def subject(certificate: Any) -> str:
    return certificate.subject.rfc4514_string() or ", ".join(names(certificate)) or "(no name)"


def validate(pair: Pair, hostname: str, now: datetime.datetime, what: str, key_what: str) -> None:
    """Raise TlsError unless the key is the certificate's, the name and time are right, and the chain is in order."""
    leaf = pair.leaf
    if spki(pair.key) != spki(leaf):
        for place, item in enumerate(pair.chain[1:], start=2):
            if spki(pair.key) == spki(item):
                raise TlsError(
                    f"{what}: the host's own certificate must come first, then its issuers; it is number {place}"
                )
        raise TlsError(f"{key_what} does not belong to the certificate in {what} (subject {subject(leaf)})")
    if not covers(leaf, hostname):
        raise TlsError(
            f"{what}: is for {', '.join(names(leaf)) or 'no DNS name at all'}, not for {hostname} (subjectAltName)"
        )
    if now < not_before(leaf):
        raise TlsError(f"{what}: is valid only from {not_before(leaf):%Y-%m-%d %H:%M} UTC on; is the clock right?")
    for item in pair.chain:
        if now >= not_after(item):
            raise TlsError(f"{what}: the certificate of {subject(item)} expired on {not_after(item):%Y-%m-%d}")
    for place, (item, issuer) in enumerate(zip(pair.chain, pair.chain[1:]), start=1):
        if item.issuer != issuer.subject or not issued_by(item, issuer):
            raise TlsError(
                f"{what}: wrong order: certificate {place} ({subject(item)}) was issued by "
                f"{item.issuer.rfc4514_string()}, and certificate {place + 1} is that of {subject(issuer)}"
            )


def issued_by(certificate: Any, issuer: Any) -> bool:
    """Whether the issuer's key signed the certificate (Certificate.verify_directly_issued_by came in version 40)."""
    key = issuer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(
                certificate.signature,
                certificate.tbs_certificate_bytes,
                padding.PKCS1v15(),
                certificate.signature_hash_algorithm,
            )
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(
                certificate.signature,
                certificate.tbs_certificate_bytes,
                ec.ECDSA(certificate.signature_hash_algorithm),
            )
        # What else signs (RSA-PSS, EdDSA) is left to the clients; names were compared before.
    except InvalidSignature:
        return False
    return True


def selfsigned(key: Any, hostname: str, days: int, now: datetime.datetime) -> Pair:
    """Make a certificate that only says what it is; it begins an hour ago, for clocks that differ."""
    # The common name has room for 64 characters (RFC 5280 A.1).
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)] if len(hostname) <= 64 else [])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=not list(name))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(key, (certificate,))


def request(key: Any, hostname: str) -> bytes:
    """Make a certificate signing request (PKCS #10, PEM)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request_spki(data: bytes) -> str:
    """The key of a signing request, as spki(); raises ValueError."""
    return spki(x509.load_pem_x509_csr(data))


def match(key_candidates: Sequence[Any], certificate: Any) -> Any:
    """Find the key that belongs to a certificate; None when there is none."""
    return next((key for key in key_candidates if key is not None and spki(key) == spki(certificate)), None)
