# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The certificate of a host name and its two keys: the current one and the next.

One model for all methods. Both keys are published in TLSA from the first day. A new certificate takes the next key
when senders can know it already, else it keeps the current key; so at each moment the key in use has been in DNS
before, and DANE senders (RFC 7671 §8.1) never meet an unknown one. Only then a new next key is made.

The folder of a host name holds mail.pem (key, certificate, chain), next.key, settings.json (for renewals without a
playbook) and state.json (where the certificate came from, since when the next key is seen in DNS). Method files adds
next.csr and, while a pair of the operator waits for its key to be known, next.pem.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from .. import _files
from .._command import CommandError, run
from . import acme, hook, pem
from .pem import Pair, TlsError

FOLDER = "/etc/ssl/postmeister"
LOCK = "/run/postmeister/certificate.lock"
DAY = datetime.timedelta(days=1)
#: a certificate of method files is complained about when it has less time left
LAST_CALL = 14 * DAY
#: the operator's pair waits no longer than until this much before the present one's end: one look of the timer, that
#: comes daily and four hours late at most, and some time for what may delay it
LAST_LOOK = 2 * DAY
#: what the diff says of a folder that is not there yet, or that others may read
CLOSED = "the folder: for root only"


@dataclass(frozen=True)
class Settings:
    """What the playbook said. private_key_content never reaches settings.json."""

    hostname: str
    method: str
    certificate: str = ""
    private_key: str = ""
    certificate_content: str = ""
    private_key_content: str = ""
    #: days that a self-signed certificate is valid
    validity: int = 365
    #: days before the end at which a certificate is renewed; 0: a third of its lifetime, at most 30
    renew_before: int = 0
    #: seconds that the next key must have been seen in DNS before a renewal takes it
    next_key_age: int = 86400
    reload: tuple[str, ...] = ()
    acme: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        values = {
            name: getattr(self, name)
            for name in (
                "hostname",
                "method",
                "certificate",
                "private_key",
                "validity",
                "renew_before",
                "next_key_age",
                "reload",
                "acme",
            )
        }
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Settings:
        values = json.loads(text)
        values["reload"] = tuple(values["reload"])
        return cls(**values)


@dataclass
class Outcome:
    """What was, or would be, done."""

    changed: bool = False
    #: TLSA data of the current and the next key; empty in check mode on a host without keys
    tlsa: list[str] = field(default_factory=list)
    not_after: str = ""
    before: str = ""
    after: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: check mode only: whether a run has something to do that is no change
    pending: bool = False


@dataclass(frozen=True)
class Need:
    """Why a new certificate is needed. kind: missing, method, due; usable: the present one still serves."""

    kind: str
    reason: str
    usable: bool


class Store:
    """The files of one host name."""

    def __init__(self, folder: str, hostname: str) -> None:
        self.folder = os.path.join(folder, hostname)
        self.mail = os.path.join(self.folder, "mail.pem")
        self.next = os.path.join(self.folder, "next.key")
        self.waiting = os.path.join(self.folder, "next.pem")
        self.request = os.path.join(self.folder, "next.csr")
        self.settings = os.path.join(self.folder, "settings.json")
        self.state = os.path.join(self.folder, "state.json")

    def current(self) -> Pair | None:
        """The pair in use; None when there is none that is whole."""
        return self._pair(self.mail)

    def waiting_pair(self) -> Pair | None:
        """The operator's pair that an earlier run let wait; None when there is none that is whole."""
        return self._pair(self.waiting)

    def _pair(self, path: str) -> Pair | None:
        found = _files.look(path)
        if found is None or not found.content:
            return None
        try:
            pair = Pair(pem.load_key(found.content, path), pem.load_certificates(found.content, path))
        except TlsError:
            return None
        return pair if pem.spki(pair.key) == pem.spki(pair.leaf) else None

    def next_key(self) -> Any:
        found = _files.look(self.next)
        try:
            return pem.load_key(found.content, self.next) if found and found.content else None
        except TlsError:
            return None

    def read_state(self) -> dict[str, Any]:
        found = _files.look(self.state)
        try:
            state = json.loads(found.content) if found and found.content else {}
        except ValueError:
            state = {}
        return state if isinstance(state, dict) else {}

    def loose(self) -> bool:
        """Whether the folder is missing or not root-only."""
        try:
            info = os.stat(self.folder)
        except FileNotFoundError:
            return True
        return (info.st_mode & 0o7777, info.st_uid, info.st_gid) != (0o700, os.geteuid(), os.getegid())

    def prepare(self) -> bool:
        """Make the folder, root-only; returns whether that changed something."""
        if not self.loose():
            return False
        if not os.path.isdir(self.folder):
            _files.make_folders(os.path.dirname(self.folder))
            os.mkdir(self.folder, 0o700)
        os.chown(self.folder, os.geteuid(), os.getegid())
        os.chmod(self.folder, 0o700)
        return True


