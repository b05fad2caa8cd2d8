# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Dovecot 2.3 and 2.4: doveconf and sievec on the staged tree; login, delivery and policy question as the probe."""

from __future__ import annotations

import base64
import os
import pwd
import re
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Callable, Iterator

from ._base import Change, Service, ServiceError, Stage, run

CONFIG = "/etc/dovecot/dovecot.conf"
SIEVE = "/etc/dovecot/sieve"
MAIL_ROOT = "/var/vmail"
ROOT_MODE = 0o770
NO_SHELL = "/usr/sbin/nologin"
DIRECTORY = "/etc/postmeister/directory"
SOCKETS = "/run/dovecot"
#: what the formats leave in a mailbox's home (dovecot.conf of role dovecot)
TRACES = {"maildir": ("Maildir",), "mbox": ("inbox", "mail")}
#: a name nobody can have (RFC 2606), so that nobody's mailbox is touched and no real login fails
NOBODY = "postmeister-probe@probe.invalid"
#: seconds that Dovecot may take to open its ports, and to take up a configuration
PATIENCE = 15.0
#: seconds for one answer; a refused login is held back for 2 by auth_failure_delay
TIMEOUT = 10.0


class Line:
    """A conversation in lines, with a limit for each answer."""

    def __init__(self, what: str, link: socket.socket, ending: str = "\r\n") -> None:
        self.what = what
        self.link = link
        self.ending = ending
        self.file = link.makefile("rb")

    def send(self, text: str) -> None:
        try:
            self.link.sendall((text + self.ending).encode())
        except OSError as exc:
            raise ServiceError(f"{self.what}: {exc.strerror or exc}") from exc

    def read(self) -> str:
        try:
            line = self.file.readline(65536)
        except socket.timeout as exc:
            raise ServiceError(f"{self.what}: no answer after {TIMEOUT:g} s") from exc
        except OSError as exc:
            raise ServiceError(f"{self.what}: {exc.strerror or exc}") from exc
        if not line:
            raise ServiceError(f"{self.what}: closed the connection")
        return line.decode(errors="backslashreplace").rstrip("\r\n")

    def until(self, last: Callable[[str], bool]) -> list[str]:
        """Read up to the line for which last() holds."""
        lines = [self.read()]
        while not last(lines[-1]):
            lines.append(self.read())
        return lines

    def expect(self, prefix: str, lines: list[str], question: str) -> str:
        """Return the answer as one text; raises ServiceError when its last line does not begin with prefix."""
        if not lines[-1].startswith(prefix):
            raise ServiceError(f"{self.what}: {question} is answered {' / '.join(lines)}")
        return " ".join(lines)

    def close(self) -> None:
        self.file.close()
        self.link.close()


def _connect(what: str, where: str, port: int = 0, tls: bool = False, ending: str = "\r\n") -> Line:
    """Connect to a port, or to the socket named where when port is 0; waits for a daemon that has just started."""
    deadline = time.monotonic() + PATIENCE
    while True:
        link = socket.socket(socket.AF_UNIX) if not port else None
        try:
            if link is not None:
                link.settimeout(TIMEOUT)
                link.connect(where)
            else:
                link = socket.create_connection((where, port), TIMEOUT)
            if tls:
                # Whether the service works is asked here, not whether others trust its certificate.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                link = context.wrap_socket(link)
            return Line(what, link, ending)
        except OSError as exc:
            if link is not None:
                link.close()
            if isinstance(exc, ssl.SSLError):
                raise ServiceError(f"{what}: TLS fails: {exc.reason or exc}") from exc
            if isinstance(exc, socket.timeout):
                raise ServiceError(f"{what}: no answer after {TIMEOUT:g} s") from exc
            if time.monotonic() >= deadline or not isinstance(exc, (ConnectionError, FileNotFoundError)):
                raise ServiceError(f"{what}: {exc.strerror or exc}") from exc
        time.sleep(0.2)


def homes(root: str) -> Iterator[str]:
    """The folders of the mailboxes below root: <root>/<domain>/<local part>."""
    try:
        for domain in os.scandir(root):
            if domain.is_dir(follow_symlinks=False) and not domain.name.startswith("."):
                for home in os.scandir(domain.path):
                    if home.is_dir(follow_symlinks=False):
                        yield home.path
    except FileNotFoundError:
        return


