# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""A site of WordPress: what is wanted, against what its one answer says, and the WP-CLI commands that lead there.

Pure: _wordpress.site_run asks and runs. The state of a site is a dictionary of short texts, {"core": "7.1.1", "plugin
akismet": "active, 5.7.2", …}, so plan, check mode and diff come from one comparison.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._plan import Plan, compare

HIDDEN = "(not shown)"
#: WP-CLI's words when it is started as root (WP_CLI/Bootstrap/CheckRoot.php)
ROOT = (
    "YIKES! It looks like you're running this as root. You probably meant to run this as the user that your WordPress "
    "installation exists under. Any code on this site would have full control of the server."
)
NEWEST = "latest"
BRANCH = "minor"
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.-]*")
_LOCALE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?(_[a-z0-9]+)?")
# What WordPress takes for an address (is_email): with a domain that has a dot.
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+([.][^@\s.]+)+")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]*[$]?")
#: WP-CLI's words for what a plugin or theme is to become, or no longer to be
_VERBS = {
    "active": ("activate",),
    "network": ("activate", "--network"),
    "not active": ("deactivate",),
    "not network": ("deactivate", "--network"),
}
#: shown for a site that has no WordPress yet
NOTHING = "not there"
THERE = "installed"


class SiteError(Exception):
    """What is wanted makes no sense, or a site cannot be brought there; each line names the site and the reason."""


@dataclass(frozen=True)
class Extension:
    """A plugin or a theme. use: '' as it is, active, inactive, network (on all sites of one). version '': any."""

    name: str
    absent: bool = False
    use: str = ""
    version: str = ""
    source: str = ""


@dataclass(frozen=True)
class Step:
    """One WP-CLI command. stdin is for what must not be in a command line."""

    argv: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True)
class Wanted:
    """One item of the module's sites."""

    path: str
    user: str
    given: Mapping[str, Any]  # the item itself: url, title, admin, database, core, …
    plugins: tuple[Extension, ...] = ()
    themes: tuple[Extension, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    secret: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        return str((self.given.get("core") or {}).get("version") or "")

    @property
    def source(self) -> str:
        return str((self.given.get("core") or {}).get("source") or "")

    @property
    def exact(self) -> str:
        """The one version of WordPress that is wanted, or nothing."""
        return "" if self.version in (NEWEST, BRANCH) else self.version

    @property
    def refresh(self) -> bool:
        """Whether wordpress.org must be asked for what is new."""
        newest = any(one.version == NEWEST for one in (*self.plugins, *self.themes))
        updates = any(self.given.get(f"update_{kind}") for kind in ("plugins", "themes", "translations"))
        return newest or updates or self.version in (NEWEST, BRANCH)

    def question(self, set_options: bool = False) -> dict[str, Any]:
        """The job of the program ASK."""
        return {
            "options": self.options,
            "set": set_options,
            "refresh": self.refresh and not set_options,
            "core": self.exact,
            "plugins": {one.name: _exact(one) for one in self.plugins if not one.absent and not one.source},
            "themes": {one.name: _exact(one) for one in self.themes if not one.absent and not one.source},
        }


def _exact(one: Extension) -> str:
    return "" if one.version == NEWEST else one.version


# --- what is wanted -----------------------------------------------------------------------------------------------


def parse(index: int, site: Mapping[str, Any]) -> Wanted:
    """One item of the module's sites; raises SiteError naming the item."""
    where = f"sites[{index}]"
    user = str(site["user"])
    if not _ACCOUNT.fullmatch(user):
        raise SiteError(f"{where}.user: {user!r} is no name of a user")
    core = site.get("core") or {}
    version = str(core.get("version") or "")
    if version and version not in (NEWEST, BRANCH) and not _VERSION.fullmatch(version):
        raise SiteError(f"{where}.core.version: {version!r} is no version")
    locales = [locale for locale in (core.get("locale"), *(site.get("languages") or [])) if locale]
    for locale in locales:
        if not _LOCALE.fullmatch(locale):
            raise SiteError(f"{where}: {locale!r} is no locale, such as de_DE")
    for kind in ("admin", "database"):
        for name, value in (site.get(kind) or {}).items():
            if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value):
                raise SiteError(f"{where}.{kind}.{name}: a control character")
    email = (site.get("admin") or {}).get("email")
    if email is not None and not _EMAIL.fullmatch(email):
        raise SiteError(f"{where}.admin.email: {email!r} is no address")
    options, secret = dict(site.get("options") or {}), dict(site.get("secret_options") or {})
    twice = sorted(set(options) & set(secret))
    if twice:
        raise SiteError(f"{where}: option {twice[0]} is given twice")
    for name, value in {**options, **secret}.items():
        if value is None:
            raise SiteError(f"{where}: option {name} has no value")
    return Wanted(
        os.path.normpath(site["path"]),
        user,
        site,
        _extensions(f"{where}.plugins", site.get("plugins") or []),
        _extensions(f"{where}.themes", site.get("themes") or []),
        {**options, **secret},
        frozenset(secret),
    )


