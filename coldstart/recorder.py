"""Events into the store, and what a sweep's exit code needs to know. The one consumer that must never miss an event."""

from __future__ import annotations

from collections.abc import Callable

from coldstart.agent.records import OK
from coldstart.events import BootDone, ClockMoved, Event, NodeDone, NodeUp, Pushed, Skipped, Started, TargetReady
from coldstart.model import Plan, Trial
from coldstart.store import Store


class Recorder:
    """Writes one run. A boot is durable when `take` returns. begin: makes the run's row, or takes it up again, once
    the first node answers: a sweep that reaches nobody leaves no trace."""

    def __init__(self, store: Store, run: str, plan: Plan, begin: Callable[[], None]) -> None:
        self._store = store
        self._run = run
        self._plan = plan
        self._begin = begin
        self.begun = False
        self._arch: dict[str, str] = {}
        self._facts: dict[str, dict[str, str]] = {}
        self.boots = 0
        self.failed = 0
        self.lost: dict[str, str] = {}  # node -> why it ended early
        self.leftovers: dict[str, tuple[str, ...]] = {}

    def take(self, event: Event) -> None:
        match event:
            case BootDone(boot=boot):
                self._store.add(self._run, boot)
                self.boots += 1
                self.failed += boot.outcome != OK
            case NodeUp(node=node, facts=facts):
                self._begin_once()
                self._arch[node] = facts.get("arch", "")
                self._learn(node, dict(facts))
            case TargetReady():
                self._describe(event)
            case Skipped():
                for trial in self._trials(event.node, event.target, event.start):
                    self._store.skip(self._run, trial.id, event.reason)
            case Pushed(push=push):
                self._store.add_push(self._run, push)
            case Started(start=start):
                self._store.add_start(self._run, start)
            case ClockMoved(node=node):
                self._learn(node, {"slept_ns": str(event.slept_ns), "stepped_ns": str(event.stepped_ns)})
            case NodeDone(node=node, error=error, leftovers=leftovers):
                self.lost |= {node: error} if error else {}
                self.leftovers |= {node: leftovers} if leftovers else {}
            case _:
                pass  # a lost link shows if the node does not come back

    def close(self) -> None:
        """Nothing more comes: keep which nodes ended early, if any was reached at all."""
        for node in dict.fromkeys(trial.node for trial in self._plan.trials if self.begun):
            self._store.node_lost(self._run, node, self.lost.get(node, ""))

    def _begin_once(self) -> None:
        if not self.begun:
            self._begin()
            self.begun = True

    def _describe(self, event: TargetReady) -> None:
        self._learn(event.node, dict(event.facts))
        for trial in self._trials(event.node, event.target):
            self._store.describe(
                self._run,
                trial.id,
                arch=self._arch[event.node],
                labels=event.labels,
                image_bytes=event.image_bytes,
                transfer_bytes=event.transfer_bytes,
            )

    def _learn(self, node: str, facts: dict[str, str]) -> None:
        self._facts[node] = self._facts.get(node, {}) | facts
        self._store.node_facts(self._run, node, self._facts[node])

    def _trials(self, node: str, target: str, start: str = "") -> list[Trial]:
        return [t for t in self._plan.trials if t.node == node and t.target == target and start in ("", t.start)]
