"""What a person sees while a sweep runs: on stderr, drawn only on a terminal. Notes are lines anywhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from coldstart.agent.records import OK
from coldstart.events import BootDone, Event, LinkLost, NodeDone, NodeUp, Skipped, TargetReady
from coldstart.model import Boot, Plan
from coldstart.units import format_duration


class Display:
    """One line per node: what boots, done of total, time left, the last result. A context manager."""

    def __init__(self, plan: Plan, *, done: int = 0) -> None:
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._trials = {trial.id: trial for trial in plan.trials}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[last]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._tasks = {node: self._task(node, len(orders)) for node, orders in plan.orders.items()}
        if len(self._tasks) == 1:
            self._progress.advance(next(iter(self._tasks.values())), done)

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
                self._progress.update(self._tasks[node], advance=1, last=self._result(boot))
            case NodeUp(node=node, swept=swept) if swept:
                self.note(f"{node}: removed what a dead run had left: {', '.join(swept)}")
            case TargetReady(node=node, target=target, warnings=warnings):
                for warning in warnings:
                    self.note(f"{node}: {target}: {warning}")
            case Skipped(node=node, target=target, reason=reason, start=start):
                self.note(f"{node}: {target} {start} skipped: {reason}")
            case LinkLost(reason=reason):
                self.note(f"{reason}; trying again")
            case NodeDone(node=node, error=error):
                self._progress.update(self._tasks[node], last="ended early" if error else "done")
            case _:
                pass

    def _task(self, node: str, total: int) -> TaskID:
        return self._progress.add_task(node, total=total, last="preparing")

    def _result(self, boot: Boot) -> str:
        trial = self._trials[boot.trial]
        result = format_duration(boot.marks_ns["ready"]) if boot.outcome == OK else f"{boot.outcome}: {boot.detail}"
        return f"{trial.target} {trial.start}: {result}"