def _extensions(where: str, items: Sequence[Mapping[str, Any]]) -> tuple[Extension, ...]:
    found: dict[str, Extension] = {}
    for index, item in enumerate(items):
        name, state, version = item["name"], item["state"], str(item.get("version") or "")
        if not _SLUG.fullmatch(name):
            raise SiteError(f"{where}[{index}]: {name!r} is no name of a folder in wp-content")
        if name in found:
            raise SiteError(f"{where}[{index}]: {name} is given twice")
        if version and version != NEWEST and not _VERSION.fullmatch(version):
            raise SiteError(f"{where}[{index}]: {name}: {version!r} is no version")
        if state == "absent" and (version or item.get("source")):
            raise SiteError(f"{where}[{index}]: {name} is to be absent, but has a version or source")
        use = state if state in ("active", "inactive", "network") else ""
        found[name] = Extension(name, state == "absent", use, version, item.get("source") or "")
    active_themes = [one.name for one in found.values() if one.use == "active"]
    if where.endswith("themes") and len(active_themes) > 1:
        raise SiteError(f"{where}: only one theme can be active, not {' and '.join(active_themes)}")
    return tuple(found.values())


# --- wanted against found -----------------------------------------------------------------------------------------


def new_plan(wanted: Wanted) -> Plan[str, str]:
    """For a site that has no WordPress, or no database tables, yet."""
    plan: Plan[str, str] = Plan()
    plan.create["site"] = f"{THERE}, {wanted.given.get('url') or 'url missing'}"
    if wanted.version:
        plan.create["core"] = wanted.version
    for kind, items in (("plugin", wanted.plugins), ("theme", wanted.themes)):
        for one in items:
            if not one.absent:
                words = [*([one.use] if one.use == "active" else []), *([one.version] if one.version else [])]
                plan.create[f"{kind} {one.name}"] = ", ".join(words) or "there"
    for locale in wanted.given.get("languages") or []:
        plan.create[f"language {locale}"] = "there"
    for name, value in wanted.options.items():
        plan.create[f"option {name}"] = HIDDEN if name in wanted.secret else _shown(value)
    return plan


