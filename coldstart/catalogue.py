"""Images by target and architecture, each found once for all nodes: what a tag means must not change meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from coldstart import images, loadable
from coldstart.agent import runtimes
from coldstart.agent.records import Image
from coldstart.errors import ImageError
from coldstart.images import Reference, ResolvedImage
from coldstart.model import Node, Target
from coldstart.source import Joined, Source

_Found = TypeVar("_Found")


class Catalogue:
    """Of one sweep."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], asyncio.Task[ResolvedImage]] = {}
        self._archives: dict[tuple[str, str], asyncio.Task[Joined]] = {}

    async def image(self, target: Target, arch: str, node: Node) -> ResolvedImage:
        """For a node of architecture `arch`. ImageError if there is none."""
        reference = target.image_for(arch)
        if reference is None:
            raise ImageError(f"{target.where}: target {target.name} has no image for {arch}", hint="add one")
        if _shares_our_engine(node) and images.is_tag(reference, _packaging(target), Path(target.base)):
            return ResolvedImage(Image(str(reference), reference=str(reference)))  # it has what we could send
        return await self._resolved(target, arch, reference)

    async def previous(self, target: Target, arch: str) -> ResolvedImage | None:
        """The version that an update starts from, if the target names one."""
        reference = target.update_from.get(arch, target.update_from.get(""))
        return None if reference is None else await self._resolved(target, arch, reference)

    async def _resolved(self, target: Target, arch: str, reference: Reference) -> ResolvedImage:
        key = target.name, arch, str(reference)
        if key not in self._found:
            # In a thread: hashing an image of some GB must not silence the heartbeats.
            self._found[key] = _begun(asyncio.to_thread(_resolve, target, arch, reference))
        return await asyncio.shield(self._found[key])

    async def archive(self, source: Source, name: str) -> Joined:
        """The image as `docker load` takes it: read once, for all nodes whose engines cannot pull."""
        key = source.manifest.digest, name
        if key not in self._archives:
            self._archives[key] = _begun(asyncio.to_thread(loadable.archive, source, name))
        return await asyncio.shield(self._archives[key])


def _begun(work: Coroutine[None, None, _Found]) -> asyncio.Task[_Found]:
    """Its failure is for whoever waits for it; nobody does any more where a sweep was ended."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _resolve(target: Target, node_arch: str, reference: Reference) -> ResolvedImage:
    """A machine may be of another architecture than its node: its image says so, or the target."""
    said = "" if isinstance(reference, str) else reference.get("arch", "")
    arch = target.options.get("arch") or said or node_arch
    return images.resolve(reference, packaging=_packaging(target), arch=arch, base=Path(target.base))


def _packaging(target: Target) -> str:
    packaging: str = runtimes.load(target.runtime).Runtime.packaging
    return packaging


def _shares_our_engine(node: Node) -> bool:
    return node.settings.get("ansible_connection") == "local" and "coldstart_docker_host" not in node.settings
