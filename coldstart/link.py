"""One conversation with one node, over any byte stream: messages, heartbeats, and the moment it must be given up.

A `Link` is the stream; `local.py` and `ssh.py` make one. The watchdog on the other side ends its run when it hears
nothing for 15 s, so this side pings every PING_S and in turn gives up when it hears nothing for SILENCE_S. Every answer
to a ping bears the node's clocks: `clock` learns from all of them.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from coldstart.agent.wire import Decoder, Encoder, Message, WireError
from coldstart.clock import NodeClock, Offset, Sample
from coldstart.errors import NodeError, ProtocolError
from coldstart.window import Window

PING_S = 5.0
SILENCE_S = 15.0
BURST = 20  # pings before a wave; the best of them counts
BURST_LIMIT_S = 3.0  # a slow node must not keep the others waiting
UNANSWERED = 4  # chunks under way: enough for a long fat link, few enough for answers to keep coming on a thin one
FAREWELL_S = 25.0  # the watchdog's grace, and a little


class LinkLost(NodeError):
    """The stream ended or fell silent; what was under way may be done again over a new one."""


class Unreachable(NodeError):
    """No link can be had now; it may be otherwise later."""

    def __init__(
        self, message: str, *, hint: str = "is it up, and can you ssh there?", kind: str = "unreachable"
    ) -> None:
        super().__init__(message, hint=hint, kind=kind)


class NotLent(NodeError):
    """The node may have no port that leads here; what it needs is sent over the link then."""


class NodeBusy(NodeError):
    """Another run holds the node. run: which."""

    def __init__(self, message: str, run: str) -> None:
        super().__init__(message, hint="wait for it, or end it", kind="busy")
        self.run = run


_T = TypeVar("_T")
Serve = Callable[[Any, Any], Awaitable[None]]  # a connection's reader and writer


class Lent:
    """What answers on a lent port: `serve`, until it is cut."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._answering: set[asyncio.Task[Any]] = set()

    async def __call__(self, reader: Any, writer: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # cut: whoever asked sees the connection end
        finally:
            self._answering.discard(task)

    def cut(self) -> None:
        for task in self._answering:
            task.cancel()


class Link(Protocol):
    """A byte stream to an agent that has been started."""

    async def read(self) -> bytes:
        """Some bytes; none at the end."""

    async def write(self, data: bytes) -> None: ...

    async def lend(self, serve: Serve) -> int:
        """A port on the node's loopback: whoever connects there is answered by `serve`, until it is taken back or the
        link is closed. NotLent if there can be none."""

    async def take_back(self) -> None:
        """End what was lent: nobody can connect there any more, and who has is cut off."""

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
        self._reading: asyncio.Task[bytes] | None = None
        self._pings: dict[int, int] = {}  # under way: when each was sent
        self._ping_id = 0
        self._pinger = asyncio.create_task(self._keep_pinging())
        self._pong = asyncio.Event()
        self.clock = NodeClock()
        self._window = Window()
        self._marks: dict[int, int] = {}  # by ping: bytes that it follows
        self._way = asyncio.Event()  # it may be free again
        self.leftovers: tuple[str, ...] = ()
        self.sent_bytes = 0  # in messages

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
                    await self._link.take_back()  # in the midst of a fetch no goodbye would be heard
                    await self._farewell()
        except (NodeError, TimeoutError):
            pass  # the watchdog on the other side does the same by itself once the stream is closed
        finally:
            self._lost = True
            self._way.set()
            self._pinger.cancel()
            if self._reading is not None:
                self._reading.cancel()
            await self._link.close()

    async def tell(self, kind: str, **fields: Any) -> None:
        data = self._encoder.encode(kind, **fields)
        self.sent_bytes += len(data)
        try:
            async with asyncio.timeout(SILENCE_S):  # on a link that is cut, writing may never end
                await self._link.write(data)
        except TimeoutError:
            raise await self._broken(f"nothing could be sent for {SILENCE_S:g} s") from None
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

    async def lend(self, serve: Serve) -> int:
        """See `Link.lend`. LinkLost if there is no link any more."""
        try:
            return await self.attend(self._link.lend(serve))
        except OSError as error:
            raise await self._broken(str(error)) from None

    async def make_way(self, size_bytes: int) -> None:
        """Wait until so many bytes more may be under way to the node, beside the link. Somebody must be reading."""
        while self._window.is_full and not self._lost:
            await self._mark()
            self._way.clear()
            await self._way.wait()
        self._window.add(size_bytes)
        await self._mark()

    async def _mark(self) -> None:
        if self._window.wants_mark:
            await self._ping(marks_bytes=self._window.mark())

    async def take_back(self) -> None:
        """See `Link.take_back`."""
        await self.attend(self._link.take_back())

    async def send(self, sha256: str, blocks: Iterator[bytes], pace: Callable[[int], Awaitable[None]]) -> Message:
        """What the node lacks of a blob, in messages; its last word: `have`, `refused`, or `got` if it lacks more.
        pace: waits until so many bytes may be sent."""
        unanswered = 0
        answer: Message = {"type": "got"}
        data: bytes | None = await asyncio.to_thread(next, blocks, b"")
        while data is not None and answer["type"] == "got":
            await self.attend(pace(len(data)))
            await self.tell("chunk", sha256=sha256, data=base64.b64encode(data).decode("ascii"))
            unanswered += 1
            data = await asyncio.to_thread(next, blocks, None)
            if unanswered == UNANSWERED:
                answer = await self.expect("got", "have", "refused")
                unanswered -= 1
        for _ in range(unanswered):
            later = await self.expect("got", "have", "refused")
            answer = answer if answer["type"] == "refused" else later
        return answer

    async def compare_clocks(self) -> Offset:
        """Ping in quick succession; what is known of the node's clock then."""
        try:
            async with asyncio.timeout(BURST_LIMIT_S):
                for _ in range(BURST):
                    await self.attend(self._pinged())
        except TimeoutError:
            pass  # a slow link: what has come by now must do
        found = self.clock.at(time.monotonic_ns())
        while found is None:
            await self._take_in()
            found = self.clock.at(time.monotonic_ns())
        return found

    async def attend(self, work: Awaitable[_T]) -> _T:
        """Wait for something else, and notice meanwhile if the link breaks."""
        waiting = asyncio.ensure_future(work)
        try:
            while not waiting.done():
                both: list[asyncio.Future[Any]] = [waiting, self._read()]
                heard, _ = await asyncio.wait(both, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if waiting not in heard:
                    await self._take_in(0)
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _next(self) -> Message:
        while True:
            while not self._inbox:
                await self._take_in()
            message = self._inbox.pop(0)
            if message["type"] == "fault":
                self.leftovers = tuple(message.get("failed", ()))
                if message.get("final"):
                    self._lost = True
                    raise NodeError(f"{self._node}: {message['text']}", hint="mend that on the node, then try again")
                raise await self._broken(message["text"])
            if message["type"] == "busy":
                raise NodeBusy(f"{self._node}: node busy: run {message['run']}", message["run"])
            return message

    def _read(self) -> asyncio.Task[bytes]:
        """The read under way. It outlives whoever waits for it: what a cancelled read has taken would be lost."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._link.read())
        return self._reading

    async def _take_in(self, patience_s: float = SILENCE_S) -> None:
        """What comes next, into the inbox; answers to pings to the clock."""
        reading = self._read()
        await asyncio.wait([reading], timeout=patience_s)
        if not reading.done():
            raise await self._broken(f"nothing heard for {SILENCE_S:g} s")
        heard_ns = time.monotonic_ns()
        self._reading = None
        data = reading.result()
        if not data:
            raise await self._broken("the agent ended")
        try:
            messages = self._decoder.feed(data)
        except WireError as error:
            self._lost = True
            hint = "a login banner or shell start-up file that prints? the agent's stdout must be its own"
            raise ProtocolError(f"{self._node}: {error}", hint=hint, kind="login-noise") from None
        for message in messages:
            if message["type"] == "pong":
                self._answered(message, heard_ns)
            else:
                self._inbox.append(message)

    def _answered(self, pong: Message, heard_ns: int) -> None:
        sent_ns = self._pings.pop(pong.get("id", -1), None)
        if sent_ns is not None:
            if marked_bytes := self._marks.pop(pong["id"], 0):
                self._window.answered(marked_bytes, heard_ns - sent_ns)
                self._way.set()
            clocks = pong["monotonic_ns"], pong["boottime_ns"], pong["realtime_ns"]
            self.clock.add(Sample(sent_ns, heard_ns, *clocks))
            self._pong.set()

    async def _broken(self, reason: str) -> LinkLost:
        self._lost = True
        self._way.set()
        said = (await self._link.close()).strip().splitlines()
        return LinkLost(f"{self._node}: link lost: {reason}" + (f" ({said[-1]})" if said else ""))

    async def _keep_pinging(self) -> None:
        """Heartbeats, until cancelled; a broken link is noticed by whoever reads."""
        while not self._lost:
            await asyncio.sleep(PING_S)
            try:
                await self._ping()
            except OSError:
                return

    async def _ping(self, marks_bytes: int = 0) -> None:
        """marks_bytes: that it follows, and that have come through once it is answered."""
        self._ping_id += 1
        if marks_bytes:
            self._marks[self._ping_id] = marks_bytes
        message = self._encoder.encode("ping", id=self._ping_id)
        self._pings[self._ping_id] = time.monotonic_ns()
        await self._link.write(message)

    async def _pinged(self) -> None:
        """One ping, answered."""
        self._pong.clear()
        try:
            await self._ping()
        except OSError as error:
            raise await self._broken(str(error)) from None
        await self._pong.wait()

    async def _farewell(self) -> None:
        await self.tell("bye")
        async for message in self.until("bye"):
            self.leftovers = tuple(message.get("failed", ()))
