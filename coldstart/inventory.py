"""WHERE: Ansible's YAML inventory format, read strictly.

`all: {hosts, children, vars}`, children nested, as Ansible merges them: groups by depth and then by name, the host's
own variables last; a host in several groups is one host. What this version does not read (ranges, templates, vault,
group_vars folders, priorities, passwords) and what Ansible would only warn of (an unknown variable of Ansible's or
ours, a group named like a host) is refused with file:line, never skipped. Other variables are kept as they are.

Whether a node can be driven is not decided here: any `ansible_connection` is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from coldstart import shipped, yamlfile
from coldstart.agent import runtimes
from coldstart.errors import DocumentError, UsageError
from coldstart.model import Node
from coldstart.yamlfile import Document, Loc

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SECRET = re.compile(r"ansible_.*(pass|passwd|password|passphrase|private_key)")
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
    for name in document.data:
        tree.add_group(name, (name,), _validated(document, _Group, document.data[name] or {}, (name,)))
    tree.check_names()
    depths = tree.depths()
    nodes = tuple(_node(tree, host, depths) for host in tree.hosts)
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
        raise yamlfile.UnknownKey(key, "a variable's name must be text", "put it in quotes")
    if key in known or not key.startswith(("ansible_", "coldstart_")):
        return
    if _SECRET.fullmatch(key):
        raise yamlfile.UnknownKey(key, "passwords are not read from an inventory", "use a key; become is `sudo -n`")
    if key == "ansible_group_priority":
        raise yamlfile.UnknownKey(key, "priorities are not read by this version", "groups merge by depth, then by name")
    raise yamlfile.UnknownKey(key, "unknown variable", yamlfile.suggestion(key, known))


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    hosts: dict[str, dict[str | int, Any] | None] | None = None
    children: dict[str, _Group | None] | None = None
    vars: dict[str | int, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        return yamlfile.known_keys(data, cls.model_fields)


def _validated[Model: BaseModel](document: Document, model: type[Model], data: Any, at: Loc) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise document.refusal(error.errors(include_url=False), at) from None
