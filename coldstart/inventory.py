"""WHERE: Ansible's YAML inventory format, read strictly.

`all: {hosts, children, vars}`, children nested, hosts as ranges too; with `group_vars/` and `host_vars/` beside the
file; or, as `-`, what `ansible-inventory --list` prints. Merged as Ansible merges (`hosttree`), typed as Ansible types
(`yamlfile`). What is not read (templates, vault, passwords) and what Ansible would only warn of (an unknown variable of
Ansible's or ours, a group named like a host) is refused with file:line, never skipped. Other variables are kept as
they are.

Whether a node can be driven is not decided here: any `ansible_connection` is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from coldstart import hostrange, piped, shipped, variables, yamlfile
from coldstart.errors import DocumentError, UsageError
from coldstart.groupvars import Folders
from coldstart.hosttree import Tree
from coldstart.model import Group, Node
from coldstart.patterns import Patterns
from coldstart.yamlfile import Document, Loc

STDIN = "-"
_GROUP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PRIORITY = "ansible_group_priority"


@dataclass(frozen=True)
class Inventory:
    """nodes: in the order of the file, variables merged; groups: all of them, with `all` and `ungrouped`; text: as it
    was read."""

    path: str
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...] = ()
    text: str = ""


def find(name: str) -> Path:
    """A file, or a shipped inventory by name, or `-`. UsageError lists what is shipped."""
    return Path(STDIN) if name == STDIN else shipped.find("inventories", name)


def load(path: str | Path) -> Inventory:
    """Read an inventory; `-` is standard input. DocumentError with file:line, whatever is wrong with it."""
    document = _document(path)
    tree = Tree()
    if "_meta" in document.data:
        _add_listed(document, tree)
    else:
        _add_written(document, tree)
    tree.close()
    nodes = tree.nodes(_none if str(path) == STDIN else Folders(document.path).vars)
    if not nodes:
        raise document.refuse((), "no hosts", "add one below `all: hosts:`")
    return Inventory(str(path), nodes, tree.groups(), document.text)


def select(inventory: Inventory, pattern: str) -> tuple[Node, ...]:
    """The nodes `--limit` names (`patterns`), in the order of the inventory. UsageError for a name that matches
    nothing and when no node is left."""
    hosts = [node.name for node in inventory.nodes]
    chosen = Patterns(hosts, inventory.groups).select(pattern)
    if not chosen:
        raise UsageError(f"--limit {pattern}: no node of {inventory.path} is left")
    return tuple(node for node in inventory.nodes if node.name in chosen)


def _document(path: str | Path) -> Document:
    if str(path) != STDIN:
        return piped.load(path)
    text = yamlfile.decoded(_stdin(), "<stdin>")
    if not text.strip():
        raise DocumentError("<stdin>:1: empty", hint="ansible-inventory -i INVENTORY --list | coldstart ... -")
    if text.lstrip().startswith("{"):
        return piped.parse(text, "<stdin>")
    return yamlfile.parse(text, "<stdin>", ansible=True)


@cache
def _stdin() -> bytes:
    """It can be read only once, and a verb may ask twice."""
    return sys.stdin.buffer.read(yamlfile.MAX_BYTES + 1)


def _none(*_: str) -> Mapping[str, Any]:
    """What Ansible prints has the folders' variables in it."""
    return {}


# -- as it is written


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    hosts: dict[str, dict[str | int, Any] | None] | None = None
    children: dict[str, _Group | None] | None = None
    vars: dict[str | int, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        return yamlfile.known_keys(data, cls.model_fields)


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(document: Document, model: type[_Model], data: Any, at: Loc) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise document.refusal(error.errors(include_url=False), at) from None


def _add_written(document: Document, tree: Tree) -> None:
    for name, data in document.data.items():
        if not isinstance(name, str):
            raise document.refuse((name,), f"{name}: a group's name must be text", "put it in quotes")
        _validated(document, _Group, {} if data is None else data, (name,))
        _add_group(document, tree, (name,), data)


def _add_group(document: Document, tree: Tree, loc: Loc, data: dict[str, Any] | None) -> None:
    """In the order it is written, which is that of the hosts."""
    name = _group_name(document, loc)
    tree.add_group(name, document.where(loc))
    for section, inner in (data or {}).items():
        at = (*loc, section)
        if section == "vars":
            _add_vars(document, tree, at, inner or {})
        elif section == "hosts":
            for key, values in (inner or {}).items():
                _add_hosts(document, tree, (*at, key), values)
        else:
            for child, below in (inner or {}).items():
                _add_group(document, tree, (*at, child), below)
                tree.add_child(name, child, document.where((*at, child)))


def _add_vars(document: Document, tree: Tree, loc: Loc, values: Mapping[str | int, Any]) -> None:
    name, priority = str(loc[-2]), values.get(_PRIORITY)
    if _PRIORITY in values:
        if isinstance(priority, str) and re.fullmatch("-?[0-9]{1,9}", priority):
            priority = int(priority)
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise document.refusal_of((*loc, _PRIORITY), f"must be a whole number, not {priority!r:.80}")
        if name == "all":
            raise document.refusal_of((*loc, _PRIORITY), "all comes first, whatever its priority", "leave it out")
    own = {key: value for key, value in values.items() if key != _PRIORITY}
    tree.set_vars(name, variables.checked(document, own, loc), priority)


def _add_hosts(document: Document, tree: Tree, loc: Loc, values: Mapping[str | int, Any] | None) -> None:
    group, where = str(loc[-3]), document.where(loc)
    try:
        names, port = hostrange.expand(str(loc[-1]))
    except hostrange.HostNameError as error:
        raise document.refuse(loc, str(error), error.hint) from None
    own = variables.checked(document, values, loc)
    for name in names:
        tree.add_host(name, group, where, port=port)
        tree.set_host_vars(name, own)


def _group_name(document: Document, loc: Loc) -> str:
    name = str(loc[-1])
    if not _GROUP_NAME.fullmatch(name):
        raise document.refuse(loc, f"{name!r} is not a group name", "letters, digits, _ . -")
    return name


# -- as ansible-inventory lists it


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    hosts: list[str] = []
    children: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if isinstance(data, dict) and "vars" in data:
            raise yamlfile.UnknownKeyError("vars", "the hosts' variables are not merged", "list without --export")
        return yamlfile.known_keys(data, cls.model_fields)


def _add_listed(document: Document, tree: Tree) -> None:
    """Its hostvars are final: nothing else counts for a host."""
    final = document.data["_meta"]["hostvars"]
    groups = {name: data for name, data in document.data.items() if name != "_meta"}
    for name, data in groups.items():
        listed = _validated(document, _Listed, data, (name,))
        tree.add_group(_group_name(document, (name,)), document.where((name,)))
        for index, host in enumerate(listed.hosts):
            if not hostrange.is_name(host):
                raise document.refuse((name, "hosts", index), f"{host!r} is not a host name", "letters, digits, _ . -")
            tree.add_host(host, name, document.where((name, "hosts", index)))
            values = final.get(host, {})
            if not isinstance(values, dict):
                raise document.refusal_of(("_meta", "hostvars", host), "must be a mapping of keys to values")
            tree.set_host_vars(host, variables.checked(document, values, ("_meta", "hostvars", host)))
    for name, data in groups.items():
        for index, child in enumerate(data.get("children", ())):
            where = document.where((name, "children", index))
            tree.add_group(child, where)  # one without hosts is not listed by itself
            tree.add_child(name, child, where)
