"""The verb `push`: bring the images of a playbook to the nodes, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from coldstart import controller
from coldstart.errors import ImageError, LeftoversError, NodeError
from coldstart.events import NodeDone, NotPushed, Pushed, Skipped
from coldstart.model import Push
from coldstart.progress import PushDisplay
from coldstart.reach import Reach
from coldstart.store import new_run_id
from coldstart.sweeping import Job


@dataclass
class Pushes:
    """What came of it. skipped: images that nothing there could take; failed: the others that did not arrive."""

    pushed: list[Push] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failed: list[NotPushed] = field(default_factory=list)
    ended: list[NodeDone] = field(default_factory=list)

    def judge(self) -> None:
        """Raise what the exit code must tell."""
        for done in self.ended:
            if done.leftovers:
                hint = "try coldstart clean"
                raise LeftoversError(f"{done.node}: could not remove {'; '.join(done.leftovers)}", hint=hint)
        lost = [done.node for done in self.ended if done.error]
        if lost:
            raise NodeError(f"{len(lost)} of {len(self.ended)} nodes did not get all: {', '.join(lost)}")
        if self.failed:
            names = ", ".join(f"{each.target} on {each.node}" for each in self.failed)
            kind = ImageError if all(each.invalid for each in self.failed) else NodeError
            raise kind(f"not pushed: {names}", hint="the reasons are above")
        if self.skipped and not self.pushed:
            raise NodeError("nothing was pushed: every image was skipped", hint="the reasons are above")


def push(job: Job, reach: Reach, *, reconnect_s: float, bytes_per_s: int) -> Pushes:
    """To all nodes at once; a broken link is opened again for up to reconnect_s."""
    return asyncio.run(_pushed(job, reach, controller.Pushing(new_run_id(), reconnect_s, bytes_per_s)))


async def _pushed(job: Job, reach: Reach, how: controller.Pushing) -> Pushes:
    result = Pushes()
    try:
        with PushDisplay([node.name for node in job.nodes]) as display:
            async with aclosing(controller.push(job.nodes, job.playbook, how, reach.connect)) as events:
                async for event in events:
                    display.take(event)
                    _take(result, event)
    finally:
        await reach.close()
    return result


def _take(result: Pushes, event: controller.Event) -> None:
    match event:
        case Pushed(push=push):
            result.pushed.append(push)
        case Skipped():
            result.skipped.append(event)
        case NotPushed():
            result.failed.append(event)
        case NodeDone():
            result.ended.append(event)
        case _:
            pass  # drawn, not kept
