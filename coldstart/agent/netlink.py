"""rtnetlink(7) without the `ip` command, and so without a fork: neighbour entries, and the names of interfaces' owners.

Without a permanent neighbour entry the first packet to a new address waits for ARP, and while nobody answers the kernel
asks again once a second only: an early probe would report 1.0 s for a container that was there after 0.3 s.

An interface's alias is text that the kernel keeps for it and nothing else uses: our mark.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_SETLINK, _RTM_NEWLINK, _RTM_NEWNEIGH = 18, 19, 16, 28
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_CREATE_OR_REPLACE = 0x400 | 0x100
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_AF_BRIDGE, _NTF_MASTER = 7, 0x4
_IFLA_PROTINFO, _NESTED = 12, 0x8000
_FLOODS = (9, 27, 30)  # IFLA_BRPORT_{UNICAST,MCAST,BCAST}_FLOOD
_NDA_DST, _NDA_LLADDR = 1, 2
_IFLA_IFNAME, _IFLA_IFALIAS = 3, 20
_HEADER_BYTES, _LINK_BYTES = 16, 16


def neighbour_message(interface_index: int, address: str, mac: str) -> bytes:
    """RTM_NEWNEIGH for an IPv4 address, as bytes."""
    body = struct.pack("=BxxxiHBB", socket.AF_INET, interface_index, _NUD_PERMANENT, 0, 0)
    body += _attribute(_NDA_DST, socket.inet_aton(address))
    body += _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return _message(_RTM_NEWNEIGH, _REQUEST | _ACK | _CREATE_OR_REPLACE, body)


def add_neighbour(interface: str, address: str, mac: str) -> None:
    """Make `address` on `interface` known for good. PermissionError without CAP_NET_ADMIN, OSError otherwise."""
    message = neighbour_message(socket.if_nametoindex(interface), address, mac)
    _acknowledged(message, f"neighbour entry for {address} on {interface}")


def forwarding_message(port_index: int, mac: str) -> bytes:
    """RTM_NEWNEIGH for a bridge's forwarding table, as bytes."""
    body = struct.pack("=BxxxiHBB", _AF_BRIDGE, port_index, _NUD_NOARP, _NTF_MASTER, 0)
    body += _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return _message(_RTM_NEWNEIGH, _REQUEST | _ACK | _CREATE_OR_REPLACE, body)


def forward(port: str, mac: str) -> None:
    """Have the bridge that `port` is on send there what is for `mac`, and not to all its ports until it has learnt."""
    _acknowledged(forwarding_message(socket.if_nametoindex(port), mac), f"forwarding entry for {mac} on {port}")


def close_to_floods(port: str) -> None:
    """Have the bridge send to this port only what is for it: nothing unknown, no broadcast, no multicast."""
    closed = b"".join(_attribute(kind, b"\0") for kind in _FLOODS)
    body = struct.pack("=BxHiII", _AF_BRIDGE, 0, socket.if_nametoindex(port), 0, 0)
    body += _attribute(_IFLA_PROTINFO | _NESTED, closed)
    _acknowledged(_message(_RTM_SETLINK, _REQUEST | _ACK, body), f"floods of {port}")


def set_alias(interface: str, alias: str) -> None:
    """Give an interface its alias; errors as above."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(interface), 0, 0)
    body += _attribute(_IFLA_IFALIAS, alias.encode())
    _acknowledged(_message(_RTM_SETLINK, _REQUEST | _ACK, body), f"alias of {interface}")


def aliases() -> dict[str, str]:
    """The alias of every interface of this network namespace that has one, by name."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    found = {}
    with _socket() as sock:
        sock.send(_message(_RTM_GETLINK, _REQUEST | _DUMP, body))
        going_on = True
        while going_on:
            data = sock.recv(1 << 17)
            found.update(parse_aliases(data))
            going_on = all(kind not in (_NLMSG_DONE, _NLMSG_ERROR) for kind, _ in _messages(data))
    return found


def parse_aliases(data: bytes) -> dict[str, str]:
    """Of the RTM_NEWLINK messages in these bytes."""
    found = {}
    for kind, body in _messages(data):
        texts = dict(_attributes(body[_LINK_BYTES:])) if kind == _RTM_NEWLINK else {}
        if _IFLA_IFNAME in texts and _IFLA_IFALIAS in texts:
            name, alias = (texts[key].rstrip(b"\0").decode("utf-8", "replace") for key in (_IFLA_IFNAME, _IFLA_IFALIAS))
            found[name] = alias
    return found


def _acknowledged(message: bytes, what: str) -> None:
    with _socket() as sock:
        sock.send(message)
        answer = sock.recv(4096)
    _, kind = struct.unpack_from("=IH", answer)
    (code,) = struct.unpack_from("=i", answer, _HEADER_BYTES)
    if kind == _NLMSG_ERROR and code != 0:
        raise OSError(-code, what)


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.bind((0, 0))
    return sock


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", _HEADER_BYTES + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER_BYTES:
        length, kind = struct.unpack_from("=IH", data)
        if length < _HEADER_BYTES:
            return
        yield kind, data[_HEADER_BYTES:length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)