def need(settings: Settings, current: Pair | None, state: Mapping[str, Any], now: datetime.datetime) -> Need | None:
    """Say why the methods selfsigned and acme need a new certificate; None when the present one will do."""
    if current is None:
        return Need("missing", "there is no certificate yet", False)
    leaf = current.leaf
    end = pem.not_after(leaf)
    fits = _fits(leaf, settings.hostname, now)
    usable = fits and now < end
    origin = (state.get("origins") or {}).get(pem.fingerprint(leaf))
    if not origin:
        # not known where it came from: believe what can be seen
        origin = {"method": "selfsigned" if pem.self_issued(leaf) else settings.method}
    wanted = _origin(settings)
    if origin.get("method") != wanted["method"]:
        return Need("method", f"it came by {origin.get('method')}, and {wanted['method']} is wanted", False)
    if origin.get("directory", wanted.get("directory")) != wanted.get("directory"):
        return Need("method", f"it came from {origin.get('directory')}, and {wanted.get('directory')} is wanted", False)
    if not fits:
        return Need("due", f"it is not for {settings.hostname}, or not valid yet", False)
    before = end - pem.not_before(leaf)
    margin = settings.renew_before * DAY if settings.renew_before else min(30 * DAY, before / 3)
    if end - now < margin:
        return Need("due", f"it ends on {end:%Y-%m-%d}", usable)
    return None


def choose(
    why: Need,
    current_key: Any,
    next_key: Any,
    published: set[str] | None,
    seen_for: float,
    least: float,
) -> str:
    """Say which key a new certificate gets: current, next or new.

    published: SPKI hashes in the host's TLSA records, None when DNS gave no answer. seen_for: seconds since the next
    key was first seen there; least: seconds that it must have been seen, so that no sender holds an older answer.
    """
    if current_key is None:
        return "new" if next_key is None else "next"
    if next_key is None or published is None:
        return "current"
    if why.kind == "due":
        return "next" if pem.spki(next_key) in published and seen_for >= least else "current"
    # Another method gets another key, unless senders hold the host to its present one.
    return "current" if published and pem.spki(next_key) not in published else "next"


def waits(current_key: Any, key: Any, published: set[str] | None, seen_for: float, least: float) -> bool:
    """Say whether a pair of the operator with another key than the current one has to wait.

    As in choose(); but where DNS has no TLSA record, no sender holds the host to a key, and the operator gets his way.
    """
    if published is None:
        return True
    if not published:
        return False
    if pem.spki(key) not in published:
        return True
    # Who holds the host to the new key alone is not served by waiting.
    return current_key is not None and pem.spki(current_key) in published and seen_for < least


