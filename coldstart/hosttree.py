"""Groups and hosts as an inventory names them, and the variables each host ends up with: Ansible's order, exactly.

`all` < groups < group_vars/all < group_vars/* < the host < host_vars/*: groups by depth, `ansible_group_priority` and
name, and what stands in the inventory itself before what stands in a folder beside it. A value replaces another whole,
mappings too. A group or host met again is the same one.

Refused are the few trees in which Ansible's own result hangs on the order of its internals: `ungrouped` inside another
group, groups inside `ungrouped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

from coldstart import variables
from coldstart.errors import DocumentError
from coldstart.model import Group, Node

MAX_HOSTS = 100_000
# What the files beside an inventory say: of `group_vars` or `host_vars`, of one name.
Files = Callable[[str, str], Mapping[str, Any]]


@dataclass
class _Group:
    where: str
    vars: dict[str, Any] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)  # a set that keeps its order, as the two below
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    priority: int = 1


@dataclass
class _Host:
    where: str
    port: int | None
    vars: dict[str, Any] = field(default_factory=dict)


class Tree:
    """Filled in the order of the document, then asked for `nodes` and `groups`. where: file:line, for messages."""

    def __init__(self) -> None:
        self._groups = {"all": _Group(""), "ungrouped": _Group("")}
        self._hosts: dict[str, _Host] = {}
        self._link("all", "ungrouped")

    def add_group(self, name: str, where: str) -> None:
        group = self._groups.setdefault(name, _Group(where))
        group.where = group.where or where

    def add_child(self, parent: str, child: str, where: str) -> None:
        """DocumentError if they would contain each other."""
        if child == "all" or parent in self._below(child):
            raise DocumentError(f"{where}: groups that contain each other: {parent} > {child}", hint="remove one")
        if "ungrouped" in (parent, child) and (parent, child) != ("all", "ungrouped"):
            raise DocumentError(
                f"{where}: {parent} > {child}: ungrouped is what is in no other group", hint="rename it"
            )
        self._link(parent, child)

    def set_vars(self, group: str, values: Mapping[str, Any], priority: int | None = None) -> None:
        self._groups[group].vars |= values
        if priority is not None:
            self._groups[group].priority = priority

    def add_host(self, name: str, group: str, where: str, *, port: int | None = None) -> None:
        """port: as it was written behind the name; it counts where the host is named first."""
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) == MAX_HOSTS:
                raise DocumentError(f"{where}: more than {MAX_HOSTS:,} hosts", hint="is a range mistyped?")
            host = self._hosts[name] = _Host(where, port, {} if port is None else {"ansible_port": port})
        elif port not in (None, host.port):
            raise DocumentError(
                f"{where}: {name} was named first at {host.where}: its port counts there", hint="move it"
            )
        self._groups[group].hosts[name] = None

    def set_host_vars(self, host: str, values: Mapping[str, Any]) -> None:
        self._hosts[host].vars |= values

    def close(self) -> None:
        """All is there: what is in no group is ungrouped, what has no parent is below all."""
        for name in self._groups.keys() & self._hosts.keys():
            raise DocumentError(f"{self._hosts[name].where}: {name!r} is a group and a host", hint="rename one")
        for name, group in self._groups.items():
            if name != "all" and not group.parents:
                self._link("all", name)
        grouped = {
            host for name, group in self._groups.items() if name not in ("all", "ungrouped") for host in group.hosts
        }
        ungrouped = self._groups["ungrouped"]
        ungrouped.hosts = {host: None for host in (*ungrouped.hosts, *self._hosts) if host not in grouped}

    def groups(self) -> tuple[Group, ...]:
        """Every group, in the order they are met."""
        return tuple(Group(name, tuple(group.hosts), tuple(group.children)) for name, group in self._groups.items())

    def nodes(self, files: Files) -> tuple[Node, ...]:
        """Every host with its variables merged, in the order they are met."""
        depths = self._depths()
        rank = {name: (depths[name], group.priority, name) for name, group in self._groups.items()}
        above = {name: self._above(name) for name in self._groups}
        inside: dict[str, set[str]] = {host: set() for host in self._hosts}
        for name, group in self._groups.items():
            for host in group.hosts:
                inside[host] |= above[name]
        return tuple(
            self._node(host, sorted(inside[host] - {"all"}, key=rank.__getitem__), files) for host in self._hosts
        )

    def _node(self, name: str, groups: list[str], files: Files) -> Node:
        host = self._hosts[name]
        merged = dict(self._groups["all"].vars)
        for values in self._layers(groups, files):
            merged |= values
        merged |= host.vars
        merged |= files("host_vars", name)
        try:
            settings = variables.settings(merged)
        except variables.VariableError as error:
            raise DocumentError(f"{host.where}: {name}: {error.key}: {error}", hint=error.hint) from None
        local = settings.get("ansible_connection") == "local"
        site = settings.get("coldstart_site") or ("local" if local else "unknown")
        return Node(name, site, tuple(groups), merged, host.where, settings)

    def _layers(self, groups: Iterable[str], files: Files) -> Iterator[Mapping[str, Any]]:
        yield from (self._groups[name].vars for name in groups)
        yield from (files("group_vars", name) for name in ("all", *groups))

    def _link(self, parent: str, child: str) -> None:
        self._groups[parent].children[child] = None
        self._groups[child].parents[parent] = None

    def _below(self, name: str) -> set[str]:
        return self._reached(name, lambda group: group.children)

    def _above(self, name: str) -> set[str]:
        return self._reached(name, lambda group: group.parents)

    def _reached(self, name: str, ways: Callable[[_Group], Iterable[str]]) -> set[str]:
        """The group, and all that is to be had from it."""
        reached, waiting = {name}, [name]
        while waiting:
            new = set(ways(self._groups[waiting.pop()])) - reached
            reached |= new
            waiting += new
        return reached

    def _depths(self) -> dict[str, int]:
        """Of each group the longest way from all."""
        depths: dict[str, int] = {}
        for name in TopologicalSorter({name: group.parents for name, group in self._groups.items()}).static_order():
            depths[name] = 1 + max((depths[parent] for parent in self._groups[name].parents), default=-1)
        return depths
