# SPDX-License-Identifier: GPL-3.0-or-later

"""A client with many addresses: knock.py TARGET SOURCE ORDER...

Orders are service:user:password, percent-encoded (imap, pop3, sieve, 465, 587), service alone, which only connects (25
as well), or mail:sender:recipient:HELO. Prints a JSON list: "ok", "refused" (the password), "closed" (no connection),
the code that answers RCPT or the end of the mail, or what else happened.
"""

import base64
import imaplib
import json
import poplib
import smtplib
import socket
import ssl
import sys
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

TARGET, SOURCE = sys.argv[1:3]
PORTS = {"imap": 993, "pop3": 995, "sieve": 4190, "25": 25, "465": 465, "587": 587}
TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE
#: to connect; and to answer, as the host lets who fails wait
SECONDS, PATIENCE = 10, 15


def connect(port):
    return socket.create_connection((TARGET, port), SECONDS, (SOURCE, 0))


def imap(user, password):
    class Link(imaplib.IMAP4_SSL):
        def _create_socket(self, timeout):
            return self.ssl_context.wrap_socket(connect(993))

    link = Link(TARGET, 993, ssl_context=TLS)
    link.sock.settimeout(PATIENCE)
    try:
        link.authenticate("PLAIN", lambda _challenge: f"\0{user}\0{password}".encode())
    except imaplib.IMAP4.error:
        return "refused"
    return "ok"


def pop3(user, password):
    class Link(poplib.POP3_SSL):
        def _create_socket(self, timeout):
            return self.context.wrap_socket(connect(995))

    link = Link(TARGET, 995, context=TLS)
    link.sock.settimeout(PATIENCE)
    link.user(user)
    try:
        link.pass_(password)
    except poplib.error_proto:
        return "refused"
    return "ok"


def sieve(user, password):
    link = connect(4190)
    link.settimeout(PATIENCE)

    def answer(file):
        while True:
            line = file.readline()
            if not line or line.startswith((b"OK", b"NO", b"BYE")):
                return line[:2].decode()

    answer(link.makefile("rb"))
    link.sendall(b"STARTTLS\r\n")
    answer(link.makefile("rb"))
    link = TLS.wrap_socket(link)
    file = link.makefile("rb")
    answer(file)
    token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    link.sendall(f'AUTHENTICATE "PLAIN" "{token}"\r\n'.encode())
    return {"OK": "ok", "NO": "refused"}.get(answer(file), "closed")


def smtp(port, user, password):
    if port == 465:
        link = smtplib.SMTP_SSL(context=TLS, timeout=SECONDS, source_address=(SOURCE, 0))
    else:
        link = smtplib.SMTP(timeout=SECONDS, source_address=(SOURCE, 0))
    link._host = TARGET
    link.connect(TARGET, port)
    link.sock.settimeout(PATIENCE)
    if port == 587:
        link.starttls(context=TLS)
    try:
        link.user, link.password = user, password
        link.ehlo()
        # login() would try the other mechanisms as well
        link.auth("PLAIN", link.auth_plain)
    except smtplib.SMTPAuthenticationError:
        return "refused"
    return "ok"


def mail(sender, recipient, helo):
    link = smtplib.SMTP(timeout=SECONDS, source_address=(SOURCE, 0), local_hostname=helo)
    link.connect(TARGET, 25)
    link.sock.settimeout(PATIENCE)
    link.ehlo()
    link.mail(sender)
    code, _text = link.rcpt(recipient)
    if code == 250:
        code, _text = link.data(f"From: <{sender}>\r\nSubject: hello\r\n\r\nGood morning\r\n")
    return str(code)


def order(words):
    service, _sep, rest = words.partition(":")
    if service == "mail":
        return mail(*rest.split(":"))
    if not rest:
        connect(PORTS[service]).close()
        return "ok"
    user, password = (urllib.parse.unquote(part) for part in rest.split(":"))
    if service.isdigit():
        return smtp(int(service), user, password)
    return {"imap": imap, "pop3": pop3, "sieve": sieve}[service](user, password)


def answer(words):
    try:
        return order(words)
    except (ConnectionError, TimeoutError, socket.timeout, smtplib.SMTPServerDisconnected, ssl.SSLEOFError):
        return "closed"
    except (imaplib.IMAP4.abort, poplib.error_proto) as problem:
        # How these say that the connection ended before a greeting
        return "closed" if "EOF" in str(problem) else f"{type(problem).__name__}: {problem}"
    except OSError as problem:
        return f"{type(problem).__name__}: {problem}"


# At once: one after the other, Dovecot makes each of an address that fails wait longer.
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(answer, sys.argv[3:]))))
