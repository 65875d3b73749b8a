"""Where a target's image comes from, for start kinds that say whether it is there: `image-absent`, or any other.

A runtime that has its images from an engine brings a `Supply` of its own; for all others an image is files in the
cache. What is fetched in the middle of a boot is asked for under that boot's own repository name, so that the
controller can tell which bytes were sent for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coldstart.agent import upstream
from coldstart.agent.cache import BadContent, Cache
from coldstart.agent.records import Image
from coldstart.agent.runtimes import StartFailed

NO_PORT = "the node has no way to ask the controller (its SSH server refuses to forward a port)"


class Supply(Protocol):
    def objection(self) -> str:
        """Why the image cannot be made absent here, '' if it can."""

    def present(self, files: Sequence[str]) -> Sequence[str]:
        """See to it that the image is here, untimed; the files whose page cache counts, `files` if nothing changed.
        StartFailed if it cannot be had."""

    def absent(self) -> None:
        """See to it that nothing of it is here, or only what the version before has; StartFailed if something stays."""

    def obtain(self, repository: str) -> str:
        """Fetch it, which is timed. Why less was fetched than a node without it must fetch, '' if not."""

    def settle(self) -> None:
        """What `obtain` has left to do, once the boot is over."""

    def give_up(self) -> None:
        """End `obtain`, which another thread is in, if it does not end by itself once the link is gone."""


class Files:
    """An image of files. The version before is of no use: a file is fetched whole."""

    def __init__(self, image: Image, cache: Cache, port: int) -> None:
        self._image = image
        self._cache = cache
        self._port = port

    def objection(self) -> str:
        return "" if self._port else NO_PORT

    def present(self, files: Sequence[str]) -> Sequence[str]:
        if any(not self._cache.file(sha256) for sha256 in self._image.files.values()):
            self.obtain(upstream.FILES)
        return files

    def absent(self) -> None:
        try:
            for sha256 in self._image.files.values():
                self._cache.drop(sha256)
        except OSError as error:
            raise StartFailed(f"{self._image.name} cannot be removed: {error.strerror}") from None

    def obtain(self, repository: str) -> str:
        try:
            for part, sha256 in self._image.files.items():
                upstream.fetch(self._port, self._cache, sha256, self._image.sizes[part], repository)
        except (OSError, BadContent) as error:
            raise StartFailed(f"{self._image.name} could not be fetched: {error}") from None
        return ""

    def settle(self) -> None:
        """A file has its name as soon as it is verified."""

    def give_up(self) -> None:
        """The controller has cut it off, or is gone."""


def repository(trial: int, index: int) -> str:
    """Under which the image of this boot is asked for."""
    return f"coldstart.local/boot-{trial}-{index}"
