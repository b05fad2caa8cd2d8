# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside the container: asks Postfix and Dovecot as clients do. Prints one JSON value.

rcpt ADDRESS…            code of each RCPT
send ADDRESS…            deliver one message to each, its subject being the address
as LOGIN PASSWORD FROM…  code of each MAIL+RCPT after AUTH
lhlo                     what Dovecot's LMTP server offers
watch FILE ADDRESS…      ask while there is that file; prints [rounds, the answers that were not 250]
"""

from __future__ import annotations

import json
import os
import smtplib
import sys


def rcpt(addresses: list[str]) -> list[int]:
    codes = []
    with smtplib.SMTP("127.0.0.1", 25, timeout=60) as smtp:
        smtp.helo("client.test")
        for address in addresses:
            smtp.mail("")
            codes.append(smtp.rcpt(address)[0])
            smtp.rset()
    return codes


def main(verb: str, *words: str) -> object:
    if verb == "rcpt":
        return rcpt(list(words))
    if verb == "send":
        with smtplib.SMTP("127.0.0.1", 25, timeout=60) as smtp:
            for address in words:
                smtp.sendmail("", [address], f"Subject: to {address}\r\n\r\nHello\r\n")
        return len(words)
    if verb == "as":
        codes = []
        for sender in words[2:]:
            with smtplib.SMTP("127.0.0.1", 25, timeout=60) as smtp:
                smtp.login(words[0], words[1])
                smtp.mail(sender)
                codes.append(smtp.rcpt(words[0])[0])
        return codes
    if verb == "lhlo":
        with smtplib.LMTP("/run/dovecot/postfix-lmtp") as lmtp:
            lmtp.ehlo()
            return sorted(name.upper() for name in lmtp.esmtp_features)
    rounds, bad = 0, []
    while os.path.exists(words[0]):
        rounds += 1
        bad += [[address, code] for address, code in zip(words[1:], rcpt(list(words[1:]))) if code != 250]
    return [rounds, bad]


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
