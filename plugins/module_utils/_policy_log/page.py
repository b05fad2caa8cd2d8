# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Reports as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

The drawings hold no text, so that they stretch to any width while the words stay readable; what a drawing shows stands
in a table as well.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import table

#: what is stacked in the chart over time, from below
STACK = ("accepted", "greylisted", "deferred", "rejected")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --accepted: #2f6fb5; --greylisted: #e3a008; --deferred: #9a6fb0; --rejected: #c8431b; --warned: #8a929a; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1419; --ink: #e6e9ec; --dim: #9aa4ae; --line: #343c45;
  --card: #171d24; --accepted: #5b9bd9; --greylisted: #e9b949; --deferred: #b794cc; --rejected: #ef7650;
  --warned: #89939d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .25rem 0; max-width: 45rem; }
.dim { color: var(--dim); }
.note { border-left: .25rem solid var(--greylisted); padding-left: .75rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.tiles dt { color: var(--dim); display: flex; align-items: center; gap: .4rem; }
.tiles dd { margin: 0; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.key { width: .8rem; height: .8rem; border-radius: .15rem; flex: none; display: inline-block; }
figure { margin: 0; }
.plot { display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; }
.plot svg { width: 100%; height: 12rem; display: block; border-bottom: 1px solid var(--dim); }
.plot .y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; line-height: 1;
  color: var(--dim); font-variant-numeric: tabular-nums; }
.plot .x { grid-column: 2; display: flex; justify-content: space-between; color: var(--dim); padding-top: .25rem;
  text-align: center; }
.plot .x :first-child { text-align: left; }
.plot .x :last-child { text-align: right; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .25rem 0 .5rem; list-style: none; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend.narrow { display: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); padding-bottom: .25rem; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; position: relative; } th .key { margin-right: .35rem; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 9rem; }
.n { text-align: right; white-space: nowrap; }
td.bar { width: 34%; min-width: 7rem; vertical-align: middle; }
td.bar svg { width: 100%; height: .9rem; display: block; }
.sub { display: block; color: var(--dim); font-size: .9rem; overflow-wrap: anywhere; }
details { margin-top: .5rem; }
summary { cursor: pointer; color: var(--dim); }
.accepted { fill: var(--accepted); background: var(--accepted); }
.greylisted { fill: var(--greylisted); background: var(--greylisted); }
.deferred { fill: var(--deferred); background: var(--deferred); }
.rejected { fill: var(--rejected); background: var(--rejected); }
.warned { fill: var(--warned); background: var(--warned); }
.grid { stroke: var(--line); stroke-width: 1; }
@media (max-width: 40rem) { .wide { display: none; } td.bar { min-width: 3rem; width: 16%; }
  th, td { padding-right: .5rem; } tbody th { min-width: 5rem; }
  .bars tbody th { min-width: 7.5rem; } .legend.narrow { display: flex; }
  th .key { margin: 0; }
  .word { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); } }
@media print { details > * { display: block; } }
"""


def page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """All hosts on one page."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
        f"<title>Mail policy report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        "<h1>Mail policy report</h1>\n",
        '<p class="dim">What was taken in, put off and refused, by the rule that decided, from the logs of each host. '
        "Rules on trial (<code>warn_if_reject</code>) refuse nothing: they say what they would have refused.</p>\n",
    ]
    if len(reports) > 1:
        parts.append(_overview(reports))
    parts += [_host(f"host{number}", host, report) for number, (host, report) in enumerate(reports.items(), 1)]
    return "".join([*parts, "</main>\n</body>\n</html>\n"])


