"""The process that boots. Takes actions from a session, does them, answers; between ARM and DONE it imports nothing.

It ends in one way, whatever the reason (told to, stream closed, SIGTERM, a bug): the boot in progress is undone and
everything that bears the run's mark is removed.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from typing import Any, Callable

from coldstart.agent import cache as caches
from coldstart.agent import cleaning, facts, floors, lock, pagecache, runtimes, session, survey
from coldstart.agent.bootloop import BootLoop, Staged
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
                replies, actions = self._session.receive(message)
                for kind, fields in replies:
                    self.send(kind, **fields)
                for action in actions:
                    self._do[type(action)](self, action)

    def _greet(self, action: session.Greet) -> None:
        self._context = Context(action.run, caches.folder(os.environ), action.settings)
        self._cache = caches.Cache(self._context.cache)
        # The lock is ours: what bears our own mark is left from a link whose agent was killed, as is anybody else's.
        swept = _joined(self.clean(""), self.clean(action.run))
        self._loop.shortage = lambda: floors.shortage(action.settings, self._context.cache)
        memory_bytes, disk_bytes = floors.available(self._context.cache)
        free = {"memory_bytes": memory_bytes, "disk_bytes": disk_bytes}
        self.send("hello", run=action.run, facts=facts.facts(), swept=swept, free=free, short=self._loop.shortage())

    def _offer(self, action: session.Offer) -> None:
        kind, fields = self._cache.offered(action.sha256, action.size_bytes)
        self.send(kind, **fields)

    def _chunk(self, action: session.Chunk) -> None:
        kind, fields = self._cache.chunk(action.sha256, action.data)
        self.send(kind, **fields)

    def _prepare(self, action: session.Prepare) -> None:
        try:
            prey, found = self._prepared(action)
        except Unavailable as error:
            self.send("unavailable", target=action.target, reason=error.reason, hint=error.hint)
            return
        self._prey[action.target] = prey
        prepared = prey.prepared
        self.send(
            "prepared",
            target=action.target,
            labels=dict(prepared.labels),
            image_bytes=prepared.image_bytes,
            warnings=list(prepared.warnings),
            cold_unavailable=prepared.cold_unavailable,
            facts=found,
        )

    def _prepared(self, action: session.Prepare) -> tuple[Prey, dict[str, str]]:
        try:
            module = runtimes.load(action.runtime)
            options = dict(action.options)
            options.update({key: tuple(value) for key, value in options.items() if isinstance(value, list)})
            runtime = module.Runtime(module.Options(**options), self._context)
        except (KeyError, TypeError) as error:
            raise Unavailable(f"{action.runtime}: {error}", "does the node run the same version?") from None
        except ValueError as error:
            raise Unavailable(f"{action.runtime}: {error}", "correct the node's settings") from None
        found = runtime.check()
        self._runtimes[action.runtime] = runtime
        files = {part: self._cache.file(digest) for part, digest in action.image.files.items()}
        try:
            prepared = runtime.prepare(action.image, action.ready, files)
            pagecache.flush(prepared.files)
        except OSError as error:
            raise Unavailable(f"{action.image.name}: {error}", "can its files be read on the node?") from None
        return Prey(runtime, action.ready, prepared), found

    def _arm(self, action: session.Arm) -> None:
        self._loop.arm()
        self.send("armed", modules=len(sys.modules))

    def _stage(self, action: session.Stage) -> None:
        unknown = [order.target for order in action.orders if order.target not in self._prey]
        if unknown:
            self.send("fault", text=f"target {unknown[0]!r} was not prepared", final=True)
            return
        self._orders = action.orders
        self._staged = self._loop.stage(action.orders[0], self._prey[action.orders[0].target])
        self.send("staged")

    def _start(self, action: session.Start) -> None:
        assert self._staged is not None  # the session sees to it
        before = set(sys.modules)
        self._loop.release(self._staged, action.at_ns, self._report)
        self._loop.run(self._orders[1:], self._prey, self._report)
        self.send("done", imported=sorted(set(sys.modules) - before))

    def _survey(self, _: session.Survey) -> None:
        self.send("surveyed", facts=survey.survey(self._context.settings, self._context.cache))

    def _report(self, boot: Boot) -> None:
        self.send("boot", boot=to_json(boot))

    def _clean(self, action: session.Clean) -> None:
        result = self.clean(action.run)
        if action.images:
            result["removed"] += self._cache.empty()
            result = _joined(result, cleaning.clean_images(self._context, self._runtimes))
        self.send("cleaned", **result)

    def _end(self, action: session.End) -> None:
        pass  # the session has ended; `serve` cleans up

    _do: dict[type, Callable[[Measurer, Any], None]] = {
        session.Greet: _greet,
        session.Offer: _offer,
        session.Chunk: _chunk,
        session.Prepare: _prepare,
        session.Arm: _arm,
        session.Stage: _stage,
        session.Start: _start,
        session.Survey: _survey,
        session.Clean: _clean,
        session.End: _end,
    }


def _joined(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: one[key] + other[key] for key in one}
