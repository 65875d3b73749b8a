"""The network of a run: a subnet nobody routes, addresses nobody had, the hardware address that goes with each."""

from __future__ import annotations

import ipaddress
import socket
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart.agent.dockernet import endpoint
from coldstart.agent.netlink import neighbour_message
from coldstart.agent.subnets import Addresses, candidates, mac_of, parse_routes

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
SUBNETS = st.builds(
    lambda address, bits: ipaddress.IPv4Network((address, bits), strict=False),
    st.one_of(
        st.ip_addresses(v=4),
        st.ip_addresses(network="198.18.0.0/15"),
        st.ip_addresses(network="10.200.0.0/13"),
    ),
    st.integers(8, 32),
)


def test_parse_routes() -> None:
    """Every route but the default one."""
    assert [str(route) for route in parse_routes(ROUTES)] == ["192.168.0.0/24", "172.17.0.0/16"]
    assert parse_routes("") == []


@settings(max_examples=25)  # each lays out 640 subnets
@given(run=st.text(min_size=1), routes=st.lists(SUBNETS, max_size=20))
def test_candidates_avoid_what_is_routed(run: str, routes: list[ipaddress.IPv4Network]) -> None:
    """Whatever this machine routes already, no candidate overlaps it; the same run gets the same ones."""
    found = list(candidates(run, routes))
    assert not [subnet for subnet in found if any(subnet.overlaps(route) for route in routes)]
    assert found == list(candidates(run, routes))
    assert len(found) == len(set(found)) <= 32


def test_candidates_differ_from_run_to_run() -> None:
    """Two runs, on two engines of one machine, would rarely want the same first."""
    assert len({next(candidates(f"run {number}", [])) for number in range(50)}) > 20


def test_addresses_are_fresh() -> None:
    """None comes again before all others had their turn; none is the bridge's, the network's, broadcast's, or spare."""
    ours = Addresses(ipaddress.IPv4Network("198.18.4.0/22"))
    addresses = [ours.take() for _ in range(2000)]
    period = addresses.index(addresses[0], 1)
    assert period > 1000
    assert len(set(addresses[:period])) == period
    assert not {"198.18.4.0", ours.gateway, ours.spare, "198.18.7.255"} & set(addresses)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_mac_of(one: ipaddress.IPv4Address, other: ipaddress.IPv4Address) -> None:
    """Unicast, locally administered, and different for different addresses."""
    mac = bytes.fromhex(mac_of(str(one)).replace(":", ""))
    assert len(mac) == 6
    assert mac[0] & 3 == 2
    assert (mac_of(str(one)) == mac_of(str(other))) == (one == other)


def test_endpoint_by_api_version() -> None:
    """The hardware address moved from the container to its endpoint with API 1.44; beyond 1.9 is not below 1.44."""
    address, mac = "198.18.0.2", mac_of("198.18.0.2")
    own = {"IPAMConfig": {"IPv4Address": address}}
    old = {"NetworkingConfig": {"EndpointsConfig": {"net": own}}, "MacAddress": mac}
    new = {"NetworkingConfig": {"EndpointsConfig": {"net": {**own, "MacAddress": mac}}}}
    assert [endpoint("net", address, version) for version in ("1.40", "1.41", "1.43")] == [old] * 3
    assert [endpoint("net", address, version) for version in ("1.44", "1.47")] == [new] * 2


def test_neighbour_message() -> None:
    """To the byte, as rtnetlink(7) and neighbour(7) lay it out."""
    message = neighbour_message(7, "198.18.0.2", "02:c5:c6:12:00:02")
    length, kind, flags, sequence, port = struct.unpack_from("=IHHII", message)
    assert (length, kind, flags, sequence, port) == (len(message), 28, 0x505, 1, 0)
    family, index, state, ndm_flags, ndm_type = struct.unpack_from("=BxxxiHBB", message, 16)
    assert (family, index, state, ndm_flags, ndm_type) == (socket.AF_INET, 7, 0x80, 0, 0)
    assert message[28:36] == struct.pack("=HH", 8, 1) + socket.inet_aton("198.18.0.2")
    assert message[36:] == struct.pack("=HH", 10, 2) + bytes.fromhex("02c5c6120002") + b"\0\0"
