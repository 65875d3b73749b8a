"""WHERE: Ansible's YAML inventory format, read strictly.

`all: {hosts, children, vars}`, children nested, as Ansible merges them: groups by depth and then by name, the host's
own variables last; a host in several groups is one host. What this version does not read (ranges, templates, vault,
group_vars folders, priorities, passwords) and what Ansible would only warn of (an unknown variable of Ansible's or
ours, a group named like a host) is refused with file:line, never skipped. Other variables are kept as they are.

Whether a node can be driven is not decided here: any `ansible_connection` is read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from coldstart import shipped, yamlfile
from coldstart.agent import runtimes
from coldstart.errors import UsageError
from coldstart.model import Node
from coldstart.yamlfile import Document, Loc

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SECRET = re.compile(r"ansible_.*(pass|passwd|password|passphrase)")
_MERGED = "ansible-inventory -i {} --list --yaml prints all of it as one file; save that in another folder"


@dataclass(frozen=True)
class Inventory:
    """nodes: in the order of the file, variables merged."""

    path: str
    nodes: tuple[Node, ...]


def find(name: str) -> Path:
    """A file, or a shipped inventory by name. UsageError lists what is shipped."""
    return shipped.find("inventories", name)


def load(path: str | Path) -> Inventory:
    """Read an inventory. DocumentError with file:line, whatever is wrong with it."""
    document = yamlfile.load(path)
    _refuse_folders(document)
    tree = _Tree(document)
    for name, data in document.data.items():
        if not isinstance(name, str):
            raise document.refuse((name,), f"{name}: a group's name must be text", "put it in quotes")
        group = _validated(document, _Group, {} if data is None else data, (name,))
        tree.add_group(name, group, (name,))
    nodes = tree.nodes()
    if not nodes:
        raise document.refuse((), "no hosts", "add one below `all: hosts:`")
    return Inventory(str(path), nodes)


def select(inventory: Inventory, pattern: str) -> tuple[Node, ...]:
    """The nodes `--limit` names: hosts, groups and globs, `,` or `:` between them; `&group` keeps only what is in it
    too, `!host` takes away. As in Ansible, first all names are added up, then `&`, then `!` applied, in any order
    they are written. UsageError for a name that matches nothing and when no node is left."""
    words = [word.strip() for word in re.split("[,:]", pattern) if word.strip()]
    plain = [word for word in words if word[0] not in "&!"]
    chosen = set().union(*(_matches(inventory, word, pattern) for word in plain or ["all"]))
    for word in words:
        if word[0] == "&":
            chosen &= _matches(inventory, word[1:], pattern)
    for word in words:
        if word[0] == "!":
            chosen -= _matches(inventory, word[1:], pattern)
    if not chosen:
        raise UsageError(f"--limit {pattern}: no node of {inventory.path} is left")
    return tuple(node for node in inventory.nodes if node.name in chosen)


def _matches(inventory: Inventory, word: str, pattern: str) -> set[str]:
    if word.startswith(("~", "@")) or "[" in word:
        raise UsageError(f"--limit {pattern}: {word!r}: only names and the globs * and ? are read")
    names = {node.name: {node.name, "all", *node.groups} for node in inventory.nodes}
    found = {host for host, known in names.items() if any(fnmatchcase(name, word) for name in known)}
    if not found:
        known = sorted(set().union(*names.values()))
        raise UsageError(f"--limit {pattern}: no host or group {word!r}", hint=yamlfile.suggestion(word, known))
    return found


def _refuse_folders(document: Document) -> None:
    for folder in ("group_vars", "host_vars"):
        if (Path(document.path).parent / folder).is_dir():
            raise document.refuse((), f"{folder}/ beside it is not read by this version", _MERGED.format(document.path))


# -- what may be written


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ValueError(f"{value} is not a port: 1..65535")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError(f"{value}: at least 1")
    return value


def _number(value: Any) -> Any:
    """Ansible takes "22" for 22, and `ansible-inventory` may write it so."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _runtimes(value: Any) -> tuple[str, ...]:
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not words:
        raise ValueError("must be a list of runtimes: [process, docker]")
    known = runtimes.names()
    for word in words:
        if word not in known:
            raise ValueError(f"no runtime {word!r}: {yamlfile.suggestion(word, known)}")
    return tuple(words)


_Bool = Annotated[bool, BeforeValidator(yamlfile.as_bool)]


class _Vars(BaseModel):
    """The variables that mean something here. Any other that is not `ansible_*` or `coldstart_*` is the user's own."""

    model_config = ConfigDict(extra="allow", strict=True)

    ansible_host: str = ""
    ansible_port: Annotated[int, BeforeValidator(_number), AfterValidator(_port)] = 22
    ansible_user: str = ""
    ansible_connection: str = "ssh"
    ansible_python_interpreter: str = ""
    ansible_ssh_private_key_file: str = ""
    ansible_ssh_common_args: str = ""
    ansible_become: _Bool = False
    coldstart_site: str = ""
    coldstart_runtimes: Annotated[tuple[str, ...], BeforeValidator(_runtimes)] = ()
    coldstart_docker_host: str = ""
    coldstart_max_parallel: Annotated[int, BeforeValidator(_number), AfterValidator(_positive)] = 1

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            _check_variable(key, list(cls.model_fields))
        return data


