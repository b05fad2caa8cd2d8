# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""One run over the directory: what mail_directory, mail_user and mail_alias share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, TypeVar

from .._files import FileError
from .._plan import Plan, compare
from . import hashes
from .directory import (
    ADHOC,
    PURGE,
    Alias,
    Directory,
    DirectoryError,
    Mailbox,
    Merged,
    Problem,
    Rules,
    check,
    merge,
    parse,
    with_passwords,
)
from .lists import Lists, Parcel, PayloadError, SourceNeeded
from .spec import ALWAYS
from .store_files import FileStore, StoreError, mail_folder, remove_mail

#: entries of each kind that a diff shows
DIFF_MOST = 50
# Stands for a hash that check mode does not make.
_PENDING = "{PENDING}"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Request:
    """What a module was asked for. read gives the entries; fingerprint tells it from other requests; '' for none."""

    read: Callable[[], Lists]
    fingerprint: str = ""
    rules: Rules = field(default_factory=Rules)
    scheme: str = hashes.BLF_CRYPT
    cost: int | None = None
    mail_root: str = "/var/vmail"


def whole(params: Mapping[str, Any]) -> Request:
    """What mail_directory was asked for. Raises PayloadError."""
    parcel = Parcel(params["payload"], params["src"])
    rules = Rules(
        purge=params["purge"],
        purge_limit=params["purge_limit"],
        overwrite_passwords=params["update_password"] == ALWAYS,
        delimiter=params["recipient_delimiter"],
        allow_external=params["allow_external"],
    )
    plain = {key: params[key] for key in ("scheme", "cost", "mail_root")}
    return Request(parcel.lists, parcel.fingerprint({**vars(rules), **plain}), rules, **plain)


def run_request(store: FileStore, request: Request, check_mode: bool) -> dict[str, Any]:
    """Bring the directory to what was asked for; returns what a module returns.

    Raises DirectoryError before anything is written, PayloadError, SourceNeeded, StoreError, FileError.
    """
    with store.locked(check_mode):
        touched = store.touched(request.fingerprint) if request.fingerprint else None
        if touched is not None:
            return _repair(store, touched, request, check_mode)
        found = store.load()
        lists = request.read()
        rules = request.rules
        if rules.origin == ADHOC:
            # What holds for the whole directory is said by the inventory.
            rules = replace(rules, delimiter=found.delimiter, allow_external=found.allow_external)
        merged = _judge(found, lists, rules, request)
        directory = _with_hashes(merged, request, check_mode)
        folders = [folder for folder in (mail_folder(request.mail_root, a) for a in merged.remove_mail) if folder]
        if check_mode:
            return _outcome(found, directory, store.stale(directory), folders)
        files = store.write(found, directory)
        for folder in folders:
            remove_mail(folder)
        # A digest of a plain password is far easier to guess than its bcrypt hash: none is kept.
        plain = any(box.get("password") is not None for box in lists.mailboxes or [])
        telling = plain or merged.remove_mail
        store.remember(None if telling or not request.fingerprint else request.fingerprint)
        return _outcome(found, directory, files, folders)


def _repair(store: FileStore, touched: list[str], request: Request, check_mode: bool) -> dict[str, Any]:
    """The same request as last time, on a truth that is as it was left: only files that were touched are looked at."""
    if not touched:
        return _outcome(Directory(), Directory(), [], [])
    directory = store.load()
    if check_mode:
        files = store.stale(directory, touched)
    else:
        files = store.write(directory, directory, touched)
        store.remember(request.fingerprint)
    return _outcome(directory, directory, files, [])


def _judge(found: Directory, lists: Lists, rules: Rules, request: Request) -> Merged:
    keep = rules.origin == ADHOC
    entries, problems = parse(lists.domains, lists.mailboxes, lists.aliases, rules.delimiter, keep, lists.place)
    try:
        hashes.check_cost(request.scheme, request.cost)
    except hashes.HashError as exc:
        problems.append(Problem("cost", "", str(exc)))
    if len(rules.delimiter) > 1 or rules.delimiter.isalnum() or rules.delimiter in (".", "@"):
        problems.append(Problem("recipient_delimiter", rules.delimiter, "is no single character like + or -"))
    if not 0 <= rules.purge_limit <= 100:
        problems.append(Problem("purge_limit", str(rules.purge_limit), "is no per cent, 0 to 100"))
    if problems:
        raise DirectoryError(problems)
    merged, problems = merge(found, entries, rules)
    for plain in merged.plain:
        try:
            hashes.check_password(plain.password, request.scheme)
        except hashes.HashError as exc:
            place = entries.place("mailboxes", (entries.mailboxes or {})[plain.address].nth)
            problems.append(Problem(place, plain.address, f"is refused, its password {exc}"))
    if not any(problem.where == PURGE for problem in problems):
        problems += check(merged.directory, entries)
    if problems:
        raise DirectoryError(problems)
    return merged


def _with_hashes(merged: Merged, request: Request, check_mode: bool) -> Directory:
    if not merged.plain:
        return merged.directory

    def settle(plain: Any) -> str:
        if plain.stored and hashes.serves(plain.password, plain.stored, request.scheme, request.cost):
            return str(plain.stored)
        return _PENDING if check_mode else hashes.make_hash(plain.password, request.scheme, request.cost)

    settled = hashes.over_cores(settle, merged.plain)
    return with_passwords(merged.directory, {plain.address: each for plain, each in zip(merged.plain, settled)})


