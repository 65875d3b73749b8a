"""One node's part of a sweep: push, prepare, arm, run, collect; again over the next link if one broke.

Only the boots that have not arrived are run: a boot arrives once. Before every wave the node waits for the others
(`rendezvous.py`); while it has no link, they do not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from coldstart import bundle
from coldstart.agent.records import IMAGE_ABSENT, Boot, Order, from_json, to_json
from coldstart.agent.wire import Message
from coldstart.catalogue import Catalogue
from coldstart.clock import Offset
from coldstart.errors import ImageError, ProtocolError
from coldstart.events import BootDone, Event, Skipped, Started, TargetReady, Waiting
from coldstart.lasting import Connect, Lasting, Work
from coldstart.link import Conversation
from coldstart.model import Boots, Node, Plan, Playbook, Target, WaveStart
from coldstart.plan import boots_of_order
from coldstart.push import Begun, NoRuntime, Pusher, PushFailed, Shared, least_bytes
from coldstart.rendezvous import Gathering, Release
from coldstart.throttle import Throttle

BATCH = 1000  # orders per message: far below the wire's limit
A_BOOTS_WORTH_BYTES = 1 << 16  # pushed: a link that brought so much was not in vain


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
    push_bytes_per_s: int = 0  # to all nodes together; 0: no limit


@dataclass(frozen=True)
class Common:
    """What the nodes of a sweep share. emit: takes what there is to tell."""

    connect: Connect
    gathering: Gathering
    catalogue: Catalogue
    emit: Callable[[Event], None]
    throttle: Throttle | None = None

    def pusher(self, node: str, talk: Conversation, begun: Begun) -> Pusher:
        """For one link to this node."""
        return Pusher(node, talk, self.emit, Shared(self.throttle, self.catalogue.archive), begun)


class NodeTask:
    """One node's part of the sweep."""

    def __init__(self, request: Request, node: Node, common: Common) -> None:
        self._request = request
        self._node = node
        self._common = common
        self._gathering = common.gathering
        self._emit = common.emit
        self._done = set(request.done)
        self._limits: dict[str, int] = {}  # boots per trial, by target, where fewer than planned
        self._pusher: Pusher | None = None
        self._least_bytes: dict[str, int] = {}  # by target: what a boot without its image is sent
        self._pushed_bytes = 0
        self._begun_pushes: Begun = {}
        self._failed_push: PushFailed | None = None  # the last
        self._begun = False  # it has shared an instant with the others
        self._seen: set[Boots] = set()  # waves that are behind it

    async def run(self, code: bundle.Bundle) -> None:
        name, request = self._node.name, self._request
        lasting = Lasting(request.run, self._node, self._common.connect, self._emit, request.reconnect_s)
        await lasting.run(code, Work(self._work, self._progress, lambda: self._gathering.leave(name)))

    def _progress(self) -> int:
        return len(self._done) + self._pushed_bytes // A_BOOTS_WORTH_BYTES

    async def _work(self, talk: Conversation, arch: str) -> None:
        skipped: set[tuple[str, str]] = set()
        self._failed_push = None
        self._pusher = self._common.pusher(self._node.name, talk, self._begun_pushes)
        try:
            for target in self._targets():
                skipped |= await self._prepare(talk, target, arch)
            if IMAGE_ABSENT not in self._request.playbook.starts:
                await self._pusher.take_back()
            for wave in self._waves(self._orders(skipped)):
                await self._wave(talk, wave)
            if self._failed_push:  # what could be measured has been
                raise self._failed_push
        finally:
            self._pushed_bytes += self._pusher.sent_bytes

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
                assert self._pusher is not None
                boot = _boot(self._node.name, message)
                boot = self._pusher.with_transfer(boot, self._least_bytes.get(self._target_of(boot), 0))
                if started and _kept_the_instant(boot, *started):
                    self._emit(_started(self._node.name, boot, *started))
                started = None
                self._done.add((boot.trial, boot.index))
                self._emit(BootDone(self._node.name, boot))
            elif message["imported"]:
                raise ProtocolError(
                    f"{self._node.name}: the agent imported {message['imported']} while it was measuring"
                )

    def _target_of(self, boot: Boot) -> str:
        return self._request.plan.trials[boot.trial].target

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
        except (ImageError, PushFailed, OSError) as error:
            if isinstance(error, PushFailed) and not isinstance(error, NoRuntime):
                self._failed_push = error
            return self._skip(target, str(error).removeprefix(f"{self._node.name}: "), starts)
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
        cannot = {start: reason for start, reason in answer["cannot"].items() if reason and start in starts}
        return {pair for start, reason in cannot.items() for pair in self._skip(target, reason, (start,))}

    async def _prepared(self, talk: Conversation, target: Target, arch: str) -> tuple[Message, int]:
        assert self._pusher is not None
        image = await self._common.catalogue.image(target, arch, self._node)
        previous = await self._common.catalogue.previous(target, arch)
        pushed = [await self._pusher.push(target, each) for each in (previous, image) if each]
        self._least_bytes[target.name] = least_bytes(image, previous)
        fetches = IMAGE_ABSENT in self._request.playbook.starts
        answer = await talk.ask(
            "prepare",
            "prepared",
            "unavailable",
            target=target.name,
            runtime=target.runtime,
            options={**image.options, **target.options},
            image=to_json(image.image),
            ready=to_json(target.ready),
            previous=to_json(previous.image) if previous else None,
            port=await self._pusher.lend(image, previous) if fetches else 0,
        )
        return answer, pushed[-1].transfer_bytes

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
