"""Boots of the reference workload through the agent's own code, without the link: what the benchmarks time."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import secrets
import select
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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

ANSWER_LIMIT_S = 20.0


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
        boot = self._loop.boot(self._loop.stage(Order(0, self._index, "hello"), self.prey))
        gc.collect(0)  # as BootLoop.run does between boots
        if boot.outcome != OK or self.runtime.last is None:
            raise Failed(f"boot {self._index}: {boot.outcome} {boot.detail}")
        return boot, self.runtime.last

    @contextmanager
    def kept(self) -> Iterator[Place]:
        """An instance that has answered once, and is left alone until the end."""
        place = self.runtime.place(secrets.token_hex(8))
        handle = self.runtime.start(place, lambda _: None)
        try:
            _await_answer(place)
            yield place
        finally:
            self.runtime.stop(handle)


def _await_answer(place: Place) -> None:
    deadline_s = time.monotonic() + ANSWER_LIMIT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((place.address, place.port), 0.1) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            if sock.recv(4096):
                return
    raise Failed(f"{place.name}: no answer within {ANSWER_LIMIT_S:g} s")


@contextmanager
def alone(run: str) -> Iterator[None]:
    """This machine, for us alone: a sweep that begins meanwhile would take our instances for a dead run's."""
    try:
        held = lock.take(run)
    except lock.Busy as error:
        raise NotRun(f"{error}; wait for it to end") from None
    try:
        yield
    finally:
        os.close(held)


@dataclass(frozen=True)
class What:
    """What is booted: an image in a runtime. env: in place of the image's own, where it is given."""

    runtime: str
    image: str | Mapping[str, str] = "hello"
    arch: str = platform.machine()
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] | None = None


@contextmanager
def booter(name: str, cancel: Cancel) -> Iterator[Booter]:
    """`hello` in one runtime, prepared and warm. NotRun if it cannot be had; nothing of it is left at the end."""
    with booters([What(name)], cancel) as (only,):
        yield only


@contextmanager
def booters(wanted: Sequence[What], cancel: Cancel) -> Iterator[list[Booter]]:
    """Several at once, for one run: they may be booted in turns, or beside each other."""
    run = f"bench-{secrets.token_hex(4)}"
    made: list[Any] = []
    with alone(run), tempfile.TemporaryDirectory(prefix="coldstart-bench-") as scratch:
        context = Context(run, scratch)
        loop = BootLoop(cancel.fd)
        try:
            found = [_booter(what, context, loop, made) for what in wanted]
            loop.arm()
            yield found
        except Unavailable as error:
            raise NotRun(f"{error.reason} ({error.hint})") from None
        finally:
            gc.enable()  # `arm` switched it off
            gc.unfreeze()
            for runtime in made:
                runtime.clean(run)


def _booter(what: What, context: Context, loop: BootLoop, made: list[Any]) -> Booter:
    module = runtimes.load(what.runtime)
    resolved = images.resolve(what.image, packaging=module.Runtime.packaging, arch=what.arch, base=Path())
    image = resolved.image if what.env is None else replace(resolved.image, env=what.env)
    runtime = module.Runtime(module.Options(**{**resolved.options, **what.options}), context)
    made.append(runtime)
    runtime.check()
    ready = Ready(port=build.PORT, nonce=True)
    prepared = runtime.prepare(image, ready, {part: str(path) for part, path in resolved.paths.items()})
    noted = Noted(runtime)
    return Booter(noted, Prey(noted, ready, prepared), context.run, next(iter(resolved.paths.values())), loop)
