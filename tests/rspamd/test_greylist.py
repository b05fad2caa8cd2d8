# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The greylist that only suspicious mail meets, with real Redis and rspamd on both releases."""

from __future__ import annotations

import time

from conftest import EVIL, LOCAL, Host

#: suspicious: what it lacks is worth more than 6, and less than what is refused
BARE = b"From: x@evil.test\r\nSubject: money\r\n\r\nhi\r\n"
ALICE = "alice@example.test"
WAIT = "451 4.7.1 Try again later"
#: seconds, in place of five minutes
DELAY = 5
SHORT = {"override.d/greylist.conf": f"timeout = {DELAY}s;"}


def test_only_suspicious_mail_waits(host: Host) -> None:
    def suspicious(body: bytes = BARE) -> str:
        return host.send(raw=body, client=EVIL).verdict

    # The control: as the role is without it, suspicious mail is marked and goes on
    assert suspicious() == "accept"
    try:
        host.site(rspamd_greylist=True, rspamd_files=SHORT).good()
        assert suspicious() == WAIT
        first = time.monotonic()
        # mail of a stranger with nothing to hide, of a user and of the host itself does not wait
        assert host.good().verdict == "accept"
        assert host.send(raw=BARE.replace(b"x@evil.test", ALICE.encode()), login=ALICE).verdict == "accept"
        assert host.send(raw=BARE, client=LOCAL).verdict == "accept"
        time.sleep(max(0.0, first + DELAY + 1 - time.monotonic()))
        # who comes back is let in, with the mark; a bot with ever new mail to other people is not
        answer = host.send(raw=BARE, client=EVIL)
        assert (answer.verdict, answer.values("X-Spam")) == ("accept", ["Yes"])
        other = host.send(raw=BARE.replace(b"hi", b"ho"), client=("mx.evil.test", "203.0.113.66"), sender="y@evil.test")
        assert other.verdict == WAIT
        assert host.site(rspamd_greylist=True, rspamd_files=SHORT).good().stats["changed"] == 0
    finally:
        host.site(rspamd_files=dict.fromkeys(SHORT, "")).good()
    assert suspicious(BARE.replace(b"hi", b"hello")) == "accept"
