"""A container image as content: a manifest, a config and layers, each under its digest, wherever their bytes lie.

What the readers (`archive.py`, `layout.py`) find in a file, and what the registry serves, is this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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

    def blobs(self) -> dict[str, Blob]:
        """All that a registry is asked for, by digest."""
        return {blob.digest: blob for blob in (self.manifest, self.config, *self.layers)}


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