def manage(
    settings: Settings,
    check: bool,
    folder: str = FOLDER,
    now: datetime.datetime | None = None,
    timer: bool = False,
    published: Callable[[str], set[str] | None] = hook.published_tlsa,
    issue: Callable[[Mapping[str, Any], bytes], tuple[Any, ...]] = acme.issue,
) -> Outcome:
    """Bring a host name's files to what is wanted; in check mode only say what would change.

    timer: the run is a renewal's, so it notes whether DNS shows the next key, and a failed renewal is an error even
    though the present certificate still serves. Raises TlsError, FileError or CommandError with nothing half-done.
    """
    job = Job(settings, folder, now or datetime.datetime.now(datetime.timezone.utc), timer, published, issue)
    if settings.method == "files":
        job.take()
    else:
        job.renew(check)
    return job.say() if check else job.write()


class Job:
    """One run: what is there, then what is wanted (pair and next_key), then the result."""

    def __init__(
        self,
        settings: Settings,
        folder: str,
        now: datetime.datetime,
        timer: bool,
        published: Callable[[str], set[str] | None],
        issue: Callable[[Mapping[str, Any], bytes], tuple[Any, ...]],
    ) -> None:
        self.settings, self.now, self.timer, self.published, self.issue = settings, now, timer, published, issue
        self.store = Store(folder, settings.hostname)
        self.state = self.store.read_state()
        self.outcome = Outcome()
        #: what is there
        self.current = self.store.current()
        self.found_next = self.store.next_key()
        if self.current and self.found_next and pem.spki(self.current.key) == pem.spki(self.found_next):
            self.found_next = None  # a run ended between the two writes of a change of keys
        #: what is wanted; None: yet to be made
        self.pair: Pair | None = self.current
        self.next_key = self.found_next
        #: the operator's pair that is to wait
        self.waiting: Pair | None = None
        self.outcome.before = describe(self.store, self.current, self.found_next)

    @property
    def current_key(self) -> Any:
        return self.current.key if self.current else None

    def take(self) -> None:
        """Method files: take the operator's pair, or let it wait until senders can know its key."""
        settings, former = self.settings, self.store.waiting_pair()
        pair = self.pair = operators_pair(settings, self.store, self.current, self.found_next, former, self.now)
        end, spki = pem.not_after(pair.leaf), pem.spki(pair.key)
        if end - self.now < LAST_CALL:
            self.outcome.warnings.append(f"the certificate ends on {end:%Y-%m-%d}; put a new one in place")
        if (self.current or self.found_next) and not pem.match([self.current_key], pair.leaf):
            seen, seen_for = self._seen(pair.key)
            # The host's own next key (ordered with next.csr) is in DNS from the first day on; one that waits is not.
            own = pem.match([self.found_next], pair.leaf) and not (former and pem.spki(former.key) == spki)
            if waits(self.current_key, pair.key, seen, seen_for, 0 if own else settings.next_key_age):
                self._hold_back(pair, seen, seen_for)
        self._promoted()

    def _hold_back(self, pair: Pair, seen: set[str] | None, seen_for: float) -> None:
        """Keep the present pair while it serves; the operator's key is the next one meanwhile, so it gets published."""
        present, age, record = self.current, self.settings.next_key_age, pem.tlsa(pair.key)
        end = pem.not_after(present.leaf) if present else self.now
        if not present or not _fits(present.leaf, self.settings.hostname, self.now) or end - self.now <= LAST_LOOK:
            self.outcome.warnings.append(
                f"the new certificate is taken before DNS has shown the TLSA record of its key ({record}) for {age} "
                "seconds, since there is none that serves on; DANE senders that do not know it defer their mail "
                "until the record is published and older answers have expired"
            )
            return
        self.pair, self.waiting, self.next_key = present, pair, pair.key
        last = f"on {end - LAST_LOOK:%Y-%m-%d}, shortly before the present one ends"
        missing = seen is not None and pem.spki(pair.key) not in seen
        if missing:
            what = (
                f"DNS does not show the TLSA record of its key ({record}), so DANE senders would defer their mail. The "
                "key is the host's next one now: publish the record (the role mailserver does). The first run or look "
                f"of the timer takes the certificate once DNS has shown the record for {age} seconds, or {last}"
            )
        elif seen is None:
            what = (
                f"DNS gives no answer whether DANE senders know its key ({record}). Each run and each look of the "
                f"timer asks again; the certificate is taken {last}, in any case"
            )
        else:
            moment = self.now + datetime.timedelta(seconds=age - seen_for)
            what = (
                f"DNS shows the TLSA record of its key ({record}), but senders may hold older answers. The first run "
                f"or look of the timer after {moment:%Y-%m-%d %H:%M} UTC takes the certificate"
            )
        told = self.outcome.warnings
        if self.timer:
            # At night that is no error; but root hears once of a record that is missing when the end comes near.
            urgent = missing and end - self.now < LAST_CALL and self.state.get("told") != record
            if urgent:
                self.state["told"] = record
            else:
                told = self.outcome.notes
        told.append(f"the new certificate waits, the present one still serves: {what}")

    def renew(self, check: bool) -> None:
        """Methods selfsigned and acme: make or get a new certificate when one is needed."""
        why = need(self.settings, self.current, self.state, self.now)
        seen, seen_for = None, 0.0
        if self.timer or (why and self.current and self.found_next):
            seen, seen_for = self._seen(self.found_next)
        if not why:
            return
        which = choose(why, self.current_key, self.found_next, seen, seen_for, self.settings.next_key_age)
        key = {"current": self.current_key, "next": self.found_next}.get(which)
        self.outcome.notes = [f"new certificate: {why.reason}", f"its key: the {which} one"]
        if check:
            self.pair = None
            self.next_key = None if which == "next" else self.next_key
            return
        try:
            self.pair = make(self.settings, key or pem.new_key(), self.now, self.issue)
        except TlsError as exc:
            if self.timer or not why.usable:
                raise
            self.outcome.notes = []
            self.outcome.warnings.append(f"the certificate could not be renewed, the present one still serves: {exc}")
        self._promoted()

    def _seen(self, key: Any) -> tuple[set[str] | None, float]:
        """Ask DNS for the host's keys; returns them, and for how many seconds it has shown this next key."""
        seen = self.published(self.settings.hostname)
        self.state = note_next(self.state, key, seen, self.now)
        since = (self.state.get("next_seen") or {}).get("since", self.now.timestamp())
        return seen, self.now.timestamp() - since

    def _promoted(self) -> None:
        if self.pair and self.next_key and pem.spki(self.pair.key) == pem.spki(self.next_key):
            self.next_key = None

    def say(self) -> Outcome:
        """The result in check mode."""
        outcome = self.outcome
        missing = self.pair is None or self.next_key is None
        todo = [] if missing else self._differences()
        loose = self.store.loose()
        outcome.changed = missing or loose or bool(todo)
        # Services are owed a reload, or it is to be noted since when DNS shows the key of a pair that waits, or where
        # the certificate came from.
        known = self.current and pem.fingerprint(self.current.leaf) in (self.state.get("origins") or {})
        outcome.pending = self.waiting is not None or bool(self.state.get("reload_due")) or not known
        further = [CLOSED] if loose else []
        if self.next_key is None:
            further.append("a new next key")
        outcome.after = describe(self.store, self.pair, self.next_key, [*outcome.notes, *further, *_written(todo)])
        outcome.tlsa = [pem.tlsa(key) for key in (self.current_key, self.next_key or self.found_next) if key]
        outcome.not_after = _end(self.pair or self.current)
        return outcome

    def write(self) -> Outcome:
        """Write what is wanted and let the services read it."""
        outcome, store, pair = self.outcome, self.store, self._wanted()
        self.next_key = self.next_key or pem.new_key()
        further = [CLOSED] if store.loose() else []
        outcome.changed = store.prepare()
        todo = self._differences()
        swapped = any(file.path == store.mail for file in todo)
        # The notes come first: without their certificate they say nothing, and do no harm.
        self._remember(reload_due=swapped or bool(self.state.get("reload_due")))
        _files.write(todo)
        outcome.changed = outcome.changed or bool(todo)
        outcome.after = describe(store, pair, self.next_key, [*outcome.notes, *further, *_written(todo)])
        outcome.tlsa = [pem.tlsa(pair.key), pem.tlsa(self.next_key)]
        outcome.not_after = _end(pair)
        if self.state["reload_due"]:
            reload_services(self.settings.reload)
            self._remember(reload_due=False)
        return outcome

    def _wanted(self) -> Pair:
        if self.pair is None:
            raise TlsError(f"there is no certificate for {self.settings.hostname}")
        return self.pair

    def _remember(self, reload_due: bool) -> None:
        """Write state.json: it knows both the present and the new certificate, whichever a crash leaves."""
        origins = self.state.get("origins") or {}
        present = pem.fingerprint(self.current.leaf) if self.current else ""
        new = pem.fingerprint(self._wanted().leaf)
        kept = {name: origin for name, origin in origins.items() if name == present and name != new}
        # While the operator's pair waits, the present one is still that of the former method.
        mine = {new: origins.get(new) or _origin(self.settings)}
        self.state = {**self.state, "reload_due": reload_due, "origins": {**kept, **mine}}
        if not reload_due:
            self.state["origins"] = mine
        text = json.dumps(self.state, indent=1, sort_keys=True) + "\n"
        _files.write([_files.File(self.store.state, text.encode(), 0o600)])

    def _differences(self) -> list[_files.File]:
        """Files to write, mail.pem first: once it holds a promoted key, next.key may be replaced."""
        store = self.store
        wanted = [
            _files.File(store.mail, self._wanted().pem, 0o600, secret=True),
            _files.File(store.waiting, self.waiting.pem if self.waiting else None, 0o600, secret=True),
            _files.File(store.next, pem.dump_key(self.next_key), 0o600, secret=True),
            _files.File(store.settings, self.settings.text.encode(), 0o600, secret=True),
        ]
        request = _files.look(store.request)
        if self.settings.method != "files":
            wanted.append(_files.File(store.request, None))
        elif not request or not request.content or not _is_request_of(request.content, self.next_key):
            wanted.append(_files.File(store.request, pem.request(self.next_key, self.settings.hostname), 0o600))
        return [file for file in wanted if not _files.equal(file, _files.look(file.path))]


