"""CPU time of `coldstart --help`, beside the bare interpreter's own start: what every command pays before it works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import result
from benchmarks.booting import Cancel, Failed
from benchmarks.result import NotRun, Row
from coldstart import stats

DEFAULT_N = 50
GOAL_NS = 250_000_000
PEER = [sys.executable, "-c", "pass"]


def run(n: int, cancel: Cancel) -> list[Row]:
    command = Path(sys.executable).with_name("coldstart")
    if not command.exists():
        raise NotRun("there is no `coldstart` beside this Python (make setup)")
    ours = [str(command), "--help"]
    _turn(0, ours)  # bytecode and page cache
    turns = []
    for turn in range(n):
        cancel.check()
        turns.append(_turn(turn, ours))
    ours_ns, peers_ns = ([pair[side] for pair in turns] for side in (0, 1))
    median_ns = stats.quantile(ours_ns, 0.5)
    row = Row(
        what="help: CPU of coldstart --help",
        peer="python -c pass",
        n=n,
        ours=result.spread(ours_ns),
        peers=result.spread(peers_ns),
        figure=f"{result.median_ms(ours_ns)}, {result.ratio(ours_ns, peers_ns)}",
        goal="median <= 250 ms",
        met=median_ns is not None and median_ns <= GOAL_NS,
        samples={"ours_ns": ours_ns, "peer_ns": peers_ns},
    )
    return [row]


def _turn(turn: int, ours: list[str]) -> tuple[int, int]:
    """One of each; who begins alternates."""
    if turn % 2:
        peer_ns = _cpu_ns(PEER)
        return _cpu_ns(ours), peer_ns
    return _cpu_ns(ours), _cpu_ns(PEER)


def _cpu_ns(argv: list[str]) -> int:
    """User and system time of one command, all its threads."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
    if process.returncode:
        raise Failed(f"{' '.join(argv)}: exit code {process.returncode}")
    return round((usage.ru_utime + usage.ru_stime) * 1e9)
