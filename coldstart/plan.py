"""The whole sweep as data, before any node is touched: which boots there are, in which order, about how long.

Order matters: with 10 % drift, identical systems look different when measured one after the other. So `interleaved`
boots in blocks: a block holds one boot of every trial of the node, shuffled. The shuffle comes from the seed and the
node's name alone, so a plan can be made again, and nodes do not all do the same thing at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from graphlib import TopologicalSorter

from coldstart.errors import UsageError
from coldstart.model import Boots, Node, Order, Plan, Playbook, Target, Trial

RuntimesOf = Callable[[Node], Collection[str] | None]


def allowed_runtimes(node: Node) -> Collection[str] | None:
    """The runtimes a node may be given by its `coldstart_runtimes`; None: all."""
    given = node.vars.get("coldstart_runtimes")
    return [word.strip() for word in given.split(",")] if isinstance(given, str) else given


def expand(nodes: Iterable[Node], playbook: Playbook, seed: int, runtimes_of: RuntimesOf = allowed_runtimes) -> Plan:
    """All trials, and every node's order. A node that may run none of the targets has neither; UsageError if none is
    left at all."""
    wanted = [
        (node, target, start)
        for node in nodes
        for target in targets_of(node, playbook, runtimes_of)
        for start in playbook.starts
    ]
    if not wanted:
        raise UsageError(
            "nothing to measure: no node may run any target", hint="see coldstart_runtimes in the inventory"
        )
    trials = tuple(
        Trial(
            number,
            node.name,
            node.site,
            target.name,
            target.runtime,
            start,
            replace(playbook.load, boots=boots_of(target, playbook)),
        )
        for number, (node, target, start) in enumerate(wanted)
    )
    by_node: dict[str, list[Trial]] = {}
    for trial in trials:
        by_node.setdefault(trial.node, []).append(trial)
    in_waves = playbook.sync == "wave"
    arrange = _blocked if playbook.order == "blocked" else _in_step if in_waves else _interleaved
    orders = {node: tuple(arrange(own, seed)) for node, own in by_node.items()}
    return Plan(seed, trials, orders, _waves(orders) if in_waves else ())


def targets_of(node: Node, playbook: Playbook, runtimes_of: RuntimesOf = allowed_runtimes) -> tuple[Target, ...]:
    """Those that the node may be given."""
    allowed = runtimes_of(node)
    return tuple(target for target in playbook.targets if allowed is None or target.runtime in allowed)


def _waves(orders: Mapping[str, Sequence[Order]]) -> tuple[Boots, ...]:
    """What the nodes boot together, in order. Each has the same order, but perhaps not all of it."""
    before: dict[Boots, set[Boots]] = {}
    for own in orders.values():
        boots = [boots_of_order(order) for order in own]
        for earlier, later in zip([None, *boots], boots, strict=False):
            before.setdefault(later, set()).update(() if earlier is None else (earlier,))
    return tuple(TopologicalSorter(before).static_order())


def boots_of_order(order: Order) -> Boots:
    """What an order has in common with those of other nodes."""
    return (order.target, order.start, order.index)


def remaining(plan: Plan, done: AbstractSet[tuple[int, int]]) -> Plan:
    """The plan without the boots in `done`, as (trial, index); a node with none left has no order."""
    left = {
        node: tuple(order for order in orders if (order.trial, order.index) not in done)
        for node, orders in plan.orders.items()
    }
    wanted = {boots_of_order(order) for orders in left.values() for order in orders}
    waves = tuple(boots for boots in plan.waves if boots in wanted)
    return replace(plan, orders={node: orders for node, orders in left.items() if orders}, waves=waves)


def estimate_ns(plan: Plan, playbook: Playbook, typical_ns: Mapping[str, int]) -> dict[str, int]:
    """About how long each node will take, from what one boot of each target typically takes, if machines are emulated.
    Sending images and preparing come on top."""
    limits = {target.name: target.boots_emulated or boots_of(target, playbook) for target in playbook.targets}
    return {
        node: sum(o.gap_ns + o.hold_ns + typical_ns[o.target] for o in orders if o.index < limits[o.target])
        for node, orders in plan.orders.items()
    }


def boots_of(target: Target, playbook: Playbook) -> int:
    """Boots of each of a target's trials."""
    return target.boots or playbook.load.boots


def _generator(text: str) -> random.Random:
    return random.Random(text)  # a string is hashed with SHA-512: no PYTHONHASHSEED in it


def _interleaved(trials: list[Trial], seed: int) -> Iterator[Order]:
    generator = _generator(f"{seed}/{trials[0].node}")
    for index in range(max(trial.load.boots for trial in trials)):
        # Not shuffle(): of all its methods, Python promises the same sequence in every version for random() alone.
        for trial in sorted(trials, key=lambda _: generator.random()):
            if index < trial.load.boots:
                yield _order(trial, index)


def _in_step(trials: list[Trial], seed: int) -> Iterator[Order]:
    """The same on every node: blocks are shuffled by what is in them, so that a node without some of it keeps the
    order of the rest."""
    for index in range(max(trial.load.boots for trial in trials)):
        names = {trial: f"{seed}/{index}/{trial.target}/{trial.start}" for trial in trials}
        for trial in sorted(trials, key=lambda trial: _generator(names[trial]).random()):
            if index < trial.load.boots:
                yield _order(trial, index)


def _blocked(trials: list[Trial], _: int) -> Iterator[Order]:
    for trial in trials:
        for index in range(trial.load.boots):
            yield _order(trial, index)


def _order(trial: Trial, index: int) -> Order:
    load = trial.load
    return Order(trial.id, index, trial.target, trial.start, gap_ns=load.gap_ns, hold_ns=load.hold_ns)
