"""A read-only image registry for one node: what was offered to it, and nothing else.

It listens nowhere. A link lends the node a port on its own loopback, and whatever connects there is answered here: by
an engine that pulls, or by the agent that fetches a kernel. Two kinds of content, both by digest: manifests and blobs,
as the OCI distribution specification has them; blobs also from an offset on, so that what was cut can go on. Nothing
is ever written, no tag is resolved, and what was not offered is not there. h11's door.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import h11

from coldstart.source import Content

READ_BYTES = 1 << 16
DISK_BYTES = 1 << 18  # at once
MOST_PIECE_BYTES = 1 << 15  # at once; a heartbeat may have to wait for one of every connection
IDLE_S = 120.0  # a connection that asks nothing
MAX_NAMES = 100_000  # a node may ask under any; so many boots there are not
MAX_REFUSED = 100
_ROUTE = re.compile(r"/v2/(?P<name>[a-z0-9._/-]{1,255})/(?P<kind>manifests|blobs)/(?P<digest>sha256:[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d{1,18})-")
_VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")


class Reader(Protocol):
    """What asyncio's and asyncssh's streams have in common."""

    async def read(self, n: int = -1, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


Pace = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    blob: Content | None = None
    start: int = 0


class Registry:
    """pace: waits until so many bytes may be sent, at most piece_bytes at once. sent_bytes: of answers, heads included,
    by the repository that was asked for; refused: the first paths that were asked for and not offered."""

    def __init__(self, pace: Pace | None = None, piece_bytes: int = MOST_PIECE_BYTES) -> None:
        self._pace = pace
        self._piece_bytes = min(piece_bytes, MOST_PIECE_BYTES)
        self._offered: dict[str, Content] = {}
        self.sent_bytes: Counter[str] = Counter()
        self.refused: list[str] = []

    def offer(self, blobs: Iterable[Content]) -> None:
        self._offered |= {blob.digest: blob for blob in blobs}

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """One connection, until it is closed or idle."""
        connection = h11.Connection(h11.SERVER)
        try:
            with contextlib.suppress(OSError, TimeoutError, h11.ProtocolError):  # of a peer that left or errs
                while request := await _next_request(connection, reader):
                    if not await self._reply(connection, writer, request):
                        return
                    connection.start_next_cycle()
        finally:
            writer.close()

    async def _reply(self, connection: h11.Connection, writer: Writer, request: h11.Request) -> bool:
        """Whether the connection is good for another request."""
        path = request.target.decode("ascii", "replace").partition("?")[0]
        route = _ROUTE.fullmatch(path)
        answer = self._answer(request, path, route)
        head = h11.Response(status_code=answer.status, headers=[_VERSION, *answer.headers])
        repository = self._counted(route["name"]) if route else ""
        await self._send(writer, repository, connection.send(head))
        if answer.blob is not None and request.method == b"GET":
            blocks = answer.blob.read(answer.start, DISK_BYTES)
            while data := await asyncio.to_thread(next, blocks, b""):  # a slow disk must not hold up the heartbeats
                await self._send(writer, repository, connection.send(h11.Data(data=data)))
        await self._send(writer, repository, connection.send(h11.EndOfMessage()))
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _send(self, writer: Writer, repository: str, data: bytes | None) -> None:
        if not data:
            return
        for at in range(0, len(data), self._piece_bytes):
            piece = data[at : at + self._piece_bytes]
            if self._pace:
                await self._pace(len(piece))
            writer.write(piece)
            self.sent_bytes[repository] += len(piece)
            await writer.drain()

    def _counted(self, repository: str) -> str:
        return repository if repository in self.sent_bytes or len(self.sent_bytes) < MAX_NAMES else ""

    def _answer(self, request: h11.Request, path: str, route: re.Match[str] | None) -> _Answer:
        if request.method not in (b"GET", b"HEAD"):
            return _Answer(405, (("Allow", "GET, HEAD"), ("Content-Length", "0")))
        if path == "/v2/":
            return _Answer(200, (("Content-Length", "0"),))
        blob = self._offered.get(route["digest"]) if route else None
        if blob is None:
            if len(self.refused) < MAX_REFUSED:
                self.refused.append(path)
            return _Answer(404, (("Content-Length", "0"),))
        start = _start(request)
        if start and start >= blob.size_bytes:
            return _Answer(416, (("Content-Range", f"bytes */{blob.size_bytes}"), ("Content-Length", "0")))
        return _found(blob, start, is_manifest=route is not None and route["kind"] == "manifests")


def _found(blob: Content, start: int, *, is_manifest: bool) -> _Answer:
    headers = [
        ("Content-Type", blob.media_type if is_manifest else "application/octet-stream"),
        ("Content-Length", str(blob.size_bytes - start)),
        ("Docker-Content-Digest", blob.digest),
        ("Accept-Ranges", "bytes"),
    ]
    if start:
        headers.append(("Content-Range", f"bytes {start}-{blob.size_bytes - 1}/{blob.size_bytes}"))
    return _Answer(206 if start else 200, tuple(headers), blob, start)


def _start(request: h11.Request) -> int:
    """Where an answer is to begin: of all the ranges there are, `from here on` is the one that is understood."""
    asked = next((value for name, value in request.headers if name == b"range"), b"")
    found = _RANGE.fullmatch(asked.decode("ascii", "replace").strip())
    return int(found[1]) if found else 0


async def _next_request(connection: h11.Connection, reader: Reader) -> h11.Request | None:
    """The next one, its body (which means nothing here) passed over; None once the peer has closed."""
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_S):
                connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif not isinstance(event, h11.Data):
            return None
