# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""How lists of domains, mailboxes and aliases travel from the controller to the host."""

from __future__ import annotations

import base64
import binascii
import csv
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Callable


class PayloadError(Exception):
    """What came from the controller cannot be read; the text says why."""


KINDS = ("domains", "mailboxes", "aliases")


def pack(data: Mapping[str, Any]) -> str:
    """One text for all lists: a secret in one option costs Ansible nothing, one in each of 10,000 entries 12 s."""
    return base64.b64encode(zlib.compress(json.dumps(data).encode(), 1)).decode()


def unpack(payload: str) -> dict[str, Any]:
    """What pack() made; raises PayloadError."""
    try:
        return dict(json.loads(zlib.decompress(base64.b64decode(payload, validate=True))))
    except (ValueError, binascii.Error, zlib.error) as exc:
        raise PayloadError(f"payload is made by the action plugin, not by hand ({type(exc).__name__})") from None


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


def join(
    inline: Mapping[str, Any], source: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], Callable[[str, int], str]]:
    """Put the lists of the task and of the source together; also gives how the place of an item is called."""
    lists: dict[str, Any] = {}
    first: dict[str, int] = {}
    for kind in KINDS:
        here, there = inline.get(kind), source.get(kind)
        lists[kind] = None if here is None and there is None else [*(here or ()), *(there or ())]
        first[kind] = len(here or ())

    def place(kind: str, index: int) -> str:
        return f"{kind}[{index}]" if index < first[kind] else f"{kind}[{index - first[kind]}] in {name}"

    return lists, place


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


def gather(
    payload: str | None, src: str | None, src_name: str | None
) -> tuple[dict[str, Any], Callable[[str, int], str]]:
    """What the action plugin sent; the file is removed once it is read. Raises PayloadError."""
    inline = unpack(payload) if payload else {}
    if src is None:
        return join(inline, {}, "")
    name = src_name or src
    try:
        with open(src, "rb") as handle:
            content = handle.read()
        if src_name is not None:
            os.unlink(src)
    except OSError as exc:
        raise PayloadError(f"{name}: {exc.strerror}") from exc
    return join(inline, read_lists(content, name), name)
