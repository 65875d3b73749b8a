"""An image as the archive that `docker load` takes, put together while it is read: nothing is written for it.

For engines that cannot pull: all its layers, whatever the engine has of them, under a name of our choice.
"""

from __future__ import annotations

import json
import tarfile

from coldstart.dockerarchive import MANIFEST
from coldstart.layout import INDEX, MARK, NAMES
from coldstart.source import OCI, Blob, Joined, Source, in_memory, join

TYPE = "application/x-tar"


def archive(source: Source, name: str) -> Joined:
    """The archive of one image, whose only name there is `name`. Reads all of it once.

    Two descriptions of the same files: manifest.json, for engines that know nothing else, and an OCI layout with the
    image's own manifest. An engine that keeps images by manifest would make its own of the former: another image.
    """
    blobs = {_path(blob): blob for blob in source.blobs()}
    saved = [
        {"Config": _path(source.config), "RepoTags": [name], "Layers": [_path(blob) for blob in source.layers]},
    ]
    manifest = {
        "mediaType": source.manifest.media_type,
        "digest": source.manifest.digest,
        "size": source.manifest.size_bytes,
        "annotations": {NAMES[0]: name, NAMES[1]: name.rpartition(":")[2]},
    }
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [manifest]}
    described = {MARK: {"imageLayoutVersion": "1.0.0"}, INDEX: index, MANIFEST: saved}
    members = {path: in_memory(json.dumps(values).encode(), TYPE) for path, values in described.items()}
    pieces = [piece for path, blob in {**members, **blobs}.items() for piece in _member(path, blob)]
    return join([*pieces, in_memory(bytes(2 * tarfile.BLOCKSIZE), TYPE)], TYPE)


def _path(blob: Blob) -> str:
    return f"blobs/sha256/{blob.digest.removeprefix('sha256:')}"


def _member(path: str, blob: Blob) -> tuple[Blob, Blob, Blob]:
    """Its header, itself, and what fills its last block."""
    header = tarfile.TarInfo(path)
    header.size = blob.size_bytes
    filling = bytes(-blob.size_bytes % tarfile.BLOCKSIZE)
    return in_memory(header.tobuf(tarfile.GNU_FORMAT), TYPE), blob, in_memory(filling, TYPE)
