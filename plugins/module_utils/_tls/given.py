# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The operator's own certificate and key, looked at before a host is touched.

What stands in the inventory as text is read on the controller. Files lie on the host, where nothing may be installed
yet: there Python's own ssl has to do.
"""

from __future__ import annotations

import datetime
import os
import ssl

from . import pem

CERTIFICATE, KEY = "mailserver_tls_certificate", "mailserver_tls_private_key"


def is_text(value: str) -> bool:
    """Whether a value is the thing itself, and not the name of a file on the host."""
    return "-----BEGIN" in value


def problem_of_text(certificate: str, private_key: str, hostname: str) -> str:
    """Why a certificate in the inventory cannot serve for a host name; '' where it can, or is none."""
    if not pem.HAVE_CRYPTOGRAPHY or not is_text(certificate):
        return ""
    try:
        chain = pem.load_certificates(certificate.encode(), CERTIFICATE)
        # A key on the host is held against the certificate there.
        key = pem.load_key(private_key.encode(), KEY) if is_text(private_key) else chain[0]
        pem.validate(pem.Pair(key, chain), hostname, datetime.datetime.now(datetime.timezone.utc), CERTIFICATE, KEY)
    except pem.TlsError as exc:
        return str(exc)
    return ""


def check_files(certificate: str, private_key: str, hostname: str) -> None:
    """Raise TlsError unless the key is the certificate's and the certificate the host's; no key: the host has it."""
    for path in (certificate, private_key):
        if path and not os.path.isfile(path):
            raise pem.TlsError(f"{path}: there is no such file on the host")
    names = _names(certificate)
    if private_key:
        _belongs(certificate, private_key)
    if not {hostname.lower(), "*." + hostname.lower().partition(".")[2]} & set(names):
        raise pem.TlsError(
            f"{certificate}: is for {', '.join(names) or 'no DNS name at all'}, not for {hostname} (subjectAltName)"
        )


def _names(certificate: str) -> list[str]:
    try:
        # The one way of Python's own to read a certificate that nobody presents in a handshake
        found = ssl._ssl._test_decode_cert(certificate)  # type: ignore[attr-defined]
    except (ssl.SSLError, OSError) as exc:
        raise pem.TlsError(f"{certificate}: holds no certificate in PEM format") from exc
    return [value.lower() for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]


def _belongs(certificate: str, private_key: str) -> None:
    try:
        # With an empty passphrase OpenSSL does not ask at a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password=lambda: "")
    except ssl.SSLError as exc:
        if "MISMATCH" in (exc.reason or ""):
            raise pem.TlsError(f"{private_key} does not belong to the certificate in {certificate}") from exc
        raise pem.TlsError(f"{private_key}: the private key cannot be read ({exc.reason or exc})") from exc