def fail_or_exit(module: Any, request: Callable[[], Request]) -> None:
    """Run a module of the directory to its end."""
    store = FileStore(module.params["path"])
    try:
        outcome = run_request(store, request(), module.check_mode)
    except SourceNeeded:
        module.exit_json(changed=False, source_needed=True)
    except DirectoryError as exc:
        module.fail_json(msg=f"Nothing was changed:\n{exc}")
    except (PayloadError, StoreError, FileError) as exc:
        module.fail_json(msg=str(exc))
    for warning in store.warnings:
        module.warn(warning)
    module.exit_json(**outcome)


# --- what is returned -----------------------------------------------------------------------------------------------


def size_text(quota: int | None) -> str:
    """A quota as people write it: 5G, 500M, or bytes."""
    if quota is None:
        return "default"
    if quota == 0:
        return "unlimited"
    for unit, power in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if quota % (1 << power) == 0:
            return f"{quota >> power}{unit}"
    return str(quota)


def _mailbox_line(address: str, box: Mailbox) -> str:
    return f"mailbox {address} quota={size_text(box.quota)} {'enabled' if box.enabled else 'disabled'} ({box.origin})"


def _alias_line(address: str, alias: Alias) -> str:
    shown = ", ".join(alias.destinations[:10]) + (
        f" and {len(alias.destinations) - 10} more" if len(alias.destinations) > 10 else ""
    )
    return f"alias {address} -> {shown} ({alias.origin})"


def _shown(plan: Plan[str, Value]) -> tuple[Plan[str, Value], int]:
    """The first entries of a plan, and how many are left out."""
    keys = sorted([*plan.create, *plan.change, *plan.delete])
    first = set(keys[:DIFF_MOST])
    part: Plan[str, Value] = Plan(
        {key: value for key, value in plan.create.items() if key in first},
        {key: value for key, value in plan.change.items() if key in first},
        {key: value for key, value in plan.delete.items() if key in first},
    )
    return part, len(keys) - len(first)


def _outcome(found: Directory, directory: Directory, files: list[str], folders: list[str]) -> dict[str, Any]:
    before, after = "", ""
    counts: dict[str, Any] = {}
    changed = False
    kinds: tuple[tuple[str, Any, Any, Callable[[str, Any], str]], ...] = (
        ("domains", found.domains, directory.domains, lambda name, _origin: f"domain {name}"),
        ("mailboxes", found.mailboxes, directory.mailboxes, _mailbox_line),
        ("aliases", found.aliases, directory.aliases, _alias_line),
    )
    for kind, old, new, line in kinds:
        plan: Plan[str, Any] = compare(old, new, purge=lambda _key, _value: True)
        counts[kind] = plan.counts
        changed = changed or plan.changed
        part, left = _shown(plan)
        texts = part.diff(line)
        before += texts["before"]
        after += texts["after"] + (f"and {left} more {kind}\n" if left else "")
    for name, old, new in (
        ("recipient_delimiter", found.delimiter, directory.delimiter),
        ("allow_external", found.allow_external, directory.allow_external),
    ):
        if old != new:
            changed = True
            before += f"{name} {old}\n"
            after += f"{name} {new}\n"
    # Files differ because the directory changed, or else because somebody changed them.
    repaired = [] if changed else files
    before += "".join(f"{name}: not as the directory wants it\n" for name in repaired)
    after += "".join(f"{name}: repaired\n" for name in repaired)
    before += "".join(f"mail in {folder}\n" for folder in folders)
    return {
        "changed": bool(changed or files or folders),
        **counts,
        "files": files,
        "repaired": repaired,
        "removed_mail": folders,
        "diff": {"before_header": "mail directory", "after_header": "mail directory", "before": before, "after": after},
    }


def describe(directory: Directory, entries: bool) -> dict[str, Any]:
    """The directory for people and playbooks, without its secrets."""
    boxes, aliases = directory.mailboxes, directory.aliases
    result: dict[str, Any] = {
        "sizes": {
            "domains": len(directory.domains),
            "mailboxes": len(boxes),
            "disabled": sum(1 for box in boxes.values() if not box.enabled),
            "aliases": len(aliases),
        },
        "recipient_delimiter": directory.delimiter,
        "allow_external": directory.allow_external,
    }
    if not entries:
        return result
    per_box = Counter(key.rpartition("@")[2] for key in boxes)
    per_alias = Counter(key.rpartition("@")[2] for key in aliases)
    return {
        **result,
        "domains": [
            {"name": name, "mailboxes": per_box[name], "aliases": per_alias[name]} for name in sorted(directory.domains)
        ],
        "mailboxes": [
            {
                "address": key,
                "quota": boxes[key].quota,
                "enabled": boxes[key].enabled,
                "origin": boxes[key].origin,
                "scheme": boxes[key].password[1:].partition("}")[0],
            }
            for key in sorted(boxes)
        ],
        "aliases": [
            {"address": key, "destinations": list(aliases[key].destinations), "origin": aliases[key].origin}
            for key in sorted(aliases)
        ],
    }
