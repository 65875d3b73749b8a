"""The verbs' work, between the command line and the rest: load, plan, run, store, report."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coldstart import __version__, controller, guests, images, ownimage
from coldstart import inventory as inventories
from coldstart import plan as plans
from coldstart import playbook as playbooks
from coldstart.agent import runtimes
from coldstart.agent.records import OK
from coldstart.agent.wire import Message
from coldstart.errors import (
    ImageError,
    LeftoversError,
    NodeError,
    StoreError,
    TooManyFailures,
    UsageError,
)
from coldstart.floors import Floors, floors_of
from coldstart.model import Node, Plan, Playbook, Run, Target
from coldstart.ownimage import OwnImage
from coldstart.progress import Display
from coldstart.reach import Reach
from coldstart.recorder import Recorder
from coldstart.store import Store, default_path, new_run_id
from coldstart.units import format_bytes, format_duration

SHOWN = 5  # names before a line counts the rest
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Selection:
    """What to measure, as the command line says it; None and empty: as the documents say."""

    inventory: str
    playbook: str = "quick"
    limit: str | None = None
    targets: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    boots: int | None = None
    seed: int | None = None
    image: OwnImage | None = None


@dataclass(frozen=True)
class Job:
    """A sweep that could begin."""

    nodes: tuple[Node, ...]
    playbook: Playbook
    plan: Plan
    inventory_text: str


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended. run: its id, empty if no node was reached; interrupted: the signal that ended it, or 0;
    lost, leftovers: by node."""

    run: str
    boots: int
    failed: int
    interrupted: int = 0
    lost: Mapping[str, str] = field(default_factory=dict)
    leftovers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def judge(self, max_failures: int) -> None:
        """Raise what the exit code must tell; the most urgent first."""
        again = f"go on with --resume {self.run}" if self.run else ""
        if self.interrupted:
            print(f"coldstart: interrupted and cleaned up{again and '; '}{again}", file=sys.stderr)
            raise SystemExit(128 + self.interrupted)
        if self.leftovers:
            node, left = next(iter(self.leftovers.items()))
            raise LeftoversError(f"{node}: could not remove {'; '.join(left)}", hint="try coldstart clean")
        if self.lost:
            raise NodeError(_lost(self.lost), hint=again)
        if self.failed > max_failures:
            hint = f"read them: coldstart export {self.run}; or allow them: --max-failures N"
            raise TooManyFailures(f"{self.failed} of {self.boots} boots failed", hint=hint)
        if self.boots == 0:
            raise NodeError("nothing was measured: every target was skipped", hint="the reasons are above")


def load(wanted: Selection, *, seed: int | None = None) -> Job:
    """Read both documents and lay out every boot. Nothing is touched. seed: of a run that goes on."""
    found = playbooks.load(playbooks.find(wanted.playbook))
    found = ownimage.playbook(wanted.image, found) if wanted.image else found
    chosen = playbooks.override(found, targets=wanted.targets, starts=wanted.starts, boots=wanted.boots)
    for target in chosen.targets:
        _check_images(target)
    hosts = nodes(wanted.inventory, wanted.limit)
    given = next((s for s in (seed, wanted.seed) if s is not None), None)
    text = inventories.load(inventories.find(wanted.inventory)).text
    return Job(hosts, chosen, plans.expand(hosts, chosen, secrets.randbelow(1 << 31) if given is None else given), text)


def _check_images(target: Target) -> None:
    """ImageError for what is wrong whatever the node."""
    packaging = runtimes.load(target.runtime).Runtime.packaging
    for reference in (*target.images.values(), *target.update_from.values()):
        try:
            images.check(reference, packaging, Path(target.base))
        except ImageError as error:
            raise ImageError(f"{target.where}: target {target.name}: {error.message}", hint=error.hint) from None


def nodes(where: str, limit: str | None) -> tuple[Node, ...]:
    """The nodes of an inventory, or those of them that a pattern names."""
    found = inventories.load(inventories.find(where))
    return inventories.select(found, limit) if limit else found.nodes


def estimate_ns(what: Plan, playbook: Playbook) -> dict[str, int]:
    """Time per node, from what a boot of each target typically takes."""
    return plans.estimate_ns(what, playbook, {target.name: _typical_boot_ns(target) for target in playbook.targets})


def _typical_boot_ns(target: Target) -> int:
    known = (guests.TYPICAL_BOOT_NS.get(image, 0) for image in target.images.values() if isinstance(image, str))
    return max([int(runtimes.load(target.runtime).Runtime.typical_boot_ns), *known])


def open_store(path: Path | None, *, readonly: bool = False) -> Store:
    """The store of --store, COLDSTART_STORE or the default place."""
    return Store.open(path or default_path(), readonly=readonly)


def sweep(
    job: Job,
    store: Store,
    reach: Reach,
    *,
    resume: str | None = None,
    reconnect_s: float = 120.0,
    push_bytes_per_s: int = 0,
) -> Outcome:
    """Run the job, every boot stored as it arrives. It ends in order on SIGINT, SIGTERM and SIGHUP."""
    run, begin = _resumed(job, store, resume) if resume else _fresh(job, store)
    done = frozenset(store.done(run))
    first_wave = 1 + max((start.wave for start in store.starts(run)), default=-1)
    recorder = Recorder(store, run, job.plan, begin)
    remaining = plans.remaining(job.plan, done)
    request = controller.Request(
        run, job.nodes, job.playbook, remaining, reconnect_s, done, first_wave, push_bytes_per_s
    )
    with Display(request.plan) as display:
        for line in _announcement(request, store):
            display.note(line)
        state = "failed"
        try:
            interrupted = asyncio.run(_drive(request, reach, recorder, display, store))
            state = "interrupted" if interrupted else "failed" if recorder.lost else "finished"
        finally:
            recorder.close()
            if recorder.begun:
                _finish(store, run, state)
    shown = run if recorder.begun or resume else ""  # nothing may be left to do
    before = sum(boot.outcome != OK for cell in store.cells(run) for boot in cell.boots) if resume else recorder.failed
    return Outcome(shown, recorder.boots + len(done), before, interrupted, recorder.lost, recorder.leftovers)


