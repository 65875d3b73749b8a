"""The verb `check`: ask every node what it is, and say what stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coldstart import controller, diagnosis
from coldstart.agent import runtimes
from coldstart.diagnosis import Known
from coldstart.errors import NodeError
from coldstart.floors import floors_of
from coldstart.model import Checked, Finding, Node
from coldstart.reach import Reach
from coldstart.store import new_run_id


def check(nodes: Sequence[Node], reach: Reach) -> list[Checked]:
    """Every node's findings, in the order of the inventory."""

    async def answers() -> list[controller.Survey | NodeError]:
        try:
            return await controller.survey(nodes, new_run_id(), reach.connect)
        finally:
            await reach.close()

    return [_checked(node, found) for node, found in zip(nodes, asyncio.run(answers()), strict=True)]


def judge(results: Sequence[Checked]) -> None:
    """NodeError if a node could not be asked."""
    lost = [result.node for result in results if not result.reachable]
    if lost:
        raise NodeError(f"{len(lost)} of {len(results)} nodes could not be checked: {', '.join(lost)}")


def _checked(node: Node, found: controller.Survey | NodeError) -> Checked:
    if isinstance(found, NodeError):
        message = found.message.removeprefix(f"{node.name}: ")
        finding = Finding(found.kind or "unreachable", diagnosis.PROBLEM, message, found.hint)
        return Checked(node.name, node.site, reachable=False, findings=(finding,))
    allowed = tuple(node.settings.get("coldstart_runtimes") or runtimes.names())
    known = Known(found.facts, floors_of(node), allowed, found.wall_offset_ns, found.clock.bound_ns, found.swept)
    return Checked(
        node.name,
        node.site,
        reachable=True,
        host_key=found.host_key,
        facts=found.facts,
        findings=tuple(diagnosis.findings(known)),
        offset_ns=found.clock.offset_ns,
        bound_ns=found.clock.bound_ns,
        rtt_ns=found.clock.rtt_ns,
    )
