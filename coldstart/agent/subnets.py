"""Addresses for a run's instances: a subnet that nobody routes, each address used once for as long as possible.

198.18.0.0/15, which RFC 2544 sets aside for benchmarks, then parts of 10.0.0.0/8. A hardware address goes with each, so
that both are fixed before an instance exists and its neighbour entry can be permanent.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Iterator

SHORTEST_PREFIX = 8  # of a route that means a network
FIRST_HOST = 2  # .1 is the bridge
_POOLS = ("198.18.0.0/15", "10.200.0.0/13")
_SUBNET_BITS = 22  # 1,020 boots before an address comes again


class Addresses:
    """The addresses of one subnet, in turn; the first is the bridge's."""

    def __init__(self, subnet: ipaddress.IPv4Network) -> None:
        self.subnet = subnet
        self._next = FIRST_HOST

    @property
    def gateway(self) -> str:
        """The bridge's own."""
        return str(self.subnet[1])

    @property
    def spare(self) -> str:
        """One that no instance gets: to try things with."""
        return str(self.subnet[-2])

    def take(self) -> str:
        """An address that was not used for as long as possible."""
        address = str(self.subnet[self._next])
        self._next = self._next + 1 if self._next + 2 < self.subnet.num_addresses - 1 else FIRST_HOST
        return address


def mac_of(address: str) -> str:
    """A locally administered MAC address that goes with the IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\xc5" + socket.inet_aton(address))


def bridge_name(seed: str) -> str:
    """A name for an interface of ours."""
    return "cs-" + hashlib.sha256(seed.encode()).hexdigest()[:8]


def free(run: str) -> Iterator[ipaddress.IPv4Network]:
    """Subnets that nobody routes at the moment."""
    with open("/proc/net/route", encoding="ascii") as file:
        return candidates(run, parse_routes(file.read()))


def candidates(run: str, routes: list[ipaddress.IPv4Network], limit: int = 16) -> Iterator[ipaddress.IPv4Network]:
    """Subnets nobody routes, in an order that differs from run to run."""
    start = int(hashlib.sha256(run.encode()).hexdigest()[:8], 16)
    for pool in _POOLS:
        subnets = list(ipaddress.IPv4Network(pool).subnets(new_prefix=_SUBNET_BITS))
        turned = subnets[start % len(subnets) :] + subnets[: start % len(subnets)]
        free_ones = [subnet for subnet in turned if not any(subnet.overlaps(route) for route in routes)]
        yield from free_ones[:limit]


def parse_routes(text: str) -> list[ipaddress.IPv4Network]:
    """Every route of the text of /proc/net/route (hexadecimal, in the host's byte order), but the default ones: a VPN
    may have two halves of one."""
    rows = [line.split() for line in text.splitlines()[1:]]
    routes = [(_address(row[1]), _address(row[7])) for row in rows if len(row) > 7]
    networks = [ipaddress.IPv4Network((net, mask), strict=False) for net, mask in routes]
    return [network for network in networks if network.prefixlen >= SHORTEST_PREFIX]


def _address(text: str) -> str:
    return socket.inet_ntoa(int(text, 16).to_bytes(4, "little"))
