"""The measurer, seen from the watchdog: a forked process at the other end of a socket pair."""

from __future__ import annotations

import os
import signal
import socket

from coldstart.agent import life
from coldstart.agent.wire import Decoder, Encoder, Message


class Child:
    """Forks at once. not_yours: descriptors that the child must not keep. ended: it has closed its end."""

    def __init__(self, not_yours: list[int]) -> None:
        self._stream, theirs = socket.socketpair()
        self.ended = False
        self._encoder = Encoder()
        self._decoder = Decoder()
        self.backlog = bytearray()  # what it has not taken yet: in the middle of a wave it takes nothing
        # Held back until the measurer has its handler: a goodbye may come before it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._stream.close()
                for fd in not_yours:
                    os.close(fd)
                code = life.main(theirs)
            finally:
                os._exit(code)  # never back into what the parent had planned for itself
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        theirs.close()
        self._stream.setblocking(False)  # noqa: FBT003 - it takes no keyword

    def fileno(self) -> int:
        return self._stream.fileno()

    def tell(self, message: Message) -> None:
        fields = {k: v for k, v in message.items() if k not in ("v", "seq", "type")}
        self.backlog += self._encoder.encode(message["type"], **fields)
        self.write()

    def write(self) -> None:
        """As much of the backlog as it takes now."""
        try:
            del self.backlog[: self._stream.send(self.backlog)]
        except BlockingIOError:
            pass
        except OSError:  # it is ending, which `hear` will notice
            self.backlog.clear()

    def hear(self) -> list[Message]:
        """What it says; nothing at its end."""
        try:
            data = self._stream.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.ended = self.ended or not data
        return self._decoder.feed(data)

    def signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def reap(self) -> int:
        """Its exit code, negative for a signal. Only once it has ended: it waits."""
        _, status = os.waitpid(self.pid, 0)
        self._stream.close()
        return os.waitstatus_to_exitcode(status)