class Dovecot(Service):
    """Options of the probe: imap, pop3, managesieve (bool: is it offered?), address (where, 127.0.0.1), mail_root,
    owner (system user to whom mail_root belongs; made here), directory (folder of dovecot-users), user (a mailbox to
    look into; without it the first of the directory).
    """

    name = "dovecot"
    units = ("dovecot.service",)
    folders = ("/etc/dovecot",)

    def swap_rank(self, dest: str) -> int:
        # dovecot.conf names the other files, and waits for the reload like all of them
        return 1 if dest == CONFIG else 0

    # The system user who owns all mail, and the folder with all mail

    def missing(self) -> list[str]:
        owner, root = self._option("owner", ""), self._option("mail_root", MAIL_ROOT)
        if not owner:
            return []
        try:
            user = pwd.getpwnam(owner)
        except KeyError:
            return [f"user {owner}: is not there", *([] if os.path.isdir(root) else [f"{root}: is not there"])]
        reasons = []
        if (user.pw_dir, user.pw_shell) != (root, NO_SHELL):
            reasons.append(f"user {owner}: home {user.pw_dir} and shell {user.pw_shell}, not {root} and {NO_SHELL}")
        try:
            found = os.stat(root)
        except FileNotFoundError:
            return [*reasons, f"{root}: is not there"]
        if (found.st_uid, found.st_gid) != (user.pw_uid, user.pw_gid):
            reasons.append(f"{root}: does not belong to {owner}")
        if stat.S_IMODE(found.st_mode) != ROOT_MODE:
            reasons.append(f"{root}: mode {stat.S_IMODE(found.st_mode):04o}, not {ROOT_MODE:04o}")
        return reasons

    def provide(self) -> None:
        owner, root = self._option("owner", ""), self._option("mail_root", MAIL_ROOT)
        if not self.missing():
            return
        home = ["--home-dir", root, "--shell", NO_SHELL]
        try:
            user = pwd.getpwnam(owner)
        except KeyError:
            # The group may be there already, for another service's socket.
            known = run(["getent", "group", owner], check=False).rc == 0
            group = ["--gid", owner] if known else ["--user-group"]
            run(["useradd", "--system", *_former_number(root), *group, "--no-create-home", *home, owner])
            user = pwd.getpwnam(owner)
        if (user.pw_dir, user.pw_shell) != (root, NO_SHELL):
            run(["usermod", "--home", root, "--shell", NO_SHELL, owner])
        os.makedirs(root, exist_ok=True)
        os.chown(root, user.pw_uid, user.pw_gid)
        os.chmod(root, ROOT_MODE)

    # What the daemon's own tools say

    def check(self, stage: Stage) -> None:
        config = stage.path(CONFIG)
        done = run(["doveconf", "-n", "-c", config], check=False)
        # Its warnings are about settings that do not do what they seem to do.
        if done.rc != 0 or done.err.strip():
            words = [line for line in (done.err or done.out).splitlines() if line.strip()]
            raise ServiceError("\n".join(_live(stage, line) for line in dict.fromkeys(words)))
        self._check_sieve(stage, config)
        self._check_format(config)

    def _check_sieve(self, stage: Stage, config: str) -> None:
        folder = stage.path(SIEVE)
        if not os.path.isdir(folder):
            return
        with tempfile.TemporaryDirectory() as scratch:
            for script in sorted(os.listdir(folder)):
                if script.endswith(".sieve"):
                    path = os.path.join(folder, script)
                    done = run(["sievec", "-c", config, path, os.path.join(scratch, "out.svbin")], check=False)
                    if done.rc != 0 or done.err.strip():
                        raise ServiceError(f"{SIEVE}/{script}:\n{_live(stage, done.words)}")

    def _check_format(self, config: str) -> None:
        """Refuse another format while mail lies there in the former one: its owners would find empty mailboxes."""
        wanted = self.mail_format(config)
        former = self.mail_format(CONFIG) if os.path.exists(CONFIG) else ""
        if wanted == former:
            return
        for home in homes(self._option("mail_root", MAIL_ROOT)):
            for name, traces in TRACES.items():
                if name != wanted and any(os.path.exists(os.path.join(home, trace)) for trace in traces):
                    raise ServiceError(
                        f"{home} holds mail in the format {name}; as {wanted} the mailbox would look empty. "
                        f"Convert the mailboxes first (doveadm-sync(1)) or keep the format {name}"
                    )

    def mail_format(self, config: str) -> str:
        """The format a configuration stores mail in (maildir, mbox); '' when it cannot be told."""
        setting = "mail_location" if self.debian < 13 else "mail_driver"
        done = run(["doveconf", "-c", config, "-h", setting], check=False)
        return done.out.strip().split(":")[0] if done.rc == 0 else ""

    # Reload

    def restart_reason(self, changes: list[Change]) -> str | None:
        for change in changes:
            if change.dest != CONFIG:
                continue
            # Ports, sockets and protocols come and go with a reload; doveadm looks for the master process in base_dir.
            if _base_dir(change.before) != _base_dir(change.after):
                return "base_dir"
            # The master process reads it once, at its start.
            if _environment(change.before) != _environment(change.after):
                return "import_environment"
        return None

    def reload(self) -> None:
        """Reload, and wait until it has happened: a configuration that the master process cannot use is only logged."""
        former = self._config_process()
        run(["systemctl", "reload", *self.units])
        deadline = time.monotonic() + PATIENCE
        while self._config_process() == former:
            if time.monotonic() >= deadline:
                raise ServiceError("Dovecot was told to reload and kept its former configuration")
            time.sleep(0.1)

    def _config_process(self) -> str:
        """The process that hands the configuration out; a new one with each configuration. '' when there is none."""
        done = run(["doveadm", "process", "status", "config"], check=False, timeout=TIMEOUT)
        found = re.search(r"^config\s+(\d+)\s", done.out, re.MULTILINE)
        return found.group(1) if found else ""

    # Probe

    def probe(self) -> None:
        address = self._option("address", "127.0.0.1")
        if self.options.get("imap", True):
            self._probe_imap(_connect(f"IMAP at {address}:993", address, 993, tls=True))
        if self.options.get("pop3", False):
            self._probe_pop3(_connect(f"POP3 at {address}:995", address, 995, tls=True))
        if self.options.get("managesieve", False):
            self._probe_managesieve(_connect(f"ManageSieve at {address}:4190", address, 4190))
        users = os.path.join(self._option("directory", DIRECTORY), "dovecot-users")
        # Before there is a directory nobody has a mailbox: no fault of the configuration.
        if os.path.exists(users):
            self._probe_policy(_connect("quota policy", f"{SOCKETS}/postfix-quota", ending="\n"))
            self._probe_login(_connect("SASL", f"{SOCKETS}/postfix-auth", ending="\n"))
            self._probe_delivery(_connect("LMTP", f"{SOCKETS}/postfix-lmtp"))
            user = self._option("user", "") or _first_user(users)
            if user:
                self._probe_mailbox(user)

    def _option(self, name: str, default: str) -> str:
        return str(self.options.get(name) or default)

    def _probe_imap(self, line: Line) -> None:
        line.expect("* OK", [line.read()], "the connection")
        line.send("a CAPABILITY")
        answer = line.expect("a OK", line.until(lambda text: text.startswith("a ")), "CAPABILITY")
        if "AUTH=PLAIN" not in answer:
            raise ServiceError(f"{line.what}: offers no login: {answer}")
        # The auth process is asked and answers; a refused login would count as an attack from this address.
        line.send("b AUTHENTICATE PLAIN")
        line.expect("+", [line.read()], "AUTHENTICATE PLAIN")
        line.send("*")
        line.until(lambda text: text.startswith("b "))
        line.send("c LOGOUT")
        line.close()

    def _probe_pop3(self, line: Line) -> None:
        line.expect("+OK", [line.read()], "the connection")
        line.send("CAPA")
        answer = line.expect(".", line.until(lambda text: text == "." or text.startswith("-ERR")), "CAPA")
        if not re.search(r"\bSASL\b.*\bPLAIN\b", answer):
            raise ServiceError(f"{line.what}: offers no login: {answer}")
        line.send("QUIT")
        line.close()

    def _probe_managesieve(self, line: Line) -> None:
        answer = line.expect("OK", line.until(lambda text: text.startswith(("OK", "NO", "BYE"))), "the connection")
        if '"STARTTLS"' not in answer:
            raise ServiceError(f"{line.what}: offers no TLS: {answer}")
        line.send("LOGOUT")
        line.close()

    def _probe_login(self, line: Line) -> None:
        """A login nobody can have, over Postfix's socket: refused, and not for a fault of the databases."""
        line.send(f"VERSION\t1\t1\nCPID\t{os.getpid()}")
        offer = line.until(lambda text: text == "DONE")
        if not any(text.startswith("MECH\tPLAIN\t") for text in offer):
            raise ServiceError(f"{line.what}: does not offer PLAIN")
        response = base64.b64encode(f"\0{NOBODY}\0no password".encode()).decode()
        line.send(f"AUTH\t1\tPLAIN\tservice=smtp\tsecured\tresp={response}")
        answer = line.read().split("\t")
        if answer[0] != "FAIL":
            raise ServiceError(f"{line.what}: the login of {NOBODY}, whom nobody made, is answered {answer[0]}")
        if "temp" in answer or "code=temp_fail" in answer:
            raise ServiceError(f"{line.what}: nobody can log in: the user database does not work")
        line.close()

    def _probe_delivery(self, line: Line) -> None:
        def ended(text: str) -> bool:
            return text[3:4] != "-"

        line.expect("220", line.until(ended), "the connection")
        line.send("LHLO localhost")
        line.expect("250", line.until(ended), "LHLO")
        line.send("MAIL FROM:<>")
        line.expect("250", line.until(ended), "MAIL FROM:<>")
        line.send(f"RCPT TO:<{NOBODY}>")
        # 451 here would be 451 for everybody's mail
        line.expect("550 5.1.1", line.until(ended), f"RCPT TO:<{NOBODY}>, who does not exist,")
        line.send("QUIT")
        line.close()

    def _probe_policy(self, line: Line) -> None:
        line.send(f"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient={NOBODY}\nsize=0\n")
        line.expect("action=DUNNO", [line.read()], f"the question for {NOBODY}")
        line.close()

    def _probe_mailbox(self, user: str) -> None:
        root = self._option("mail_root", MAIL_ROOT)
        local, _at, domain = user.rpartition("@")
        home = run(["doveadm", "user", "-f", "home", user], timeout=TIMEOUT).out.strip()
        # A variable that a release does not know is taken literally: one mailbox for everybody.
        if home != f"{root}/{domain}/{local}":
            raise ServiceError(f"the mailbox of {user} lies in {home}, not in {root}/{domain}/{local}")
        done = run(["doveadm", "mailbox", "list", "-u", user], check=False, timeout=TIMEOUT)
        if done.rc != 0 or "INBOX" not in done.out.split():
            raise ServiceError(f"the mailbox of {user} cannot be opened: {done.words}")