def _check_variable(key: str | int, known: list[str]) -> None:
    if not isinstance(key, str):
        raise yamlfile.UnknownKeyError(key, "a variable's name must be text", "put it in quotes")
    if key in known or not key.startswith(("ansible_", "coldstart_")):
        return
    if _SECRET.fullmatch(key):
        raise yamlfile.UnknownKeyError(
            key, "passwords are not read from an inventory", "use a key; become is `sudo -n`"
        )
    if key == "ansible_group_priority":
        raise yamlfile.UnknownKeyError(
            key, "priorities are not read by this version", "groups merge by depth, then by name"
        )
    raise yamlfile.UnknownKeyError(key, "unknown variable", yamlfile.suggestion(key, known))


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


# -- how it merges


class _Tree:
    """Groups and hosts as they are found; a group or host met again is the same one, and later values win."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._parents: dict[str, set[str]] = {"all": set(), "ungrouped": set()}
        self._group_vars: dict[str, dict[str, Any]] = defaultdict(dict)
        self._host_vars: dict[str, dict[str, Any]] = defaultdict(dict)
        self._direct: dict[str, set[str]] = defaultdict(set)
        self._found: dict[str, Loc] = {}  # where a group or host is first named

    def add_group(self, name: str, group: _Group, loc: Loc) -> None:
        self._name("group", name, loc)
        self._parents.setdefault(name, set())
        self._group_vars[name] |= self._vars(group.vars, (*loc, "vars"))
        for host, data in (group.hosts or {}).items():
            self._add_host(host, data, name, (*loc, "hosts", host))
        for child, inner in (group.children or {}).items():
            self.add_group(child, inner or _Group(), (*loc, "children", child))
            self._parents[child].add(name)

    def nodes(self) -> tuple[Node, ...]:
        """Every host with its variables merged."""
        for host in sorted(self._direct.keys() & self._parents.keys()):
            raise self._document.refuse(self._found[host], f"{host!r} is a group and a host", "rename one")
        for name in self._parents.keys() - {"all"}:
            self._parents[name] = self._parents[name] or {"all"}
        order = self._outermost_first()
        depths: dict[str, int] = {}
        above: dict[str, set[str]] = {}
        for name in order:
            depths[name] = 1 + max((depths[parent] for parent in self._parents[name]), default=-1)
            above[name] = {name}.union(*(above[parent] for parent in self._parents[name]))
        rank = {name: index for index, name in enumerate(sorted(order, key=lambda name: (depths[name], name)))}
        return tuple(self._node(host, above, rank) for host in self._direct)

    def _add_host(self, host: str, data: dict[str | int, Any] | None, group: str, loc: Loc) -> None:
        if "[" in host:
            raise self._document.refuse(loc, f"{host!r}: host ranges are not read by this version", "write each host")
        if ":" in host:
            raise self._document.refuse(
                loc, f"{host!r}: not a host name", "write ansible_host and ansible_port below it"
            )
        self._name("host", host, loc)
        self._direct[host].add(group)
        self._host_vars[host] |= self._vars(data, loc)

    def _name(self, kind: str, name: str, loc: Loc) -> None:
        if not _NAME.fullmatch(name):
            raise self._document.refuse(loc, f"{name!r} is not a {kind} name", "letters, digits, _ . -")
        self._found.setdefault(name, loc)

    def _vars(self, data: dict[str | int, Any] | None, loc: Loc) -> dict[str, Any]:
        return _validated(self._document, _Vars, data or {}, loc).model_dump(exclude_unset=True)

    def _outermost_first(self) -> list[str]:
        try:
            return list(TopologicalSorter(self._parents).static_order())
        except CycleError as error:
            names = error.args[1]
            loc = max((self._found[name] for name in names if name in self._found), key=self._document.line)
            raise self._document.refuse(loc, f"groups that contain each other: {' > '.join(names)}") from None

    def _node(self, host: str, above: dict[str, set[str]], rank: dict[str, int]) -> Node:
        direct = self._direct[host] - {"all", "ungrouped"} or {"ungrouped"}
        groups = sorted(set().union(*(above[name] for name in direct)), key=rank.__getitem__)
        merged: dict[str, Any] = {}
        for name in groups:
            merged |= self._group_vars[name]
        merged |= self._host_vars[host]
        local = merged.get("ansible_connection") == "local"
        return Node(
            name=host,
            site=merged.get("coldstart_site") or ("local" if local else "unknown"),
            groups=tuple(name for name in groups if name != "all"),
            vars=merged,
            where=self._document.where(self._found[host]),
        )
