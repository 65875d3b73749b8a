"""What one node lacks of an image, and how it gets there, over one link.

The node is lent a port that leads to a registry of its own (`registry.py`): its engine pulls the layers that it lacks,
its agent fetches kernels and disks, and either goes on where an earlier push was cut. Where the SSH server forwards
nothing, all goes over the link itself, in messages; an engine that cannot reach its node's loopback is given an
archive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from coldstart.agent import supply
from coldstart.agent.records import NOT_COLD, OK, Boot, Image, to_json
from coldstart.agent.wire import CHUNK_BYTES, Message
from coldstart.errors import ImageError, NodeError
from coldstart.events import Event, Pushed, Pushing
from coldstart.images import ResolvedImage
from coldstart.link import Conversation, NotLent
from coldstart.model import Push, Target
from coldstart.registry import MOST_PIECE_BYTES, Registry
from coldstart.source import Blob, Content, Joined, Source
from coldstart.throttle import Throttle

PROGRESS_S = 0.25
PRESENT, ABSENT, FETCHED, SENT = "present", "absent", "fetched", "sent"
_FILE = "application/octet-stream"


class PushFailed(NodeError):
    """The node did not get this image, and why; with others it may be otherwise."""


class NoRuntime(PushFailed):
    """The node has nothing that could take the image."""


Begun = dict[str, tuple[int, int]]  # by target and image: when its push began, bytes that were sent for it by now


@dataclass(frozen=True)
class Shared:
    """What all nodes share: the limit, and an image as an archive of that name."""

    throttle: Throttle | None
    archive: Callable[[Source, str], Awaitable[Joined]]


class Pusher:
    """For one node, over one link. emit: takes what there is to tell; begun: what pushes over earlier links, which
    broke, had come to."""

    def __init__(
        self,
        node: str,
        talk: Conversation,
        emit: Callable[[Event], None],
        shared: Shared,
        begun: Begun,
    ) -> None:
        self._begun = begun
        self._node = node
        self._talk = talk
        self._emit = emit
        self._shared = shared
        piece_bytes = shared.throttle.piece_bytes if shared.throttle else MOST_PIECE_BYTES
        self._registry = Registry(self._make_way, piece_bytes)
        self._port: int | None = None  # 0: refused

    async def push(self, target: Target, resolved: ResolvedImage) -> Push:
        """Have the node hold all of the image. PushFailed says why it does not."""
        key = f"{target.name} {resolved.image.name}"
        began_ns, earlier_bytes = self._begun.get(key, (time.monotonic_ns(), 0))
        before_bytes = self.sent_bytes - earlier_bytes
        try:
            async with self._telling(resolved, before_bytes):
                in_an_engine = resolved.image.reference and not resolved.paths
                how = await (self._image(target, resolved) if in_an_engine else self._files(resolved))
        finally:
            self._begun[key] = began_ns, self.sent_bytes - before_bytes
        del self._begun[key]
        sent_bytes, took_ns = self.sent_bytes - before_bytes, time.monotonic_ns() - began_ns
        push = Push(self._node, target.name, resolved.image.name, how, sent_bytes, took_ns)
        if resolved.paths or resolved.image.reference:  # not every runtime has images
            self._emit(Pushed(push))
        return push

    async def lend(self, *wanted: ResolvedImage | None) -> int:
        """The port where the node can have these from now on, in the middle of boots; 0 if there is none."""
        for resolved in filter(None, wanted):
            self._registry.offer(resolved.source.blobs() if resolved.source else _files_of(resolved).values())
        return await self._lent()

    async def take_back(self) -> None:
        """All has been pushed: nothing of it can be had on the node's loopback any more."""
        if self._port:
            await self._talk.take_back()
        self._port = None

    def with_transfer(self, boot: Boot, least_bytes: int) -> Boot:
        """The boot, with what was sent in the middle of it; not cold if that is less than a node without it needs."""
        if "pulled" not in boot.marks_ns:
            return boot
        sent_bytes = self._registry.sent_bytes[supply.repository(boot.trial, boot.index)]
        boot = replace(boot, transfer_bytes=sent_bytes)
        if boot.outcome != OK or sent_bytes >= least_bytes:
            return boot
        return replace(
            boot, outcome=NOT_COLD, detail=f"{sent_bytes} of {least_bytes} bytes were sent: the rest was there"
        )

    async def _files(self, resolved: ResolvedImage) -> str:
        """How those that the node lacked have come."""
        hows = [await self._file(resolved.image.name, content) for content in _files_of(resolved).values()]
        return next((how for how in hows if how != PRESENT), PRESENT)

    async def _file(self, name: str, content: Content) -> str:
        sha256 = content.digest.removeprefix("sha256:")
        about = {"sha256": sha256, "size_bytes": content.size_bytes}
        answer = await self._talk.ask("offer", "have", "need", **about)
        if answer["type"] == "have":
            return PRESENT
        how, port = FETCHED, await self._lent()
        if port:
            self._registry.offer([content])
            answer = await self._talk.ask("fetch", "have", "refused", **about, port=port)
        else:
            how = SENT
            answer = await self._talk.send(sha256, content.read(answer["offset"], CHUNK_BYTES), self._pace)
        if answer["type"] == "got":
            raise ImageError(f"{content.digest}: it changed while it was sent", hint="try again when nobody writes it")
        if answer["type"] == "refused":
            raise PushFailed(f"{self._node}: {name}: {answer['reason']}", hint=_hint(answer["reason"]))
        return how

    async def _pace(self, size_bytes: int) -> None:
        if self._shared.throttle:
            await self._shared.throttle.pass_(self._node, size_bytes)

    async def _make_way(self, size_bytes: int) -> None:
        await self._pace(size_bytes)
        await self._talk.make_way(size_bytes)

    async def _image(self, target: Target, resolved: ResolvedImage) -> str:
        """Into the engine."""
        how = await self._installed(target, resolved.image, 0)
        if how != ABSENT:
            return how
        if resolved.source is None:
            hint = "give it as a file, or have it in this machine's engine"
            raise PushFailed(f"{self._node}: no image {resolved.image.name} there", hint=hint)
        port = await self._lent()
        if port:
            self._registry.offer(resolved.source.blobs())
            how = await self._installed(target, resolved.image, port)
            if how != "unreachable":
                return how
        whole = await self._talk.attend(self._shared.archive(resolved.source, resolved.image.reference))
        await self._file(resolved.image.name, whole)
        with_archive = replace(resolved.image, files={"archive": whole.digest.removeprefix("sha256:")})
        return await self._installed(target, with_archive, 0)

    async def _installed(self, target: Target, image: Image, port: int) -> str:
        answer: Message = await self._talk.ask(
            "install",
            "installed",
            "unavailable",
            "refused",
            runtime=target.runtime,
            options=dict(target.options),
            image=to_json(image),
            port=port,
        )
        if answer["type"] != "installed":
            kind = NoRuntime if answer["type"] == "unavailable" else PushFailed
            raise kind(f"{self._node}: {answer['reason']}", hint=answer["hint"])
        return str(answer["how"])

    async def _lent(self) -> int:
        """The port of the node's loopback that leads to the registry; 0 if its SSH server forwards nothing."""
        if self._port is None:
            try:
                self._port = await self._talk.lend(self._registry.serve)
            except NotLent:
                self._port = 0
        return self._port

    @property
    def sent_bytes(self) -> int:
        """All that was sent to this node, messages included, before encryption."""
        return self._registry.sent_bytes.total() + self._talk.sent_bytes

    @asynccontextmanager
    async def _telling(self, resolved: ResolvedImage, before_bytes: int) -> AsyncIterator[None]:
        """How far it is, now and then."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(PROGRESS_S)
                sent_bytes = self.sent_bytes - before_bytes
                self._emit(Pushing(self._node, resolved.image.name, sent_bytes, resolved.size_bytes))

        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()


def least_bytes(image: ResolvedImage, previous: ResolvedImage | None) -> int:
    """What must be sent to a node that has nothing of the image, or only the version before."""
    if image.source is None:
        return sum(image.image.sizes.values())
    there = {blob.digest for blob in previous.source.layers} if previous and previous.source else set()
    return sum({blob.digest: blob.size_bytes for blob in image.source.layers if blob.digest not in there}.values())


def _files_of(resolved: ResolvedImage) -> dict[str, Blob]:
    image = resolved.image
    return {
        part: Blob(f"sha256:{image.files[part]}", image.sizes[part], _FILE, path)
        for part, path in resolved.paths.items()
    }


def _hint(reason: str) -> str:
    full = "no space left" in reason.lower()
    return "make room in ~/.cache there, or run coldstart clean --images" if full else "run it again to push it anew"
