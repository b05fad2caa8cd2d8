# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS of every port, scanned by sslyze and held against internet.nl's mail test: all met, no phase-out notice."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from clients import Box, new_subject, until
from conftest import CACHE
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from nassl.ephemeral_key_info import DhEphemeralKeyInfo, OpenSslEvpPkeyEnum
from nassl.ssl_client import ExtendedMasterSecretSupportEnum, OpenSslDigestNidEnum, SslClient
from sslyze import (
    CertificateInfoExtraArgument,
    ProtocolWithOpportunisticTlsEnum,
    ScanCommand,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    TlsVersionEnum,
)
from sslyze.errors import TlsHandshakeFailed
from sslyze.plugins.robot.implementation import RobotScanResultEnum
from sslyze.server_connectivity import ServerConnectivityInfo

ROOT_OF_THE_LAB = CACHE / "lab" / "acme-root.pem"
SMTP = ProtocolWithOpportunisticTlsEnum.SMTP
GOOD_CURVES = {"X25519", "X448", "secp256r1", "prime256v1", "secp384r1", "secp521r1"}
GOOD_CURVES |= {f"brainpoolP{bits}r1" for bits in (256, 384, 512)}


@dataclass(frozen=True)
class Seen:
    """What the scanner saw of one port."""

    name: str
    info: ServerConnectivityInfo
    result: Any  # sslyze's AllScanCommandsAttempts

    def of(self, command: str) -> Any:
        attempt = getattr(self.result, command)
        assert attempt.result is not None, f"{command}: {attempt.error_reason} {attempt.error_trace}"
        return attempt.result

    def versions(self) -> dict[str, Any]:
        names = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
        found = {name: self.of(f"{name}_cipher_suites").accepted_cipher_suites for name in names}
        return {name: suites for name, suites in found.items() if suites}

    def suites(self) -> list[str]:
        return [suite.cipher_suite.openssl_name for suites in self.versions().values() for suite in suites]

    def chain(self) -> list[x509.Certificate]:
        deployments = self.of("certificate_info").certificate_deployments
        return [certificate for deployment in deployments for certificate in deployment.received_certificate_chain]

    @contextmanager
    def connected(
        self, version: TlsVersionEnum, suites: str = "", digest: OpenSslDigestNidEnum | None = None
    ) -> Iterator[SslClient]:
        """A handshake of our own, with these suites (in this order of preference) and this digest only."""
        connection = self.info.get_preconfigured_tls_connection(version, should_use_legacy_openssl=False)
        client = connection.ssl_client
        assert isinstance(client, SslClient)
        client.set_cipher_list(f"{suites or 'ALL'}:@SECLEVEL=0")
        if digest is not None:
            client.set_signature_algorithms(
                [(digest, kind) for kind in (OpenSslEvpPkeyEnum.EC, OpenSslEvpPkeyEnum.RSA)]
            )
        try:
            connection.connect()
            yield client
        finally:
            connection.close()

    def agreed(self, suites: str = "", digest: OpenSslDigestNidEnum | None = None) -> str | None:
        """The suite of TLS 1.2 that the server takes of those, if it takes any."""
        try:
            with self.connected(TlsVersionEnum.TLS_1_2, suites, digest) as client:
                return str(client.get_current_cipher_name())
        except TlsHandshakeFailed:
            return None


# --- the table: each mandatory item of the mail test, and what stands against it ----------------------------------


def grade(suite: str) -> str:
    """A suite's class (openssl's names): good and sufficient ones are allowed here, phase-out is a notice there."""
    if suite in ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        return "good"
    if suite.startswith("TLS_") and "CCM_8" not in suite:
        return "sufficient"
    aead = r"AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305"
    if re.fullmatch(rf"ECDHE-(ECDSA|RSA)-({aead})|ECDHE-ECDSA-AES(128|256)-CCM", suite):
        return "sufficient"
    if re.fullmatch(r"(EC)?DHE-\w+-.*(SHA256|SHA384|POLY1305|CCM)", suite):
        return "phase-out"
    return "fail"


def flag(wrong: bool) -> list[str]:
    return ["yes"] if wrong else []


def phase_out(seen: Seen) -> list[str]:
    return [suite for suite in seen.suites() if grade(suite) == "phase-out"]


def not_newer_than_1_2(seen: Seen) -> list[str]:
    return sorted({"tls_1_2", "tls_1_3"} ^ set(seen.versions()))


def weak_suites(seen: Seen) -> list[str]:
    return [f"{suite}: {grade(suite)}" for suite in seen.suites() if grade(suite) not in ("good", "sufficient")]


def preferred_phase_out(seen: Seen) -> list[str]:
    """A client that asks for phase-out suites first gets one of them; where none is accepted, none is preferred."""
    old = phase_out(seen)
    better = [suite for suite in seen.suites() if grade(suite) == "sufficient" and not suite.startswith("TLS_")]
    chosen = seen.agreed(":".join(old + better)) if old and better else None
    return [chosen] if chosen in old else []