def plan(wanted: Wanted, answer: Mapping[str, Any], asked: bool = True) -> Plan[str, str]:
    """Compare; raises SiteError, before anything changes, for what cannot be done.

    asked: the answer is fresh, so wordpress.org's own troubles count.
    """
    troubles = [f"{name}: wordpress.org: {words}" for name, words in answer["unknown"].items()]
    if asked and wanted.refresh:
        troubles += [f"{url}: {words}" for url, words in answer["failed"].items()]
    if answer["older"]:
        troubles.append(f"core: {answer['core']} is there; WordPress cannot go back to {wanted.exact}")
    found: dict[str, str] = {}
    new: dict[str, str] = {}
    gone: list[str] = []
    target = _core(wanted, answer)
    if target:
        found["core"], new["core"] = answer["core"], target
    if answer["database"] != answer["database_new"]:
        found["database"], new["database"] = answer["database"], answer["database_new"]
    for kind, items in (("plugin", wanted.plugins), ("theme", wanted.themes)):
        listed = answer[f"{kind}s"]
        if wanted.given.get(f"update_{kind}s"):
            named = {one.name for one in items}
            items = (*items, *(Extension(name, version=NEWEST) for name in listed if name not in named))
            items = tuple(_newest(one) if not one.version and not one.source else one for one in items)
        for one in items:
            key = f"{kind} {one.name}"
            there = listed.get(one.name)
            if one.use == "network" and not answer["multisite"]:
                troubles.append(f"{key}: state network, but the site is no network")
            if there:
                found[key] = _state(there["use"], there["version"])
            if one.absent:
                gone.append(key)
                if there and kind == "theme" and there["use"] == "active" and not _successor(items):
                    troubles.append(f"{key}: the active theme cannot be removed")
            elif there:
                version = (there["new"] if one.version == NEWEST else one.version) or there["version"]
                new[key] = _state(_use(kind, one, there["use"]), version)
            else:
                new[key] = _state(one.use or "inactive", one.version)
    for locale in wanted.given.get("languages") or []:
        if locale in answer["languages"] or locale == "en_US":
            found[f"language {locale}"] = "there"
        new[f"language {locale}"] = "there"
    if wanted.given.get("update_translations"):
        for name in answer["translations"]:
            found[f"translation {name}"], new[f"translation {name}"] = "old", "new"
    for name, value in wanted.options.items():
        state = answer["options"][name]
        hide = name in wanted.secret
        if state["found"] is not None:
            found[f"option {name}"] = HIDDEN if hide else _shown(state["found"])
        text = HIDDEN if hide else _shown(value)
        if state["same"]:
            text = found[f"option {name}"]
        elif found.get(f"option {name}") == text:
            text += " (another)"
        new[f"option {name}"] = text
    if troubles:
        raise SiteError("\n".join(f"{wanted.path}: {trouble}" for trouble in troubles))
    return compare(found, new, absent=gone)


def _newest(one: Extension) -> Extension:
    return one if one.absent else Extension(one.name, False, one.use, NEWEST)


def _successor(items: Sequence[Extension]) -> bool:
    """Whether one of these themes takes the place of the active one."""
    return any(one.use == "active" for one in items)


def _use(kind: str, one: Extension, found: str) -> str:
    """What should become of one that is there."""
    # A theme goes out of use by another's coming only; a plugin of the whole network is active on each of its sites.
    as_it_is = not one.use or (kind == "theme" and one.use == "inactive") or (one.use, found) == ("active", "network")
    return found if as_it_is else one.use


def _core(wanted: Wanted, answer: Mapping[str, Any]) -> str:
    """The version of WordPress that should be there, or nothing where any will do."""
    offers = answer["offers"]
    if wanted.version == BRANCH:
        branch = ".".join(answer["core"].split(".")[:2])
        offers = [offer for offer in offers if offer == branch or offer.startswith(f"{branch}.")]
    if wanted.version in (NEWEST, BRANCH):
        return str(offers[-1]) if offers else str(answer["core"])
    return wanted.exact


def _state(use: str, version: str) -> str:
    return ", ".join(filter(None, [use, version]))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else ""
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)


# --- the way there ------------------------------------------------------------------------------------------------


def steps(wanted: Wanted, todo: Plan[str, str], answer: Mapping[str, Any]) -> list[Step]:
    """The commands of WP-CLI for a plan, in their order. Options are not among them (ASK sets them)."""
    result: list[Step] = []
    touched = {**todo.create, **{key: after for key, (_before, after) in todo.change.items()}}
    if "core" in touched:
        source = [wanted.source] if wanted.source else [f"--version={touched['core']}"]
        result.append(Step(("core", "update", *source)))
    if "core" in touched or "database" in touched:
        result.append(Step(("core", "update-db", *(["--network"] if answer["multisite"] else []))))
    for kind, items in (("theme", wanted.themes), ("plugin", wanted.plugins)):
        by_name = {one.name: one for one in items}
        result += _installs(kind, by_name, todo, touched, answer)
        result += _switches(kind, todo, touched, by_name)
    languages = [key.split(" ", 1)[1] for key in touched if key.startswith("language ")]
    if languages:
        result.append(Step(("language", "core", "install", *sorted(languages))))
    kinds = {key.split(" ")[1] for key in touched if key.startswith("translation ")}
    for kind in sorted(kinds):
        result.append(Step(("language", kind, "update", *([] if kind == "core" else ["--all"]))))
    return result