def operators_pair(
    settings: Settings, store: Store, current: Pair | None, next_key: Any, waiting: Pair | None, now: datetime.datetime
) -> Pair:
    """The operator's certificate with its key: the operator's own, or the current or next key of this host."""
    if settings.certificate_content:
        what, data = "the certificate given", settings.certificate_content.encode()
    elif settings.certificate:
        what, data = settings.certificate, _read(settings.certificate)
    elif waiting and now < pem.not_after(waiting.leaf):
        return waiting  # content was given to an earlier run, and a renewal has no newer one
    elif current:
        return current
    else:
        raise TlsError("method files needs a certificate")
    chain = pem.load_certificates(data, what)
    if settings.private_key_content or settings.private_key:
        key_what = settings.private_key or "the private key given"
        key_data = settings.private_key_content.encode() or _read(settings.private_key)
        key = pem.load_key(key_data, key_what)
    else:
        key_what = f"the current or next key of this host ({store.folder})"
        key = pem.match([current.key if current else None, next_key], chain[0])
        if key is None:
            raise TlsError(f"{what}: belongs to neither the current nor the next key; order it with {store.request}")
    pair = Pair(key, chain)
    pem.validate(pair, settings.hostname, now, what, key_what)
    # The root itself is in every client's store or it does not help (RFC 8446 §4.4.2).
    if len(chain) > 1 and pem.self_issued(chain[-1]):
        pair = Pair(key, chain[:-1])
    return pair


