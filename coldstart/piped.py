"""JSON as a document that knows its lines: what `ansible-inventory --list` prints, and Ansible's files called .json.

Not read as YAML, although JSON nearly is: characters outside the basic plane are written as two escapes there, and it
may be long. Nothing is refused here but what is no such JSON; templates and the like are, as anywhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coldstart import yamlfile
from coldstart.errors import DocumentError
from coldstart.yamlfile import Document, Loc

_HINT = "pipe what `ansible-inventory -i INVENTORY --list` prints"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:\n]|[^\s"{}\[\],:]+')


def parse(text: str, path: str) -> Document:
    """DocumentError if it is no JSON object with `_meta: {hostvars: {}}`."""
    try:
        document = read(text, path)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{path}:{error.lineno}: not valid JSON: {error.msg}", hint=_HINT) from None
    meta = document.data.get("_meta")
    if not isinstance(meta, dict) or not isinstance(meta.get("hostvars"), dict):
        raise DocumentError(f"{path}:1: no `_meta` with `hostvars` in it", hint=_HINT)
    return document


def read(text: str, path: str) -> Document:
    """Any JSON object. json.JSONDecodeError if it is no JSON at all, DocumentError if it is not what we read."""
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise DocumentError(f"{path}:1: nested too deeply") from None
    except ValueError as error:
        raise DocumentError(f"{path}:1: {error}") from None
    if not isinstance(data, dict):
        raise DocumentError(f"{path}:1: not a mapping: the file must consist of one object")
    document = Document(path, text, data, _lines(text))
    for loc, value in _texts(data, ()):
        if len(loc) > yamlfile.MAX_DEPTH:
            raise document.refuse(loc, "nested too deeply")
        if fault := yamlfile.text_fault(value):
            raise document.refusal_of(loc, *fault)
    return document


def load(path: str | Path) -> Document:
    """A file of Ansible's. One that is called .json is JSON first, and if it is none, YAML, as with Ansible."""
    if Path(path).suffix == ".json":
        try:
            return read(yamlfile.decoded(Path(path).read_bytes(), str(path)), str(path))
        except (OSError, json.JSONDecodeError):
            pass
    return yamlfile.load(path, ansible=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return found


def _texts(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Every text and where it is; of what is nested too deeply only that it is."""
    if isinstance(value, str) or len(loc) > yamlfile.MAX_DEPTH:
        yield loc, value if isinstance(value, str) else ""
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*loc, key), key
            yield from _texts(inner, (*loc, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*loc, index))


def _lines(text: str) -> dict[Loc, int]:
    """The line of every key and item of a valid JSON text."""
    lines: dict[Loc, int] = {(): 1}
    path: list[str | int] = []  # of the value that is being read; a key that is still to come is ""
    is_key, line = False, 1
    for token in (match[0] for match in _TOKEN.finditer(text)):
        if token == "\n":
            line += 1
        elif token in "]}":
            path.pop()
            is_key = False
        elif token == ",":
            is_key = isinstance(path[-1], str)
            path[-1] = "" if is_key else int(path[-1]) + 1
        elif is_key and token != ":":
            path[-1] = json.loads(token)
            lines[tuple(path)] = line
            is_key = False
        elif token != ":":
            lines.setdefault(tuple(path), line)
            if token in "{[":
                path.append("" if token == "{" else 0)
                is_key = token == "{"
    return lines
