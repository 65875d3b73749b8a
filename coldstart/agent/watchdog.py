"""The process that guards. It owns the stream; the measurer, its child, never touches it.

It relays messages both ways, answers pings at once (they carry the node's clocks), and ends the run when the controller
is silent for SILENCE_S or closes the stream: SIGTERM to the measurer, which cleans up; SIGKILL after GRACE_S, and then
the watchdog cleans up itself. If the watchdog is killed, the kernel sends the measurer that SIGTERM. If both are killed
at once, the next run on this node finds what is left by its marks. SILENCE_S + GRACE_S stays below the promised 30 s.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import Any, NoReturn

from coldstart.agent import cache, cleaning, lock, measurer
from coldstart.agent.runtimes import Context
from coldstart.agent.wire import Decoder, Encoder, Message, WireError

SILENCE_S = 15.0
GRACE_S = 10.0
BACKLOG_LIMIT_BYTES = 64 << 20


class Watchdog:
    """Guards one run. reader, writer: the stream's descriptors."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._inbound = Decoder()
        self._outbound = Encoder()
        self._run = ""
        self._settings: dict[str, str] = {}
        self._child: Child | None = None
        self._lock = -1
        self._heard_s = time.monotonic()
        self._ending = False

    def guard(self) -> int:
        """Until the run is over; the exit code."""
        try:
            while not self._over():
                self._step()
        except WireError as error:
            self._send("fault", text=str(error))
        except BrokenPipeError:
            pass  # the controller no longer listens
        return self._finish()

    def _over(self) -> bool:
        if self._ending:
            return True
        return time.monotonic() - self._heard_s > SILENCE_S

    def _step(self) -> None:
        watched = [self._reader] + ([self._child.stream.fileno()] if self._child else [])
        ready, _, _ = select.select(watched, [], [], 1.0)
        if self._reader in ready:
            self._hear(os.read(self._reader, 1 << 16))
        if self._child and self._child.stream.fileno() in ready:
            self._relay()

    def _hear(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        self._ending = self._ending or not data
        for message in self._inbound.feed(data):
            if message["type"] == "ping":
                self._send("pong", id=message.get("id"), **_clocks())
            elif message["type"] == "hello" and self._child is None:
                self._begin(message)
            elif message["type"] == "bye":
                self._ending = True  # not relayed: in the middle of a wave the measurer would not read it
            elif self._child:
                self._child.tell(message)

    def _begin(self, message: Message) -> None:
        self._run = str(message.get("run", ""))
        settings = message.get("settings")
        self._settings = dict(settings) if isinstance(settings, dict) else {}
        try:
            self._lock = lock.take(self._run)
        except lock.Busy as error:
            self._send("busy", run=error.run)
            self._ending = True
            return
        self._child = Child([self._reader, self._writer])
        self._child.tell(message)

    def _relay(self) -> None:
        """What the measurer says, to the controller. Its end is the run's."""
        assert self._child is not None
        messages = self._child.hear()
        for message in messages:
            self._send(message.pop("type"), **{k: v for k, v in message.items() if k not in ("v", "seq")})
        self._ending = self._child.ended

    def _finish(self) -> int:
        """See the measurer out, clean up what it could not, say how it went."""
        if self._child is None:
            return 0
        status = self._child.end(self._relay_quietly)
        if status == 0:
            return 0
        context = Context(self._run, cache.folder(os.environ), self._settings)
        failed = cleaning.clean(context, self._run, {})["failed"]
        text = f"the measurer ended with status {status}"
        with contextlib.suppress(OSError):
            self._send("fault", text=text + (f"; left behind: {', '.join(failed)}" if failed else ""))
        return 1

    def _relay_quietly(self) -> None:
        with contextlib.suppress(OSError, WireError):
            self._relay()

    def _send(self, kind: str, **fields: Any) -> None:
        data = memoryview(self._outbound.encode(kind, **fields))
        while data:
            data = data[os.write(self._writer, data) :]


class Child:
    """The measurer, seen from the watchdog."""

    def __init__(self, not_yours: list[int]) -> None:
        self.stream, theirs = socket.socketpair()
        self.ended = False
        self._encoder = Encoder()
        self._decoder = Decoder()
        # Held back until the measurer has its handler: a goodbye may come before it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.pid = os.fork()
        if self.pid == 0:
            self.stream.close()
            for fd in not_yours:
                os.close(fd)
            _exit_with(measurer.main(theirs))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        theirs.close()

    def tell(self, message: Message) -> None:
        fields = {k: v for k, v in message.items() if k not in ("v", "seq", "type")}
        try:
            self.stream.sendall(self._encoder.encode(message["type"], **fields))
        except OSError:
            self.ended = True

    def hear(self) -> list[Message]:
        try:
            data = self.stream.recv(1 << 16)
        except OSError:
            data = b""
        self.ended = self.ended or not data
        return self._decoder.feed(data)

    def end(self, relay: Any) -> int:
        """Ask it to end, listen until it has, kill it if it takes too long; its exit status, negative for a signal."""
        self._signal(signal.SIGTERM)
        deadline_s = time.monotonic() + GRACE_S
        while not self.ended and time.monotonic() < deadline_s:
            if select.select([self.stream], [], [], 0.2)[0]:
                relay()
        if not self.ended:
            self._signal(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.stream.close()
        return os.waitstatus_to_exitcode(status)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _clocks() -> dict[str, int]:
    """The node's clocks, in ns."""
    return {
        "monotonic_ns": time.monotonic_ns(),
        "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "realtime_ns": time.time_ns(),
    }


def _exit_with(code: int) -> NoReturn:
    """Leave a forked child without running what its parent had planned for its own exit."""
    os._exit(code)
