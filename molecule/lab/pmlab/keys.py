# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys and certificates of the lab, made once and kept in the state folder; none is in the repository."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .settings import STATE, ipv4, ipv6

LIFETIME = datetime.timedelta(days=3650)
SELECTOR = "r1"


def write(path: Path, data: str | bytes, mode: int = 0o600) -> None:
    """Write a file of the state folder; never visible half-written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    aside.rename(path)


def tsig(name: str) -> str:
    """Secret of a TSIG key (hmac-sha256), base64; beside it a file for nsupdate -y and knsupdate -k."""
    path = STATE / "tsig" / f"{name}.secret"
    if not path.exists():
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        write(path.with_suffix(".key"), f"hmac-sha256:{name}:{secret}\n")
        write(path, f"{secret}\n")
    return path.read_text().strip()


def certificate(name: str, number: int) -> tuple[str, str]:
    """(private key, certificate), PEM, of a host; signed by the lab's CA."""
    ca_key, ca_cert = _authority()
    key_path, cert_path = STATE / "tls" / f"{name}.key", STATE / "tls" / f"{name}.pem"
    if not (key_path.exists() and cert_path.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in (ipv4(number), ipv6(number))]
        builder = (
            _builder(name, ca_cert.subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        write(cert_path, builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        write(key_path, _pem(key))
    return key_path.read_text(), cert_path.read_text()


def tlsa(name: str, number: int) -> str:
    """TLSA 3 1 1 value of a host's certificate (RFC 6698: DANE-EE, public key, SHA-256)."""
    cert = x509.load_pem_x509_certificate(certificate(name, number)[1].encode())
    spki = cert.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(spki).hexdigest()}"


def authority() -> str:
    """Certificate of the lab's CA, PEM; also ca.pem in the state folder."""
    return _authority()[1].public_bytes(serialization.Encoding.PEM).decode()


def dkim() -> tuple[str, str]:
    """(private key as PEM, TXT record's text) of the other provider."""
    path = STATE / "dkim" / f"{SELECTOR}.key"
    if not path.exists():
        write(path, _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return path.read_text(), f"v=DKIM1; h=sha256; k=rsa; p={base64.b64encode(public).decode()}"


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_path, cert_path = STATE / "tls" / "ca.key", STATE / "ca.pem"
    if not (key_path.exists() and cert_path.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Postmeister lab CA")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            _builder("Postmeister lab CA", name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        write(cert_path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)
        write(key_path, _pem(key))
    loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded, x509.load_pem_x509_certificate(cert_path.read_bytes())


def _builder(subject: str, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
