# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._dns import ownership
from ansible_collections.postmeister.host.plugins.module_utils._dns.names import DnsError
from ansible_collections.postmeister.host.plugins.module_utils._dns.ownership import ForeignError, Owned, decide, steps
from ansible_collections.postmeister.host.plugins.module_utils._dns.record import RRset, parse_all
from ansible_collections.postmeister.host.plugins.module_utils._plan import Plan

SPF = "v=spf1 ip4:198.51.100.25 -all"
OLD = "v=spf1 ip4:198.51.100.24 -all"
OTHER = "site-verification=abc"


def wanted(*values: str, rrtype: str = "TXT", match: str = "v=spf1", exclusive: bool = True, ttl: int = 3600) -> Any:
    raw = {"name": "a.test", "type": rrtype, "values": list(values), "match": match, "exclusive": exclusive, "ttl": ttl}
    return parse_all([raw]) if values else []


def found(*values: str, rrtype: str = "TXT", ttl: int = 3600) -> dict[str, dict[str, RRset]]:
    return {"a.test.": {rrtype: RRset("a.test.", rrtype, ttl, values)}} if values else {}


def owned(*values: str, rrtype: str = "TXT", match: str = "v=spf1") -> list[Owned]:
    return [Owned("a.test.", rrtype, match, values)] if values else []


def after(decision: ownership.Decision, start: dict[str, dict[str, RRset]], rrtype: str = "TXT") -> set[str]:
    key = ("a.test.", rrtype)
    if key in decision.plan.delete:
        return set()
    touched = decision.plan.result().get(key) or start.get("a.test.", {}).get(rrtype)
    return set(touched.values) if touched else set()


@pytest.mark.parametrize(
    ("want", "own", "there", "result", "changed"),
    [
        ([SPF], [], [], {SPF}, True),
        ([SPF], [], [OTHER], {OTHER, SPF}, True),
        ([SPF], [], [SPF, OTHER], {SPF, OTHER}, False),
        ([SPF], [SPF], [SPF], {SPF}, False),
        ([SPF], [OLD], [OLD, OTHER], {SPF, OTHER}, True),
        ([SPF], [SPF], [OTHER], {OTHER, SPF}, True),
        ([SPF], [SPF], ["v=spf1 +all", OTHER], {OTHER, SPF}, True),
        ([], [SPF], [SPF, OTHER], {OTHER}, True),
        ([], [SPF], [SPF], set(), True),
        ([], [SPF], ["v=spf1 somebody else"], {"v=spf1 somebody else"}, False),
        ([], [SPF], [], set(), False),
        (["v=spf1 -all"], [], ["v=spf10 not spf"], {"v=spf1 -all", "v=spf10 not spf"}, True),
    ],
)
def test_shared_rrset(want: list[str], own: list[str], there: list[str], result: set[str], changed: bool) -> None:
    start = found(*there)
    decision = decide(wanted(*want), owned(*own), start)
    assert after(decision, start) == result
    assert decision.plan.changed is changed
    assert [entry.values for entry in decision.owned] == ([tuple(want)] if want else [])


@pytest.mark.parametrize(
    ("own", "there"),
    [
        ([], [OLD]),
        ([], [SPF, OLD]),
        ([SPF], [SPF, OLD]),
        ([SPF], ["v=spf1 a", "v=spf1 b"]),
    ],
)
def test_foreign_is_refused_and_taken_over(own: list[str], there: list[str]) -> None:
    start = found(*there, OTHER)
    with pytest.raises(ForeignError) as caught:
        decide(wanted(SPF), owned(*own), start)
    assert "TXT a.test." in str(caught.value)
    assert there[-1] in caught.value.before
    assert SPF in caught.value.after
    decision = decide(wanted(SPF), owned(*own), start, takeover=True)
    assert after(decision, start) == {SPF, OTHER}


def test_without_exclusive_values_stand_beside_others() -> None:
    start = found("10 x.test.", "20 ours.test.", rrtype="MX")
    decision = decide(
        wanted("20 new.test.", rrtype="MX", match="", exclusive=False),
        owned("20 ours.test.", rrtype="MX", match=""),
        start,
    )
    assert after(decision, start, "MX") == {"10 x.test.", "20 new.test."}


def test_two_marks_in_one_rrset() -> None:
    records = parse_all(
        [
            {"name": "a.test", "type": "TXT", "values": [SPF], "match": "v=spf1"},
            {"name": "a.test", "type": "TXT", "values": ["mark 1"], "match": "mark"},
        ]
    )
    start = found(OTHER)
    decision = decide(records, [], start)
    assert after(decision, start) == {OTHER, SPF, "mark 1"}
    start = found(OTHER, SPF, "mark 1")
    assert after(decide(records[:1], decision.owned, start), start) == {OTHER, SPF}


