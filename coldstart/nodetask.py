"""One node's part of a sweep, over one link or, if that breaks, several: connect, push, prepare, arm, run, collect.

A broken link is opened again for as long as `reconnect_s` allows, and only the boots that have not arrived are run: a
boot arrives once. Before every wave the node waits for the others (`rendezvous.py`); while it has no link, they do not
wait for it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tenacity

from coldstart import bundle, images
from coldstart.agent import runtimes
from coldstart.agent.records import Boot, Order, from_json, to_json
from coldstart.agent.wire import Message
from coldstart.clock import Offset
from coldstart.errors import ColdstartError, ImageError, NodeError, ProtocolError
from coldstart.events import (
    BootDone,
    ClockMoved,
    Event,
    LinkLost,
    NodeDone,
    NodeUp,
    Skipped,
    Started,
    TargetReady,
    Waiting,
)
from coldstart.floors import settings_of
from coldstart.link import Conversation, Link, NodeBusy, Unreachable
from coldstart.link import LinkLost as LostError
from coldstart.model import Boots, Node, Plan, Playbook, Target, WaveStart
from coldstart.plan import boots_of_order
from coldstart.rendezvous import Gathering, Release

BATCH = 1000  # orders per message: far below the wire's limit
FRUITLESS_LINKS = 3  # links in a row that brought no boot: the next will not either
RETRY_S = 0.5

Connect = Callable[[Node, bundle.Bundle], Awaitable[Link]]


@dataclass(frozen=True)
class Request:
    """A sweep to do. done: boots that are in the store already, as (trial, index); first_wave: the number of the first
    that is not there yet."""

    run: str
    nodes: tuple[Node, ...]
    playbook: Playbook
    plan: Plan
    reconnect_s: float = 120.0
    done: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    first_wave: int = 0


class NodeTask:
    """One node's part of the sweep."""

    def __init__(
        self, request: Request, node: Node, connect: Connect, gathering: Gathering, emit: Callable[[Event], None]
    ) -> None:
        self._request = request
        self._node = node
        self._connect = connect
        self._gathering = gathering
        self._emit = emit
        self._done = set(request.done)
        self._limits: dict[str, int] = {}  # boots per trial, by target, where fewer than planned
        self._links = 0
        self._begun = False  # it has shared an instant with the others
        self._seen: set[Boots] = set()  # waves that are behind it
        self._leftovers: tuple[str, ...] = ()

    async def run(self, code: bundle.Bundle) -> None:
        error = ""
        try:
            await self._run_until_done(code)
        except ColdstartError as failure:
            error = str(failure)
        except Exception as bug:  # noqa: BLE001 - whatever it was, it is this node's: the others go on
            at = traceback.extract_tb(bug.__traceback__)[-1]
            error = (
                f"{self._node.name}: a bug, please report it: {type(bug).__name__}: {bug} ({at.filename}:{at.lineno})"
            )
        finally:
            self._gathering.leave(self._node.name)
        self._emit(NodeDone(self._node.name, error, self._leftovers))

    async def _run_until_done(self, code: bundle.Bundle) -> None:
        fruitless = 0
        while True:
            before = len(self._done)
            try:
                await self._one_link(code)
                return
            except LostError as lost:
                self._gathering.leave(self._node.name)
                fruitless = 0 if len(self._done) > before else fruitless + 1
                if fruitless >= FRUITLESS_LINKS or self._request.reconnect_s <= 0:
                    raise
                self._emit(LinkLost(self._node.name, lost.message))

    async def _one_link(self, code: bundle.Bundle) -> None:
        """From connecting to goodbye."""
        talk, arch = await self._opened(code)
        try:
            async with talk:
                await self._work(talk, arch)
        finally:
            self._leftovers = talk.leftovers
            if talk.clock.slept_ns or talk.clock.stepped_ns:
                self._emit(ClockMoved(self._node.name, talk.clock.slept_ns, talk.clock.stepped_ns))

    async def _opened(self, code: bundle.Bundle) -> tuple[Conversation, str]:
        """A conversation whose agent is alone on its node, and the node's architecture. Tried again if there was a
        link before: that one's agent may still be cleaning up, or the node is on its way back."""
        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_exponential(multiplier=RETRY_S, max=5),
            stop=tenacity.stop_after_delay(self._request.reconnect_s),
            reraise=True,
        )
        return await again(self._open_once, code)

    def _may_pass(self, error: BaseException) -> bool:
        mine = isinstance(error, NodeBusy) and error.run == self._request.run
        return self._links > 0 and (mine or isinstance(error, LostError | Unreachable))

    async def _open_once(self, code: bundle.Bundle) -> tuple[Conversation, str]:
        talk = Conversation(self._node.name, await self._connect(self._node, code))
        try:
            hello = await talk.ask("hello", "hello", run=self._request.run, settings=settings_of(self._node))
            if hello["short"]:
                hint = "free some, or lower coldstart_memory_floor or coldstart_disk_floor"
                raise NodeError(f"{self._node.name}: {hello['short']}", hint=hint, kind="floor")
        except BaseException:
            await talk.end()
            raise
        self._links += 1
        swept = hello["swept"]
        self._emit(
            NodeUp(self._node.name, hello["facts"], tuple(swept["removed"]), tuple(swept["failed"]), hello["free"])
        )
        return talk, str(hello["facts"]["arch"])

    async def _work(self, talk: Conversation, arch: str) -> None:
        skipped: set[tuple[str, str]] = set()
        for target in self._targets():
            skipped |= await self._prepare(talk, target, arch)
        for wave in self._waves(self._orders(skipped)):
            await self._wave(talk, wave)

    def _waves(self, orders: Sequence[Order]) -> Iterator[Sequence[Order]]:
        """What is started at one instant with the other nodes; empty: others start something that we have not."""
        if not self._request.plan.waves:
            yield from [orders] if orders else []
            return
        mine = {boots_of_order(order): order for order in orders}
        for boots in self._request.plan.waves:
            if boots in mine or boots not in self._seen:
                yield [mine[boots]] if boots in mine else []
            self._seen.add(boots)

    async def _wave(self, talk: Conversation, orders: Sequence[Order]) -> None:
        if self._begun and not self._request.plan.waves:  # back, while the others are in the midst of their loops
            await self._alone(talk, orders)
            return
        if orders:
            await self._stage(talk, orders[:BATCH])
        release, offset = await self._released(talk, orders[0].gap_ns if orders else 0)
        self._begun = True
        if orders:
            await talk.tell("start", at_ns=release.at_ns + offset.offset_ns)
            await self._collect(talk, (release, offset))
            await self._alone(talk, orders[BATCH:])

    async def _alone(self, talk: Conversation, orders: Sequence[Order]) -> None:
        """At once, and with nobody else."""
        for start in range(0, len(orders), BATCH):
            await self._stage(talk, orders[start : start + BATCH])
            await talk.tell("start", at_ns=0)
            await self._collect(talk)

    async def _stage(self, talk: Conversation, orders: Sequence[Order]) -> None:
        await talk.ask("arm", "armed")
        await talk.ask("stage", "staged", orders=[to_json(order) for order in orders])

    async def _released(self, talk: Conversation, gap_ns: int) -> tuple[Release, Offset]:
        """The instant to start at, once all are ready, and what the node's clock will show then."""
        self._emit(Waiting(self._node.name))
        await talk.attend(self._gathering.staged(self._node.name))
        offset = await talk.compare_clocks()
        release = await talk.attend(self._gathering.compared(self._node.name, offset.rtt_ns, gap_ns))
        return release, talk.clock.at(release.at_ns) or offset

    async def _collect(self, talk: Conversation, started: tuple[Release, Offset] | None = None) -> None:
        async for message in talk.until("done"):
            if message["type"] == "boot":
                boot = _boot(self._node.name, message)
                if started and _kept_the_instant(boot, *started):
                    self._emit(_started(self._node.name, boot, *started))
                started = None
                self._done.add((boot.trial, boot.index))
                self._emit(BootDone(self._node.name, boot))
            elif message["imported"]:
                raise ProtocolError(
                    f"{self._node.name}: the agent imported {message['imported']} while it was measuring"
                )

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


def _kept_the_instant(boot: Boot, release: Release, offset: Offset) -> bool:
    """Not one that could not even be placed, nor one in virtual time."""
    return boot.achieved_ns > 0 and boot.planned_ns == release.at_ns + offset.offset_ns


def _started(node: str, boot: Boot, release: Release, offset: Offset) -> Started:
    times = boot.planned_ns, boot.achieved_ns
    return Started(node, WaveStart(release.wave, node, *times, offset.offset_ns, offset.bound_ns, offset.rtt_ns))


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
