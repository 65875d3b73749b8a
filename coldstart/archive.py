"""Container image archives without an engine: written for the workloads, read before they are sent to a node.

`pack` writes one tar that `docker load` (20.10 and later) takes by its manifest.json, and that is an OCI layout as
well, for registries and newer engines. The same image gives the same bytes, everywhere and always: names sorted,
owner 0, time 0. `inspect` reads what `docker save` and its like write: layers may be compressed or stand behind links.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from coldstart.errors import ImageError

ENGINE_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}  # ours -> theirs
OUR_ARCH = {theirs: ours for ours, theirs in ENGINE_ARCH.items()}

_EPOCH = "1970-01-01T00:00:00Z"
_OCI = "application/vnd.oci.image"
_MAX_JSON_BYTES = 4 << 20  # a manifest or config is some KiB; do not let a broken one fill the memory
_MAX_LINKS = 4
# What tarfile and its friends raise on damaged bytes; MemoryError is a header that claims exabytes.
_BROKEN = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(OSError, ValueError, OverflowError, RecursionError, MemoryError),
)
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class File:
    """One file of a layer; path: from the root, without the leading slash."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class ContainerImage:
    """What an image is, FROM scratch. repository: its name without a tag, with the registry's host in front;
    architecture: ours (`x86_64`); ports: TCP; user: a number, because scratch has no /etc/passwd."""

    repository: str
    architecture: str
    files: tuple[File, ...]
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive holds. architecture: ours where we have a word for it, else the archive's own.

    config_digest: `sha256:...`, which is the image's id in Docker's classic store. layer_bytes: what the files of each
    layer take unpacked; None for a layer compressed in a way the standard library cannot read (zstd).
    """

    architecture: str
    tags: tuple[str, ...]
    config_digest: str
    layer_bytes: tuple[int | None, ...]


# --- writing ---


def pack(image: ContainerImage) -> bytes:
    """The archive."""
    layer = tar(image.files)
    config = _json(_config(image, layer))
    manifest = _json(_manifest(config, layer))
    blobs = {_blob(data): data for data in (layer, config, manifest)}
    files = {
        **blobs,
        "index.json": _json(_index(image, layer, manifest)),
        "manifest.json": _json([{"Config": _blob(config), "Layers": [_blob(layer)], "RepoTags": [tag(image)]}]),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    return tar(tuple(File(path, data) for path, data in files.items()))


def tag(image: ContainerImage) -> str:
    """Its name for engines. From the layer's content, so that builds never share one."""
    return f"{image.repository}:{_sha256(tar(image.files))[:12]}"


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


def _config(image: ContainerImage, layer: bytes) -> dict[str, Any]:
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
        "history": [{"created": _EPOCH, "created_by": "coldstart"}],
        "os": "linux",
        "rootfs": {"diff_ids": [_digest(layer)], "type": "layers"},
    }


def _manifest(config: bytes, layer: bytes) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor(f"{_OCI}.config.v1+json", config),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
    }


def _index(image: ContainerImage, layer: bytes, manifest: bytes) -> dict[str, Any]:
    # Engines with containerd's store name what they load by the first annotation, other tools by the second.
    names = {"io.containerd.image.name": tag(image), "org.opencontainers.image.ref.name": _sha256(layer)[:12]}
    platform = {"architecture": ENGINE_ARCH[image.architecture], "os": "linux"}
    entry = {**_descriptor(f"{_OCI}.manifest.v1+json", manifest), "annotations": names, "platform": platform}
    return {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]}


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(data: bytes) -> str:
    return f"sha256:{_sha256(data)}"


def _blob(data: bytes) -> str:
    return f"blobs/sha256/{_sha256(data)}"


# --- reading ---


def inspect(path: Path) -> ArchiveInfo:
    """What the docker-archive at `path` holds; ImageError if it is damaged, or no such archive, or more than one."""
    try:
        with tarfile.open(path) as outer:
            return _Reader(path, outer).info()
    except ImageError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{path}: {error.strerror}", hint="name a file that can be read") from None
        first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise ImageError(f"{path}: not a tar archive, or a damaged one: {first_line}", hint=_AGAIN) from None


