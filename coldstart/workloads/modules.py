"""Kernel modules: which there are, what they need, and the order in which they can be loaded.

What a module needs is read from itself (`depends=` in its .modinfo): a package brings no modules.dep, because that is
made where it is installed. Names are written with underscores, as the kernel does; their files may have dashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_FILE = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(?:.*/)?([^/]+)\.ko(?:\.(?:gz|xz|zst))?")
_BUILTIN = re.compile(r"([^/\s]+)\.ko\s*$", re.MULTILINE)
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")


def index(paths: Iterable[str], release: str) -> dict[str, str]:
    """The modules among these files, by name; paths: from the root."""
    found = {}
    for path in paths:
        match = _FILE.fullmatch(path)
        if match and match[1] == release:
            found[_name(match[2])] = path
    return found


def built_in(text: str) -> frozenset[str]:
    """The names in a modules.builtin."""
    return frozenset(_name(name) for name in _BUILTIN.findall(text))


def depends(module: bytes) -> list[str]:
    """What it needs, from an uncompressed module."""
    match = _DEPENDS.search(module)
    return [_name(name) for name in match[1].decode().split(",") if name] if match else []


def order(wanted: Iterable[str], needs: Callable[[str], Iterable[str]]) -> list[str]:
    """The wanted modules and all they need, each once, and none before what it needs."""
    done: dict[str, None] = {}
    begun = set()

    def visit(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        for needed in needs(name):
            visit(needed)
        done[name] = None

    for name in wanted:
        visit(name)
    return list(done)


def _name(stem: str) -> str:
    return stem.replace("-", "_")
