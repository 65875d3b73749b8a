"""A container in the Engine API's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coldstart.agent.dockernet import endpoint


@dataclass(frozen=True)
class Wanted:
    """address: its own, on `network`, with the MAC address that goes with it; empty: the engine's choice.
    published: container port -> port of 127.0.0.1. `{nonce}` in env and args is filled in."""

    image: str
    env: Mapping[str, str]
    args: tuple[str, ...]
    labels: Mapping[str, str]
    memory_bytes: int
    network: str
    address: str
    published: Mapping[int, int]


def container(wanted: Wanted, *, nonce: str, version: str) -> dict[str, Any]:
    """The body of /containers/create, for this version of the API."""
    host: dict[str, Any] = {"NetworkMode": wanted.network, "Memory": wanted.memory_bytes}
    body: dict[str, Any] = {
        "Image": wanted.image,
        "Env": [f"{name}={value.replace('{nonce}', nonce)}" for name, value in wanted.env.items()],
        "Labels": dict(wanted.labels),
        "HostConfig": host,
    }
    if wanted.args:
        body["Cmd"] = [arg.replace("{nonce}", nonce) for arg in wanted.args]
    if wanted.published:
        ports = {
            f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(p)}] for inside, p in wanted.published.items()
        }
        host["PortBindings"] = ports
        body["ExposedPorts"] = {port: {} for port in ports}
    return {**body, **endpoint(wanted.network, wanted.address, version)} if wanted.address else body