def _former_number(root: str) -> list[str]:
    """For useradd: mail that came from another host, on its disk or by a restore, keeps the number of its owner."""
    try:
        number = os.stat(root).st_uid
        pwd.getpwuid(number)
    except FileNotFoundError:
        return []
    except KeyError:
        return ["--uid", str(number)]
    return []


def _live(stage: Stage, text: str) -> str:
    """A checker's words with the paths that the user knows."""
    return text.replace(stage.root.rstrip("/") + "/", "/")


def _base_dir(text: bytes | None) -> str:
    found = re.findall(rb"^\s*base_dir\s*=\s*(\S+)", text or b"", re.MULTILINE)
    return found[-1].decode(errors="replace") if found else SOCKETS


def _environment(text: bytes | None) -> list[bytes]:
    """What import_environment says, as a list (2.3) or as a block (2.4)."""
    found = re.findall(rb"^\s*import_environment\s*(?:=([^\n]*)|\{([^}]*)\})", text or b"", re.MULTILINE)
    return [word for parts in found for word in b" ".join(parts).split()]


def _first_user(path: str) -> str:
    """The first name of a passwd-file; '' when it is empty."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        for text in handle:
            name = text.split(":")[0].strip()
            if name and not name.startswith("#"):
                return name
    return ""


SERVICE = Dovecot
