# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""What modules of this collection would change, asked in one call: each one's own check mode, on the same options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import _packages
from ._command import CommandError
from ._dkim import apply as dkim
from ._dkim.record import DkimError
from ._files import FileError
from ._greylist import apply as greylist
from ._greylist.settings import SettingsError
from ._mail import apply as directory
from ._mail import spec
from ._mail.directory import DirectoryError
from ._mail.lists import PayloadError, SourceNeeded
from ._mail.store_files import FileStore, StoreError
from ._policy import apply as lists
from ._policy.health import HealthError
from ._policy.lists import ListError
from ._resolver import ask
from ._service import _group, _transaction
from ._tls import apply as tls
from ._tls import options as tls_options
from ._tls.pem import TlsError

#: what is wrong with the host rather than with this code: the module itself will say it, in its own words
EXPECTED = (
    *(_packages.PackageError, CommandError, FileError, OSError, *_transaction.ERRORS),
    *(DirectoryError, PayloadError, SourceNeeded, StoreError),
    *(DkimError, HealthError, ListError, SettingsError, TlsError, ValueError),
)


class OptionError(Exception):
    """Options that the module would refuse; the message names it and them."""


@dataclass
class Looked:
    """What was seen. unsettled: the first module that has something to do, and why; both are empty where none has."""

    unsettled: str = ""
    reason: str = ""
    #: what each module would return, by name, as far as later tasks need it
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """Of one module. todo says why it has something to do; empty where it has not."""

    todo: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


CHANGED = "would change something"


def _packages_there(params: Mapping[str, Any]) -> Answer:
    _packages.check(params["names"], params["preseed"])
    return Answer(CHANGED if _packages.plan(params["names"]).changed or _packages.leftover() else "")


def _daemons(params: Mapping[str, Any]) -> Answer:
    group = _group.Group(params["lock_timeout"])
    group.add(params["services"], _group.unpacked(params["payload"]))
    group.run(check_mode=True)
    return Answer(CHANGED if group.result(False)["changed"] else "")


def _directory(params: Mapping[str, Any]) -> Answer:
    store = FileStore(params["path"])
    result = directory.run_request(store, directory.whole(params), check_mode=True)
    return Answer(CHANGED if result["changed"] else "", warnings=store.warnings)


def _dkim_keys(params: Mapping[str, Any]) -> Answer:
    result = dkim.run(params, check_mode=True)
    return Answer(CHANGED if result["changed"] else "", {"dkim_keys": result["dkim_keys"]})


def _certificate(params: Mapping[str, Any]) -> Answer:
    result, outcome = tls.run(params, check_mode=True)
    todo = CHANGED if result["changed"] else "has something to note" if outcome.pending else ""
    return Answer(todo, {"tlsa": result["tlsa"]}, outcome.warnings)


def _lists(params: Mapping[str, Any]) -> Answer:
    result, warnings = lists.run(params, check_mode=True)
    return Answer(CHANGED if result["changed"] else "", warnings=warnings)


def _greylist(params: Mapping[str, Any]) -> Answer:
    return Answer(CHANGED if greylist.run(params, check_mode=True)["changed"] else "")


def _reverse(params: Mapping[str, Any]) -> Answer:
    if not ask.HAVE_DNSPYTHON:
        return Answer("dnspython is not installed")
    found = ask.reverse(params["address"])
    words = [": ".join(filter(None, [params["address"], found.reason, params["consequence"]]))] if found.reason else []
    return Answer("", {"confirmed": not found.reason}, words)


@dataclass(frozen=True)
class Module:
    """How a module is asked. rules: what ArgumentSpecValidator takes beside the spec."""

    look: Callable[[Mapping[str, Any]], Answer]
    spec: Mapping[str, Any]
    rules: Mapping[str, Any] = field(default_factory=dict)


MODULES = {
    "packages": Module(_packages_there, _packages.SPEC),
    "service_config": Module(_daemons, _group.SPEC, {"required_one_of": [("services",)]}),
    "dkim_key": Module(_dkim_keys, dkim.SPEC),
    "postgrey": Module(_greylist, greylist.SPEC),
    "mail_certificate": Module(_certificate, tls_options.SPEC, tls.RULES),
    "dnsbl": Module(_lists, lists.SPEC),
    "reverse_dns_info": Module(_reverse, ask.REVERSE),
    "mail_directory": Module(_directory, spec.WHOLE),
}


def validated(asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each module, with its defaults. Raises OptionError, which quotes no option that is secret."""
    result = {}
    for name, options in asked.items():
        if name not in MODULES:
            raise OptionError(f"modules: {name!r} is none of {', '.join(MODULES)}")
        if not isinstance(options, dict):
            raise OptionError(f"modules.{name}: is no dictionary of options")
        module = MODULES[name]
        found = ArgumentSpecValidator(dict(module.spec), **module.rules).validate(options)
        if found.error_messages:
            raise OptionError(f"modules.{name}: {'; '.join(found.error_messages)}")
        result[name] = found.validated_parameters
    return result


def look(asked: Mapping[str, Mapping[str, Any]]) -> Looked:
    """Ask one after the other until one has something to do; asked holds validated options."""
    seen = Looked()
    for name, options in asked.items():
        try:
            answer = MODULES[name].look(options)
        except EXPECTED as exc:
            # Its words may quote what is secret, and the module's own task will say them.
            answer = Answer(type(exc).__name__)
        if answer.todo:
            seen.unsettled, seen.reason = name, answer.todo
            break
        seen.found[name] = answer.result
        seen.warnings += answer.warnings
    return seen
