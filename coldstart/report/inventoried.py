"""An inventory as it was understood: as a table for people, and as JSON in the shape of `ansible-inventory --list`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from coldstart.model import Group, Node
from coldstart.report.text import table
from coldstart.report.words import NONE

_HEADERS = (("node", False), ("site", False), ("address", False), ("groups", False), ("settings", False))
_PREFIX = "coldstart_"


def as_table(nodes: Sequence[Node], *, width: int | None = None) -> str:
    """width: of the terminal, None if it is not one."""
    rows = [
        [node.name, node.site, address(node), ", ".join(node.groups), ", ".join(_settings(node)) or NONE]
        for node in nodes
    ]
    return table(rows, _HEADERS, width=width)


def as_json(nodes: Sequence[Node], groups: Sequence[Group]) -> str:
    """Groups that contain nothing are left out, as Ansible leaves them out; of the hosts only `nodes` are listed. Not
    strict where the inventory is not: Ansible, too, writes an infinite number as Infinity."""
    listed: dict[str, Any] = {"_meta": {"hostvars": {node.name: dict(node.vars) for node in nodes if node.vars}}}
    known = {node.name for node in nodes}
    for group in groups:
        hosts = [host for host in group.hosts if host in known] if group.name != "all" else []
        parts = {"children": list(group.children), "hosts": hosts}
        if entry := {key: part for key, part in parts.items() if part}:
            listed[group.name] = entry
    return json.dumps(listed, indent=2) + "\n"


def address(node: Node) -> str:
    """How it is reached: `user@host:port`, of which only the host is always there; or without a network: `local`."""
    settings = node.settings
    connection = settings.get("ansible_connection", "ssh")
    if connection == "local":
        return "local"
    host = str(settings.get("ansible_host", node.name))
    user = f"{settings['ansible_user']}@" if "ansible_user" in settings else ""
    port = f":{settings['ansible_port']}" if "ansible_port" in settings else ""
    where = f"{user}[{host}]{port}" if ":" in host and port else f"{user}{host}{port}"
    return where if connection == "ssh" else f"{connection} {where}"


def _settings(node: Node) -> Iterator[str]:
    """Those of ours, as they were written; the site has a column of its own."""
    for key in sorted(node.settings):
        if key.startswith(_PREFIX) and key != "coldstart_site":
            value = node.vars[key]
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{key.removeprefix(_PREFIX)}={text}"
