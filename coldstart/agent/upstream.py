"""The controller's registry, seen from the node: content by digest, through a port of this node's loopback.

The port is a forward of the SSH connection: what is asked there is answered by the controller, and by nobody once the
link is gone. `Broken` says so; what has arrived by then may be kept, for the next link.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else the first connection would import it, and that may be within a boot
import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager

from coldstart.agent.cache import Cache

IDLE_S = 60.0  # a slow link has always something; a dead one never
BLOCK_BYTES = 1 << 18
FILES = "coldstart.local/files"  # the repository of what is in no image
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


class Broken(OSError):
    """The controller cannot be heard any more, or breaks off."""


class NotOffered(OSError):
    """The controller does not have it."""


class Answer:
    """One answer. total_bytes: of the whole content; kind: its media type; blocks: it, from the asked offset on."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.kind = response.headers.get("Content-Type", "")
        found = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
        self.total_bytes = int(found.group(1)) if found else int(response.headers.get("Content-Length", "0"))

    def blocks(self) -> Iterator[bytes]:
        """All that is left of it; Broken if that does not come."""
        left = self._response.length or 0
        while left:
            try:
                data = self._response.read1(BLOCK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise Broken(f"the controller's answer broke off: {error}") from None
            if not data:
                raise Broken("the controller's answer broke off")
            left -= len(data)
            yield data


@contextmanager
def asked(port: int, path: str, start: int = 0, *, method: str = "GET") -> Iterator[Answer]:
    """One question of a connection of its own. An offset at the end has an answer without blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=IDLE_S)
    try:
        try:
            connection.request(method, path, headers={"Range": f"bytes={start}-"} if start else {})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the controller does not answer: {error}") from None
        if response.status not in (200, 206, 416):
            raise NotOffered(f"{path}: {response.status}")
        yield Answer(response)
    finally:
        connection.close()


def fetch(port: int, cache: Cache, sha256: str, size_bytes: int, repository: str = FILES) -> None:
    """Have the cache hold a file: the rest of it, if an earlier attempt brought a part. Broken, NotOffered, BadContent
    or the disk's OSError. A boot, which has a repository of its own, does not wait for the disk."""
    held = cache.begun(sha256, size_bytes)
    if held == size_bytes:  # but not yet verified
        cache.take(sha256, ())
        return
    with asked(port, f"/v2/{repository}/blobs/sha256:{sha256}", held) as answer:
        cache.take(sha256, answer.blocks(), durable=repository == FILES)