def _finish(store: Store, run: str, state: str) -> None:
    try:
        store.finish(run, state)
    except StoreError:
        if state == "finished":
            raise  # otherwise the error that ended the run is the one to tell


def clean(hosts: Sequence[Node], run: str, reach: Reach, *, also_images: bool) -> Iterator[str]:
    """Remove what dead runs have left on these nodes; a line for everything removed. LeftoversError if some stayed,
    NodeError if a node could not be asked; the others are clean all the same."""

    async def answers() -> list[tuple[Message, Message] | NodeError]:
        try:
            return await controller.clean(hosts, new_run_id(), run, reach.connect, images=also_images)
        finally:
            await reach.close()

    stayed, lost = [], {}
    for node, found in zip(hosts, asyncio.run(answers()), strict=True):
        if isinstance(found, NodeError):
            lost[node.name] = str(found)
            continue
        greeting, answer = found
        removed = greeting["swept"]["removed"] + answer["removed"]
        yield from (f"{node.name}: removed {thing}" for thing in removed)
        if not removed:
            yield f"{node.name}: nothing of ours was left"
        stayed += [f"{node.name}: {thing}" for thing in answer["failed"]]
    if stayed:
        raise LeftoversError("; ".join(stayed), hint="remove it by hand")
    if lost:
        raise NodeError("; ".join(lost.values()))


def _fresh(job: Job, store: Store) -> tuple[str, Callable[[], None]]:
    """A new run's id, and what puts it into the store."""
    run = Run(new_run_id(), job.playbook.name, job.plan.seed, time.time_ns(), version=__version__)
    return run.id, lambda: store.begin(run, job.playbook.text, job.inventory_text, job.plan)


def _resumed(job: Job, store: Store, reference: str) -> tuple[str, Callable[[], None]]:
    """The run to go on with, and what takes it up; it must be the same sweep, or its cells would mix two."""
    run = store.find(reference).id
    if [cell.trial for cell in store.cells(run)] != list(job.plan.trials):
        raise UsageError(f"run {run} was another sweep", hint="give the inventory, playbook and options it had")
    return run, lambda: store.resume(run)


def seed_of(store: Store, resume: str | None) -> int | None:
    """The seed of the run to go on with: it makes the same order again."""
    return store.find(resume).seed if resume else None


def _announcement(request: controller.Request, store: Store) -> Iterator[str]:
    """What will run, about how long on each node, and within which guard rails."""
    plan, nodes = request.plan, [node for node in request.nodes if node.name in request.plan.orders]
    boots = sum(len(orders) for orders in plan.orders.values())
    estimates_ns = estimate_ns(plan, request.playbook)
    longest = format_duration(max(estimates_ns.values(), default=0))
    line = f"run {request.run}: {boots} boots on {len(nodes)} node(s), about {longest}; seed {plan.seed}; {store.path}"
    if len(nodes) == 1:
        yield f"{line}; {_rails(floors_of(nodes[0]))}"
        return
    yield line
    yield from _by_likeness(
        {node.name: f"about {format_duration(estimates_ns[node.name])}; {_rails(floors_of(node))}" for node in nodes}
    )


def _rails(floors: Floors) -> str:
    memory, disk = format_bytes(floors.memory_bytes), format_bytes(floors.disk_bytes)
    return f"at most {floors.max_parallel} at once, {memory} of memory and {disk} of disk stay free"


def _by_likeness(said: Mapping[str, str]) -> Iterator[str]:
    """A line for all nodes of which the same is said: a fleet of fifty is not fifty lines."""
    nodes: dict[str, list[str]] = {}
    for name, text in said.items():
        nodes.setdefault(text, []).append(name)
    for text, names in nodes.items():
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        yield f"{shown}: {text}"


def _lost(lost: Mapping[str, str]) -> str:
    """Each was said when it happened."""
    return next(iter(lost.values())) if len(lost) == 1 else f"{len(lost)} nodes ended early: {', '.join(lost)}"


async def _drive(request: controller.Request, reach: Reach, recorder: Recorder, display: Display, store: Store) -> int:
    """Consume the sweep's events. Returns the number of the signal that ended it, or 0."""
    stop = _Stop(store, request.run)
    with stop.listening():
        try:
            async with aclosing(controller.sweep(request, reach.connect)) as events:
                async for event in events:
                    recorder.take(event)
                    display.take(event)
        except asyncio.CancelledError:
            if not stop.signal:
                raise
        finally:
            await reach.close()
    return stop.signal


class _Stop:
    """The first signal ends the sweep in order; the second ends only us: the nodes then clean up by themselves."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self.signal = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in SIGNALS:
            loop.add_signal_handler(number, self._arrived, number, task)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _arrived(self, number: int, task: asyncio.Task[int]) -> None:
        if self.signal:
            print("coldstart: not waiting; the nodes clean up by themselves", file=sys.stderr, flush=True)
            try:
                self._store.finish(self._run, "interrupted")
            finally:
                os._exit(128 + number)
        self.signal = number
        print("coldstart: ending in order; once more to leave at once", file=sys.stderr, flush=True)
        task.cancel()
