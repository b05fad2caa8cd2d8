# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import hashlib

import pytest

pytest.importorskip("cryptography")

from ansible_collections.postmeister.host.plugins.module_utils._tls import pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

HOST = "mail.example.test"
NOW = datetime.datetime(2030, 6, 1, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
WEAK_BITS = 1024


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, issuer=None, names=(HOST,), begin=-1, end=90):
    issuer_name, issuer_key = issuer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begin * DAY)
        .not_valid_after(NOW + end * DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), False)
    return builder.sign(issuer_key, hashes.SHA256())


def key_text(key, password=None):
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


ROOT, MIDDLE, LEAF, OTHER = pem.new_key(), rsa.generate_private_key(65537, 2048), pem.new_key(), pem.new_key()
ROOT_CERT = certificate("root", ROOT, names=())
MIDDLE_CERT = certificate("middle", MIDDLE, ("root", ROOT), names=())


def leaf(**more):
    return certificate("leaf", LEAF, ("middle", MIDDLE), **more)


def check(key, *chain):
    pem.validate(pem.Pair(key, chain), HOST, NOW, "cert.pem", "key.pem")


def test_a_whole_pair_passes():
    check(LEAF, leaf(), MIDDLE_CERT, ROOT_CERT)
    check(LEAF, leaf(names=["*.example.test"]), MIDDLE_CERT)


@pytest.mark.parametrize(
    ("key", "chain", "words"),
    [
        (OTHER, [leaf(), MIDDLE_CERT], "key.pem does not belong to the certificate in cert.pem"),
        (LEAF, [MIDDLE_CERT, leaf()], "must come first, then its issuers; it is number 2"),
        (LEAF, [leaf(), ROOT_CERT, MIDDLE_CERT], "wrong order: certificate 1"),
        (LEAF, [leaf(), certificate("middle", OTHER, ("root", ROOT))], "wrong order: certificate 1"),
        (LEAF, [leaf(names=["www.example.test"])], "is for www.example.test, not for mail.example.test"),
        (LEAF, [leaf(names=["*.test"])], "not for mail.example.test"),
        (LEAF, [leaf(names=())], "is for no DNS name at all"),
        (LEAF, [leaf(begin=-9, end=-1)], "expired on 2030-05-31"),
        (LEAF, [leaf(), certificate("middle", MIDDLE, ("root", ROOT), begin=-9, end=-1)], "CN=middle expired"),
        (LEAF, [leaf(begin=1)], "is valid only from 2030-06-02"),
    ],
)
def test_what_does_not_fit_is_refused(key, chain, words):
    with pytest.raises(pem.TlsError, match=words):
        check(key, *chain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "holds no private key"),
        (pem.dump_certificate(leaf()), "holds no private key"),
        (key_text(LEAF, b"secret"), "passphrase"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (key_text(ed25519.Ed25519PrivateKey.generate()), "other mail servers cannot use"),
        (key_text(ec.generate_private_key(ec.SECP256K1())), "other mail servers cannot use"),
        (key_text(rsa.generate_private_key(65537, WEAK_BITS)), "RSA key of 1024 bits"),
    ],
    # The keys are new in each process; parallel workers must name the cases alike.
    ids=["empty", "certificate", "passphrase", "damaged", "ed25519", "secp256k1", "short-rsa"],
)
def test_keys_that_no_mail_server_should_have(text, words):
    with pytest.raises(pem.TlsError, match=f"^the file: .*{words}"):
        pem.load_key(text, "the file")


def test_a_key_is_found_after_curve_parameters():
    text = LEAF.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert pem.spki(pem.load_key(parameters + text, "x")) == pem.spki(LEAF)


def test_bundle_reads_back_key_first():
    pair = pem.Pair(LEAF, (leaf(), MIDDLE_CERT))
    assert pair.pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert pem.spki(pem.load_key(pair.pem, "x")) == pem.spki(LEAF)
    assert [pem.fingerprint(item) for item in pem.load_certificates(pair.pem, "x")] == [
        pem.fingerprint(item) for item in pair.chain
    ]


def test_tlsa_is_the_hash_of_the_public_key():
    der = LEAF.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert pem.tlsa(LEAF) == pem.tlsa(leaf()) == "3 1 1 " + hashlib.sha256(der).hexdigest()


def test_a_self_signed_certificate_is_for_the_name_and_p256():
    pair = pem.selfsigned(LEAF, HOST, 10, NOW)
    pem.validate(pair, HOST, NOW, "x", "y")
    assert pem.self_issued(pair.leaf)
    assert pem.not_after(pair.leaf) == NOW + 10 * DAY
    assert pair.leaf.public_key().curve.name == "secp256r1"


def test_a_long_name_has_no_room_in_the_common_name():
    long = "a" * 60 + ".example.test"
    assert pem.names(pem.selfsigned(LEAF, long, 10, NOW).leaf) == [long]


def test_a_request_names_the_host():
    request = x509.load_pem_x509_csr(pem.request(LEAF, HOST))
    assert request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [HOST]
    assert pem.request_spki(pem.request(LEAF, HOST)) == pem.spki(LEAF)
