"""A container image as content: a manifest, a config and layers, each under its digest, wherever their bytes lie.

What the readers (`dockerarchive.py`, `layout.py`) find in a file, and what the registry serves, is this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OCI = "application/vnd.oci.image"
MANIFEST_TYPE = f"{OCI}.manifest.v1+json"
CONFIG_TYPE = f"{OCI}.config.v1+json"
LAYER_TYPE = f"{OCI}.layer.v1.tar"  # also with +gzip and +zstd
READ_BYTES = 1 << 17


@dataclass(frozen=True)
class Blob:
    """Bytes and what they are. digest: `sha256:` and 64 hex digits; they lie in `path` from `offset` on, or, where
    path is None, are `data`."""

    digest: str
    size_bytes: int
    media_type: str
    path: Path | None = None
    offset: int = 0
    data: bytes = b""

    def read(self, start: int = 0, step: int = READ_BYTES) -> Iterator[bytes]:
        """Its bytes from `start` on, at most `step` at a time. Ends early if the file has shrunk."""
        if self.path is None:
            for at in range(start, len(self.data), step):
                yield self.data[at : at + step]
            return
        with self.path.open("rb") as file:
            file.seek(self.offset + start)
            left = self.size_bytes - start
            while left > 0 and (data := file.read(min(step, left))):
                left -= len(data)
                yield data


@dataclass(frozen=True)
class Joined:
    """Bytes of several blobs, one behind the other, as one that lies nowhere; otherwise as Blob."""

    digest: str
    size_bytes: int
    media_type: str
    pieces: tuple[Blob, ...]

    def read(self, start: int = 0, step: int = READ_BYTES) -> Iterator[bytes]:
        for piece in self.pieces:
            if start < piece.size_bytes:
                yield from piece.read(start, step)
            start = max(0, start - piece.size_bytes)


Content = Blob | Joined


@dataclass(frozen=True)
class Source:
    """One image for one architecture (`x86_64`: our word, where we have one). diff_ids: of the layers unpacked, as the
    config has them; unpacked_bytes: what the files of each layer take, None where that cannot be told; tags: the names
    it had where it comes from."""

    architecture: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    diff_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()
    unpacked_bytes: tuple[int | None, ...] = ()

    def blobs(self) -> tuple[Blob, ...]:
        """All that a registry is asked for."""
        return (self.manifest, self.config, *self.layers)

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.blobs())


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def in_memory(data: bytes, media_type: str) -> Blob:
    return Blob(digest(data), len(data), media_type, data=data)


def manifest_of(config: Blob, layers: tuple[Blob, ...]) -> Blob:
    """The OCI manifest for what has none, or another kind."""
    described = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size_bytes} for blob in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size_bytes},
        "layers": described,
    }
    return in_memory(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode(), MANIFEST_TYPE)


def join(pieces: Sequence[Blob], media_type: str) -> Joined:
    """Reads all of them once, for the digest."""
    whole = hashlib.sha256()
    for piece in pieces:
        for data in piece.read():
            whole.update(data)
    return Joined(f"sha256:{whole.hexdigest()}", sum(piece.size_bytes for piece in pieces), media_type, tuple(pieces))