def _overview(reports: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["Host", *map(_head, table.TOTALS)]
    rows = [
        [f'<a href="#host{number}">{_breakable(host, ".")}</a>', *(str(report[kind]) for kind in table.TOTALS)]
        for number, (host, report) in enumerate(reports.items(), 1)
    ]
    legend = f'<ul class="legend narrow" aria-hidden="true">{_legend(table.TOTALS)}</ul>\n'
    return f"<h3>{len(reports)} hosts</h3>\n{legend}" + _table("Totals of each host", head, rows)


def _host(anchor: str, host: str, report: Mapping[str, Any]) -> str:
    note = table.gap(report)
    tiles = "".join(
        f"<div><dt>{_key(kind)}{words}</dt><dd>{report[kind]}</dd></div>" for kind, words in table.TOTALS.items()
    )
    parts = [
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(host)}</h2>\n',
        f'<p class="dim">{escape(table.period(report))}</p>\n',
        f'<p class="note">{escape(note)}</p>\n' if note else "",
        f'<dl class="tiles">{tiles}</dl>\n',
        _over_time(report),
        _rules("Refused, by rule", [rule for rule in report["rules"] if not rule["warning"]]),
        _rules("On trial, by rule", [rule for rule in report["rules"] if rule["warning"]]),
        _lists(report["lists"]),
        _greylist(report["greylist"]),
        _verdicts(report["verdicts"]),
        "</section>\n",
    ]
    return "".join(parts)


# --- the chart over time ------------------------------------------------------------------------------------------


def nice(value: int) -> int:
    """The first of 2, 4, 10, 20, 40, 100 … that is not below; its half is a whole number."""
    size = 1
    while value > 10 * size:
        size *= 10
    return next(factor * size for factor in (2, 4, 10) if value <= factor * size)


