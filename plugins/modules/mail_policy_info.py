#!/usr/bin/python
# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_policy_info
short_description: Count what a mail host refused, greylisted and took in
version_added: 0.1.0
description:
  - Reads what Postfix, postgrey and rspamd wrote to the host's journal in a period, and counts it by the rule and by
    the DNS list that decided.
  - What rules behind C(warn_if_reject) would have rejected is counted apart, so that a new rule can be judged before
    it counts.
  - Nothing is written. Reading the whole journal needs root, or membership in the group C(systemd-journal).
extends_documentation_fragment: [postmeister.host._attributes.info]
author: Postmeister contributors (@postmeister)
options:
  since:
    description:
      - The beginning of the period. Either how long ago, as a number with V(m), V(h), V(d) or V(w), or a date or a time
        in the form of ISO 8601, UTC unless it says otherwise.
    type: str
    default: 24h
  before:
    description: The end of the period, as O(since), or V(now).
    type: str
    default: now
"""

EXAMPLES = r"""
- name: See what new rules would have rejected in a week
  postmeister.host.mail_policy_info:
    since: 7d
  register: policy
"""

RETURN = r"""
report:
  description: The counts.
  returned: always
  type: dict
  contains:
    since:
      description: Beginning of the period, in UTC.
      type: str
      sample: "2026-11-20T10:00:00Z"
    until:
      description: End of the period, in UTC.
      type: str
      sample: "2026-11-21T10:00:00Z"
    journal_begins:
      description: Time of the oldest entry of the journal. What lies before is not counted.
      type: str
      sample: "2026-11-01T04:00:00Z"
    accepted:
      description: Messages that were taken in from strangers.
      type: int
      sample: 812
    rejected:
      description: Commands that were answered with 5xx.
      type: int
      sample: 95
    deferred:
      description: Commands that were answered with 4xx for another reason than greylisting.
      type: int
      sample: 7
    greylisted:
      description: Recipients that were answered with 450 by the greylist.
      type: int
      sample: 120
    warned:
      description: What rules behind C(warn_if_reject) would have rejected.
      type: int
      sample: 3
    rules:
      description: Each rule that refused something or would have, the busiest first.
      type: list
      elements: dict
      contains:
        rule:
          description: Name of the restriction as in C(main.cf), or the words of a reply that is not known.
          type: str
          sample: reject_rbl_client
        list:
          description: The DNS list, empty for other rules.
          type: str
          sample: zen.spamhaus.org
        warning:
          description: Whether it stands behind C(warn_if_reject).
          type: bool
          sample: false
        count:
          description: How often.
          type: int
          sample: 40
        temporary:
          description: How many of them with 4xx.
          type: int
          sample: 0
        mails:
          description: Different combinations of client, sender and recipient. A client that comes back is counted once.
          type: int
          sample: 31
        clients:
          description: Different client addresses.
          type: int
          sample: 28
        codes:
          description: How often each reply code was given.
          type: dict
          sample: {"554": 40}
        sender_domains:
          description: The most frequent domains of senders, at most five.
          type: list
          elements: str
          sample: [example.net]
    lists:
      description: The same by DNS list.
      type: list
      elements: dict
      contains:
        list:
          description: The list.
          type: str
          sample: zen.spamhaus.org
        rejected:
          description: What it rejected.
          type: int
          sample: 40
        warned:
          description: What it would have rejected.
          type: int
          sample: 0
    greylist:
      description: What the greylist did.
      type: dict
      contains:
        by:
          description: Whose entries there are, V(postgrey) or V(rspamd).
          type: list
          elements: str
          sample: [postgrey]
        new:
          description: First attempts.
          type: int
          sample: 60
        early_retries:
          description: Attempts before the delay was over.
          type: int
          sample: 60
        passed_after_retry:
          description: Mails that came back after the delay and passed.
          type: int
          sample: 22
        known:
          description: Mails that passed at once because the triplet was known.
          type: int
          sample: 300
        exempt:
          description: Mails that passed at once for another reason, by the reason.
          type: dict
          sample: {"client whitelist": 12}
        not_back:
          description: Triplets that did not come back until the end of the period.
          type: int
          sample: 38
        delays:
          description: How many mails passed after at most so many seconds; 0 stands for all that took longer.
          type: list
          elements: dict
          sample: [{"seconds": 300, "count": 4}]
    verdicts:
      description: What rspamd said of messages, in its own words.
      type: dict
      sample: {"no action": 700, "add header": 20}
    bucket:
      description: Seconds between two entries of RV(report.series).
      type: int
      sample: 3600
    series:
      description: The counts over time.
      type: list
      elements: dict
      sample:
        - {"at": "2026-11-20T10:00:00Z", "accepted": 4, "greylisted": 1, "deferred": 0, "rejected": 2, "warned": 0}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError
from ansible_collections.postmeister.host.plugins.module_utils._policy_log import count, journal


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "since": {"type": "str", "default": "24h"},
            "before": {"type": "str", "default": "now"},
        },
        supports_check_mode=True,
    )
    try:
        start, end = count.period(module.params["since"], module.params["before"], time.time())
        report = count.Report(start, end)
        report.read(journal.entries(start, end))
        begins = journal.begins()
    except (count.PeriodError, CommandError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, report={**report.as_dict(), "journal_begins": begins})


if __name__ == "__main__":
    main()
