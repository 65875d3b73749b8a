"""Container images by hand, in every kind of file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from coldstart.source import Source

OCI = "application/vnd.oci.image"


def tar_of(entries: dict[str, bytes | str]) -> bytes:
    """bytes: a file; str: a symbolic link, or with `=` before it a hard one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in entries.items():
            member = tarfile.TarInfo(name)
            if isinstance(value, str):
                member.type = tarfile.LNKTYPE if value.startswith("=") else tarfile.SYMTYPE
                member.linkname = value.removeprefix("=")
                tar.addfile(member)
            else:
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
    return buffer.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


LAYER = tar_of({"bin/x": bytes(1000), "bin/y": "x"})
SECOND = tar_of({"etc/motd": b"hello\n"})
PACKED = gzip.compress(SECOND, mtime=0)
ZSTD = b"\x28\xb5\x2f\xfd rest"


def config(*layers: bytes, **more: Any) -> bytes:
    """For these layers, unpacked."""
    root = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    return as_json({"architecture": "amd64", "os": "linux", "rootfs": root, **more})


def saved(layers: dict[str, bytes | str], *, own: bytes, entries: Any = None, **more: bytes | str) -> bytes:
    """What `docker save` writes. own: the config."""
    name = sha256(own).removeprefix("sha256:") + ".json"
    entry = {"Config": name, "RepoTags": ["app:1"], "Layers": list(layers)}
    manifest = as_json([entry] if entries is None else entries)
    return tar_of({name: own, **layers, "manifest.json": manifest, **more})


class Layout:
    """An OCI layout that grows by what is added to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | str] = {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"})}

    def add(self, data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        """Its descriptor."""
        self.files[sha256(data).replace("sha256:", "blobs/sha256/")] = data
        media_type = kind if "/" in kind else f"{OCI}.{kind}"
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}

    def manifest(self, own: bytes, *layers: tuple[bytes, str], **more: Any) -> dict[str, Any]:
        described = [self.add(data, kind) for data, kind in layers]
        manifest = {"schemaVersion": 2, "config": self.add(own, "config.v1+json"), "layers": described, **more}
        return self.add(as_json(manifest), "manifest.v1+json")

    def image(self, arch: str = "amd64", layer: bytes = LAYER) -> dict[str, Any]:
        return self.manifest(config(layer, architecture=arch), (layer, "layer.v1.tar"))

    def index(self, *manifests: Any, **more: Any) -> Layout:
        self.files["index.json"] = as_json({"schemaVersion": 2, "manifests": list(manifests), **more})
        return self

    def tar(self) -> bytes:
        return tar_of(self.files)

    def folder(self, path: Path) -> Path:
        for name, data in self.files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return path


def on(arch: str, **more: str) -> dict[str, Any]:
    return {"platform": {"architecture": arch, "os": "linux", **more}}


def named(*names: str) -> dict[str, Any]:
    keys = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    return {"annotations": dict(zip(keys, names, strict=False))}


def identity(source: Source) -> tuple[Any, ...]:
    """All that must be the same wherever an image is read from."""
    layers = [(blob.digest, blob.size_bytes, blob.media_type, b"".join(blob.read())) for blob in source.layers]
    return source.manifest, source.config, layers, source.diff_ids, source.unpacked_bytes, source.architecture