def _installs(
    kind: str,
    items: Mapping[str, Extension],
    todo: Plan[str, str],
    touched: Mapping[str, str],
    answer: Mapping[str, Any],
) -> list[Step]:
    result = []
    updates = []
    for key in touched:
        if not key.startswith(f"{kind} "):
            continue
        name = key.split(" ", 1)[1]
        one = items.get(name, Extension(name, version=NEWEST))
        there = answer[f"{kind}s"].get(name)
        exact = [f"--version={one.version}"] if one.version not in ("", NEWEST) and not one.source else []
        if key in todo.create:
            # A list of updates in the database that still names a plugin removed by hand makes WP-CLI take it for
            # installed, and a folder without a plugin stops it; --force helps with both.
            result.append(Step((kind, "install", one.source or name, *exact, "--force")))
        elif there and touched[key].split(", ")[-1] != there["version"]:
            if one.version == NEWEST and not one.source:
                updates.append(name)
            else:
                result.append(Step((kind, "install", one.source or name, *exact, "--force")))
    if updates:
        result.append(Step((kind, "update", *sorted(updates))))
    return result


def _switches(
    kind: str, todo: Plan[str, str], touched: Mapping[str, str], items: Mapping[str, Extension]
) -> list[Step]:
    result = []
    names: dict[tuple[str, ...], list[str]] = {words: [] for words in _VERBS.values()}
    for key, text in touched.items():
        if key.startswith(f"{kind} "):
            was = (todo.change[key][0] if key in todo.change else "inactive").split(", ")[0]
            now = text.split(", ")[0]
            if now != was:
                # What the whole network has is switched off by the word that switched it on.
                names[_VERBS[f"not {was}" if now == "inactive" else now]].append(key.split(" ", 1)[1])
    for (verb, *options), which in names.items():
        if which:
            result.append(Step((kind, verb, *sorted(which), *options)))
    gone = {key.split(" ", 1)[1]: text for key, text in todo.delete.items() if key.startswith(f"{kind} ")}
    everywhere = sorted(name for name, text in gone.items() if text.startswith("network"))
    if everywhere:
        result.append(Step((kind, "deactivate", *everywhere, "--network")))
    if gone:
        # As the button in the dashboard: a plugin's own clean-up runs.
        clean = ("uninstall", *sorted(gone), "--deactivate") if kind == "plugin" else ("delete", *sorted(gone))
        result.append(Step((kind, *clean)))
    return result


def create_config(wanted: Wanted) -> Step:
    """wp-config.php, with fresh keys; the password comes through standard input."""
    database = wanted.given["database"]
    argv = ["config", "create", "--skip-check", "--prompt=dbpass"]
    for option, name in (("name", "name"), ("user", "user"), ("host", "host"), ("prefix", "prefix")):
        argv.append(f"--db{option}={database[name]}")
    return Step(tuple(argv), f"{database['password'] or ''}\n")


def install(wanted: Wanted) -> Step:
    """The tables and the administrator. The address is WP-CLI's own option --url, which every command gets."""
    admin = wanted.given["admin"]
    argv = ["core", "install", "--skip-email", "--prompt=admin_password"]
    argv += [f"--title={wanted.given.get('title') or wanted.given['url']}"]
    argv += [f"--admin_user={admin['name']}", f"--admin_email={admin['email']}"]
    locale = (wanted.given.get("core") or {}).get("locale")
    argv += [f"--locale={locale}"] if locale else []
    return Step(tuple(argv), f"{admin['password']}\n")


def can_install(wanted: Wanted) -> None:
    """Raises SiteError where something is missing for a new site."""
    missing = [name for name in ("url", "admin", "database") if not wanted.given.get(name)]
    if missing:
        raise SiteError(f"{wanted.path}: WordPress is not installed here; a new site needs {', '.join(missing)}")
    everywhere = [one.name for one in wanted.plugins if one.use == "network"]
    if everywhere:
        raise SiteError(f"{wanted.path}: plugin {everywhere[0]}: state network, but a new site is no network")