def key_exchange(seen: Seen) -> list[str]:
    curves = [curve.name for curve in seen.of("elliptic_curves").supported_curves or ()]
    accepted = [suite for suites in seen.versions().values() for suite in suites]
    return [curve for curve in curves if curve not in GOOD_CURVES] + [
        f"{suite.cipher_suite.openssl_name}: finite-field group of {suite.ephemeral_key.size} bits"
        for suite in accepted
        if isinstance(suite.ephemeral_key, DhEphemeralKeyInfo)
    ]


def weak_digests(seen: Seen) -> list[str]:
    """Digests older than SHA-256 under the key exchange, where the client knows no other."""
    digests = (OpenSslDigestNidEnum.SHA1, OpenSslDigestNidEnum.SHA224)
    assert seen.agreed(digest=OpenSslDigestNidEnum.SHA256), "no handshake with SHA-256"
    return [digest.name for digest in digests if seen.agreed(digest=digest)]


def early_data(seen: Seen) -> list[str]:
    """What a ticket of TLS 1.3 allows (RFC 8446 §4.6.1); sslyze's own look takes silence for a no."""
    with seen.connected(TlsVersionEnum.TLS_1_3) as client:
        client.write(b"NOOP\r\n")
        assert client.read(1024), "the server says nothing, so no ticket was read"
        text = client.get_session().as_text()
    allowed = re.search(r"Max Early Data: (\d+)", text)
    assert allowed, text
    return [] if allowed[1] == "0" else [f"{allowed[1]} bytes"]


def no_extended_master_secret(seen: Seen) -> list[str]:
    """Over TLS 1.2: sslyze does not look where TLS 1.3 is spoken as well."""
    with seen.connected(TlsVersionEnum.TLS_1_2) as client:
        support = client.get_extended_master_secret_support()
    return flag(support != ExtendedMasterSecretSupportEnum.USED_IN_CURRENT_SESSION)


def weak_keys(seen: Seen) -> list[str]:
    found = []
    for place, certificate in enumerate(seen.chain()):
        key = certificate.public_key()
        # Ours is to be good; those above it are the authority's (Pebble's have 2048 bits), and must not fail.
        least = 3072 if place == 0 else 2048
        strong = isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))
        strong |= isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256
        strong |= isinstance(key, rsa.RSAPublicKey) and key.key_size >= least
        found += [] if strong else [f"{place}: {type(key).__name__} {getattr(key, 'key_size', '')}"]
    return found


def weak_signatures(seen: Seen) -> list[str]:
    names = [getattr(certificate.signature_hash_algorithm, "name", "none") for certificate in seen.chain()]
    return [name for name in names if name not in ("sha256", "sha384", "sha512", "none")]


def other_names(seen: Seen) -> list[str]:
    names = seen.chain()[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.DNSName)
    return [] if found == [seen.name] else found


def untrusted(seen: Seen) -> list[str]:
    deployments = seen.of("certificate_info").certificate_deployments
    paths = [path for deployment in deployments for path in deployment.path_validation_results]
    lab = [path for path in paths if path.trust_store.path == ROOT_OF_THE_LAB]
    assert lab, "the chain was not held against the lab's root"
    return [str(path.validation_error) for path in lab if not path.was_validation_successful]


def known_holes(seen: Seen) -> list[str]:
    safe = (RobotScanResultEnum.NOT_VULNERABLE_NO_ORACLE, RobotScanResultEnum.NOT_VULNERABLE_RSA_NOT_SUPPORTED)
    holes = {
        "heartbleed": seen.of("heartbleed").is_vulnerable_to_heartbleed,
        "ccs injection": seen.of("openssl_ccs_injection").is_vulnerable_to_ccs_injection,
        "robot": seen.of("robot").robot_result not in safe,
    }
    return [name for name, open_ in holes.items() if open_]


ITEMS: dict[str, Callable[[Seen], list[str]]] = {
    "tls_version": not_newer_than_1_2,
    "tls_ciphers": weak_suites,
    "tls_cipher_order": preferred_phase_out,
    "fs_params": key_exchange,
    "tls_compression": lambda seen: flag(seen.of("tls_compression").supports_compression),
    "renegotiation_secure": lambda seen: flag(not seen.of("session_renegotiation").supports_secure_renegotiation),
    "renegotiation_client": lambda seen: flag(seen.of("session_renegotiation").client_renegotiations_success_count > 0),
    "zero_rtt": early_data,
    "extended_master_secret": no_extended_master_secret,
    "kex_hash_func": weak_digests,
    "cert_pubkey": weak_keys,
    "cert_signature": weak_signatures,
    "cert_hostmatch": other_names,
    "cert_trust": untrusted,
    "known_holes": known_holes,
}


