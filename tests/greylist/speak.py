# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs in the container: SMTP sessions from an address of its own. Order and result are JSON on stdin and stdout."""

from __future__ import annotations

import json
import smtplib
import sys
import time
from typing import Any


def session(order: dict[str, Any]) -> dict[str, Any]:
    """One message, or what keeps it from being one."""
    server = "2001:db8:51::25" if ":" in order["source"] else "198.51.100.25"
    began = time.monotonic()
    client = smtplib.SMTP(server, 25, order["helo"], timeout=60, source_address=(order["source"], 0))
    client.ehlo()
    client.docmd("MAIL", f"FROM:<{order['sender']}>")
    answers = []
    for recipient in order["recipients"]:
        code, words = client.docmd("RCPT", f"TO:<{recipient}>")
        answers.append([code, words.decode()])
    if any(code == 250 for code, _words in answers):
        code, words = client.data(f"Subject: {order['subject']}\r\n\r\nhello\r\n".encode())
        answers.append([code, words.decode()])
    client.quit()
    return {"answers": answers, "seconds": time.monotonic() - began}


def main() -> None:
    order = json.load(sys.stdin)
    json.dump([session(order) for _turn in range(order["times"])], sys.stdout)


if __name__ == "__main__":
    main()
