"""One conversation with one node, over any byte stream: messages, heartbeats, and the moment it must be given up.

A `Link` is the stream; `local.py` makes one. The watchdog on the other side ends its run when it hears nothing for
15 s, so this side pings every PING_S and in turn gives up when it hears nothing for SILENCE_S.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from coldstart.agent.wire import CHUNK_BYTES, Decoder, Encoder, Message, WireError
from coldstart.errors import ImageError, NodeError, ProtocolError

PING_S = 5.0
SILENCE_S = 15.0
FAREWELL_S = 25.0  # the watchdog's grace, and a little


class LinkLost(NodeError):
    """The stream ended or fell silent; what was under way may be done again over a new one."""


class NodeBusy(NodeError):
    """Another run holds the node. run: which."""

    def __init__(self, message: str, run: str) -> None:
        super().__init__(message, hint="wait for it, or end it")
        self.run = run


class Link(Protocol):
    """A byte stream to an agent that has been started."""

    async def read(self) -> bytes:
        """Some bytes; none at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> str:
        """End the stream; what the other side wrote to stderr, for messages."""


class Conversation:
    """Messages over a link. Use it as a context, or call `end`."""

    def __init__(self, node: str, link: Link) -> None:
        self._node = node
        self._link = link
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._inbox: list[Message] = []
        self._lost = False
        self._pinger = asyncio.create_task(self._ping())
        self.leftovers: tuple[str, ...] = ()

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> None:
        """Say goodbye, wait until the node is clean, close. On a lost link there is only closing."""
        try:
            if not self._lost:
                async with asyncio.timeout(FAREWELL_S):
                    await self._farewell()
        except (NodeError, TimeoutError):
            pass  # the watchdog on the other side does the same by itself once the stream is closed
        finally:
            self._pinger.cancel()
            await self._link.close()

    async def tell(self, kind: str, **fields: Any) -> None:
        try:
            await self._link.write(self._encoder.encode(kind, **fields))
        except OSError as error:
            raise await self._broken(str(error)) from None

    async def ask(self, kind: str, *answers: str, **fields: Any) -> Message:
        """Send a message and wait for one of its answers."""
        await self.tell(kind, **fields)
        return await self.expect(*answers)

    async def expect(self, *kinds: str) -> Message:
        """The next message of one of these kinds; anything else in between is an error."""
        message = await self._next()
        if message["type"] not in kinds:
            raise ProtocolError(f"{self._node}: {message['type']!r} came where {' or '.join(kinds)} was due")
        return message

    async def until(self, last: str) -> AsyncIterator[Message]:
        """Messages up to and including the one of kind `last`."""
        while True:
            message = await self._next()
            yield message
            if message["type"] == last:
                return

    async def push(self, path: Path, sha256: str, sent: Callable[[int], None]) -> None:
        """Have the node hold this file: nothing is sent if it does, the rest if it holds a part."""
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            answer = await self.ask("offer", "have", "need", sha256=sha256, size_bytes=size_bytes)
            if answer["type"] == "have":
                return
            at = file.seek(answer["offset"])
            while data := file.read(CHUNK_BYTES):
                await self._chunk(sha256, data)
                sent(len(data))
                at += len(data)
        if at != size_bytes:
            raise ImageError(f"{path}: it changed while it was sent", hint="try again when nobody writes it")
        if answer["offset"] == size_bytes:
            await self._chunk(sha256, b"")  # all of it is there, unverified
        answer = await self.expect("have", "refused")
        if answer["type"] == "refused":
            raise NodeError(f"{self._node}: {path.name}: {answer['reason']}", hint="run it again to push it anew")

    async def _chunk(self, sha256: str, data: bytes) -> None:
        await self.tell("chunk", sha256=sha256, data=base64.b64encode(data).decode("ascii"))

    async def _next(self) -> Message:
        while True:
            while not self._inbox:
                self._inbox = await self._receive()
            message = self._inbox.pop(0)
            if message["type"] == "pong":
                continue
            if message["type"] == "fault":
                self.leftovers = tuple(message.get("failed", ()))
                if message.get("final"):
                    self._lost = True
                    raise NodeError(f"{self._node}: {message['text']}", hint="mend that on the node, then try again")
                raise await self._broken(message["text"])
            if message["type"] == "busy":
                raise NodeBusy(f"{self._node}: node busy: run {message['run']}", message["run"])
            return message

    async def _receive(self) -> list[Message]:
        try:
            async with asyncio.timeout(SILENCE_S):  # wait_for of Python 3.11 may swallow a cancellation: Ctrl-C
                data = await self._link.read()
            if not data:
                raise await self._broken("the agent ended")
            return self._decoder.feed(data)
        except TimeoutError:
            raise await self._broken(f"nothing heard for {SILENCE_S:g} s") from None
        except WireError as error:
            self._lost = True
            hint = "a login banner or shell start-up file that prints? the agent's stdout must be its own"
            raise ProtocolError(f"{self._node}: {error}", hint=hint) from None

    async def _broken(self, reason: str) -> LinkLost:
        self._lost = True
        said = (await self._link.close()).strip().splitlines()
        return LinkLost(f"{self._node}: link lost: {reason}" + (f" ({said[-1]})" if said else ""))

    async def _ping(self) -> None:
        """Heartbeats, until cancelled; a broken link is noticed by whoever reads."""
        while not self._lost:
            await asyncio.sleep(PING_S)
            try:
                await self._link.write(self._encoder.encode("ping", id=0))
            except OSError:
                return

    async def _farewell(self) -> None:
        await self.tell("bye")
        async for message in self.until("bye"):
            self.leftovers = tuple(message.get("failed", ()))
