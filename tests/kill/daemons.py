# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests know of Postfix and Dovecot: configurations that serve, and clients that see whether they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = Path(__file__).resolve().parent / "files"
#: A folder on a small tmpfs of its own, inside of Postfix's configuration.
SMALL = "/etc/postfix/small"

MAIN = """compatibility_level = 3.6
myhostname = mail.example.test
mydestination =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.2/32
smtpd_recipient_restrictions = reject_unauth_destination
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:x
virtual_mailbox_base = /var/vmail
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_alias_maps = texthash:/etc/postfix/aliases
alias_maps =
alias_database =
"""
MASTER = """smtp      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
"""

Files = list[dict[str, Any]]


def postfix_files(main: str = MAIN, master: str = MASTER, aliases: str = "", more: Files | None = None) -> Files:
    return [
        {"dest": "/etc/postfix/main.cf", "content": main},
        {"dest": "/etc/postfix/master.cf", "content": master},
        {"dest": "/etc/postfix/aliases", "content": aliases},
        *(more or []),
    ]


def postfix_set(letter: str, release: int) -> Files:
    """Files that serve only as a whole: with the main.cf of another set the restriction is unknown."""
    restriction = f"smtpd\n  -o smtpd_recipient_restrictions=reject_$rules_{letter}\n"
    return postfix_files(
        main=f"{MAIN}rules_{letter} = unauth_destination\n",
        master=MASTER.replace("smtpd\n", restriction, 1),
        aliases=f"{letter}@example.test postmaster@example.test\n",
    )


def dovecot_set(letter: str, release: int) -> Files:
    """Files that serve only as a whole: dovecot.conf includes one that no other set has."""
    main, _sep, users = (FILES / f"dovecot-{release}.conf").read_text().partition("# --- users\n")
    other = {"a": "b", "b": "a"}[letter]
    return [
        {"dest": "/etc/dovecot/dovecot.conf", "content": f"{main}!include users-{letter}.conf\n"},
        {"dest": f"/etc/dovecot/users-{letter}.conf", "content": users},
        {"dest": f"/etc/dovecot/users-{other}.conf", "state": "absent"},
        {"dest": "/etc/dovecot/note", "content": f"{letter}\n", "mode": "0640", "group": "dovecot", "secret": True},
    ]


@dataclass(frozen=True)
class Daemon:
    """What is different between them."""

    name: str
    packages: dict[str, Any]
    prepare: str  # a script, after the packages came
    probe: dict[str, Any]
    files: Callable[[str, int], Files]  # the set of a letter, for a release
    client: str  # a program that prints what is in served, where all is well
    served: str
    reload: str


POSTFIX = Daemon(
    name="postfix",
    packages={
        "names": ["postfix"],
        "hold": ["postfix.service"],
        "preseed": {"postfix": {"postfix/main_mailer_type": "No configuration"}},
    },
    prepare="",
    probe={"hostname": "probe.example.test", "recipient": "postmaster@example.test", "foreign": "a@b.invalid"},
    files=postfix_set,
    client="""
import smtplib
client = smtplib.SMTP("127.0.0.1", 25, local_hostname="client.example.test", timeout=60)
client.ehlo()
print(client.docmd("MAIL", "FROM:<>")[0], client.docmd("RCPT", "TO:<postmaster@example.test>")[0])
client.docmd("RSET")
client.quit()
""",
    served="250 250",
    reload="postfix reload",
)
DOVECOT = Daemon(
    name="dovecot",
    packages={
        "names": ["dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "openssl"],
        "hold": ["dovecot.service", "dovecot.socket"],
    },
    prepare=r"""
rm -rf /etc/dovecot/conf.d
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=mail.example.test \
    -keyout /etc/dovecot/tls.pem -out /root/certificate 2>/dev/null
cat /root/certificate >> /etc/dovecot/tls.pem
mkdir -p /etc/postmeister/directory
cd /etc/postmeister/directory
echo 'alice@example.test:{PLAIN}secret::::::' > dovecot-users
chgrp dovecot dovecot-users
chmod 640 dovecot-users
""",
    probe={"imap": True, "owner": "vmail"},
    files=dovecot_set,
    client="""
import imaplib, smtplib, ssl
with imaplib.IMAP4_SSL("127.0.0.1", 993, ssl_context=ssl._create_unverified_context(), timeout=60) as client:
    client.login("alice@example.test", "secret")
    selected = client.select("INBOX")[0]
with smtplib.LMTP("/run/dovecot/postfix-lmtp") as client:
    client.ehlo()
    client.docmd("MAIL", "FROM:<>")
    print(selected, client.docmd("RCPT", "TO:<alice@example.test>")[0])
""",
    served="OK 250",
    reload="doveadm reload",
)
DAEMONS = {daemon.name: daemon for daemon in (POSTFIX, DOVECOT)}
