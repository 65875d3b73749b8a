"""Container image archives written without an engine, for the workloads.

`pack` writes one tar that `docker load` (20.10 and later) takes by its manifest.json, and that is an OCI layout as
well, for registries and newer engines. The same image gives the same bytes, everywhere and always: names sorted,
owner 0, time 0.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coldstart.source import CONFIG_TYPE, LAYER_TYPE, OCI, Blob, in_memory, manifest_of

ENGINE_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}  # ours -> theirs
OUR_ARCH = {theirs: ours for ours, theirs in ENGINE_ARCH.items()}

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class File:
    """One file of a layer; path: from the root, without the leading slash."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class ContainerImage:
    """What an image is, FROM scratch. repository: its name without a tag, with the registry's host in front;
    architecture: ours (`x86_64`); layers: the files of each, the lowest first; ports: TCP; user: a number, because
    scratch has no /etc/passwd."""

    repository: str
    architecture: str
    layers: tuple[tuple[File, ...], ...]
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def pack(image: ContainerImage) -> bytes:
    """The archive."""
    layers = tuple(in_memory(tar(files), LAYER_TYPE) for files in image.layers)
    config = in_memory(_json(_config(image, layers)), CONFIG_TYPE)
    manifest = manifest_of(config, layers)
    entry = {"Config": _path(config), "Layers": [_path(layer) for layer in layers], "RepoTags": [_tag(image, layers)]}
    files = {
        **{_path(blob): blob.data for blob in (*layers, config, manifest)},
        "index.json": _json(_index(image, layers, manifest)),
        "manifest.json": _json([entry]),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    return tar(tuple(File(path, data) for path, data in files.items()))


def tag(image: ContainerImage) -> str:
    """Its name for engines. From the layers' content, so that builds never share one."""
    return _tag(image, tuple(in_memory(tar(files), LAYER_TYPE) for files in image.layers))


def tar(files: tuple[File, ...]) -> bytes:
    """Plain ustar: no owner's name, no time, nothing of the machine it was made on."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(files, key=lambda file: file.path):
            member = tarfile.TarInfo(file.path)
            member.mode = file.mode
            member.size = len(file.data)
            archive.addfile(member, io.BytesIO(file.data))
    return buffer.getvalue()


def _config(image: ContainerImage, layers: tuple[Blob, ...]) -> dict[str, Any]:
    settings = {
        "Cmd": list(image.command),
        "Env": [f"{name}={value}" for name, value in sorted(image.env.items())],
        "ExposedPorts": {f"{port}/tcp": {} for port in image.ports},
        "Labels": dict(image.labels),
        "User": image.user,
    }
    return {
        "architecture": ENGINE_ARCH[image.architecture],
        "config": {name: value for name, value in settings.items() if value},
        "created": _EPOCH,
        "history": [{"created": _EPOCH, "created_by": "coldstart"} for _ in layers],
        "os": "linux",
        "rootfs": {"diff_ids": [layer.digest for layer in layers], "type": "layers"},
    }


def _index(image: ContainerImage, layers: tuple[Blob, ...], manifest: Blob) -> dict[str, Any]:
    # Engines with containerd's store name what they load by the first annotation, other tools by the second.
    names = {"io.containerd.image.name": _tag(image, layers), "org.opencontainers.image.ref.name": _version(layers)}
    platform = {"architecture": ENGINE_ARCH[image.architecture], "os": "linux"}
    described = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size_bytes}
    entry = {**described, "annotations": names, "platform": platform}
    return {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}


def _tag(image: ContainerImage, layers: tuple[Blob, ...]) -> str:
    return f"{image.repository}:{_version(layers)}"


def _version(layers: tuple[Blob, ...]) -> str:
    return hashlib.sha256(b"".join(layer.data for layer in layers)).hexdigest()[:12]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _path(blob: Blob) -> str:
    return f"blobs/{blob.digest.replace(':', '/')}"
