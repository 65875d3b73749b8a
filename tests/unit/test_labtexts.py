"""The lab's pure parts: what a shape may be, the texts that tell how it is reached, packets of bytes."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from lab import access, capture, shapes
from lab.shapes import Shape

from coldstart import inventory


@pytest.mark.parametrize("name", ["", "A", "a_b", "1a", "a" * 40, "a.lan"])
def test_a_name_that_is_not_one_for_a_host_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a node's name"):
        Shape(name)


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ([Shape("a"), Shape("a")], "two nodes 'a'"),
        ([Shape("a", behind="b"), Shape("b")], "no node before it"),
        (shapes.plain(251), "250 fit"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(fleet: list[Shape], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        shapes.check(fleet)


def test_the_default_fleet_is_of_several_sites() -> None:
    shapes.check(shapes.DEFAULT)
    assert [shape.site for shape in shapes.DEFAULT] == ["cloud", "laptop", "edge"]
    assert [shape.has_line for shape in shapes.DEFAULT] == [False, True, True]


ENTRIES = [
    access.Entry("jump", "cloud", "10.77.0.1", "root"),
    access.Entry("inner", "edge", "10.77.1.2", "pi", "jump", "root@10.77.0.1"),
]


def test_the_inventory(tmp_path: Path) -> None:
    """As coldstart reads it."""
    path = tmp_path / "inventory.yaml"
    path.write_text(access.inventory(Path("/lab"), ENTRIES))
    jump, inner = inventory.load(path).nodes
    assert (jump.site, inner.site) == ("cloud", "edge")
    assert jump.vars == {
        "ansible_host": "10.77.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": "/lab/key",
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/lab/known_hosts",
        "coldstart_site": "cloud",
    }
    assert inner.vars["ansible_ssh_common_args"] == "-o UserKnownHostsFile=/lab/known_hosts -J root@10.77.0.1"


def test_the_ssh_configuration() -> None:
    text = access.ssh_config(Path("/lab"), ENTRIES)
    assert "Host inner\n  HostName 10.77.1.2\n  User pi\n  ProxyJump jump\nHost *\n" in text
    assert "StrictHostKeyChecking yes" in text


def ethernet(protocol: int, body: bytes, *, padding: bytes = b"", fragment: int = 0) -> bytes:
    addresses = socket.inet_aton("10.77.0.1") + socket.inet_aton("10.77.0.2")
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0) + addresses
    return bytes(12) + b"\x08\x00" + header + body + padding


def parsed(frame: bytes) -> capture.Packet | None:
    return capture.parse(frame, time_ns=5, at="n1", sent=True)


def test_a_datagram() -> None:
    """What fills a short frame up is not part of it."""
    frame = ethernet(17, struct.pack("!HHHH", 1000, 9999, 11, 0) + b"now", padding=bytes(20))
    assert parsed(frame) == capture.Packet(5, "n1", True, 17, ("10.77.0.1", 1000), ("10.77.0.2", 9999), b"now")  # noqa: FBT003


def test_a_segment() -> None:
    """Its options are not payload."""
    packet = parsed(ethernet(6, struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x60, 0, 0, 0, 0) + b"opts" + b"data"))
    assert packet
    assert (packet.source[1], packet.to[1], packet.payload, packet.is_udp) == (1, 2, b"data", False)


def test_what_has_no_ports() -> None:
    packet = parsed(ethernet(1, b"ping" * 4))
    assert packet
    assert (packet.source[1], packet.payload) == (0, b"ping" * 4)


@pytest.mark.parametrize("frame", [b"", bytes(60), ethernet(17, b"rest of it", fragment=5)])
def test_what_is_not_the_beginning_of_a_packet(frame: bytes) -> None:
    assert parsed(frame) is None
