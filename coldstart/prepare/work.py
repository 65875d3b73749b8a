"""One node made ready: asked, planned, and step after step carried out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coldstart import sudo
from coldstart.agent import runtimes
from coldstart.errors import NodeError
from coldstart.model import Node, Prepared, TaskReport
from coldstart.prepare import CHANGED, FAILED, WOULD_CHANGE
from coldstart.prepare.shell import STEP_S, Ran, Shell, reason
from coldstart.prepare.state import State, further_questions, questions
from coldstart.prepare.tasks import Step, Task, plan, refusal

_SUDO = ("sudo", "-n", "--")


@dataclass(frozen=True)
class Plan:
    """What is to be done on a node."""

    distribution: str
    tasks: tuple[Task, ...]
    refused: NodeError | None = None  # why none of it can be carried out

    @property
    def steps(self) -> list[Step]:
        return [step for task in self.tasks for step in task.steps]


class Work:
    """On one node, over a shell of it."""

    def __init__(self, node: Node, shell: Shell, wanted: Sequence[str]) -> None:
        self._node = node
        self._shell = shell
        self._wanted = tuple(wanted)

    def plan(self) -> Plan:
        """Nothing is changed. NodeError if nothing can be planned."""
        state = self._look()
        problem, hint = refusal(state)
        if problem:
            raise NodeError(problem, hint=hint)
        tasks = tuple(self._planned(state))
        refused = self._rights(state) if any(task.steps for task in tasks) else None
        return Plan(state.distribution.name, tasks, refused)

    def carry_out(self, plan: Plan, say: Callable[[str], None], stopped: threading.Event) -> list[TaskReport]:
        """Every task's steps, then a second look: what is still missing has failed. stopped: no further step begins."""
        reports = [self._carry_out(task, say, stopped) for task in plan.tasks]
        if any(report.state == CHANGED for report in reports):
            still = {task.name: task.steps for task in self._planned(self._look())}
            reports = [_judged(report, still[report.task]) for report in reports]
        return reports

    def close(self) -> None:
        self._shell.close()

    def _look(self) -> State:
        interpreter = self._node.settings.get("ansible_python_interpreter", "python3")
        state = State({name: self._shell.run(argv) for name, argv in questions(interpreter).items()}, interpreter)
        further = {name: self._shell.run(argv) for name, argv in further_questions(state).items()}
        return replace(state, said={**state.said, **further})

    def _planned(self, state: State) -> list[Task]:
        settings = self._node.settings
        elsewhere = {"docker"} if settings.get("coldstart_docker_host") else set()  # its engine is somebody's choice
        allowed = [name for name in settings.get("coldstart_runtimes") or runtimes.names() if name not in elsewhere]
        return plan(state, self._wanted, allowed)

    def _rights(self, state: State) -> NodeError | None:
        """Why this user may not carry out a step; each is root's."""
        if state.user == "root":
            return None
        if not self._node.settings.get("ansible_become"):
            hint = "ansible_become: true, with `sudo -n`, or ansible_user: root"
            return NodeError(f"installing is root's, and the login is {state.user}", hint=hint, kind="sudo")
        ran = self._shell.run([*_SUDO, "true"])
        return (
            None if ran.code == 0 else sudo.refusal(ran.stderr) or NodeError(": ".join(reason(_SUDO, ran)), kind="sudo")
        )

    def _carry_out(self, task: Task, say: Callable[[str], None], stopped: threading.Event) -> TaskReport:
        report = reported(task)
        notes: list[str] = []
        for step in task.steps:
            if stopped.is_set():
                return replace(report, note="interrupted before this was done")
            say(f"{self._node.name}: {step.shown}")
            ran = self._run(step)
            if ran.code == 0:
                continue
            text, hint = reason(step.argv, ran)
            if not step.may_fail:
                return replace(report, state=FAILED, note="; ".join([*notes, f"{text} ({hint})"]))
            notes.append(f"{step.words}: {text}")
        return (
            replace(report, state=CHANGED, note="; ".join(filter(None, [*notes, task.note]))) if task.steps else report
        )

    def _run(self, step: Step) -> Ran:
        become = _SUDO if self._node.settings.get("ansible_become") else ()
        return self._shell.run([*become, *step.argv], limit_s=STEP_S)


def reported(task: Task) -> TaskReport:
    """As planned."""
    return TaskReport(task.name, task.state, tuple(step.shown for step in task.steps), task.note)


def _judged(report: TaskReport, still: Sequence[Step]) -> TaskReport:
    if report.state != CHANGED or not still:
        return report
    left = "; ".join(step.words for step in still)
    return replace(report, state=FAILED, note=f"all steps were done, and there is still to do: {left}")


def is_open(report: TaskReport) -> bool:
    """There is something to do."""
    return report.state == WOULD_CHANGE


def summary(node: Node, plan: Plan) -> Prepared:
    """A node whose plan was made and nothing done."""
    error = str(plan.refused) if plan.refused else ""
    return Prepared(node.name, node.site, plan.distribution, tuple(map(reported, plan.tasks)), error)
