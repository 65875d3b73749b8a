"""What a person sees while a sweep runs: on stderr, drawn only on a terminal. Notes are lines anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from coldstart.agent.records import OK
from coldstart.events import (
    BootDone,
    ClockMoved,
    Event,
    LinkLost,
    NodeDone,
    NodeUp,
    NotPushed,
    Pushing,
    Skipped,
    TargetReady,
    Waiting,
)
from coldstart.model import Boot, Order, Plan
from coldstart.units import format_bytes, format_duration

MOST_LINES = 12  # of nodes that are done already


class Display:
    """One line per node: what boots now, done of total, time left, the last result. A context manager."""

    def __init__(self, plan: Plan) -> None:
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[now]}"),
            TextColumn("{task.fields[last]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._said: set[tuple[str, str]] = set()
        self._left = {n: {(o.trial, o.index): o for o in orders} for n, orders in plan.orders.items()}
        self._tasks = {node: self._task(node, len(orders)) for node, orders in plan.orders.items()}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def take(self, event: Event) -> None:
        match event:
            case BootDone(node=node, boot=boot):
                self._done(node, boot)
            case NodeUp():
                self._arrived(event)
            case Pushing(node=node) if node in self._tasks:
                done = f"{format_bytes(event.sent_bytes)} of {format_bytes(event.size_bytes)}"
                self._progress.update(self._tasks[node], now=f"pushing {event.image}: {done}")
            case TargetReady():
                self._ready(event)
            case Skipped():
                self._skipped(event)
            case LinkLost(reason=reason):
                self.note(f"{reason}; trying again")
            case Waiting(node=node):
                self._progress.update(self._tasks[node], now="ready, waits for the others")
            case ClockMoved():
                self._moved(event)
            case NodeDone(node=node, error=error) if node in self._tasks:
                # Of a large fleet only those are shown that there is still something to see of.
                seen = len(self._tasks) <= MOST_LINES
                self._progress.update(self._tasks[node], now="ended early" if error else "done", visible=seen)
                if error:
                    self.note(error)
            case _:
                pass

    def _arrived(self, event: NodeUp) -> None:
        if event.swept:
            self.note(f"{event.node}: removed what a dead run had left: {', '.join(event.swept)}")
        if event.stuck:
            self.note(f"{event.node}: could not remove what a dead run had left: {', '.join(event.stuck)}")

    def _moved(self, event: ClockMoved) -> None:
        if event.slept_ns:
            self.note(f"{event.node}: it was suspended for {format_duration(abs(event.slept_ns))} during the sweep")
        if event.stepped_ns:
            self.note(f"{event.node}: its wall clock was set by {format_duration(abs(event.stepped_ns))}")

    def _ready(self, event: TargetReady) -> None:
        for warning in event.warnings:
            if (event.node, warning) not in self._said:  # several targets often share one reason
                self._said.add((event.node, warning))
                self.note(f"{event.node}: {event.target}: {warning}")
        limit = event.boots
        if limit is not None and self._drop(event.node, lambda o: o.target == event.target and o.index >= limit):
            self.note(f"{event.node}: {event.target}: {limit} boots of each kind, because the processor is emulated")

    def _task(self, node: str, total: int) -> TaskID:
        return self._progress.add_task(node, total=total, now="preparing", last="")

    def _done(self, node: str, boot: Boot) -> None:
        left = self._left[node]
        left.pop((boot.trial, boot.index), None)
        result = format_duration(boot.marks_ns["ready"]) if boot.outcome == OK else f"{boot.outcome}: {boot.detail}"
        self._progress.update(self._tasks[node], advance=1, now=_booting(left), last=f"last {result}")

    def _skipped(self, event: Skipped) -> None:
        self.note(f"{event.node}: {event.target} {event.start} skipped: {event.reason}")
        self._drop(event.node, lambda o: (o.target, o.start) == (event.target, event.start))

    def _drop(self, node: str, what: Callable[[Order], bool]) -> int:
        """Boots that will not be: no longer expected. How many they were."""
        before = self._left[node]
        self._left[node] = {key: order for key, order in before.items() if not what(order)}
        self._progress.update(self._tasks[node], total=len(self._left[node]))
        return len(before) - len(self._left[node])


def _booting(left: Mapping[tuple[int, int], Order]) -> str:
    order = next(iter(left.values()), None)
    return f"booting {order.target} {order.start}" if order else ""


class PushDisplay:
    """One line per node: how much of the image on its way has been sent. A context manager."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TextColumn("{task.fields[now]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._tasks = {node: self._progress.add_task(node, total=None, now="connecting") for node in nodes}

    def __enter__(self) -> PushDisplay:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def take(self, event: Event) -> None:
        match event:
            case Pushing(node=node):
                sent, size = event.sent_bytes, max(event.sent_bytes, event.size_bytes)
                self._progress.update(self._tasks[node], completed=sent, total=size, now=event.image)
            case NotPushed() | Skipped():
                self._note(f"{event.node}: {event.target}: {event.reason.removeprefix(f'{event.node}: ')}")
            case LinkLost(reason=reason):
                self._note(f"{reason}; trying again")
            case NodeDone(node=node, error=error):
                self._progress.update(self._tasks[node], now="ended early" if error else "done")
                if error:
                    self._note(error)
            case _:
                pass

    def _note(self, text: str) -> None:
        self._console.print(text, markup=False)