def _over_time(report: Mapping[str, Any]) -> str:
    series = report["series"]
    kinds = [kind for kind in STACK if any(entry[kind] for entry in series)]
    title = f"<h3>Over time, every {table.duration(report['bucket'])}</h3>\n".replace("every 1 ", "every ")
    if not kinds:
        return title + "<p>Nothing was taken in or refused.</p>\n"
    top = nice(max(sum(max(entry[kind], 0) for kind in kinds) for entry in series))
    shapes = [
        '<line class="grid" x1="0" x2="100%" y1="0.5" y2="0.5"/><line class="grid" x1="0" x2="100%" y1="50%" y2="50%"/>'
    ]
    width = 100 / len(series)
    for index, entry in enumerate(series):
        base = 100.0
        for kind in kinds:
            height = 100 * max(entry[kind], 0) / top
            if height:
                base -= height
                shapes.append(
                    f'<rect class="{kind}" x="{(index + 0.1) * width:.2f}%" y="{base:.2f}%" width="{0.8 * width:.2f}%" '
                    f'height="{height:.2f}%"><title>{_label(entry["at"], report["bucket"])}: {entry[kind]} '
                    f"{table.TOTALS[kind]}</title></rect>"
                )
    ends = [series[0]["at"], series[len(series) // 2]["at"], report["until"]]
    labels = "".join(f"<span>{_label(at, report['bucket'])}</span>" for at in ends)
    rows = [
        [_label(entry["at"], report["bucket"]), *(str(entry[kind]) for kind in kinds)]
        for entry in series
        if any(entry[kind] for kind in kinds)
    ]
    head = ["From (UTC)", *map(_head, kinds)]
    return (
        f'{title}<figure>\n<ul class="legend">{_legend(kinds)}</ul>\n<div class="plot">\n'
        f'<div class="y" aria-hidden="true"><span>{top}</span><span>{top // 2}</span><span>0</span></div>\n'
        f'<svg role="img" aria-label="Mail over time; the numbers are in the table below">{"".join(shapes)}</svg>\n'
        f'<div class="x" aria-hidden="true">{labels}</div>\n</div>\n'
        f"<details><summary>The numbers</summary>\n{_table('Times without mail are left out', head, rows)}"
        "</details>\n</figure>\n"
    )


def _label(at: str, bucket: int) -> str:
    found = datetime.datetime.strptime(at, "%Y-%m-%dT%H:%M:%SZ")
    day = f"{found.day} {MONTHS[found.month - 1]}"
    return day if bucket >= 86400 else f"{day} {found:%H:%M}"


# --- tables with bars ---------------------------------------------------------------------------------------------


def _rules(title: str, rules: Sequence[Mapping[str, Any]]) -> str:
    if not rules:
        return ""
    most = max(rule["count"] for rule in rules)
    rows = []
    for rule in rules:
        notes = [f"list {rule['list']}"] if rule["list"] else []
        notes.append(f"senders: {', '.join(rule['sender_domains'])}")
        kind = "warned" if rule["warning"] else "greylisted" if rule["rule"] == "greylisting" else "rejected"
        first, second = (
            (rule["count"], 0) if kind != "rejected" else (rule["count"] - rule["temporary"], rule["temporary"])
        )
        rows.append(
            [
                _breakable(rule["rule"]) + "".join(f'<span class="sub">{escape(note)}</span>' for note in notes),
                _bar([(kind, first), ("deferred", second)], most),
                str(rule["count"]),
                str(rule["mails"]),
                str(rule["clients"]),
                escape(" ".join(rule["codes"])),
            ]
        )
    head = ["Rule", "", "Times", "Mails", "Clients", "Codes"]
    caption = "A client that tries the same mail again counts once under Mails"
    return f"<h3>{title}</h3>\n" + _table(caption, head, rows, wide=(4, 5), bars=1)


def _lists(lists: Sequence[Mapping[str, Any]]) -> str:
    if not lists:
        return ""
    most = max(entry["rejected"] + entry["warned"] for entry in lists)
    rows = [
        [
            escape(entry["list"]),
            _bar([("rejected", entry["rejected"]), ("warned", entry["warned"])], most),
            str(entry["rejected"]),
            str(entry["warned"]),
        ]
        for entry in lists
    ]
    return "<h3>By DNS list</h3>\n" + _table("", ["List", "", "Refused", "On trial"], rows, bars=1)


def _greylist(greylist: Mapping[str, Any]) -> str:
    if not greylist["by"]:
        return ""
    fates = table.fates(greylist)
    parts = [
        f"<h3>Greylist ({escape(', '.join(greylist['by']))})</h3>\n",
        _counted("What became of it", fates, "greylisted"),
    ]
    waits = [(table.delay(entry["seconds"]), entry["count"]) for entry in greylist["delays"]]
    if any(count for _words, count in waits):
        parts.append(
            "<h3>How long greylisted mail took</h3>\n" + _counted("From first attempt to passing", waits, "accepted")
        )
    return "".join(parts)


def _verdicts(verdicts: Mapping[str, int]) -> str:
    if not verdicts:
        return ""
    return "<h3>rspamd's verdicts</h3>\n" + _counted("Messages by action", list(verdicts.items()), "accepted")


def _counted(caption: str, entries: Sequence[tuple[str, int]], kind: str) -> str:
    most = max(1, *(count for _words, count in entries))
    rows = [[escape(words), _bar([(kind, count)], most), str(count)] for words, count in entries]
    return _table(caption, ["", "", "Count"], rows, bars=1)


def _bar(pieces: Iterable[tuple[str, int]], most: int) -> str:
    shapes, at = [], 0.0
    for kind, count in pieces:
        width = 100 * count / most
        if width:
            shapes.append(f'<rect class="{kind}" x="{at:.2f}%" y="0" width="{width:.2f}%" height="100%"/>')
        at += width
    return f'<svg aria-hidden="true">{"".join(shapes)}</svg>'


def _table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], wide: Sequence[int] = (), bars: int = -1
) -> str:
    """A table of ready HTML cells; the first of each row names it. wide: columns that a phone has no room for."""

    def cls(index: int) -> str:
        names = ["bar"] if index == bars else ["n"] if index > 0 else []
        names += ["wide"] if index in wide else []
        return f' class="{" ".join(names)}"' if names else ""

    top = "".join(
        f"<td{cls(index)}></td>" if not words else f'<th scope="col"{cls(index)}>{words}</th>'
        for index, words in enumerate(head)
    )
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{cls(index)}>{cell}</td>" for index, cell in enumerate(row) if index)
        + "</tr>\n"
        for row in rows
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    begin = f'<table class="bars">{said}' if bars >= 0 else f"<table>{said}"
    return f'<div class="scroll">{begin}\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _breakable(name: str, after: str = "_") -> str:
    """A long name, which a phone may break after such a character."""
    return escape(name).replace(after, f"{after}<wbr>")


def _legend(kinds: Iterable[str]) -> str:
    return "".join(f"<li>{_key(kind)}{table.TOTALS[kind]}</li>" for kind in kinds)


def _head(kind: str) -> str:
    """Heading of a column of such counts; a phone shows the colour alone, under a legend."""
    return f'{_key(kind)}<span class="word">{table.TOTALS[kind]}</span>'


def _key(kind: str) -> str:
    return f'<span class="key {kind}" aria-hidden="true"></span>'
