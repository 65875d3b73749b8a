"""Nodes in parallel: connect, prepare, arm, run, collect. Yields events; prints nothing, stores nothing.

Every node has one task and one link. A broken link is opened again for as long as `reconnect_s` allows, and only the
boots that have not arrived are run: a boot arrives once. One node's trouble never touches another's sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tenacity

from coldstart import bundle, images, local
from coldstart.agent import runtimes
from coldstart.agent.records import Boot, Order, from_json, to_json
from coldstart.agent.wire import Message
from coldstart.errors import ColdstartError, ImageError, ProtocolError
from coldstart.events import BootDone, Event, LinkLost, NodeDone, NodeUp, Skipped, TargetReady
from coldstart.link import Conversation, Link, NodeBusy
from coldstart.link import LinkLost as LostError
from coldstart.model import Node, Plan, Playbook, Target

BATCH = 1000  # orders per message: far below the wire's limit
FRUITLESS_LINKS = 3  # links in a row that brought no boot: the next will not either
RETRY_S = 0.5

Connect = Callable[[Node, bundle.Bundle], Awaitable[Link]]


@dataclass(frozen=True)
class Request:
    """A sweep to do. done: boots that are in the store already, as (trial, index)."""

    run: str
    nodes: tuple[Node, ...]
    playbook: Playbook
    plan: Plan
    reconnect_s: float = 120.0
    done: frozenset[tuple[int, int]] = field(default_factory=frozenset)


async def sweep(request: Request, connect: Connect | None = None) -> AsyncGenerator[Event, None]:
    """Run it on all nodes at once. Closing the iterator early ends every node in order."""
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    code = bundle.build()
    tasks = [_NodeTask(request, node, connect or local.connect, code, queue.put_nowait).run() for node in request.nodes]
    everything = asyncio.create_task(_all(tasks, lambda: queue.put_nowait(None)))
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


async def clean(node: Node, run: str, dead_run: str, *, images: bool) -> tuple[Message, Message]:
    """Have a node remove what `dead_run` ('': any) has left; images: empty its cache. (its greeting, its answer)."""
    async with Conversation(node.name, await local.connect(node, bundle.build())) as talk:
        greeting = await talk.ask("hello", "hello", run=run, settings=_settings(node))
        return greeting, await talk.ask("clean", "cleaned", run=dead_run, images=images)


class _NodeTask:
    """One node's part of the sweep."""

    def __init__(
        self, request: Request, node: Node, connect: Connect, code: bundle.Bundle, emit: Callable[[Event], None]
    ) -> None:
        self._request = request
        self._node = node
        self._connect = connect
        self._code = code
        self._emit = emit
        self._done = set(request.done)
        self._limits: dict[str, int] = {}  # boots per trial, by target, where fewer than planned
        self._links = 0
        self._leftovers: tuple[str, ...] = ()

    async def run(self) -> None:
        error = ""
        try:
            await self._run_until_done()
        except ColdstartError as failure:
            error = str(failure)
        self._emit(NodeDone(self._node.name, error, self._leftovers))

    async def _run_until_done(self) -> None:
        fruitless = 0
        while True:
            before = len(self._done)
            try:
                await self._one_link()
                return
            except LostError as lost:
                fruitless = 0 if len(self._done) > before else fruitless + 1
                if fruitless >= FRUITLESS_LINKS or self._request.reconnect_s <= 0:
                    raise
                self._emit(LinkLost(self._node.name, lost.message))

    async def _one_link(self) -> None:
        """From connecting to goodbye."""
        talk, arch = await self._opened()
        try:
            async with talk:
                await self._work(talk, arch)
        finally:
            self._leftovers = talk.leftovers

    async def _opened(self) -> tuple[Conversation, str]:
        """A conversation whose agent is alone on its node, and the node's architecture. Tried again if there was a
        link before: that one's agent may still be cleaning up, or the node is on its way back."""
        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_exponential(multiplier=RETRY_S, max=5),
            stop=tenacity.stop_after_delay(self._request.reconnect_s),
            reraise=True,
        )
        return await again(self._open_once)

    def _may_pass(self, error: BaseException) -> bool:
        mine = isinstance(error, NodeBusy) and error.run == self._request.run
        return self._links > 0 and (mine or isinstance(error, LostError))

    async def _open_once(self) -> tuple[Conversation, str]:
        talk = Conversation(self._node.name, await self._connect(self._node, self._code))
        try:
            hello = await talk.ask("hello", "hello", run=self._request.run, settings=_settings(self._node))
        except BaseException:
            await talk.end()
            raise
        self._links += 1
        swept = hello["swept"]
        self._emit(NodeUp(self._node.name, hello["facts"], tuple(swept["removed"]), tuple(swept["failed"])))
        return talk, str(hello["facts"]["arch"])

    async def _work(self, talk: Conversation, arch: str) -> None:
        skipped: set[tuple[str, str]] = set()
        for target in self._targets():
            skipped |= await self._prepare(talk, target, arch)
        orders = self._orders(skipped)
        for start in range(0, len(orders), BATCH):
            await talk.ask("arm", "armed")
            await talk.tell("loop", orders=[to_json(order) for order in orders[start : start + BATCH]])
            async for message in talk.until("done"):
                self._take(message)

    def _take(self, message: Message) -> None:
        if message["type"] == "boot":
            boot = _boot(self._node.name, message)
            self._done.add((boot.trial, boot.index))
            self._emit(BootDone(self._node.name, boot))
        elif message["imported"]:
            raise ProtocolError(f"{self._node.name}: the agent imported {message['imported']} while it was measuring")

    def _targets(self) -> list[Target]:
        wanted = {order.target for order in self._request.plan.orders.get(self._node.name, ())}
        return [target for target in self._request.playbook.targets if target.name in wanted]

    def _orders(self, skipped: set[tuple[str, str]]) -> list[Order]:
        return [
            order
            for order in self._request.plan.orders.get(self._node.name, ())
            if (order.trial, order.index) not in self._done
            and (order.target, order.start) not in skipped
            and order.index < self._limits.get(order.target, order.index + 1)
        ]

    async def _prepare(self, talk: Conversation, target: Target, arch: str) -> set[tuple[str, str]]:
        """Push and prepare one target; which (target, start) cannot be had here."""
        starts = self._request.playbook.starts
        try:
            answer, transfer_bytes = await self._prepared(talk, target, arch)
        except (ImageError, OSError) as error:
            return self._skip(target, str(error), starts)
        if answer["type"] == "unavailable":
            hint = f" ({answer['hint']})" if answer["hint"] else ""
            return self._skip(target, answer["reason"] + hint, starts)
        limit = target.boots_with(answer["labels"])
        if limit is not None:
            self._limits[target.name] = limit
        self._emit(
            TargetReady(
                self._node.name,
                target.name,
                answer["labels"],
                answer["facts"],
                answer["image_bytes"],
                transfer_bytes,
                tuple(answer["warnings"]),
                limit,
            )
        )
        cold = answer["cold_unavailable"]
        return self._skip(target, cold, ("page-cold",)) if cold and "page-cold" in starts else set()

    async def _prepared(self, talk: Conversation, target: Target, arch: str) -> tuple[Message, int]:
        # In a thread: hashing an image of some GB must not silence the heartbeats.
        image = await asyncio.to_thread(_resolve, target, arch)
        sent: list[int] = []
        for part, path in image.paths.items():
            await talk.push(path, image.image.files[part], sent.append)
        answer = await talk.ask(
            "prepare",
            "prepared",
            "unavailable",
            target=target.name,
            runtime=target.runtime,
            options={**image.options, **target.options},
            image=to_json(image.image),
            ready=to_json(target.ready),
        )
        return answer, sum(sent)

    def _skip(self, target: Target, reason: str, starts: tuple[str, ...]) -> set[tuple[str, str]]:
        for start in starts:
            self._emit(Skipped(self._node.name, target.name, reason, start))
        return {(target.name, start) for start in starts}


def _boot(node: str, message: Message) -> Boot:
    try:
        return from_json(Boot, message["boot"])
    except (KeyError, ValueError) as error:
        raise ProtocolError(f"{node}: a boot that cannot be read: {error}") from None


def _resolve(target: Target, node_arch: str) -> images.ResolvedImage:
    """A machine may be of another architecture than its node: its image says so, or the target."""
    packaging = runtimes.load(target.runtime).Runtime.packaging
    reference = target.image_for(node_arch)
    if reference is None:
        raise ImageError(f"{target.where}: target {target.name} has no image for {node_arch}", hint="add one")
    said = "" if isinstance(reference, str) else reference.get("arch", "")
    arch = target.options.get("arch") or said or node_arch
    return images.resolve(reference, packaging=packaging, arch=arch, base=Path(target.base))


def _settings(node: Node) -> Mapping[str, str]:
    """The node's own variables, for its runtimes."""
    return {name: str(value) for name, value in node.vars.items() if name.startswith("coldstart_")}