def make(settings: Settings, key: Any, now: datetime.datetime, issue: Callable[..., tuple[Any, ...]]) -> Pair:
    """Get a certificate for a key by the wanted method, and hold it against key and name before it is used."""
    if settings.method == "selfsigned":
        return pem.selfsigned(key, settings.hostname, settings.validity, now)
    pair = Pair(key, issue(settings.acme, pem.request(key, settings.hostname)))
    # An authority's clock may be a little ahead.
    pem.validate(pair, settings.hostname, now + datetime.timedelta(minutes=5), "the new certificate", "the key")
    return pair


def note_next(state: Mapping[str, Any], next_key: Any, seen: set[str] | None, now: datetime.datetime) -> dict[str, Any]:
    """Remember since when DNS shows the next key; no answer leaves the memory as it is."""
    result = dict(state)
    if next_key is None or seen is None:
        return result
    spki = pem.spki(next_key)
    known = state.get("next_seen") or {}
    if spki not in seen:
        result.pop("next_seen", None)
    elif known.get("spki") != spki:
        result["next_seen"] = {"spki": spki, "since": int(now.timestamp())}
    return result


def describe(store: Store, pair: Pair | None, next_key: Any, notes: Sequence[str] = ()) -> str:
    """Text for the diff: public facts only."""
    lines = [f"# {store.folder}", *(f"# {note}" for note in notes)]
    if pair:
        lines += [
            f"subject: {', '.join(pem.names(pair.leaf))}",
            f"issuer: {pair.leaf.issuer.rfc4514_string() or '(no name)'}",
            f"valid: {pem.not_before(pair.leaf):%Y-%m-%d} to {pem.not_after(pair.leaf):%Y-%m-%d}",
            f"certificate: sha256 {pem.fingerprint(pair.leaf)}",
            f"current key: {pem.tlsa(pair.key)}",
        ]
    if next_key:
        lines.append(f"next key: {pem.tlsa(next_key)}")
    return "\n".join(lines) + "\n"


