"""What the harness adds: `ready` of a bare process through the agent, beside the same loop written in C (floor.c)."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import result
from benchmarks.booting import Booter, Cancel, Failed, booter
from benchmarks.result import NotRun, Row

DEFAULT_N = 500
WARM_UP = 20
GOAL_NS = 1_000_000


def run(n: int, cancel: Cancel) -> list[Row]:
    with booter("process", cancel) as ours, _peer(ours.program) as peer:
        for _ in range(WARM_UP):
            _turn(0, ours, peer)
        turns = [_turn(turn, ours, peer) for turn in range(n)]
    ours_ns, peers_ns = ([pair[side] for pair in turns] for side in (0, 1))
    added_ns, _ = result.difference(ours_ns, peers_ns)
    row = Row(
        what="floor: bare process, command to ready",
        peer="the same loop in C",
        n=n,
        ours=result.spread(ours_ns),
        peers=result.spread(peers_ns),
        figure=f"{result.difference_ms(ours_ns, peers_ns)}, {result.ratio(ours_ns, peers_ns)}",
        goal="difference <= 1 ms",
        met=added_ns <= GOAL_NS,
        samples={"ours_ns": ours_ns, "peer_ns": peers_ns},
    )
    return [row]


def _turn(turn: int, ours: Booter, peer: subprocess.Popen[str]) -> tuple[int, int]:
    """One boot of each; who begins alternates."""
    if turn % 2:
        peer_ns = _boot_peer(peer, ours.run)
        return _boot_ours(ours), peer_ns
    return _boot_ours(ours), _boot_peer(peer, ours.run)


def _boot_ours(ours: Booter) -> int:
    boot, _ = ours.boot()
    return boot.marks_ns["ready"]


def _boot_peer(peer: subprocess.Popen[str], run: str) -> int:
    """The run marks what the peer starts as well, so that the same clean-up would find it."""
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write(f"{_free_port()} {secrets.token_hex(8)} {run}\n")
    peer.stdin.flush()
    answer = peer.stdout.readline().strip()
    if not answer.isdigit():
        raise Failed(f"the C loop: {answer or 'it has ended'}")
    return int(answer)


@contextmanager
def _peer(program: Path) -> Iterator[subprocess.Popen[str]]:
    """The compiled C loop, as a co-process; it ends with its stdin, after the boot in progress."""
    with tempfile.TemporaryDirectory(prefix="coldstart-bench-") as scratch:
        binary = _compiled(Path(scratch))
        # A session of its own: Ctrl-C is for us, we then end it in order.
        peer = subprocess.Popen(
            [binary, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with peer:  # closes the pipes and waits
            yield peer


def _compiled(scratch: Path) -> Path:
    compiler = ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    binary = scratch / "floor"
    source = Path(__file__).with_name("floor.c")
    done = subprocess.run([*compiler, "-O2", "-o", binary, source], capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"floor.c does not compile: {done.stderr.strip()[-200:]}")
    return binary


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
