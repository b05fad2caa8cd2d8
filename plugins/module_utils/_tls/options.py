# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Options of module mail_certificate: checked before anything is touched, and brought into one shape."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from .manage import FOLDER, Settings
from .pem import TlsError

LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
ALGORITHMS = ["hmac-sha256", "hmac-sha384", "hmac-sha512"]
DNS = {
    "server": {"type": "str", "required": True},
    "port": {"type": "int", "default": 53},
    "key_name": {"type": "str", "required": True, "no_log": False},
    "key_secret": {"type": "str", "required": True, "no_log": True},
    "key_algorithm": {"type": "str", "choices": ALGORITHMS, "default": ALGORITHMS[0], "no_log": False},
    "wait": {"type": "int", "default": 120},
}
ACME = {
    "directory": {"type": "str", "required": True},
    "ca_file": {"type": "path"},
    "contact": {"type": "str"},
    "challenge": {"type": "str", "choices": ["http-01", "dns-01"], "default": "http-01"},
    "webroot": {"type": "path"},
    "eab_kid": {"type": "str"},
    "eab_hmac_key": {"type": "str", "no_log": True},
    "settings": {"type": "dict"},
    "dns": {"type": "dict", "options": DNS},
}
SPEC = {
    "hostname": {"type": "str", "required": True},
    "method": {"type": "str", "choices": ["acme", "files", "selfsigned"], "required": True},
    "path": {"type": "path", "default": FOLDER},
    "certificate": {"type": "path"},
    "certificate_content": {"type": "str"},
    "private_key": {"type": "path", "no_log": False},
    "private_key_content": {"type": "str", "no_log": True},
    "validity": {"type": "int", "default": 365},
    "renew_before": {"type": "int", "default": 0},
    "next_key_age": {"type": "int", "default": 86400, "no_log": False},
    "renewal_time": {"type": "str"},
    "reload": {"type": "list", "elements": "str", "default": []},
    "acme": {"type": "dict", "options": ACME},
}


def settings(params: Mapping[str, Any]) -> Settings:
    """Make settings of a module's parameters; raises TlsError that names the option, the value and the reason."""
    hostname = params["hostname"].lower()
    if len(hostname) > 253 or "." not in hostname or not all(LABEL.fullmatch(item) for item in hostname.split(".")):
        raise TlsError(f"hostname: {params['hostname']!r} is not a fully qualified host name")
    for name, least in (("validity", 1), ("renew_before", 0), ("next_key_age", 0)):
        if params[name] < least:
            raise TlsError(f"{name}: {params[name]} is less than {least}")
    for name in params["reload"]:
        if not UNIT.fullmatch(name) or name.startswith("-"):
            raise TlsError(f"reload: {name!r} is not the name of a service")
    method = params["method"]
    if method == "selfsigned" and params["renew_before"] >= params["validity"]:
        raise TlsError(f"renew_before: {params['renew_before']} days is as long as the validity ({params['validity']})")
    return Settings(
        hostname=hostname,
        method=method,
        # What belongs to another method is not kept: no secret lies where it has no use.
        certificate=(method == "files" and params["certificate"]) or "",
        private_key=(method == "files" and params["private_key"]) or "",
        certificate_content=(method == "files" and params["certificate_content"]) or "",
        private_key_content=(method == "files" and params["private_key_content"]) or "",
        validity=params["validity"],
        renew_before=params["renew_before"],
        next_key_age=params["next_key_age"],
        reload=tuple(params["reload"]),
        acme=_acme(params["acme"]) if method == "acme" else {},
    )


def _acme(acme: Mapping[str, Any]) -> dict[str, Any]:
    directory = acme["directory"]
    if not re.fullmatch(r"https://[^\s\"'\\]+", directory):
        raise TlsError(f"acme.directory: {directory!r} is not an https URL")
    if re.search(r"\s", acme["ca_file"] or ""):
        # dehydrated splits the options of curl at spaces
        raise TlsError(f"acme.ca_file: {acme['ca_file']!r} holds a space, which dehydrated cannot pass on")
    contact = acme["contact"] or ""
    if contact and not re.fullmatch(r"[^\s@\"\\,]+@[^\s@\"\\,]+", contact):
        raise TlsError(f"acme.contact: {contact!r} is not a mail address")
    for name in acme["settings"] or {}:
        if not VARIABLE.fullmatch(str(name)):
            raise TlsError(f"acme.settings: {name!r} is not a name of a setting of dehydrated")
    result = {name: value for name, value in acme.items() if value not in (None, "", {}) and name != "dns"}
    if acme["challenge"] == "dns-01":
        dns = acme["dns"]
        if not dns:
            raise TlsError("acme.dns: is needed for the challenge dns-01")
        try:
            base64.b64decode(dns["key_secret"], validate=True)
        except (binascii.Error, ValueError) as exc:
            raise TlsError("acme.dns.key_secret: is not base64") from exc
        result["dns"] = dict(dns)
        result.pop("webroot", None)
    return result
