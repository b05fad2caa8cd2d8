# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""How lists of domains, mailboxes and aliases travel from the controller to the host."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .addresses import comparable


class PayloadError(Exception):
    """What came from the controller cannot be read; the text says why."""


KINDS = ("domains", "mailboxes", "aliases")
#: aliases for addresses that nobody else has
FALLBACK = "fallback_aliases"


def pack(lists: Mapping[str, Any], text: str | None = None, name: str = "", digest: str = "") -> str:
    """One text for all of it: a secret in one option costs Ansible nothing, one in each of 10,000 entries 12 s."""
    data = {"lists": dict(lists), "text": text, "name": name, "digest": digest}
    return base64.b64encode(zlib.compress(json.dumps(data, default=str).encode(), 1)).decode()


def read_lists(content: bytes, source: str) -> dict[str, Any]:
    """The lists of a JSON source: a dictionary of domains, mailboxes and aliases, or a list of mailboxes.

    Raises PayloadError; the text never quotes the content.
    """
    try:
        data = json.loads(content)
    except ValueError as exc:
        where = f" (line {exc.lineno}, column {exc.colno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise PayloadError(f"{source}: is no JSON, or was cut off{where}") from None
    if isinstance(data, list):
        data = {"mailboxes": data}
    if not isinstance(data, dict):
        raise PayloadError(f"{source}: holds neither a list of mailboxes nor a dictionary of {', '.join(KINDS)}")
    unknown = sorted(set(data) - set(KINDS))
    if unknown:
        raise PayloadError(f"{source}: unknown keys {', '.join(map(str, unknown[:5]))}; known are {', '.join(KINDS)}")
    for kind, value in data.items():
        if value is not None and not isinstance(value, list):
            raise PayloadError(f"{source}: {kind} is no list")
    return data


@dataclass(frozen=True)
class Lists:
    """What was asked for. A kind that is None was not spoken of. place names an item in messages, by kind and index."""

    domains: Sequence[Any] | None = None
    mailboxes: Sequence[Any] | None = None
    aliases: Sequence[Any] | None = None
    place: Callable[[str, int], str] = lambda kind, index: f"{kind}[{index}]"


def join(inline: Mapping[str, Any], source: Mapping[str, Any], name: str) -> Lists:
    """Put the lists of the task and those of its source together."""
    lists: dict[str, Any] = {}
    first: dict[str, int] = {}
    for kind in KINDS:
        here, there = inline.get(kind), source.get(kind)
        lists[kind] = None if here is None and there is None else [*(here or ()), *(there or ())]
        first[kind] = len(here or ())
    named = len(lists["aliases"] or ())
    if inline.get(FALLBACK):
        had = {_address(entry) for kind in ("mailboxes", "aliases") for entry in lists[kind] or ()}
        free = [entry for entry in inline[FALLBACK] if _address(entry) not in had]
        lists["aliases"] = [*(lists["aliases"] or ()), *free]

    def place(kind: str, index: int) -> str:
        if kind == "aliases" and index >= named:
            return f"{FALLBACK} ({lists[kind][index].get('address')})"
        return f"{kind}[{index}]" if index < first[kind] else f"{kind}[{index - first[kind]}] in {name}"

    return Lists(**lists, place=place)


def _address(entry: Any) -> str:
    return comparable(str(entry.get("address"))) if isinstance(entry, Mapping) else ""


class SourceNeeded(Exception):
    """The source is not here and has to come; that it is the same as last time did not settle it."""


class Parcel:
    """What the action plugin sent: the task's own lists, and the source, or only its digest.

    A large source is first asked for by its digest: where nothing changed, it need not travel.
    """

    def __init__(self, payload: str | None, src: str | None) -> None:
        """src is the file that came with it. Raises PayloadError."""
        if not payload:
            raise PayloadError("mail_directory runs through its action plugin, which Ansible did not find")
        try:
            data = json.loads(zlib.decompress(base64.b64decode(payload, validate=True)))
            self._inline: dict[str, Any] = data["lists"]
            self._text: str | None = data["text"]
            self._name: str = data["name"]
            self._digest: str = data["digest"]
        except (ValueError, KeyError, TypeError, binascii.Error, zlib.error) as exc:
            raise PayloadError(f"payload is made by the action plugin, not by hand ({type(exc).__name__})") from None
        self._src = src

    def fingerprint(self, options: Mapping[str, Any]) -> str:
        """Tells one request from another. Holds plain passwords as far as the lists do: not to be kept then."""
        whole = json.dumps([self._inline, self._digest, dict(options)], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    def lists(self) -> Lists:
        """All entries; the file is removed once it is read. Raises PayloadError, SourceNeeded."""
        content: bytes | None = None if self._text is None else self._text.encode()
        if self._src is not None:
            try:
                with open(self._src, "rb") as handle:
                    content = handle.read()
                os.unlink(self._src)
            except OSError as exc:
                raise PayloadError(f"{self._name}: {exc.strerror}") from exc
        if content is None:
            if self._digest:
                raise SourceNeeded
            return join(self._inline, {}, "")
        return join(self._inline, read_lists(content, self._name), self._name)


def from_csv(rows: Iterable[str], source: str) -> dict[str, Any]:
    """The lists of a CSV source with a header line.

    Columns are the keys of a mailbox; a row with something in the column `destinations` (separated by white space) is
    an alias. An empty field counts as not given. Raises PayloadError; the text never quotes a field.
    """
    reader = csv.DictReader(rows, strict=True)
    lists: dict[str, Any] = {"mailboxes": [], "aliases": []}
    try:
        if not reader.fieldnames or "address" not in reader.fieldnames:
            raise PayloadError(f"{source}: has no header line with the column address")
        for row in reader:
            if None in row or None in row.values():
                raise PayloadError(f"{source}: line {reader.line_num} has not as many fields as the header (cut off?)")
            entry: dict[str, Any] = {key: value for key, value in row.items() if value != ""}
            if "destinations" in entry:
                entry["destinations"] = entry["destinations"].split()
                lists["aliases"].append(entry)
            else:
                lists["mailboxes"].append(entry)
    except csv.Error as exc:
        raise PayloadError(f"{source}: line {reader.line_num}: {exc}") from None
    if "destinations" not in reader.fieldnames:
        # Without that column the source says nothing of aliases.
        del lists["aliases"]
    return lists
