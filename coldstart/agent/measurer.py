"""The process that boots. Takes actions from a session, does them, answers; between ARM and DONE it imports nothing.

It ends in one way, whatever the reason (told to, stream closed, SIGTERM, a bug): the boot in progress is undone and
everything that bears the run's mark is removed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, Callable

from coldstart.agent import cache as caches
from coldstart.agent import cleaning, facts, lock, pagecache, runtimes, session, spawn
from coldstart.agent.bootloop import BootLoop
from coldstart.agent.oneboot import Cancelled, Prey
from coldstart.agent.records import Boot, to_json
from coldstart.agent.runtimes import Context, Unavailable
from coldstart.agent.wire import Decoder, Encoder, WireError


class Measurer:
    """One link's worth of work."""

    def __init__(self, stream: socket.socket, cancel: int) -> None:
        self._stream = stream
        self._cancel = cancel
        self._encoder = Encoder()
        self._session = session.Session()
        self._context = Context("", "")
        self._cache = caches.Cache("")
        self._sizes: dict[str, int] = {}
        self._runtimes: dict[str, Any] = {}  # by runtime name: one that was checked; used to clean up
        self._prey: dict[str, Prey] = {}
        self._loop = BootLoop(cancel)

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
        self.send("hello", run=action.run, facts=facts.facts(), swept=swept, runtimes=runtimes.names())

    def _offer(self, action: session.Offer) -> None:
        self._sizes[action.sha256] = action.size_bytes
        if self._cache.file(action.sha256):
            self.send("have", sha256=action.sha256)
        else:
            self.send("need", sha256=action.sha256, offset=self._cache.begun(action.sha256, action.size_bytes))

    def _chunk(self, action: session.Chunk) -> None:
        try:
            if self._cache.add(action.sha256, action.data, self._sizes.get(action.sha256, 0)):
                self.send("have", sha256=action.sha256)
        except (caches.BadContent, OSError) as error:
            self.send("refused", sha256=action.sha256, reason=str(error))

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

    def _run(self, action: session.Loop) -> None:
        unknown = [order.target for order in action.orders if order.target not in self._prey]
        if unknown:
            self.send("fault", text=f"target {unknown[0]!r} was not prepared")
            return
        before = set(sys.modules)
        self._loop.run(action.orders, self._prey, self._report)
        self.send("done", imported=sorted(set(sys.modules) - before))

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
        session.Loop: _run,
        session.Clean: _clean,
        session.End: _end,
    }


def _joined(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: one[key] + other[key] for key in one}


def main(stream: socket.socket) -> int:
    """The measurer's whole life, in a process of its own; returns its exit code."""
    for name in runtimes.names():
        runtimes.load(name)  # nothing is imported later: a lazy import inside a boot once cost 100 ms
    read_end, write_end = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(write_end, b"x") and None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's keys are the controller's business
    spawn.die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    measurer = Measurer(stream, read_end)
    try:
        measurer.serve()
    except Cancelled:
        pass
    except (OSError, WireError) as error:  # a disk, a permission: it will not be better on the next link
        measurer.send("fault", text=f"{type(error).__name__}: {error}", final=True)
    except Exception:  # noqa: BLE001 - the agent's outermost loop: whatever it was, the controller must hear of it
        measurer.send("fault", text=traceback.format_exc(limit=-3)[-2000:])
    measurer.send("bye", failed=measurer.clean(measurer.run)["failed"])
    return 0
