"""A limit on what all nodes together are sent, shared evenly: who asks for less leaves the rest to the others."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

TURN_S = 0.1
MIN_PIECE_BYTES = 256


class Throttle:
    """Lets at most `bytes_per_s` pass, in turns: one piece of every node that has something to send, then the next of
    each. A node has one place in the queue, however many connections it opens, so none gains by opening more."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        # So little that fifty nodes have all had their turn before anybody takes silence for death.
        self.piece_bytes = max(MIN_PIECE_BYTES, int(bytes_per_s * TURN_S))
        self._queue = asyncio.Lock()  # wakes waiters in the order in which they came
        self._places: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._free_s = 0.0  # when what has passed will have been sent

    async def pass_(self, node: str, size_bytes: int) -> None:
        """Wait until so many bytes of this node's may be sent."""
        async with self._places[node], self._queue:
            wait_s = self._free_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._free_s = max(self._free_s, time.monotonic()) + size_bytes / self._bytes_per_s
