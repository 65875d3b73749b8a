"""An image as the archive that `docker load` takes, put together while it is read: nothing is written for it.

For engines that cannot pull: all its layers, whatever the engine has of them, under a name of our choice.
"""

from __future__ import annotations

import json
import tarfile

from coldstart.source import Blob, Joined, Source, in_memory, join

TYPE = "application/x-tar"


def archive(source: Source, name: str) -> Joined:
    """The docker-archive of one image, whose only name there is `name`. Reads all of it once."""
    layers = {f"{blob.digest.removeprefix('sha256:')}.tar": blob for blob in source.layers}
    config = f"{source.config.digest.removeprefix('sha256:')}.json"
    order = [f"{blob.digest.removeprefix('sha256:')}.tar" for blob in source.layers]
    manifest = json.dumps([{"Config": config, "RepoTags": [name], "Layers": order}]).encode()
    members = {"manifest.json": in_memory(manifest, TYPE), config: source.config, **layers}
    pieces = [piece for path, blob in members.items() for piece in _member(path, blob)]
    return join([*pieces, in_memory(bytes(2 * tarfile.BLOCKSIZE), TYPE)], TYPE)


def _member(path: str, blob: Blob) -> tuple[Blob, Blob, Blob]:
    """Its header, itself, and what fills its last block."""
    header = tarfile.TarInfo(path)
    header.size = blob.size_bytes
    filling = bytes(-blob.size_bytes % tarfile.BLOCKSIZE)
    return in_memory(header.tobuf(tarfile.GNU_FORMAT), TYPE), blob, in_memory(filling, TYPE)
