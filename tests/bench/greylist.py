# SPDX-License-Identifier: GPL-3.0-or-later

"""The greylist with many exempt clients and recipients."""

from __future__ import annotations

import ipaddress
import json
import statistics
import uuid

from figures import Result, figure
from lab import HOST, BenchError, inside
from plays import INVENTORY, finished, play, scratch

MANY = 10_000
WATCH = "/usr/local/lib/postmeister/greylist_watch.py"
#: asks postgrey as Postfix does, once for each question on stdin; runs beside the program that looks after it
ASK = """
import json, sys
import greylist_watch as watch
print(json.dumps([watch.ask("127.0.0.1", 10023, 30, **each) for each in json.load(sys.stdin)]))
"""


def entries(turn: int) -> dict[str, list[str]]:
    """A quarter of each: networks of both kinds, names of clients, recipients. Another set in each turn."""
    quarter = MANY // 4
    first4, first6 = int(ipaddress.IPv4Address("198.18.0.0")), int(ipaddress.IPv6Address("2001:db8:100::"))
    return {
        "postgrey_exempt_clients": [
            *(f"{ipaddress.IPv4Address(first4 + 4 * number + turn)}" for number in range(quarter)),
            *(f"{ipaddress.IPv6Address(first6 + (number << 64))}/64" for number in range(quarter)),
            *(f"mx{number}.turn{turn}.test" for number in range(quarter)),
        ],
        "postgrey_exempt_recipients": [f"user{number}@turn{turn}.test" for number in range(quarter)],
    }


def wrong(lists: dict[str, list[str]], turn: int) -> list[str]:
    """Questions that postgrey answers wrongly: first, middle and last of each kind pass, others do not."""
    clients, recipients, quarter = lists["postgrey_exempt_clients"], lists["postgrey_exempt_recipients"], MANY // 4
    asked: list[tuple[dict[str, str], bool]] = []
    for place in (0, quarter // 2, quarter - 1):
        # Nobody whom postgrey knows from an earlier measurement.
        sender = f"{uuid.uuid4().hex}@turn.test"
        stranger = {"client_name": "unknown", "client_address": "198.51.100.250", "sender": sender}
        network = ipaddress.ip_network(clients[quarter + place])
        asked += [
            ({**stranger, "client_address": clients[place]}, True),
            ({**stranger, "client_address": str(network[7])}, True),
            ({**stranger, "client_name": f"out.{clients[2 * quarter + place]}"}, True),
            ({**stranger, "recipient": recipients[place]}, True),
            ({**stranger, "recipient": f"x{recipients[place]}"}, False),
            ({**stranger, "client_name": f"mx{place}.turn{turn - 1}.test"}, False),
        ]
    questions = json.dumps([question for question, _passes in asked])
    answers = json.loads(inside(HOST, f"PYTHONPATH=$(dirname {WATCH}) python3 -c '{ASK}'", questions))
    judged = zip(asked, answers)
    return [f"{question}: {answer}" for (question, passes), answer in judged if passes != (answer == "DUNNO")]


@figure("s", "≤ 2")
def postgrey_10k_s() -> Result:
    """Wall time of a playbook that replaces 10,000 exempt clients and recipients of a running postgrey by others."""
    finished(HOST)
    seconds: dict[str, list[float]] = {"postgrey_many": [], "postgrey_role": []}
    for turn in range(1, 7):
        name = "postgrey_role" if turn % 2 else "postgrey_many"
        # Where an operator has such lists: in the inventory
        inventory = scratch("greylist") / f"turn{turn}"
        lists = inventory / "host_vars" / f"{HOST}.json"
        lists.parent.mkdir(parents=True)
        lists.write_text(json.dumps(entries(turn)))
        (inventory / "hosts").write_text(f"{HOST}\n")
        run = play(name, "--limit", HOST, inventory=[*INVENTORY, "-i", str(inventory)])
        faults = wrong(entries(turn), turn)
        if not run.changed or faults:
            raise BenchError(f"the lists of turn {turn} are not in force: {'; '.join(faults[:3]) or 'nothing changed'}")
        seconds[name].append(run.seconds)
    # Back to the inventory's lists
    play("postgrey_many", "--limit", HOST)
    by_module, by_role = map(statistics.median, seconds.values())
    detail = f"by the module, medians of three with other entries each; by the role {by_role:.2f} s"
    return Result(round(by_module, 2), detail)
