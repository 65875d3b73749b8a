"""All nodes in parallel. Yields events; prints nothing, stores nothing.

Every node has one task and one link (`nodetask.py`). One node's trouble never touches another's sweep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

from coldstart import bundle
from coldstart.agent.wire import Message
from coldstart.catalogue import Catalogue
from coldstart.clock import Offset
from coldstart.delivery import Delivery
from coldstart.errors import NodeError
from coldstart.events import Event
from coldstart.floors import settings_of
from coldstart.lasting import Connect
from coldstart.link import Conversation
from coldstart.model import Node, Playbook
from coldstart.nodetask import Common, NodeTask, Request
from coldstart.plan import targets_of
from coldstart.rendezvous import Gathering
from coldstart.throttle import Throttle

__all__ = ["Connect", "Event", "Pushing", "Request", "Survey", "clean", "push", "survey", "sweep"]

_Answer = TypeVar("_Answer")


def sweep(request: Request, connect: Connect) -> AsyncGenerator[Event, None]:
    """Run it on all nodes at once. Closing the iterator early ends every node in order."""
    code = bundle.build()
    gathering = Gathering(request.plan.orders, request.first_wave)
    nodes = [node for node in request.nodes if node.name in request.plan.orders]
    throttle = Throttle(request.push_bytes_per_s) if request.push_bytes_per_s else None

    def tasks(emit: Callable[[Event], None]) -> list[Coroutine[None, None, None]]:
        common = Common(connect, gathering, Catalogue(), emit, throttle)
        return [NodeTask(request, node, common).run(code) for node in nodes]

    return _events(tasks)


@dataclass(frozen=True)
class Pushing:
    """How images are pushed without a sweep; bytes_per_s: to all nodes together, 0: no limit."""

    run: str
    reconnect_s: float
    bytes_per_s: int = 0


def push(nodes: Sequence[Node], playbook: Playbook, how: Pushing, connect: Connect) -> AsyncGenerator[Event, None]:
    """Bring every node the images of all targets that it may be given, as `sweep` would."""
    code = bundle.build()
    throttle = Throttle(how.bytes_per_s) if how.bytes_per_s else None

    def tasks(emit: Callable[[Event], None]) -> list[Coroutine[None, None, None]]:
        common = Common(connect, Gathering((), 0), Catalogue(), emit, throttle)
        return [
            Delivery(node, targets_of(node, playbook), common).run(how.run, code, how.reconnect_s) for node in nodes
        ]

    return _events(tasks)


async def _events(
    start: Callable[[Callable[[Event], None]], list[Coroutine[None, None, None]]],
) -> AsyncGenerator[Event, None]:
    """What tasks tell, until all have ended."""
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    everything = asyncio.create_task(_all(start(queue.put_nowait), lambda: queue.put_nowait(None)))
    try:
        while (event := await queue.get()) is not None:
            yield event
        await everything  # a bug in a task is raised here
    finally:
        everything.cancel()
        await asyncio.gather(everything, return_exceptions=True)


async def _all(tasks: list[Coroutine[None, None, None]], finished: Callable[[], None]) -> None:
    try:
        await asyncio.gather(*tasks)
    finally:
        finished()


@dataclass(frozen=True)
class Survey:
    """What a node says of itself. host_key: with its fingerprint, empty for this machine; swept: what a dead run had
    left there and is removed now; wall_offset_ns: its wall clock minus ours, known within clock.bound_ns."""

    facts: dict[str, str]
    host_key: str
    swept: tuple[str, ...]
    clock: Offset
    wall_offset_ns: int


async def survey(nodes: Sequence[Node], run: str, connect: Connect) -> list[Survey | NodeError]:
    """Ask every node what it is; the error of those that cannot be asked."""

    async def ask(node: Node, code: bundle.Bundle) -> Survey:
        link = await connect(node, code)
        async with Conversation(node.name, link) as talk:
            greeting = await talk.ask("hello", "hello", run=run, settings=settings_of(node))
            answer = await talk.ask("survey", "surveyed")
            clock = await talk.compare_clocks()
            wall = talk.clock.wall_offset() or clock
            ours_ns = time.time_ns() - time.monotonic_ns()
            host_key = getattr(link, "host_key", "")
            swept = tuple(greeting["swept"]["removed"])
            return Survey(answer["facts"], host_key, swept, clock, wall.offset_ns - ours_ns)

    return await _each(nodes, ask)


async def clean(
    nodes: Sequence[Node], run: str, dead_run: str, connect: Connect, *, images: bool
) -> list[tuple[Message, Message] | NodeError]:
    """Have every node remove what `dead_run` ('': any) has left; images: empty its cache.
    Of each: (its greeting, its answer), or its error."""

    async def ask(node: Node, code: bundle.Bundle) -> tuple[Message, Message]:
        async with Conversation(node.name, await connect(node, code)) as talk:
            greeting = await talk.ask("hello", "hello", run=run, settings=settings_of(node))
            return greeting, await talk.ask("clean", "cleaned", run=dead_run, images=images)

    return await _each(nodes, ask)


async def _each(
    nodes: Sequence[Node], ask: Callable[[Node, bundle.Bundle], Awaitable[_Answer]]
) -> list[_Answer | NodeError]:
    """All at once, each answer or error in its node's place."""
    code = bundle.build()

    async def one(node: Node) -> _Answer | NodeError:
        try:
            return await ask(node, code)
        except NodeError as error:
            return error

    return await asyncio.gather(*map(one, nodes))
