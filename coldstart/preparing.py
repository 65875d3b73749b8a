"""The verb `prepare`: ask every node what is missing, ask the user, put it there."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from coldstart.errors import ColdstartError, NodeError
from coldstart.hostkeys import HostKeys
from coldstart.model import Node, Prepared
from coldstart.prepare import fabricshell
from coldstart.prepare.localshell import LocalShell
from coldstart.prepare.shell import Shell
from coldstart.prepare.work import Plan, Work, is_open, summary

AT_ONCE = 8  # nodes: below what an sshd of a jump host takes at a time by default (MaxStartups 10)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Found = tuple[Work, Plan]


class Preparation:
    """Of a fleet. `look`, then `carry_out` for the nodes that the user agreed to; `close` in the end."""

    def __init__(self, nodes: Sequence[Node], tasks: Sequence[str], *, accept_new_host_keys: bool = False) -> None:
        self._nodes = list(nodes)
        self._tasks = tuple(tasks)
        self._host_keys = HostKeys(accept_new=accept_new_host_keys)
        self._found: dict[str, Found] = {}
        self._results: dict[str, Prepared] = {}
        self._stopped = threading.Event()
        self._stopped_by = 0  # a signal

    def look(self) -> list[Prepared]:
        """What every node lacks. Nothing is changed."""
        _each(self._nodes, self._look)
        return self.results()

    def carry_out(self, names: Sequence[str]) -> list[Prepared]:
        """What was planned, on these nodes. A signal lets every step end that has begun."""
        with self._listening():
            _each([node for node in self._nodes if node.name in names], self._carry_out)
        return self.results()

    def results(self) -> list[Prepared]:
        """In the order of the inventory."""
        return [self._results[node.name] for node in self._nodes]

    def judge(self) -> None:
        """Raise what the exit code must tell."""
        if self._stopped_by:
            _say("coldstart: interrupted; what was begun is done")
            raise SystemExit(128 + self._stopped_by)
        failed = {result.node: result.why for result in self.results() if result.failed}
        if failed:
            names = ", ".join(failed) if len(failed) > 1 else ": ".join(next(iter(failed.items())))
            raise NodeError(f"{len(failed)} of {len(self._nodes)} nodes are not ready: {names}")

    def close(self) -> None:
        for work, _ in self._found.values():
            work.close()

    def _shell(self, node: Node) -> Shell:
        if node.settings.get("ansible_connection") == "local":
            return LocalShell()
        return fabricshell.connect(node, self._host_keys)

    def _look(self, node: Node) -> None:
        self._guarded(Prepared(node.name, node.site), lambda: self._planned(node))

    def _carry_out(self, node: Node) -> None:
        before, (work, plan) = self._results[node.name], self._found[node.name]
        self._guarded(before, lambda: replace(before, tasks=tuple(work.carry_out(plan, _say, self._stopped))))

    def _guarded(self, before: Prepared, do: Callable[[], Prepared]) -> None:
        """One node's task: its trouble is not the others'."""
        try:
            self._results[before.node] = do()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is this node's
            self._results[before.node] = _lost(before, error)

    def _planned(self, node: Node) -> Prepared:
        work = Work(node, self._shell(node), self._tasks)
        with ExitStack() as undo:
            undo.callback(work.close)
            plan = work.plan()
            undo.pop_all()
        self._found[node.name] = (work, plan)
        return summary(node, plan)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, lambda number, _: self._arrived(number)) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _arrived(self, number: int) -> None:
        if self._stopped_by:
            raise SystemExit(128 + number)
        self._stopped_by = number
        self._stopped.set()
        _say("coldstart: the steps that have begun are ended first; once more to leave at once")


def _each(nodes: Sequence[Node], work: Callable[[Node], None]) -> None:
    """In threads that keep nobody from leaving: a node that hangs does not hold the user."""
    todo: queue.SimpleQueue[Node] = queue.SimpleQueue()
    for node in nodes:
        todo.put(node)

    def go() -> None:
        while True:
            try:
                node = todo.get_nowait()
            except queue.Empty:
                return
            work(node)

    threads = [threading.Thread(target=go, daemon=True) for _ in range(min(AT_ONCE, len(nodes)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def to_do(results: Sequence[Prepared]) -> list[Prepared]:
    """Those on which something could be done."""
    return [found for found in results if not found.error and any(is_open(task) for task in found.tasks)]


def _lost(result: Prepared, error: Exception) -> Prepared:
    if not isinstance(error, ColdstartError):
        return replace(result, error=f"a mistake of coldstart's own: {error!r}")
    message = error.message.removeprefix(f"{result.node}: ")
    return replace(result, error=f"{message} ({error.hint})" if error.hint else message)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
