"""What a node is given: files, piece by piece over the link or all at once from the controller's registry."""

from __future__ import annotations

from typing import Any, Union

from coldstart.agent import upstream
from coldstart.agent.actions import Chunk, Fetch, Offer
from coldstart.agent.cache import BadContent, Cache

Answer = tuple[str, dict[str, Any]]  # a message's kind and its fields


Taken = Union[Offer, Chunk, Fetch]


class Intake:
    """Every method answers one message."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._sizes: dict[str, int] = {}  # of what was offered

    def take(self, action: Taken) -> Answer:
        if isinstance(action, Offer):
            return self.offer(action)
        return self.chunk(action) if isinstance(action, Chunk) else self.fetch(action)

    def offer(self, offer: Offer) -> Answer:
        """Whether it is here, or how much of it."""
        self._sizes[offer.sha256] = offer.size_bytes
        if self._cache.file(offer.sha256):
            return "have", {"sha256": offer.sha256}
        return "need", {"sha256": offer.sha256, "offset": self._cache.begun(offer.sha256, offer.size_bytes)}

    def chunk(self, chunk: Chunk) -> Answer:
        """The next piece. Every one has an answer: on a slow link they are the sign of life."""
        try:
            complete = self._cache.add(chunk.sha256, chunk.data, self._sizes[chunk.sha256])
        except KeyError:
            return "refused", {"sha256": chunk.sha256, "reason": "it was not offered, or has been refused"}
        except (BadContent, OSError) as error:
            del self._sizes[chunk.sha256]  # what follows must not be taken for the rest of it
            return "refused", {"sha256": chunk.sha256, "reason": str(error)}
        return "have" if complete else "got", {"sha256": chunk.sha256}

    def fetch(self, fetch: Fetch) -> Answer:
        """All of it, by ourselves."""
        try:
            upstream.fetch(fetch.port, self._cache, fetch.sha256, fetch.size_bytes)
        except (BadContent, OSError) as error:
            return "refused", {"sha256": fetch.sha256, "reason": str(error)}
        return "have", {"sha256": fetch.sha256}