_AGAIN = "write it again: docker save -o FILE IMAGE"
_OTHER_KIND = "convert it: skopeo copy oci-archive:FILE docker-archive:NEW:NAME:TAG"


class _Reader:
    """One open archive; every complaint names its file."""

    def __init__(self, path: Path, outer: tarfile.TarFile) -> None:
        self._path = path
        self._outer = outer
        self._members = {self._safe(member.name): member for member in outer.getmembers()}

    def info(self) -> ArchiveInfo:
        entry = self._manifest_entry()
        with self._open(self._text(entry, "Config")) as file:
            raw = file.read(_MAX_JSON_BYTES)
        config = self._object(raw, "the image's config")
        architecture = self._text(config, "architecture")
        return ArchiveInfo(
            architecture=OUR_ARCH.get(architecture, architecture),
            tags=tuple(self._texts(entry, "RepoTags")),
            config_digest=_digest(raw),
            layer_bytes=tuple(self._unpacked_bytes(name) for name in self._texts(entry, "Layers")),
        )

    def _manifest_entry(self) -> dict[str, Any]:
        if "manifest.json" not in self._members:
            hint = _OTHER_KIND if "oci-layout" in self._members else _AGAIN
            raise self._error("no manifest.json in it: not what `docker save` writes", hint)
        with self._open("manifest.json") as file:
            entries = json.loads(file.read(_MAX_JSON_BYTES))
        if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
            raise self._error("its manifest.json lists no image")
        if len(entries) > 1:
            raise self._error(f"it holds {len(entries)} images", "save one alone: docker save -o FILE IMAGE")
        entry: dict[str, Any] = entries[0]
        return entry

    def _unpacked_bytes(self, name: str) -> int | None:
        with self._open(name) as stored:
            magic = stored.read(4)
            stored.seek(0)
            if magic == _ZSTD:
                return None
            # Not `r:*`: it would guess again for every kind, and say nothing useful of a broken one.
            stream = gzip.GzipFile(fileobj=stored) if magic[:2] == b"\x1f\x8b" else stored
            with tarfile.open(fileobj=stream, mode="r:") as layer:
                return sum(member.size for member in self._climbing_refused(layer) if member.isreg())

    def _climbing_refused(self, layer: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for member in layer:
            # Some builders write `/bin/x` or `./bin/x`; engines take both as from the image's root.
            self._safe(member.name.lstrip("/"))
            yield member

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        member = self._member(name)
        file = self._outer.extractfile(member) if member.isreg() else None
        if file is None:
            raise self._error(f"{name} is not a file in it")
        with file:
            yield file

    def _member(self, name: str) -> tarfile.TarInfo:
        """Found through the links that `docker save` writes in place of layers it has already."""
        found = self._safe(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(found)
            if member is None:
                raise self._error(f"{name} is missing in it")
            if not (member.issym() or member.islnk()):
                return member
            start = posixpath.dirname(found) if member.issym() else ""
            found = self._safe(posixpath.normpath(posixpath.join(start, member.linkname)))
        raise self._error(f"{name} is a link without an end in it")

    def _safe(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            raise self._error(f"the path {name!r} climbs out of it", "do not trust it; build or save the image anew")
        return posixpath.normpath(name)

    def _object(self, raw: bytes, what: str) -> dict[str, Any]:
        value = json.loads(raw)
        if not isinstance(value, dict):
            raise self._error(f"{what} is not a JSON object")
        return value

    def _text(self, values: Mapping[str, Any], name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str) or not value:
            raise self._error(f"its description has no {name}")
        return value

    def _texts(self, values: Mapping[str, Any], name: str) -> list[str]:
        found = values.get(name) or []  # null where there are none
        if not isinstance(found, list) or not all(isinstance(value, str) for value in found):
            raise self._error(f"{name} in its description is not a list of names")
        return found

    def _error(self, what: str, hint: str = _AGAIN) -> ImageError:
        return ImageError(f"{self._path}: {what}", hint=hint)