def reload_services(names: Sequence[str]) -> None:
    """Let running services read the new certificate; one that does not run reads it when it starts."""
    for name in names:
        try:
            if name == "postfix":
                # On Debian 12 systemd's postfix.service is not the real one, and reloads nothing.
                if run(["postfix", "status"], check=False).rc == 0:
                    run(["postfix", "reload"])
            elif name == "dovecot":
                if run(["systemctl", "is-active", "--quiet", "dovecot.service"], check=False).rc == 0:
                    run(["doveadm", "reload"])
            else:
                run(["systemctl", "try-reload-or-restart", name])
        except CommandError as exc:
            if "not installed" not in str(exc):
                raise


@contextlib.contextmanager
def locked(wait: float = 900.0) -> Iterator[None]:
    """Playbook and timer never work on keys at once."""
    with _files.lock(LOCK, wait):
        yield


def _written(files: Sequence[_files.File]) -> list[str]:
    """For the diff: changes of settings and repaired modes show in nothing else."""
    return [f"written: {', '.join(os.path.basename(file.path) for file in files)}"] if files else []


def _fits(certificate: Any, hostname: str, now: datetime.datetime) -> bool:
    return pem.covers(certificate, hostname) and pem.not_before(certificate) <= now


def _is_request_of(data: bytes, key: Any) -> bool:
    try:
        return pem.request_spki(data) == pem.spki(key)
    except ValueError:
        return False


def _origin(settings: Settings) -> dict[str, Any]:
    origin = {"method": settings.method}
    if settings.method == "acme":
        origin["directory"] = settings.acme["directory"]
    return origin


def _end(pair: Pair | None) -> str:
    return f"{pem.not_after(pair.leaf):%Y-%m-%dT%H:%M:%SZ}" if pair else ""


def _read(path: str) -> bytes:
    found = _files.look(os.path.realpath(path))
    if found is None or found.content is None:
        raise TlsError(f"{path}: there is no such file on the host")
    return found.content
