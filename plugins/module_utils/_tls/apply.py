# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run over keys, certificate and timer: what mail_certificate does, and mail_host_facts asks about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._service import certificate
from . import given, hook, manage, options, pem

#: of AnsibleModule and ArgumentSpecValidator, beside options.SPEC
RULES: dict[str, Any] = {
    "required_if": [("method", "acme", ["acme"]), ("method", "files", ["certificate", "certificate_content"], True)],
    "mutually_exclusive": [("certificate", "certificate_content"), ("private_key", "private_key_content")],
}


def missing_library() -> str:
    """The first library that is not there; '' where all are."""
    found = (("cryptography", pem.HAVE_CRYPTOGRAPHY), ("dnspython", hook.HAVE_DNSPYTHON))
    return next((library for library, there in found if not there), "")


def run(params: Mapping[str, Any], check_mode: bool) -> tuple[dict[str, Any], manage.Outcome]:
    """The module's result, and what it was made of. Raises TlsError and _transaction.ERRORS."""
    settings, installed = options.settings(params), None
    # What cannot be a time is refused before a certificate is ordered.
    if params["renewal_time"] is not None:
        installed = certificate.install(params["renewal_time"], params["path"], check_mode)
    outcome = _work(settings, params["path"], check_mode)
    result = {name: getattr(outcome, name) for name in ("changed", "tlsa", "not_after", "notes")}
    result["path"] = os.path.join(params["path"], settings.hostname, "mail.pem")
    result["diff"] = [{"before": outcome.before, "after": outcome.after}]
    if installed:
        result["files"] = installed.result()["files"]
        result["changed"] = result["changed"] or installed.changed
        result["diff"] += installed.diff()
    return result, outcome


def _work(settings: manage.Settings, folder: str, check_mode: bool) -> manage.Outcome:
    """Bring keys and certificate to what is wanted."""
    if not check_mode:
        with manage.locked():
            return manage.manage(settings, check=False, folder=folder)
    if not missing_library():
        return manage.manage(settings, check=True, folder=folder)
    # The role installs it before, except in check mode.
    if settings.certificate:
        given.check_files(settings.certificate, settings.private_key, settings.hostname)
    return manage.Outcome(changed=True, notes=["there is no certificate yet"])
