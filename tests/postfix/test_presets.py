# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The presets of mailserver_policy in Postfix of both releases: each rule known, on trial, and off.

The peers' DNS says 127.0.0.5 to whatever is asked of a list. Rules about names are in tests/lab.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.postmeister.host.plugins.module_utils._policy.restrictions import LISTS, RULES, derive
from conftest import Host

ALICE = "alice@example.test"


def site(host: Host, **policy: Any) -> None:
    host.site(postfix_recipient_restrictions=derive(policy)["restrictions"]).good()


def test_presets_reject_warn_and_let_in(host: Host) -> None:
    def told(helo: str = "client.remote.test", sender: str = "carl@remote.test") -> str:
        code, words = host.asked(host.client(helo=helo), sender, ALICE)
        return f"{code} {words}"

    try:
        # Rules by themselves: these are off, as where the tests come from has a name here and none there.
        off = (
            "reject_non_fqdn_helo_hostname",
            "reject_unknown_client_hostname",
            "reject_unknown_reverse_client_hostname",
        )
        site(host, preset="strict", rules=dict.fromkeys(off, "off"))
        assert told(helo="bad", sender="a") == "504 5.5.2 <a>: Sender address rejected: need fully-qualified address"
        refused = told(helo="bad")
        assert refused.startswith("554 5.7.1 Service unavailable; Client host [")
        assert refused.endswith("] blocked using zen.spamhaus.org")
        # all of them on trial: who breaks many is let in, and the log has what each would have said
        since = host.sh("date +%s.%N").strip()
        site(host, preset="strict", rules=dict.fromkeys(RULES, "warn"), lists=dict.fromkeys(LISTS, "warn"))
        assert told(helo="bad", sender="a") == "250 2.1.5 Ok"
        log = host.sh(f"journalctl --sync; journalctl --no-pager --output=cat --since=@{since} --facility=mail")
        warned = [line for line in log.splitlines() if "reject_warning: RCPT from " in line and "helo=<bad>" in line]
        for words in (
            "504 5.5.2 <bad>: Helo command rejected: need fully-qualified hostname",
            "504 5.5.2 <a>: Sender address rejected: need fully-qualified address",
            " blocked using zen.spamhaus.org",
        ):
            assert [line for line in warned if words in line], (words, warned)
        site(host, preset="open")
        assert told(helo="bad", sender="a") == "250 2.1.5 Ok"
    finally:
        host.site().good()
    assert told(helo="bad").startswith("504 5.5.2 ")
