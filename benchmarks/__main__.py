"""python -m benchmarks: run them, print a table. Methods: docs/benchmarks.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import clockerror, fanout, floor, help_cpu, push, result, skew, unikernel, witness
from benchmarks.booting import Cancel, Failed
from benchmarks.machine import Machine, machine
from benchmarks.result import NotRun, Row
from coldstart.agent.oneboot import Cancelled
from coldstart.errors import ColdstartError

BENCHMARKS = {
    "floor": floor,
    "witness": witness,
    "unikernel": unikernel,
    "help": help_cpu,
    "skew": skew,
    "fanout": fanout,
    "clockerror": clockerror,
    "push": push,
}
FILE_WIDTH = 200
CANCELLED = 130  # as shells say of Ctrl-C


def main() -> int:
    options = _options()
    found = machine()
    if found.warning():
        print(f"warning: {found.warning()}", file=sys.stderr)
    cancel = Cancel()
    rows: list[Row] = []
    try:
        for name in options.only or BENCHMARKS:
            rows += _run(name, options.n, cancel)
    except Cancelled:
        print("cancelled; everything is cleaned up", file=sys.stderr)
        return CANCELLED
    _print(found, rows, as_markdown=options.markdown)
    if options.json:
        _save(options.json, found, rows)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Side by side with peers.")
    parser.add_argument("--n", type=int, help="turns of each (default: its own)")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this one; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures and all samples, for the record")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/benchmarks.md has it")
    return parser.parse_args()


def _run(name: str, n: int | None, cancel: Cancel) -> list[Row]:
    module: Any = BENCHMARKS[name]
    print(f"{name} ...", file=sys.stderr)
    try:
        rows: list[Row] = module.run(n or module.DEFAULT_N, cancel)
        return rows
    except (NotRun, Failed, ColdstartError) as reason:
        return [result.not_run(name, reason)]


def _print(found: Machine, rows: list[Row], *, as_markdown: bool) -> None:
    """Durations: median (p95, p99)."""
    notes = [f"Machine: {found.line()}.", "Durations: median (p95, p99); `-`: too few samples for it."]
    if found.warning():
        notes.append(f"The machine was {found.warning()}.")
    if as_markdown:
        print(result.markdown(rows))
    else:
        Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(result.table(rows))
    print("", *notes, sep="\n")


def _save(path: Path, found: Machine, rows: list[Row]) -> None:
    record = {"machine": dataclasses.asdict(found), "rows": [row.record() for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
