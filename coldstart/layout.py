"""An OCI image layout: an index that names manifests, which name a config and layers, each by its digest.

The index may lead to further ones, and hold an image for every architecture. What it says of a platform is believed;
where it says nothing, the config does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coldstart.archive import OUR_ARCH
from coldstart.assembly import BY_ARCH, DIGEST, Found, assemble, describe, refuse_elsewhere
from coldstart.dockerarchive import MANIFEST, tags_of
from coldstart.outer import UNTRUSTED, Extent, Outer
from coldstart.source import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, OCI, Blob, Source, digest

MARK, INDEX = "oci-layout", "index.json"
_DOCKER = "application/vnd.docker"
_INDEX_TYPES = (f"{OCI}.index.v1+json", f"{_DOCKER}.distribution.manifest.list.v2+json")
_MANIFEST_TYPES = (MANIFEST_TYPE, f"{_DOCKER}.distribution.manifest.v2+json")
_CONFIG_TYPES = (CONFIG_TYPE, f"{_DOCKER}.container.image.v1+json")
_LAYER_TYPES = (
    *(LAYER_TYPE, f"{LAYER_TYPE}+gzip", f"{LAYER_TYPE}+zstd"),
    *(f"{_DOCKER}.image.rootfs.diff.tar{suffix}" for suffix in ("", ".gzip", ".zstd")),
)
_REF_NAME = "org.opencontainers.image.ref.name"
NAMES = ("io.containerd.image.name", _REF_NAME)  # the first says all of it
_MAX_DEPTH = 4
_MAX_ENTRIES = 1000
_BASELINE = ("", "v1", "v8")  # variants that every machine of the architecture can run
_OLD = "push it to a registry of today and save it anew"
_ONE = "save one alone: skopeo copy oci:DIR:NAME oci-archive:NEW"

Descriptor = Mapping[str, Any]


@dataclass(frozen=True)
class _Entry:
    """An image that the index names."""

    descriptor: Descriptor
    architecture: str
    variant: str
    names: tuple[str, ...]

    @property
    def platform(self) -> str:
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture


def read(outer: Outer, arch: str) -> Source:
    """The image for this architecture, all of it verified. ImageError says what is wrong, or what there is instead."""
    version = outer.object(outer.document(MARK), MARK).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise outer.error(f"an OCI layout of version {version}; known is 1.0.0")
    entries = _merged(_entries(outer, _manifests(outer, outer.document(INDEX)), (), 0))
    chosen = _chosen(outer, entries, arch)
    manifest = _blob(outer, chosen.descriptor, "manifest")
    values = _manifest(outer, manifest)
    described = _described(outer, values)
    config = _blob(outer, described[0], "config")
    found = [_layer(outer, descriptor) for descriptor in described[1:]]
    tags = tuple(tags_of(outer, config.digest)) if outer.find(MANIFEST) else ()
    source = assemble(outer, arch, config=config, found=found, manifest=manifest)
    return dataclasses.replace(source, tags=tags or chosen.names)


# --- choosing ---


def _entries(outer: Outer, listed: list[Any], names: tuple[str, ...], depth: int) -> Iterator[_Entry]:
    """Every image below; what is for another system, or no image at all, is left out."""
    if depth > _MAX_DEPTH or len(listed) > _MAX_ENTRIES:
        raise outer.error("its index leads from index to index without an end", UNTRUSTED)
    for descriptor in listed:
        if not isinstance(descriptor, dict):
            raise outer.error("its index lists something else than images")
        kind = descriptor.get("mediaType")
        own = _names(outer, descriptor) or names
        if kind in _INDEX_TYPES and not _is_for_others(descriptor):
            below = _manifests(outer, _blob(outer, descriptor, "index").data)
            yield from _entries(outer, below, own, depth + 1)
        elif kind in _MANIFEST_TYPES and not _is_for_others(descriptor):
            yield _entry(outer, descriptor, own)
        elif "manifest.v1" in str(kind) and "docker" in str(kind):
            raise outer.error("an image of Docker's first kind (schema 1)", _OLD)


def _is_for_others(descriptor: Descriptor) -> bool:
    platform = descriptor.get("platform")
    return isinstance(platform, dict) and platform.get("os") != "linux"


def _entry(outer: Outer, descriptor: Descriptor, names: tuple[str, ...]) -> _Entry:
    platform = descriptor.get("platform")
    if isinstance(platform, dict):
        architecture, variant = outer.text(platform, "architecture"), platform.get("variant", "")
        if not isinstance(variant, str):
            raise outer.error("its index names a variant that is no text")
        return _Entry(descriptor, OUR_ARCH.get(architecture, architecture), variant, names)
    config = _described(outer, _manifest(outer, _blob(outer, descriptor, "manifest")))[0]
    found = describe(outer, _blob(outer, config, "config").data)
    return _Entry(descriptor, found.architecture, "", names)


def _merged(entries: Iterator[_Entry]) -> list[_Entry]:
    """One image under several names is one."""
    found: dict[Any, _Entry] = {}
    for entry in entries:
        same = found.get(entry.descriptor.get("digest"), entry)
        names = tuple(dict.fromkeys((*same.names, *entry.names)))
        found[entry.descriptor.get("digest")] = _Entry(same.descriptor, same.architecture, same.variant, names)
    return list(found.values())


def _chosen(outer: Outer, entries: list[_Entry], arch: str) -> _Entry:
    fitting = [entry for entry in entries if entry.architecture == arch]
    if not fitting:
        there = ", ".join(sorted({entry.platform for entry in entries}))
        if not there:
            raise outer.error("no image for linux in it")
        raise outer.error(f"an image for {there}, but the node is {arch}", BY_ARCH)
    for narrower in (
        [entry for entry in fitting if entry.variant in _BASELINE],
        [entry for entry in fitting if _REF_NAME in (entry.descriptor.get("annotations") or ())],
    ):
        fitting = narrower if len(fitting) > 1 and narrower else fitting
    if len(fitting) > 1:
        names = ", ".join(name for entry in fitting for name in entry.names) or "without names"
        raise outer.error(f"it holds {len(fitting)} images for {arch}: {names}", _ONE)
    return fitting[0]


def _names(outer: Outer, descriptor: Descriptor) -> tuple[str, ...]:
    annotations = descriptor.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise outer.error("its index has annotations that are none")
    found = [annotations[name] for name in NAMES if annotations.get(name)]
    return tuple(outer.texts({"annotations": found[:1]}, "annotations"))


# --- following descriptors ---


def _manifests(outer: Outer, data: bytes) -> list[Any]:
    index = outer.object(data, "its index")
    _check_kind(outer, index, _INDEX_TYPES, "index")
    listed = index.get("manifests")
    if not isinstance(listed, list) or not listed:
        raise outer.error("its index lists no image")
    return listed


def _manifest(outer: Outer, blob: Blob) -> dict[str, Any]:
    values = outer.object(blob.data, "its manifest")
    _check_kind(outer, values, (blob.media_type,), "manifest")
    return values


def _check_kind(outer: Outer, values: Mapping[str, Any], kinds: tuple[str, ...], what: str) -> None:
    if values.get("schemaVersion") == 1:
        raise outer.error("an image of Docker's first kind (schema 1)", _OLD)
    if values.get("schemaVersion") != 2 or values.get("mediaType", kinds[0]) not in kinds:
        raise outer.error(f"its {what} is of an unknown kind: {values.get('mediaType')}")


def _described(outer: Outer, manifest: Mapping[str, Any]) -> list[Descriptor]:
    """The config, then the layers."""
    config, listed = manifest.get("config"), manifest.get("layers")
    if not isinstance(config, dict) or not isinstance(listed, list):
        raise outer.error("its manifest names no config or no layers")
    if config.get("mediaType") not in _CONFIG_TYPES:
        raise outer.error(f"not a container image, but {config.get('mediaType')}", "name an image")
    for layer in listed:
        if not isinstance(layer, dict):
            raise outer.error("its manifest lists something else than layers")
        refuse_elsewhere(outer, layer.get("mediaType"))
        if layer["mediaType"] not in _LAYER_TYPES:
            raise outer.error(
                f"a layer of an unknown kind: {layer['mediaType']}", "convert it: skopeo copy --format oci"
            )
    return [config, *listed]


def _extent(outer: Outer, descriptor: Descriptor, what: str) -> Extent:
    """Where it lies, if it is as long as its descriptor says."""
    said, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(said, str) or not DIGEST.fullmatch(said):
        raise outer.error(f"its {what} is not named by a sha256, but {said!r}", UNTRUSTED)
    extent = outer.find(f"blobs/sha256/{said.removeprefix('sha256:')}")
    if extent is None:
        raise outer.error(f"its {what} {said} is missing in it", "docker pull or build it for this platform, save anew")
    if type(size) is not int or extent.size_bytes != size:
        raise outer.error(f"its {what} {said} is damaged: {extent.size_bytes} bytes, not {size}")
    return extent


def _blob(outer: Outer, descriptor: Descriptor, what: str) -> Blob:
    """A description, verified."""
    _extent(outer, descriptor, what)
    said = str(descriptor["digest"])
    data = outer.document(f"blobs/sha256/{said.removeprefix('sha256:')}")
    if digest(data) != said:
        raise outer.error(f"its {what} is damaged: it is {digest(data)}, not {said}")
    return Blob(said, len(data), str(descriptor["mediaType"]), data=data)


def _layer(outer: Outer, descriptor: Descriptor) -> Found:
    extent = _extent(outer, descriptor, "layer")
    return Found(descriptor["digest"], extent, descriptor["digest"], descriptor["mediaType"])
