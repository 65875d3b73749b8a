"""The process that guards. It owns the stream; the measurer, its child, never touches it.

It relays messages both ways and answers pings at once (they carry the node's clocks), until the very end. It ends the
run when the controller says goodbye, closes the stream, is silent for SILENCE_S or reads nothing for so long that
BACKLOG_LIMIT_BYTES wait for it: SIGTERM to the measurer, which cleans up; SIGKILL after GRACE_S, and then the watchdog
cleans up itself. If the watchdog is killed, the kernel sends the measurer that SIGTERM. If both are killed at once, the
next run on this node finds what is left by its marks. SILENCE_S + GRACE_S stays below the promised 30 s.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

from coldstart.agent import cache, cleaning, lock
from coldstart.agent.child import Child
from coldstart.agent.runtimes import Context
from coldstart.agent.wire import Decoder, Encoder, Message, WireError

SILENCE_S = 15.0
GRACE_S = 10.0
TICK_S = 0.5
SECOND_LOOK_S = 1.0
BACKLOG_LIMIT_BYTES = 4 << 20


class Watchdog:
    """Guards one run. reader, writer: the stream's descriptors."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._inbound = Decoder()
        self._outbound = Encoder()
        self._backlog = bytearray()
        self._run = ""
        self._settings: dict[str, str] = {}
        self._child: Child | None = None
        self._lock = -1
        self._heard_s = time.monotonic()
        self._reading = True  # from the controller
        self._writing = True  # to it: it is still there, and listens
        self._give_up_s: float | None = None  # when the measurer, told to end, will be killed
        os.set_blocking(writer, False)

    def guard(self) -> int:
        """Until the run is over; the exit code."""
        while not self._over():
            try:
                self._step()
            except (WireError, lock.Busy, OSError) as error:
                self._fail(error)
        status = self._child.reap() if self._child else 0
        if status != 0:
            self._clean_up_after(status)
        self._flush_backlog()
        return 0 if status == 0 else 1

    def _over(self) -> bool:
        """Whether there is nothing left to guard; sees to it that there will be."""
        now_s = time.monotonic()
        if self._give_up_s is None and now_s - self._heard_s > SILENCE_S:
            self._end()
        if self._child is None:
            return self._give_up_s is not None
        if self._give_up_s is not None and now_s > self._give_up_s:
            self._child.signal(signal.SIGKILL)
        return self._child.ended

    def _step(self) -> None:
        """Wait for whoever has something to say, and pass it on."""
        readers = [self._reader] if self._reading else []
        writers = [self._writer] if self._backlog else []
        if self._child:
            readers = readers if len(self._child.backlog) < BACKLOG_LIMIT_BYTES else []
            readers.append(self._child.fileno())
            writers += [self._child.fileno()] if self._child.backlog else []
        ready, writable, _ = select.select(readers, writers, [], TICK_S)
        if self._writer in writable:
            self._write()
        if self._child and self._child.fileno() in writable:
            self._child.write()
        if self._child and self._child.fileno() in ready:
            self._relay()
        if self._reader in ready:
            self._heard_s = time.monotonic()
            self._hear(os.read(self._reader, 1 << 16))

    def _hear(self, data: bytes) -> None:
        if not data:
            self._reading = False
            self._end()
        for message in self._inbound.feed(data):
            if message["type"] == "ping":
                self._send("pong", id=message.get("id"), **_clocks())
            elif message["type"] == "hello" and self._child is None:
                self._begin(message)
            elif message["type"] == "bye":
                self._end()  # not passed on: in the middle of a wave the measurer would not read it
            elif self._child and self._give_up_s is None:
                self._child.tell(message)

    def _begin(self, message: Message) -> None:
        self._run = str(message.get("run", ""))
        settings = message.get("settings")
        self._settings = dict(settings) if isinstance(settings, dict) else {}
        self._lock = lock.take(self._run)
        self._child = Child([self._reader, self._writer])
        self._child.tell(message)

    def _relay(self) -> None:
        """What the measurer says, to the controller. Its end is the run's."""
        assert self._child is not None
        for message in self._child.hear():
            self._send(message.pop("type"), **{k: v for k, v in message.items() if k not in ("v", "seq")})

    def _end(self) -> None:
        """Ask the measurer to end; it cleans up."""
        if self._give_up_s is None:
            self._give_up_s = time.monotonic() + GRACE_S
            if self._child:
                self._child.signal(signal.SIGTERM)

    def _fail(self, error: Exception) -> None:
        """Say why the run cannot go on, and end it."""
        self._reading = False  # what else comes cannot be trusted
        if isinstance(error, lock.Busy):
            self._send("busy", run=error.run)
        else:
            self._send("fault", text=str(error), final=True)
        self._end()

    def _clean_up_after(self, status: int) -> None:
        """The measurer could not. Twice: what it had asked an engine for may appear a moment later."""
        context = Context(self._run, cache.folder(os.environ), self._settings)
        cleaning.clean(context, self._run, {})
        time.sleep(SECOND_LOOK_S)
        failed = cleaning.clean(context, self._run, {})["failed"]
        self._send("fault", text=f"the measurer ended with status {status}", failed=failed)

    def _send(self, kind: str, **fields: Any) -> None:
        """Never blocks: a controller that is stopped must not stop the guard."""
        if self._writing:
            self._backlog += self._outbound.encode(kind, **fields)
            self._write()
        if len(self._backlog) > BACKLOG_LIMIT_BYTES:
            self._writing = False
            self._backlog.clear()
            self._end()

    def _write(self) -> None:
        try:
            del self._backlog[: os.write(self._writer, self._backlog)]
        except BlockingIOError:
            pass
        except OSError:  # the controller no longer listens
            self._writing = False
            self._backlog.clear()

    def _flush_backlog(self) -> None:
        """The last words, for a controller that still listens."""
        deadline_s = time.monotonic() + GRACE_S
        while self._backlog and time.monotonic() < deadline_s:
            select.select([], [self._writer], [], TICK_S)
            self._write()


def _clocks() -> dict[str, int]:
    """The node's clocks, in ns."""
    return {
        "monotonic_ns": time.monotonic_ns(),
        "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "realtime_ns": time.time_ns(),
    }
