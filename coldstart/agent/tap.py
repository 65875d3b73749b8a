"""A run's bridge, and a tap device on it for each machine: by ioctl(2), no `ip` command, no fork.

The bridge has a route of its own from the start: a probe sent before there is a machine stays on this node, instead of
leaving by the default route. It bears the run in its alias; a tap has no mark, because it lives only as long as the
descriptor that QEMU holds.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from coldstart.agent import netlink
from coldstart.agent.subnets import Addresses, bridge_name, free, mac_of

ALIAS = "coldstart.run="
# Frames that wait in a tap until the guest reads. Those of the first probes, which are kept, are enough: a guest that
# takes seconds would find all others as well, each a connection whose client has gone.
QUEUE_FRAMES = 16

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFF_UP = 0x1
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFTXQLEN = 0x8914, 0x8916, 0x891C, 0x8943
_SIOCSIFHWADDR = 0x8924
_SIOCBRADDBR, _SIOCBRDELBR, _SIOCBRADDIF = 0x89A0, 0x89A1, 0x89A2
_ARPHRD_ETHER = 1
_NAME_BYTES = 16


class Bridge:
    """The bridge of one run."""

    def __init__(self, name: str, addresses: Addresses) -> None:
        self.name = name
        self.addresses = addresses

    def next_address(self) -> str:
        """A fresh address; whoever will have it is known already. OSError without CAP_NET_ADMIN."""
        address = self.addresses.take()
        netlink.add_neighbour(self.name, address, mac_of(address))
        return address

    def plug(self, name: str, address: str) -> int:
        """A new tap device of this name, up and on the bridge, for whoever has this address: its descriptor. It goes
        when the last copy is closed."""
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
            with _control() as control:
                _ask(control, _SIOCSIFTXQLEN, name, struct.pack("i20x", QUEUE_FRAMES))
                port = struct.pack("i20x", socket.if_nametoindex(name))
                _ask(control, _SIOCBRADDIF, self.name, port)
                # Before it is up: else each early probe of one machine, and its announcement, would wake all others.
                netlink.close_to_floods(name)
                netlink.forward(name, mac_of(address))
                _ask(control, _SIOCSIFFLAGS, name, struct.pack("H22x", _IFF_UP))
        except OSError:
            os.close(fd)
            raise
        return fd


def create(run: str) -> Bridge:
    """The bridge of a run. OSError says why it cannot be: PermissionError without CAP_NET_ADMIN."""
    name = bridge_name(f"{run}/machines")
    subnet = next(free(run))
    addresses = Addresses(subnet)
    with _control() as control:
        fcntl.ioctl(control, _SIOCBRADDBR, struct.pack("16s", name.encode()))
        try:
            netlink.set_alias(name, ALIAS + run)
            # Of its own: it would take its ports' in turn, and forget its neighbours with every change.
            _ask(control, _SIOCSIFHWADDR, name, _hardware(mac_of(addresses.gateway)))
            _ask(control, _SIOCSIFADDR, name, _address(addresses.gateway))
            _ask(control, _SIOCSIFNETMASK, name, _address(str(subnet.netmask)))
            _ask(control, _SIOCSIFFLAGS, name, struct.pack("H22x", _IFF_UP))
            bridge = Bridge(name, addresses)
            os.close(bridge.plug(bridge_name(f"{run}/trial"), addresses.spare))  # can there be tap devices at all?
        except OSError:
            _delete(control, name)
            raise
    return bridge


def remove_marked(run: str, *, but: str) -> list[str]:
    """Remove the bridge of `run`; if that is empty, those of any run but `but`. Says which."""
    marked = {name: alias[len(ALIAS) :] for name, alias in netlink.aliases().items() if alias.startswith(ALIAS)}
    found = [name for name, mark in marked.items() if (mark == run if run else mark != but)]
    removed, failures = [], []
    with _control() as control:
        for name in found:
            try:
                _delete(control, name)
                removed.append(f"bridge {name}")
            except OSError as error:
                failures.append(f"bridge {name}: {error.strerror}")
    if failures:
        raise OSError("; ".join(failures))
    return removed


def _delete(control: socket.socket, name: str) -> None:
    _ask(control, _SIOCSIFFLAGS, name, bytes(24))  # one that is up cannot be removed
    fcntl.ioctl(control, _SIOCBRDELBR, struct.pack("16s", name.encode()))


def _control() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _ask(control: socket.socket, request: int, name: str, argument: bytes) -> None:
    """argument: the union in struct ifreq, 24 bytes."""
    fcntl.ioctl(control, request, struct.pack(f"{_NAME_BYTES}s", name.encode()) + argument)


def _hardware(mac: str) -> bytes:
    return struct.pack("=H6s16x", _ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))


def _address(text: str) -> bytes:
    return struct.pack("=HH4s16x", socket.AF_INET, 0, socket.inet_aton(text))
