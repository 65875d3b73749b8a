"""How an image goes out of an engine and comes in again between boots, and in the middle of them: then the engine pulls
from the controller directly, nothing of ours in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from coldstart.agent import dockerimage
from coldstart.agent.dockerapi import ApiError, Engine
from coldstart.agent.records import Image
from coldstart.agent.runtimes import StartFailed, Unavailable
from coldstart.agent.supply import NO_PORT

AskEngine = Callable[[], Engine]  # a connection of its own; a context


@dataclass
class Stock:
    """What boots did to an engine's images, shared by all targets. absent: ids of those that were taken out; brought:
    how often each was brought back, every time into other folders."""

    absent: set[str] = field(default_factory=set)
    brought: Counter[str] = field(default_factory=Counter)


class DockerSupply:
    """For one target. previous: the version that the engine has before an `image-absent` start."""

    def __init__(self, ask: AskEngine, image: Image, previous: Image | None, port: int, stock: Stock) -> None:
        self._ask = ask
        self._image = image
        self._previous = previous
        self._port = port
        self._stock = stock
        self._files: Sequence[str] = ()
        self._asked: Engine | None = None  # what obtains it
        self._files_of = stock.brought[image.id]  # the time it was brought that they are of
        try:
            with ask() as engine:
                self._details = dockerimage.find(engine, image)
                self._shared = common(self._details, dockerimage.find(engine, previous) if previous else {})
        except ApiError as error:
            raise Unavailable(f"Docker: {error}", "the engine's own log says more") from None
        self._folders = tuple(f"{folder}/" for folder in dockerimage.layer_folders(self._details))

    def objection(self) -> str:
        if not self._image.id:
            return "nobody but the node's engine has this image: give it as a file, or have it on this machine"
        if not self._port:
            return NO_PORT
        if not dockerimage.is_ours(self._details):
            names = ", ".join(dockerimage.names_of(self._details) or ["<none>"])
            return f"the engine had this image before ({names}), and what is not ours is not removed"
        return self._unreachable()

    def _unreachable(self) -> str:
        """Why the engine could not bring it back, found out while it still has it: what is missing then is nothing."""
        try:
            with self._ask() as engine:
                dockerimage.pull(engine, self._image, self._port)
        except ApiError as error:
            return f"the engine cannot pull through a port of this node's loopback ({error})"
        return ""

    def present(self, files: Sequence[str]) -> Sequence[str]:
        try:
            with self._ask() as engine:
                if _ids(self._image) & self._stock.absent:
                    self._pull(engine, self._image)
                if self._files_of != self._stock.brought[self._image.id]:
                    layers, _ = dockerimage.layer_files(dockerimage.find(engine, self._image))
                    self._files = (*layers, *(file for file in files if not file.startswith(self._folders)))
                    self._files_of = self._stock.brought[self._image.id]
        except ApiError as error:
            raise StartFailed(f"Docker: {error}") from None
        return self._files or files

    def absent(self) -> None:
        try:
            with self._ask() as engine:
                for other in dockerimage.ours(engine):
                    if common(self._details, other) and not self._is_previous(other):
                        self._remove(engine, other)
                if self._previous and not dockerimage.find(engine, self._previous):
                    self._pull(engine, self._previous)
                stays = dockerimage.find(engine, self._image)
        except ApiError as error:
            raise StartFailed(f"Docker: {error}") from None
        if stays:
            raise StartFailed(f"{self._image.name} is still there: {', '.join(stays.get('RepoTags') or ['in use'])}")

    def obtain(self, repository: str) -> str:
        try:
            with self._ask() as engine:
                self._asked = engine
                pulled = dockerimage.fetch(engine, self._image, self._port, repository)
                self._brought(self._image)
        except ApiError as error:
            raise StartFailed(f"Docker: {error}") from None
        finally:
            self._asked = None
        if pulled.had > self._shared:
            return f"{pulled.had} layers of it were there already, because other images of the engine have them"
        return ""

    def settle(self) -> None:
        try:
            with self._ask() as engine:
                dockerimage.adopt(engine, self._image)
        except ApiError:
            pass  # the next sweep does it, or `clean`; if the engine is gone, the next boot says so

    def give_up(self) -> None:
        """An engine would try again and again."""
        engine = self._asked
        if engine is not None:
            engine.abort()

    def _pull(self, engine: Engine, image: Image) -> None:
        dockerimage.pull(engine, image, self._port)
        self._brought(image)

    def _brought(self, image: Image) -> None:
        self._stock.absent.difference_update(_ids(image))
        self._stock.brought[image.id] += 1

    def _remove(self, engine: Engine, details: dict[str, Any]) -> None:
        dockerimage.remove(engine, dockerimage.names_of(details))
        self._stock.absent.add(dockerimage.bare(details["Id"]))

    def _is_previous(self, details: dict[str, Any]) -> bool:
        return self._previous is not None and dockerimage.is_image(details, self._previous)


def _ids(image: Image) -> set[str]:
    """What engines call it."""
    return {dockerimage.bare(image.id), dockerimage.bare(image.digest)}


def common(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many layers, from the lowest on, they share: what an engine keeps for both."""
    layers = [(details.get("RootFS") or {}).get("Layers") or [] for details in (one, other)]
    pairs = list(zip(*layers))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))
