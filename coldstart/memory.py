"""A link in memory, with both ends: what a test, or a user's own tool, puts in place of a node.

`script` is the node's side: a coroutine that is given the far end. It speaks the real protocol through `Far`, so that
whatever is scripted is what a node could say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from coldstart.agent.wire import Decoder, Encoder, Message
from coldstart.link import NotLent, Serve

Script = Callable[["Far"], Awaitable[None]]


class MemoryLink:
    """The controller's end; a `Link`."""

    def __init__(self, script: Script, *, stderr: str = "") -> None:
        self._inbound: asyncio.Queue[bytes] = asyncio.Queue()
        self._outbound: asyncio.Queue[bytes] = asyncio.Queue()
        self._stderr = stderr
        self._closed = False
        self._node = asyncio.create_task(self._play(script))

    async def read(self) -> bytes:
        return await self._inbound.get()

    async def write(self, data: bytes) -> None:
        if self._closed:
            raise BrokenPipeError
        self._outbound.put_nowait(data)

    async def lend(self, _: Serve) -> int:
        raise NotLent("a link in memory has no ports")

    async def take_back(self) -> None:
        """There is nothing."""

    async def close(self) -> str:
        """The far end sees the end of the stream."""
        if not self._closed:
            self._closed = True
            self._outbound.put_nowait(b"")
            await asyncio.wait([self._node], timeout=1)
            self._node.cancel()
        return self._stderr

    async def _play(self, script: Script) -> None:
        try:
            await script(Far(self._outbound, self._inbound))
        finally:
            self._inbound.put_nowait(b"")


class Far:
    """The node's end."""

    def __init__(self, inbound: asyncio.Queue[bytes], outbound: asyncio.Queue[bytes]) -> None:
        self.clocks: Callable[[], dict[str, int]] = _clocks  # what it answers to pings
        self._inbound = inbound
        self._outbound = outbound
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._heard: list[Message] = []

    async def hear(self) -> Message | None:
        """The next message but pings, which are answered; None at the end of the stream."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if message["type"] != "ping":
                    return message
                self.say("pong", id=message["id"], **self.clocks())
            data = await self._inbound.get()
            if not data:
                return None
            self._heard = self._decoder.feed(data)

    def say(self, kind: str, **fields: Any) -> None:
        self.send(self._encoder.encode(kind, **fields))

    def send(self, data: bytes) -> None:
        """Anything, a login banner for instance."""
        self._outbound.put_nowait(data)


def _clocks() -> dict[str, int]:
    return {"monotonic_ns": time.monotonic_ns(), "boottime_ns": time.monotonic_ns(), "realtime_ns": time.time_ns()}
