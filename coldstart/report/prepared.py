"""What `prepare` found or did, by site and node: for people, and as JSON for scripts. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence

from coldstart.model import Prepared, TaskReport
from coldstart.report.document import dumps
from coldstart.report.words import printable

WIDTH = 100  # where there is no terminal
_NAME = 15
_DONE = {"would-change": "would ", "changed": "did: ", "failed": "tried: "}
_STATES = {"ok": "nothing to do", "not-applicable": "does not apply", "failed": "FAILED"}


def as_text(results: Sequence[Prepared], *, width: int | None = None) -> str:
    """A line for each step, and what is to be known of it below."""
    lines: list[str] = []
    for result in results:
        lines += [f"{result.site}/{result.node}: {result.distribution or 'could not be asked'}"]
        for task in result.tasks:
            lines += _task(task, width or WIDTH)
        if result.error:
            lines += _wrapped(f"  FAILED: {result.error}", width or WIDTH, 4)
    return "\n".join(map(printable, [*lines, "", _total(results)])) + "\n"


def as_json(results: Sequence[Prepared]) -> str:
    return dumps({"nodes": [_entry(result) for result in results]}) + "\n"


def _entry(result: Prepared) -> dict[str, object]:
    entry = dataclasses.asdict(result)
    return {**entry, "tasks": [{**task, "steps": list(task["steps"])} for task in entry["tasks"]]}


def _task(task: TaskReport, width: int) -> Iterator[str]:
    rows = [f"{_DONE.get(task.state, '')}{step}" for step in task.steps]
    if task.state in _STATES:
        rows.append(_STATES[task.state] + (f": {task.note}" if task.note else ""))
    elif task.note:
        rows.append(task.note)
    for index, row in enumerate(rows):
        yield from _wrapped(f"  {'' if index else task.task:<{_NAME}}{row}", width, _NAME + 4)


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    """Never within a word: a command is there to be copied."""
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def _total(results: Sequence[Prepared]) -> str:
    tasks = [task.state for result in results for task in result.tasks]
    failed = sum(result.failed for result in results)
    parts = [
        f"{count} {words}"
        for count, words in (
            (tasks.count("would-change"), "tasks to do"),
            (tasks.count("changed"), "tasks done"),
            (failed, "nodes failed"),
        )
        if count
    ]
    return f"{len(results)} nodes: {', '.join(parts) or 'nothing to do'}"