@pytest.mark.parametrize(
    ("there", "ttl", "result"),
    [([SPF], 600, 3600), ([SPF, OTHER], 600, None), ([OTHER], 600, 600), ([], 0, 3600)],
)
def test_ttl(there: list[str], ttl: int, result: int | None) -> None:
    """None: no change. Beside records of others theirs counts."""
    decision = decide(wanted(SPF), [], found(*there, ttl=ttl))
    made = decision.plan.result().get(("a.test.", "TXT"))
    assert (made.ttl if made else None) == result


def test_withdraw_false_keeps_what_others_phases_own() -> None:
    mx = Owned("a.test.", "MX", "", ("10 m.test.",))
    start = {"a.test.": {"MX": RRset("a.test.", "MX", 60, ("10 m.test.",))}}
    decision = decide(wanted(SPF), [mx], start, withdraw=False)
    assert ("a.test.", "MX") not in decision.plan.delete
    assert mx in decision.owned
    assert ("a.test.", "MX") in decide(wanted(SPF), [mx], start).plan.delete


def test_cname_in_the_way() -> None:
    start = found("other.test.", rrtype="CNAME")
    with pytest.raises(ForeignError, match=r"CNAME a\.test\."):
        decide(wanted(SPF), [], start)
    group = steps(decide(wanted(SPF), [], start, takeover=True).plan)
    assert [[step.key[1] for step in each] for each in group] == [["CNAME", "TXT"]]
    # Our own alias makes room without being asked.
    assert decide(wanted(SPF), owned("other.test.", rrtype="CNAME", match=""), start).plan.delete


def test_cname_is_not_put_beside_others() -> None:
    for takeover in (False, True):
        with pytest.raises(DnsError, match="stands alone"):
            decide(wanted("b.test.", rrtype="CNAME", match=""), [], found(OTHER), takeover=takeover)


def order(plan: Plan[Any, RRset]) -> list[str]:
    return [f"{'+' if step.after else '-'}{step.key[1]} {step.key[0]}" for group in steps(plan) for step in group]


def test_order_of_steps() -> None:
    def rrset(name: str, rrtype: str) -> RRset:
        return RRset(name, rrtype, 60, ("x",))

    keys = [
        ("a.", "MX"),
        ("_dmarc.a.", "TXT"),
        ("a.", "TXT"),
        ("_imaps._tcp.a.", "SRV"),
        ("_25._tcp.m.", "TLSA"),
        ("m.", "AAAA"),
        ("m.", "A"),
        ("m.", "CAA"),
    ]
    create = {key: rrset(*key) for key in keys}
    delete = {(f"o.{name}", rrtype): rrset(f"o.{name}", rrtype) for name, rrtype in keys}
    assert order(Plan(create=create, delete=delete)) == [
        "+A m.",
        "+AAAA m.",
        "+CAA m.",
        "+TLSA _25._tcp.m.",
        "+TXT a.",
        "+TXT _dmarc.a.",
        "+SRV _imaps._tcp.a.",
        "+MX a.",
        "-MX o.a.",
        "-SRV o._imaps._tcp.a.",
        "-TXT o._dmarc.a.",
        "-TXT o.a.",
        "-TLSA o._25._tcp.m.",
        "-CAA o.m.",
        "-A o.m.",
        "-AAAA o.m.",
    ]


@pytest.mark.parametrize("raw", [{}, {"name": "a", "type": "A"}, {"name": "a..b", "type": "A", "values": []}])
def test_owned_that_is_none(raw: dict[str, Any]) -> None:
    with pytest.raises(DnsError, match=r"owned\[0\]"):
        ownership.parse_owned([raw])


def test_split() -> None:
    rfc2136 = pytest.importorskip("ansible_collections.postmeister.host.plugins.module_utils._dns.rfc2136")
    groups = [[ownership.Step(None, RRset(f"h{number}.test.", "TXT", 60, ("x" * 1000,)))] for number in range(100)]
    chunks = rfc2136.split(groups, 10000)
    assert [group for chunk in chunks for group in chunk] == groups
    assert all(sum(map(rfc2136.length, chunk)) <= 10000 for chunk in chunks)
    assert len(chunks) < 20
    big = [[ownership.Step(None, RRset("big.test.", "TXT", 60, ("x" * 20000,)))]]
    with pytest.raises(DnsError, match=r"TXT big\.test\."):
        rfc2136.split(big, 10000)
