"""What a controller lends a node, without a controller: its registry on a loopback port, and images for an engine."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from coldstart import loadable
from coldstart.agent.cache import Cache
from coldstart.images import ResolvedImage
from coldstart.registry import Registry


class Controller:
    """The controller's registry on a loopback port. cut_after: bytes of the next connections, each, before it dies."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.cut_after: int | None = None
        self.port = 0
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()))
        self._thread.start()
        self._listens.wait(5)

    @property
    def sent_bytes(self) -> int:
        return self.registry.sent_bytes.total()

    async def _listen(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.registry.serve(reader, _Cut(writer, self.cut_after))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


class _Cut:
    """A writer whose connection dies in the middle."""

    def __init__(self, writer: asyncio.StreamWriter, left: int | None) -> None:
        self._writer = writer
        self._left = left

    def write(self, data: bytes) -> None:
        if self._left is not None:
            data, self._left = data[: self._left], self._left - len(data[: self._left])
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()
        if self._left == 0:
            self._writer.close()
            raise ConnectionResetError

    def close(self) -> None:
        self._writer.close()


def install(runtime: Any, image: ResolvedImage, folder: Path) -> None:
    """Have the runtime's engine hold the image, if it has one. folder: of the node's cache."""
    if image.source is None:
        return
    whole = loadable.archive(image.source, image.image.reference)
    sha256 = whole.digest.removeprefix("sha256:")
    cache = Cache(str(folder))
    cache.take(sha256, whole.read())
    assert runtime.install(replace(image.image, files={"archive": sha256}), 0, cache) in ("present", "loaded")
    cache.drop(sha256)
