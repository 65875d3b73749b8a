"""A plan, before anything is touched: which trials, how many boots, how long on each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from coldstart.model import Plan
from coldstart.report.document import dumps
from coldstart.report.text import table
from coldstart.units import format_duration

_HEADERS = (("node", False), ("site", False), ("target", False), ("runtime", False), ("start", False), ("boots", True))


def as_table(plan: Plan, estimate_ns: Mapping[str, int], *, width: int | None = None) -> str:
    """Trials, then a line per node. width: of the terminal, None if it is not one."""
    counts = _counts(plan)
    rows = [[t.node, t.site, t.target, t.runtime, t.start, str(counts[t.id])] for t in plan.trials]
    lines = [
        f"{node}: {len(plan.orders.get(node, ()))} boots, about {format_duration(ns)} and the time to prepare"
        for node, ns in estimate_ns.items()
    ]
    return table(rows, _HEADERS, width=width) + "\n" + "\n".join([*lines, f"seed {plan.seed}"]) + "\n"


def as_json(plan: Plan, estimate_ns: Mapping[str, int]) -> str:
    """The same, and the order of every node's boots."""
    counts = _counts(plan)
    trials = [
        {"trial": t.id, "node": t.node, "site": t.site, "target": t.target, "runtime": t.runtime, "start": t.start,
         "load": t.load.shape, "boots": counts[t.id]}
        for t in plan.trials
    ]  # fmt: skip
    orders = {node: [[order.trial, order.index] for order in orders] for node, orders in plan.orders.items()}
    estimate = {node: ns / 1e9 for node, ns in estimate_ns.items()}
    return dumps({"seed": plan.seed, "trials": trials, "orders": orders, "estimate_seconds": estimate}) + "\n"


def _counts(plan: Plan) -> Counter[int]:
    return Counter(order.trial for orders in plan.orders.values() for order in orders)
