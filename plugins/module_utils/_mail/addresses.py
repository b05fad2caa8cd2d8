# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Mail addresses and mail domains: one spelling for each, and a reason in words for those that are refused.

What is decided here:

- Everything becomes lower case. RFC 5321 §2.4 would let `Alice` and `alice` differ; no host that people use does so.
- A domain in Unicode becomes its A-labels (RFC 5890), as the DNS and the lookup tables know it.
- Local parts are dot-atoms of ASCII. Quoted ones (`"a b"@…`) are legal and break half of all software.
- Local parts in UTF-8 (RFC 6531) are refused: Dovecot's LMTP server offers no SMTPUTF8, so Postfix would bounce what it
  had accepted.
- A mailbox is a login and a folder as well, so its local part is narrower still: what the role dovecot allows in a
  login (auth_username_chars), without the apostrophe, which Dovecot 2.4 escapes before it looks into a passwd-file. Any
  other dot-atom can be an alias of such a mailbox.
"""

from __future__ import annotations

import re
from functools import lru_cache

# RFC 5321 §4.5.3.1.1 and .2, and §4.5.3.1.3 less the two angle brackets: octets.
LOCAL_PART_MAX = 64
DOMAIN_MAX = 255
ADDRESS_MAX = 254

# RFC 5322 §3.2.3, without `%` and `!` (old routing, which relays still obey), `#` (a comment in lookup tables) and `/`.
_ATOM = r"[a-z0-9&'*+=?^_`{|}~$-]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_BARRED = frozenset("%!#/")
_NOT_IN_MAILBOX = re.compile(r"[^a-z0-9&+=_~.-]")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# Valid in IDNA 2008, rewritten to something else by the IDNA 2003 that Python knows.
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")


class AddressError(ValueError):
    """The address or domain is refused; the text is the reason, without the value."""


def normalize_domain(value: str) -> str:
    """Give a mail domain its one spelling: lower case, A-labels.

    Raises AddressError. RFC 1035 §2.3.4 and RFC 1123 §2.1 (letters, digits, hyphens), RFC 5321 §4.5.3.1.2 (length).
    """
    reason, name = _domain(value)
    if reason:
        raise AddressError(reason)
    return name


@lru_cache(maxsize=65536)
def _domain(value: str) -> tuple[str, str]:
    """(reason of refusal, '') or ('', the domain); cached, for a directory holds few domains and many addresses."""
    if not value:
        return "has no domain", ""
    if value.startswith("["):
        return "has an address in place of the domain; mail domains are names", ""
    if any(char.isspace() for char in value):
        return "holds white space", ""
    if value.endswith("."):
        return "ends with a dot", ""
    name = value.lower()
    if not name.isascii():
        if _DEVIATIONS.intersection(name):
            return "holds a character that IDNA 2003 and 2008 treat differently; write the xn-- form", ""
        try:
            name = name.encode("idna").decode().lower()
        except UnicodeError:
            return "is no international domain name; write the xn-- form if it should be one", ""
    if len(name) > DOMAIN_MAX:
        return f"has a domain of {len(name)} octets, {DOMAIN_MAX} are allowed (RFC 5321)", ""
    # 255 octets on the wire, with a length before each label and a zero at the end (RFC 1035 §2.3.4).
    if len(name) > DOMAIN_MAX - 2:
        return f"has a domain of {len(name)} octets, DNS can carry {DOMAIN_MAX - 2} (RFC 1035)", ""
    labels = name.split(".")
    if len(labels) == 1:
        return "has no dot in the domain; a mail domain is fully qualified", ""
    for label in labels:
        if not _LABEL.fullmatch(label):
            return _label_reason(label), ""
        if label.startswith("xn--") and not _is_punycode(label):
            return f"has a label that is no valid xn-- form: {label}", ""
    if labels[-1].isdigit():
        return "has an address in place of the domain; mail domains are names", ""
    return "", name


def _label_reason(label: str) -> str:
    if not label:
        return "has an empty label in the domain (two dots in a row, or one at the start)"
    if len(label) > 63:
        return f"has a label of {len(label)} octets in the domain, 63 are allowed (RFC 1035)"
    if label.startswith("-") or label.endswith("-"):
        return f"has a label that starts or ends with a hyphen: {label}"
    bad = next(char for char in label if not _LABEL.fullmatch(char) and char != "-")
    return f"has {bad!r} in the domain; letters, digits and hyphens are allowed"


def _is_punycode(label: str) -> bool:
    try:
        return bool(label[4:].encode().decode("punycode"))
    except UnicodeError:
        return False


def normalize_address(value: str) -> str:
    """Give any address its one spelling.

    Raises AddressError. RFC 5321 §4.1.2 (Dot-string only), §4.5.3.1 (lengths), RFC 5322 §3.2.3.
    """
    local, sep, domain = value.rpartition("@")
    if not sep:
        raise AddressError("is empty" if not value else "is no mail address: it has no @")
    local = local.lower()
    name = normalize_domain(domain)
    if len(local) > LOCAL_PART_MAX or not _LOCAL_PART.fullmatch(local):
        raise AddressError(_local_part_reason(local))
    address = f"{local}@{name}"
    if len(address) > ADDRESS_MAX:
        raise AddressError(f"has {len(address)} octets, {ADDRESS_MAX} are allowed (RFC 5321)")
    return address


def normalize_mailbox(value: str, delimiter: str = "+") -> str:
    """Give the address of a mailbox its one spelling.

    delimiter separates sub-addresses (`user+tag`), which belong to the mailbox in front of it. Raises AddressError.
    """
    address = normalize_address(value)
    local = address.partition("@")[0]
    if delimiter and delimiter in local:
        raise AddressError(
            f"holds the recipient delimiter {delimiter!r}; {local.partition(delimiter)[0]}@… gets this mail already"
        )
    bad = _NOT_IN_MAILBOX.search(local)
    if bad:
        raise AddressError(
            f"has {bad.group()!r} in its name; a mailbox is a login and a folder, and may hold"
            " letters, digits and _ - + = & ~ . only. Make it an alias of a mailbox with such a name"
        )
    return address


def normalize_alias(value: str) -> str:
    """Give the address of an alias its one spelling; `@domain` is a catch-all. Raises AddressError."""
    if value.startswith("@"):
        return f"@{normalize_domain(value[1:])}"
    return normalize_address(value)


def comparable(address: str) -> str:
    """The one spelling of the address of an alias or mailbox; what cannot be one is left to those who refuse it."""
    if address.isascii():
        return address.lower()
    try:
        return normalize_alias(address)
    except AddressError:
        return address.lower()


def without_extension(address: str, delimiter: str) -> str:
    """`user+tag@domain` → `user@domain`, as Postfix looks it up where it does not find the whole."""
    if not delimiter:
        return address
    local, sep, domain = address.rpartition("@")
    # Postfix splits at the first delimiter that is not the first character.
    cut = local.find(delimiter, 1)
    return address if cut < 0 else f"{local[:cut]}{sep}{domain}"


def _local_part_reason(local: str) -> str:
    if not local:
        return "has nothing in front of the @"
    octets = len(local.encode(errors="surrogatepass"))
    if octets > LOCAL_PART_MAX:
        return f"has {octets} octets in front of the @, {LOCAL_PART_MAX} are allowed (RFC 5321)"
    if '"' in local:
        return "has a quoted local part; only plain ones are supported"
    if any(char.isspace() for char in local):
        return "holds white space"
    if "@" in local:
        return "has more than one @"
    if not local.isascii():
        return "has characters outside ASCII in front of the @; Dovecot's LMTP cannot take mail for it (no SMTPUTF8)"
    if local.startswith(".") or local.endswith(".") or ".." in local:
        return "has a dot at the start or end of the local part, or two in a row (RFC 5321)"
    bad = next(char for char in local if char != "." and not re.fullmatch(_ATOM, char))
    if bad in _BARRED:
        return f"has {bad!r} in front of the @: routing, paths and lookup tables give it another meaning"
    return f"has {bad!r} in front of the @, which RFC 5322 does not allow there"
