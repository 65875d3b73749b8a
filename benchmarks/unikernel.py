"""How fast is our unikernel beside a peer's, and beside a container; and what do idle ones cost the next?

The peer is any kernel that answers on the same port with the same header, given as a folder (COLDSTART_BENCH_PEER) with
`unikernel.x86_64` and `unikernel.aarch64`; it is started with the very options that ours gets, but for the words of its
command line (COLDSTART_BENCH_PEER_WORDS: `KEY=value`, blanks between). In every turn each side boots once.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import result
from benchmarks.booting import Booter, Cancel, What, booters
from benchmarks.result import NotRun, Row
from coldstart import guests
from coldstart.agent.records import Boot
from coldstart.workloads.build import ARCHITECTURES

DEFAULT_N = 30
WARM_UP = 2
IDLE = 8
TOLERATED = 1.1  # a ratio: without a bound on its width, an interval would pass the more easily the less is known
OURS = What("qemu", "hello-unikernel", options={"accel": "tcg"})
CONTAINER = What("docker")
PEER_WORDS = "ip={ip} nonce={nonce}"


def run(n: int, cancel: Cancel) -> list[Row]:
    rows = [row for arch in ARCHITECTURES for row in _against_peers(arch, n, cancel)]
    return [*rows, *_beside_idle_ones(n, cancel)]


def _against_peers(arch: str, n: int, cancel: Cancel) -> list[Row]:
    ours = What("qemu", "hello-unikernel", arch=arch, options={"accel": "tcg"})
    sides = {"ours": ours}
    if arch == platform.machine():  # another one's would be emulated, and a container is not
        sides["container"] = CONTAINER
    folder = os.environ.get("COLDSTART_BENCH_PEER", "")
    if folder:
        sides["peer"] = _peer(Path(folder), arch)
    name = f"unikernel, {arch}"
    try:
        with booters(list(sides.values()), cancel) as found:
            boots = _in_turns(dict(zip(sides, found, strict=True)), n)
    except NotRun as reason:
        return [result.not_run(name, reason)]
    rows = [_container_row(name, boots)] if "container" in boots else []
    if folder:
        return [_peer_row(name, boots), *rows]
    return [result.not_run(f"{name} beside a peer", NotRun("COLDSTART_BENCH_PEER names no folder")), *rows]


def _peer(folder: Path, arch: str) -> What:
    words = os.environ.get("COLDSTART_BENCH_PEER_WORDS", PEER_WORDS)
    env = dict(word.split("=", 1) for word in words.split())
    options = {**guests.UNIKERNEL[arch], "accel": "tcg"}
    return What("qemu", str(folder / f"unikernel.{arch}"), arch, options, env)


def _in_turns(sides: Mapping[str, Booter], n: int) -> dict[str, list[Boot]]:
    """Every side once in each turn, in an order that differs from turn to turn."""
    for side in list(sides.values()) * WARM_UP:
        side.boot()
    boots: dict[str, list[Boot]] = {name: [] for name in sides}
    order = random.Random(n)
    for _ in range(n):
        for name in order.sample(list(sides), len(sides)):
            boots[name].append(sides[name].boot()[0])
    return boots


def _from_exec_ns(boots: Sequence[Boot]) -> list[int]:
    """From QEMU's exec to the first byte of the valid answer."""
    return [boot.marks_ns["ready"] - boot.marks_ns["created"] for boot in boots]


def _peer_row(name: str, boots: Mapping[str, Sequence[Boot]]) -> Row:
    ours, peers = _from_exec_ns(boots["ours"]), _from_exec_ns(boots["peer"])
    high = result.ratio_interval(ours, peers)[1]
    return Row(
        what=f"{name}: exec to first byte",
        peer="the peer's kernel, same QEMU options",
        n=len(ours),
        ours=result.spread(ours),
        peers=result.spread(peers),
        figure=result.ratio(ours, peers),
        goal=f"not slower: interval below {TOLERATED:g}",
        met=high <= TOLERATED,
        samples={"ours_ns": ours, "peer_ns": peers},
    )


def _container_row(name: str, boots: Mapping[str, Sequence[Boot]]) -> Row:
    ours, peers = ([boot.marks_ns["ready"] for boot in boots[side]] for side in ("ours", "container"))
    return Row(
        what=f"{name}: command to ready",
        peer="the same handler in a container (docker)",
        n=len(ours),
        ours=result.spread(ours),
        peers=result.spread(peers),
        figure=result.ratio(ours, peers),
        samples={"ours_ns": ours, "container_ns": peers},
    )


def _beside_idle_ones(n: int, cancel: Cancel) -> list[Row]:
    """`ready` with none and with IDLE unikernels that do nothing, in turns of alternating order."""
    name = f"unikernel: {IDLE} idle ones beside it"
    alone: list[int] = []
    crowded: list[int] = []
    try:
        with booters([OURS], cancel) as (ours,):
            for _ in range(WARM_UP):
                ours.boot()
            for turn in range(n):
                for with_others in (turn % 2 == 0, turn % 2 == 1):
                    with _idle(ours, IDLE if with_others else 0):
                        (crowded if with_others else alone).append(ours.boot()[0].marks_ns["ready"])
    except NotRun as reason:
        return [result.not_run(name, reason)]
    low, high = result.ratio_interval(crowded, alone)
    return [
        Row(
            what=name,
            peer="the same alone",
            n=n,
            ours=result.spread(crowded),
            peers=result.spread(alone),
            figure=result.ratio(crowded, alone),
            goal=f"interval of the ratio holds 1, and ends below {TOLERATED:g}",
            met=low <= 1 <= high <= TOLERATED,
            samples={"crowded_ns": crowded, "alone_ns": alone},
        )
    ]


@contextlib.contextmanager
def _idle(ours: Booter, count: int) -> Iterator[None]:
    """So many instances, each of which has answered once."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(ours.kept())
        yield
