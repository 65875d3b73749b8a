"""The built-in images, file by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coldstart.report.document import dumps
from coldstart.report.text import table
from coldstart.units import format_bytes

_HEADERS = (("name", False), ("arch", False), ("part", False), ("size", True), ("digest", False), ("path", False))
_DIGEST_SHOWN = len("sha256:") + 12


def as_table(images: Sequence[Mapping[str, Any]], *, width: int | None = None) -> str:
    """width: of the terminal, None if it is not one."""
    rows = [
        [i["name"], i["arch"], i["part"], format_bytes(i["size_bytes"]), i["digest"][:_DIGEST_SHOWN], str(i["path"])]
        for i in images
    ]
    return table(rows, _HEADERS, width=width)


def as_json(images: Sequence[Mapping[str, Any]]) -> str:
    """A list of objects: name, arch, part, path, bytes, digest."""
    keys = ("name", "arch", "part")
    rows = [
        {**{key: image[key] for key in keys}, "path": str(image["path"]), "bytes": image["size_bytes"],
         "digest": image["digest"]}
        for image in images
    ]  # fmt: skip
    return dumps(rows) + "\n"
