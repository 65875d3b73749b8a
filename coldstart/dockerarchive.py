"""What `docker save` and its like write: a manifest.json that names a config and layers.

It has no manifest that a registry could serve; one is made. Layers may be compressed or stand behind links. Nothing
says what a layer hashes to as it is stored, unless its name does (`blobs/sha256/...`); the config says it of the
unpacked one, and the config's name, nearly always, what the config hashes to.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from coldstart.assembly import Found, assemble, refuse_elsewhere
from coldstart.outer import AGAIN, Outer
from coldstart.source import CONFIG_TYPE, Source, digest, in_memory

MANIFEST = "manifest.json"
_CONFIG = re.compile(r"(?:.*/|sha256:)?([0-9a-f]{64})(?:\.json)?", re.ASCII)
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})", re.ASCII)


def read(outer: Outer, arch: str) -> Source:
    """The one image in it, all of it verified. ImageError says what is wrong."""
    entries = _entries(outer)
    if len(entries) > 1:
        raise outer.error(f"it holds {len(entries)} images", "save one alone: docker save -o FILE IMAGE")
    (entry,) = entries
    _refuse_layers_elsewhere(outer, entry)
    name = outer.text(entry, "Config")
    config = in_memory(outer.document(name), CONFIG_TYPE)
    if (said := _digest_in(_CONFIG, name)) and said != config.digest:
        raise outer.error(f"its config is damaged: it is {config.digest}, not {said}")
    found = [Found(each, outer.get(each), _digest_in(_BLOB, each)) for each in outer.texts(entry, "Layers")]
    tags = tuple(outer.texts(entry, "RepoTags"))
    return dataclasses.replace(assemble(outer, arch, config=config, found=found), tags=tags)


def tags_of(outer: Outer, config_digest: str) -> list[str]:
    """What manifest.json calls the image with this config. ImageError if it does not know it."""
    for entry in _entries(outer):
        name = outer.text(entry, "Config")
        if (_digest_in(_CONFIG, name) or digest(outer.document(name))) == config_digest:
            return outer.texts(entry, "RepoTags")
    raise outer.error("its manifest.json and its index.json are of different images")


def _entries(outer: Outer) -> list[dict[str, Any]]:
    if outer.find(MANIFEST) is None:
        raise outer.error("no manifest.json in it: not what `docker save` writes", AGAIN)
    entries = outer.json(outer.document(MANIFEST), MANIFEST)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise outer.error("its manifest.json lists no image")
    return entries


def _refuse_layers_elsewhere(outer: Outer, entry: dict[str, Any]) -> None:
    sources = entry.get("LayerSources") or {}
    for described in sources.values() if isinstance(sources, dict) else ():
        refuse_elsewhere(outer, described.get("mediaType") if isinstance(described, dict) else None)


def _digest_in(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.fullmatch(name)
    return f"sha256:{match[1]}" if match else ""
