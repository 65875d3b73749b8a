"""The process that boots. Takes actions from a session, does them, answers; between ARM and DONE it imports nothing.

It ends in one way, whatever the reason (told to, stream closed, SIGTERM, a bug): the boot in progress is undone and
everything that bears the run's mark is removed.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Mapping
from typing import Any, Callable

from coldstart.agent import actions, cleaning, facts, floors, lock, pagecache, runtimes, session, supply, survey
from coldstart.agent import cache as caches
from coldstart.agent.bootloop import BootLoop, Staged
from coldstart.agent.intake import Intake, Taken
from coldstart.agent.oneboot import Prey
from coldstart.agent.records import Boot, Order, to_json
from coldstart.agent.runtimes import Context, Unavailable
from coldstart.agent.wire import Decoder, Encoder


class Measurer:
    """One link's worth of work."""

    def __init__(self, stream: socket.socket, cancel: int) -> None:
        self._stream = stream
        self._cancel = cancel
        self._encoder = Encoder()
        self._session = session.Session()
        self._context = Context("", "")
        self._cache = caches.Cache("")
        self._intake = Intake(self._cache)
        self._runtimes: dict[str, Any] = {}  # by runtime name: one that was checked; used to clean up
        self._prey: dict[str, Prey] = {}
        self._loop = BootLoop(cancel)
        self._orders: tuple[Order, ...] = ()
        self._staged: Staged | None = None

    @property
    def run(self) -> str:
        """Whose it is; '' before the greeting."""
        return self._context.run

    def send(self, kind: str, **fields: Any) -> None:
        try:
            self._stream.sendall(self._encoder.encode(kind, **fields))
        except OSError:
            pass  # the watchdog is gone; the clean-up must go on all the same

    def clean(self, run: str) -> dict[str, list[str]]:
        """Remove what bears the mark of `run` ('': of any dead run, if it can be known that they are dead)."""
        if not run and not lock.is_the_nodes():
            return {"removed": [], "failed": []}
        return cleaning.clean(self._context, run, self._runtimes)

    def serve(self) -> None:
        """Until told to end, or until the stream is closed."""
        decoder = Decoder()
        while self._session.state != "ended":
            ready, _, _ = select.select([self._stream.fileno(), self._cancel], [], [])
            if self._stream.fileno() not in ready:
                return  # cancelled, and everything that was said before is done
            data = self._stream.recv(1 << 16)
            if not data:
                return
            for message in decoder.feed(data):
                replies, todo = self._session.receive(message)
                for kind, fields in replies:
                    self.send(kind, **fields)
                for action in todo:
                    self._do[type(action)](self, action)

    def _greet(self, action: actions.Greet) -> None:
        self._context = Context(action.run, caches.folder(os.environ), action.settings)
        self._cache = caches.Cache(self._context.cache)
        self._intake = Intake(self._cache)
        # The lock is ours: what bears our own mark is left from a link whose agent was killed, as is anybody else's.
        swept = _joined(self.clean(""), self.clean(action.run))
        self._loop.shortage = lambda: floors.shortage(action.settings, self._context.cache)
        memory_bytes, disk_bytes = floors.available(self._context.cache)
        free = {"memory_bytes": memory_bytes, "disk_bytes": disk_bytes}
        self.send("hello", run=action.run, facts=facts.facts(), swept=swept, free=free, short=self._loop.shortage())

    def _take_in(self, action: Taken) -> None:
        kind, answer = self._intake.take(action)
        self.send(kind, **answer)

    def _install(self, action: actions.Install) -> None:
        answer = "unavailable"
        try:
            runtime, _ = self._checked(action.runtime, action.options)
            answer = "refused"
            self.send("installed", how=runtime.install(action.image, action.port, self._cache))
        except Unavailable as error:
            self.send(answer, reason=error.reason, hint=error.hint)

    def _prepare(self, action: actions.Prepare) -> None:
        try:
            prey, found = self._prepared(action)
        except Unavailable as error:
            self.send("unavailable", target=action.target, reason=error.reason, hint=error.hint)
            return
        self._prey[action.target] = prey
        prepared = prey.prepared
        absence = prey.supply.objection() if prey.supply else "its runtime has no images"
        self.send(
            "prepared",
            target=action.target,
            labels=dict(prepared.labels),
            image_bytes=prepared.image_bytes,
            warnings=list(prepared.warnings),
            cannot={"page-cold": prepared.cold_unavailable, "image-absent": absence},
            facts=found,
        )

    def _prepared(self, action: actions.Prepare) -> tuple[Prey, dict[str, str]]:
        runtime, found = self._checked(action.runtime, action.options)
        files = {part: self._cache.file(digest) for part, digest in action.image.files.items()}
        try:
            prepared = runtime.prepare(action.image, action.ready, files)
            pagecache.flush(prepared.files)
        except OSError as error:
            raise Unavailable(f"{action.image.name}: {error}", "can its files be read on the node?") from None
        return Prey(runtime, action.ready, prepared, self._supply(runtime, action)), found

    def _supply(self, runtime: Any, action: actions.Prepare) -> supply.Supply | None:
        if hasattr(runtime, "supply"):
            own: supply.Supply = runtime.supply(action.image, action.previous, action.port)
            return own
        return supply.Files(action.image, self._cache, action.port) if action.image.files else None

    def _checked(self, name: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
        """A runtime that can be had here, and its facts."""
        runtime = runtimes.make(name, options, self._context)
        found: dict[str, str] = runtime.check()
        self._runtimes[name] = runtime
        return runtime, found

    def _arm(self, action: actions.Arm) -> None:
        self._loop.arm()
        self.send("armed", modules=len(sys.modules))

    def _stage(self, action: actions.Stage) -> None:
        unknown = [order.target for order in action.orders if order.target not in self._prey]
        if unknown:
            self.send("fault", text=f"target {unknown[0]!r} was not prepared", final=True)
            return
        self._orders = action.orders
        self._staged = self._loop.stage(action.orders[0], self._prey[action.orders[0].target])
        self.send("staged")

    def _start(self, action: actions.Start) -> None:
        assert self._staged is not None  # the session sees to it
        before = set(sys.modules)
        self._loop.release(self._staged, action.at_ns, self._report)
        self._loop.run(self._orders[1:], self._prey, self._report)
        self.send("done", imported=sorted(set(sys.modules) - before))

    def _survey(self, _: actions.Survey) -> None:
        self.send("surveyed", facts=survey.survey(self._context.settings, self._context.cache))

    def _report(self, boot: Boot) -> None:
        self.send("boot", boot=to_json(boot))

    def _clean(self, action: actions.Clean) -> None:
        result = self.clean(action.run)
        if action.images:
            result["removed"] += self._cache.empty()
            result = _joined(result, cleaning.clean_images(self._context, self._runtimes))
        self.send("cleaned", **result)

    def _end(self, action: actions.End) -> None:
        """The session has ended; `serve` cleans up."""

    _do: dict[type, Callable[[Measurer, Any], None]] = {
        actions.Greet: _greet,
        actions.Offer: _take_in,
        actions.Chunk: _take_in,
        actions.Fetch: _take_in,
        actions.Install: _install,
        actions.Prepare: _prepare,
        actions.Arm: _arm,
        actions.Stage: _stage,
        actions.Start: _start,
        actions.Survey: _survey,
        actions.Clean: _clean,
        actions.End: _end,
    }


def _joined(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: one[key] + other[key] for key in one}
