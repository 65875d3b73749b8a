"""Boots of the reference workload through the agent's own code, without the link: what the benchmarks time."""

from __future__ import annotations

import gc
import os
import platform
import secrets
import select
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import NotRun
from coldstart import images
from coldstart.agent import lock, runtimes
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Cancelled, Prey
from coldstart.agent.records import OK, Boot, Order, Ready
from coldstart.agent.runtimes import Context, Place, Unavailable
from coldstart.workloads import build


class Failed(Exception):
    """A boot did not go well: no figure can be had."""


class Cancel:
    """Ctrl-C and SIGTERM, as a descriptor: the boot in progress is undone in order, then everything is cleaned up."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os.write(self._write, b"x") and None)

    def check(self) -> None:
        """Cancelled if it was asked for."""
        if select.select([self.fd], [], [], 0)[0]:
            raise Cancelled


class Noted:
    """A runtime that remembers where its last instance was placed. Everything else passes through."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.start = runtime.start  # the one call that is timed: straight through
        self.last: Place | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def place(self, nonce: str) -> Place:
        self.last = self._runtime.place(nonce)
        return self.last


@dataclass
class Booter:
    """Boots one target, again and again."""

    runtime: Noted
    prey: Prey
    run: str
    program: Path
    _loop: BootLoop
    _index: int = 0

    def boot(self) -> tuple[Boot, Place]:
        """One boot that went well, and where it was; Failed if it did not."""
        self._index += 1
        boot = self._loop.boot(Order(0, self._index, "hello"), self.prey)
        gc.collect(0)  # as BootLoop.run does between boots
        if boot.outcome != OK or self.runtime.last is None:
            raise Failed(f"boot {self._index}: {boot.outcome} {boot.detail}")
        return boot, self.runtime.last


@contextmanager
def _node(run: str) -> Iterator[None]:
    """This machine, for us alone: a sweep that begins meanwhile would take our instances for a dead run's."""
    try:
        held = lock.take(run)
    except lock.Busy as error:
        raise NotRun(f"{error}; wait for it to end") from None
    try:
        yield
    finally:
        os.close(held)


@contextmanager
def booter(name: str, cancel: Cancel) -> Iterator[Booter]:
    """`hello` in one runtime, prepared and warm. NotRun if it cannot be had; nothing of it is left at the end."""
    run = f"bench-{secrets.token_hex(4)}"
    module = runtimes.load(name)
    resolved = images.resolve("hello", packaging=module.Runtime.packaging, arch=platform.machine(), base=Path())
    ready = Ready(port=build.PORT, nonce=resolved.nonce)
    with _node(run), tempfile.TemporaryDirectory(prefix="coldstart-bench-") as scratch:
        runtime = module.Runtime(module.Options(), Context(run, scratch))
        try:
            runtime.check()
            prepared = runtime.prepare(
                resolved.image, ready, {part: str(path) for part, path in resolved.paths.items()}
            )
            noted = Noted(runtime)
            loop = BootLoop(cancel.fd)
            loop.arm()
            yield Booter(noted, Prey(noted, ready, prepared), run, next(iter(resolved.paths.values())), loop)
        except Unavailable as error:
            raise NotRun(f"{error.reason} ({error.hint})") from None
        finally:
            gc.enable()  # `arm` switched it off
            gc.unfreeze()
            runtime.clean(run)