def problems(seen: Seen) -> dict[str, list[str]]:
    """The items that are not met, and why."""
    return {item: found for item, look in ITEMS.items() if (found := look(seen))}


# --- looking ------------------------------------------------------------------------------------------------------


@cache
def scan(name: str, address: str, port: int, starttls: ProtocolWithOpportunisticTlsEnum | None = None) -> Seen:
    location = ServerNetworkLocation(hostname=name, port=port, ip_address=address)
    network = ServerNetworkConfiguration(
        tls_server_name_indication=name, tls_opportunistic_encryption=starttls, network_timeout=30
    )
    others = {ScanCommand.HTTP_HEADERS, ScanCommand.SESSION_RESUMPTION}
    others |= {ScanCommand.TLS_1_3_EARLY_DATA, ScanCommand.TLS_EXTENDED_MASTER_SECRET, ScanCommand.TLS_FALLBACK_SCSV}
    commands = set(ScanCommand) - others
    extra = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(custom_ca_file=ROOT_OF_THE_LAB))
    # One by one: a server of openssl's serves one at a time.
    scanner = Scanner(per_server_concurrent_connections_limit=1)
    scanner.queue_scans([ServerScanRequest(location, network, commands, extra)])
    (found,) = scanner.get_results()
    trace = found.connectivity_error_trace
    assert found.connectivity_result and found.scan_result, f"no TLS at {address}:{port}: {trace}"
    return Seen(name, ServerConnectivityInfo(location, network, found.connectivity_result), found.scan_result)


@contextmanager
def sieve_starttls(address: str) -> Iterator[int]:
    """A port on loopback behind which ManageSieve's STARTTLS (RFC 5804 §2.2) is done: sslyze does not know it."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # a scanner hangs up when it has seen enough

    def line(server: socket.socket) -> bytes:
        text = b""
        while not text.endswith(b"\r\n"):
            text += server.recv(1) or b"\r\n"
        return text

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((address, 4190), 60) as server:
            for command in (b"", b"STARTTLS\r\n"):
                server.sendall(command)
                while not line(server).startswith((b"OK", b"NO", b"BYE", b"\r\n")):
                    pass
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join(30)

    def listen() -> None:
        while True:
            try:
                client, _peer = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("port", "family", "starttls"),
    [(25, "ipv6", SMTP), (465, "ipv4", None), (587, "ipv4", SMTP), (993, "ipv6", None), (995, "ipv4", None)],
)
def test_every_item_is_met(mx: Box, port: int, family: str, starttls: ProtocolWithOpportunisticTlsEnum | None) -> None:
    """Each port over one family: a daemon's settings are the same on both."""
    assert problems(scan(mx.fqdn, getattr(mx, family), port, starttls)) == {}


def test_every_item_is_met_by_managesieve(mx: Box) -> None:
    if mx.name != "mx12":  # only there the inventory asks for it
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((mx.ipv4, 4190), 60)
        return
    with sieve_starttls(mx.ipv4) as port:
        assert problems(scan(mx.fqdn, "127.0.0.1", port)) == {}


def test_the_scanner_notices(boxes: dict[str, Box]) -> None:
    """A server that does everything wrong what today's OpenSSL still can: every item fails but those that it cannot."""
    client = boxes["client"]
    # systemd may keep the name of an earlier one for a while.
    unit = f"weak-tls-{new_subject()}"
    client.sh(
        "cd /tmp && openssl req -x509 -newkey rsa:1024 -sha1 -nodes -days 2 -subj /CN=x"
        " -addext subjectAltName=DNS:other.test -keyout weak.key -out weak.pem 2>/dev/null;"
        # It says what it reads: the scanner waits for words from the other side.
        f" systemd-run --quiet --collect --unit={unit}"
        " sh -c 'while sleep 0.2; do echo hello; done | exec openssl s_server"
        " -accept 4433 -cert /tmp/weak.pem -key /tmp/weak.key -cipher ALL:@SECLEVEL=0 -groups P-224:P-256"
        " -no_ems -client_renegotiation -early_data -quiet'"
    )
    try:
        until(lambda: ":4433 " in client.run("ss", "-Hltn"), 60, "the weak server")
        seen = scan("mx.example.test", client.ipv4, 4433)
        assert set(problems(seen)) == set(ITEMS) - {"tls_compression", "renegotiation_secure", "known_holes"}
    finally:
        client.sh(f"systemctl stop {unit}; rm -f /tmp/weak.*", check=False)

    class Old:
        supports_compression = is_vulnerable_to_heartbleed = is_vulnerable_to_ccs_injection = True
        supports_secure_renegotiation = False
        robot_result = RobotScanResultEnum.VULNERABLE_STRONG_ORACLE

    class Blind(Seen):
        def of(self, command: str) -> Any:
            return Old

    old = Blind(seen.name, seen.info, seen.result)
    assert all(ITEMS[item](old) for item in ("tls_compression", "renegotiation_secure", "known_holes"))
