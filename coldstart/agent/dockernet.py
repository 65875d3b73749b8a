"""The network of a run's containers: a bridge of its own, with addresses that nobody had before.

The bridge is called cs-<8 hex of the run's hash>; containers and network bear the run's label.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from dataclasses import dataclass
from typing import Any

from coldstart.agent import netlink
from coldstart.agent.dockerapi import ApiError, Engine
from coldstart.agent.subnets import Addresses, bridge_name, free, mac_of

ENDPOINT_MAC_SINCE = (1, 44)  # before, the container as a whole had one


@dataclass
class Network:
    """name: as the engine knows it; bridge: as the kernel does."""

    name: str
    bridge: str
    addresses: Addresses

    def next_address(self, *, known: bool) -> str:
        """A fresh address; known: whose it will be, so that it can be asked for early. OSError if it cannot be."""
        address = self.addresses.take()
        if known:
            netlink.add_neighbour(self.bridge, address, mac_of(address))
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
    bridge = bridge_name(run)
    name = f"coldstart-{run}"
    existing = _listed(engine, "/networks", {"name": [f"^{name}$"]})
    if existing:
        subnet = ipaddress.IPv4Network(existing[0]["IPAM"]["Config"][0]["Subnet"])
        return Network(name, bridge, Addresses(subnet))
    refusal = ApiError(0, "no free subnet for a network")
    for subnet in free(run):
        try:
            engine.call("POST", "/networks/create", _body(name, bridge, subnet, {label: run}))
            return Network(name, bridge, Addresses(subnet))
        except ApiError as error:
            if "overlap" not in str(error).lower():
                raise
            refusal = error
    raise refusal


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
    address = network.addresses.spare
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
