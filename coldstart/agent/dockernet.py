"""The network of a run's containers: a bridge of its own, with addresses that nobody had before.

The subnet is one nobody routes: 198.18.0.0/15, which RFC 2544 sets aside for benchmarks, then parts of 10.0.0.0/8. The
bridge is called cs-<8 hex of the run's hash>; containers and network bear the run's label.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coldstart.agent import netlink
from coldstart.agent.dockerapi import ApiError, Engine

ENDPOINT_MAC_SINCE = (1, 44)  # before, the container as a whole had one
SHORTEST_PREFIX = 8  # of a route that means a network
FIRST_HOST = 2  # .1 is the bridge
_POOLS = ("198.18.0.0/15", "10.200.0.0/13")
_SUBNET_BITS = 22  # 1,020 boots before an address comes again


@dataclass
class Network:
    """name: as the engine knows it; bridge: as the kernel does."""

    name: str
    bridge: str
    subnet: ipaddress.IPv4Network
    _next: int = field(default=FIRST_HOST)

    def next_address(self) -> str:
        """An address that was not used for as long as possible."""
        address = str(self.subnet[self._next])
        self._next = self._next + 1 if self._next + 2 < self.subnet.num_addresses else FIRST_HOST
        return address

    def ports(self) -> str:
        """The folder that lists what is plugged into the bridge; '' where /sys is another namespace's."""
        path = f"/sys/class/net/{self.bridge}/brif"
        return path if os.path.isdir(path) else ""

    def here(self) -> bool:
        """Whether the bridge is in this network namespace. Not by /sys, which may show another one's interfaces."""
        return self.bridge in {name for _, name in socket.if_nameindex()}


def create(engine: Engine, run: str, label: str) -> Network:
    """The run's network; found again if another target of the run has made it. ApiError if no subnet is free."""
    bridge = "cs-" + hashlib.sha256(run.encode()).hexdigest()[:8]
    name = f"coldstart-{run}"
    existing = _listed(engine, "/networks", {"name": [f"^{name}$"]})
    if existing:
        return Network(name, bridge, ipaddress.IPv4Network(existing[0]["IPAM"]["Config"][0]["Subnet"]))
    refusal = ApiError(0, "no free subnet for a network")
    with open("/proc/net/route", encoding="ascii") as file:
        routes = parse_routes(file.read())
    for subnet in candidates(run, routes):
        try:
            engine.call("POST", "/networks/create", _body(name, bridge, subnet, {label: run}))
            return Network(name, bridge, subnet)
        except ApiError as error:
            if "overlap" not in str(error).lower():
                raise
            refusal = error
    raise refusal


def candidates(run: str, routes: list[ipaddress.IPv4Network], limit: int = 16) -> Iterator[ipaddress.IPv4Network]:
    """Subnets nobody routes, in an order that differs from run to run."""
    start = int(hashlib.sha256(run.encode()).hexdigest()[:8], 16)
    for pool in _POOLS:
        subnets = list(ipaddress.IPv4Network(pool).subnets(new_prefix=_SUBNET_BITS))
        turned = subnets[start % len(subnets) :] + subnets[: start % len(subnets)]
        free = [subnet for subnet in turned if not any(subnet.overlaps(route) for route in routes)]
        yield from free[:limit]


def parse_routes(text: str) -> list[ipaddress.IPv4Network]:
    """Every route of the text of /proc/net/route (hexadecimal, in the host's byte order), but the default ones: a VPN
    may have two halves of one."""
    rows = [line.split() for line in text.splitlines()[1:]]
    routes = [(_address(row[1]), _address(row[7])) for row in rows if len(row) > 7]
    networks = [ipaddress.IPv4Network((net, mask), strict=False) for net, mask in routes]
    return [network for network in networks if network.prefixlen >= SHORTEST_PREFIX]


def mac_of(address: str) -> str:
    """A locally administered MAC address that goes with the IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\xc5" + socket.inet_aton(address))


def endpoint(network: str, address: str, version: str) -> dict[str, Any]:
    """The part of a container's description that gives it its addresses, as API `version` wants it."""
    own: dict[str, Any] = {"IPAMConfig": {"IPv4Address": address}}
    networking = {"NetworkingConfig": {"EndpointsConfig": {network: own}}}
    if tuple(map(int, version.split("."))) < ENDPOINT_MAC_SINCE:
        return {**networking, "MacAddress": mac_of(address)}
    own["MacAddress"] = mac_of(address)
    return networking


def may_add_neighbours(network: Network) -> bool:
    """Whether CAP_NET_ADMIN is ours over this bridge: by trying."""
    address = str(network.subnet[-2])
    try:
        netlink.add_neighbour(network.bridge, address, mac_of(address))
    except OSError:
        return False
    return True


def remove_marked(engine: Engine, label: str, run: str, *, but: str) -> list[str]:
    """Remove containers and networks that bear `run` in `label`; if `run` is empty, those of any run but `but`."""
    wanted = {"label": [f"{label}={run}" if run else label]}
    removed = []
    for container in _listed(engine, "/containers/json", wanted, all="true"):
        if run or container["Labels"][label] != but:
            _delete(engine, f"/containers/{container['Id']}", force="true", v="true")
            names = container["Names"] or [container["Id"][:12]]  # it has none while its removal is under way
            removed.append(f"container {names[0].lstrip('/')}")
    for network in _listed(engine, "/networks", wanted):
        if run or network["Labels"][label] != but:
            _delete(engine, f"/networks/{network['Id']}")
            removed.append(f"network {network['Name']}")
    return removed


def _delete(engine: Engine, path: str, **query: str) -> None:
    """Gone already is as good."""
    try:
        engine.call("DELETE", path, None, **query)
    except ApiError as error:
        if error.status not in (404, 409):  # 409: its removal is under way
            raise


def _listed(engine: Engine, path: str, filters: dict[str, list[str]], **query: str) -> list[dict[str, Any]]:
    return engine.call("GET", path, None, filters=json.dumps(filters), **query) or []


def _body(name: str, bridge: str, subnet: ipaddress.IPv4Network, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Labels": labels,
        "Options": {"com.docker.network.bridge.name": bridge},
        "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
    }


def _address(text: str) -> str:
    return socket.inet_ntoa(int(text, 16).to_bytes(4, "little"))
