"""What the unikernel reads before it has a network: its command line, and a device tree."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unikernel import Guarded

GIC = ((0x8000000, 65536), (0x8010000, 65536))
FAULTS = ("none", "delay", "deaf", "mute", "exit", "stale", "panic", "reboot")
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Options(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("fault", ctypes.c_int),
        ("number", ctypes.c_uint),
        ("nonce", ctypes.c_char * 65),
    ]


class Place(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("interrupt", ctypes.c_uint)]


class Machine(ctypes.Structure):
    _fields_ = [
        ("command_line", ctypes.c_char_p),
        ("console", ctypes.c_uint64),
        ("gic", ctypes.c_int),
        ("distributor", ctypes.c_uint64),
        ("interface", ctypes.c_uint64),
        ("firmware_by_smc", ctypes.c_int),
        ("places", ctypes.c_uint),
        ("virtio", Place * 32),
    ]


def read(library: ctypes.CDLL, line: str) -> Options | str:
    """The options, or what is wrong."""
    library.read_options.restype = ctypes.c_char_p
    library.read_options.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    options = Options()
    wrong = library.read_options(Guarded().put(line.encode() + b"\0"), ctypes.byref(options))
    return wrong.decode() if wrong else options


def test_defaults(library: ctypes.CDLL) -> None:
    options = read(library, "COLDSTART_IP=10.77.0.2")
    assert isinstance(options, Options)
    assert (options.address, options.port, options.nonce) == (0x0A4D0002, 8080, b"none")
    assert FAULTS[options.fault] == "none"


def test_everything(library: ctypes.CDLL) -> None:
    """In any order; other words do not matter, nor do those that only look like ours."""
    options = read(
        library,
        "  console=x MY_COLDSTART_IP=1.2.3.4 COLDSTART_PORT=65535 COLDSTART_NONCE=a-1"
        " COLDSTART_FAULT=delay:1500 COLDSTART_IP=255.0.0.1/32 ",
    )
    assert isinstance(options, Options)
    assert (options.address, options.port, options.nonce) == (0xFF000001, 65535, b"a-1")
    assert (FAULTS[options.fault], options.number) == ("delay", 1500)


@pytest.mark.parametrize(
    ("fault", "name", "number"),
    [(name, name, 0) for name in ("deaf", "mute", "stale", "panic", "reboot")]
    + [("exit:0", "exit", 0), ("exit:255", "exit", 255), ("delay:999999999", "delay", 999999999)],
)
def test_faults(library: ctypes.CDLL, fault: str, name: str, number: int) -> None:
    options = read(library, f"COLDSTART_IP=1.2.3.4 COLDSTART_FAULT={fault} COLDSTART_NONCE=n")
    assert isinstance(options, Options)
    assert FAULTS[options.fault] == name
    assert ":" not in fault or options.number == number


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("", "no-ip"),
        ("COLDSTART_NONCE=n", "no-ip"),
        *(
            (f"COLDSTART_IP={ip} COLDSTART_NONCE=n", "bad-ip")
            for ip in ("", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4/33", "1.2.3.4/")
        ),
        *((f"COLDSTART_IP={ip}", "bad-ip") for ip in ("1.2.3.4x", "1..2.3", "0.0.0.0", "a.b.c.d", "99999999999.1.1.1")),
        *(
            (f"COLDSTART_IP=1.2.3.4 COLDSTART_PORT={port}", "bad-port")
            for port in ("", "0", "65536", "80x", "-1", "99999999999")
        ),
        *(
            (f"COLDSTART_IP=1.2.3.4 COLDSTART_FAULT={f}", "bad-fault")
            for f in ("", "x", "deafer", "delay", "delay:", "delay:1s", "exit:256")
        ),
        ("COLDSTART_IP=1.2.3.4 COLDSTART_FAULT=delay:1000000000", "bad-fault"),
    ],
)
def test_what_is_wrong_is_named(library: ctypes.CDLL, line: str, wrong: str) -> None:
    assert read(library, line) == wrong


def test_long_nonce_is_cut(library: ctypes.CDLL) -> None:
    options = read(library, "COLDSTART_IP=1.2.3.4 COLDSTART_NONCE=" + "x" * 70)
    assert isinstance(options, Options)
    assert options.nonce == b"x" * 64


@FUZZ
@given(st.text(alphabet="ip=.0123456789/ nonce:faultdelay@x", max_size=60))
def test_any_command_line(library: ctypes.CDLL, line: str) -> None:
    assert read(library, line) is not None
    places(library, line)


def places(library: ctypes.CDLL, line: str) -> list[tuple[int, int]]:
    """Every device the line names."""
    found = []
    at = ctypes.c_void_p(Guarded().put(line.encode() + b"\0"))
    place = Place()
    while library.next_place(ctypes.byref(at), ctypes.byref(place)):
        found.append((place.base, place.interrupt))
    return found


def test_devices_on_the_command_line(library: ctypes.CDLL) -> None:
    line = "COLDSTART_IP=1.2.3.4 virtio_mmio.device=512@0xfeb00e00:12 x virtio_mmio.device=4K@0xd0000000:5"
    assert places(library, line) == [(0xFEB00E00, 12), (0xD0000000, 5)]
    assert places(library, "virtio_mmio.device=512@feb00e00:12") == []
    assert places(library, "virtio_mmio.device=512@0xfeb00e00") == []
    assert places(library, "virtio_mmio.device=512") == []
    assert places(library, "") == []


# --- device tree ---


@dataclass(frozen=True)
class Node:
    name: str
    properties: dict[str, bytes]
    children: tuple[Node, ...] = ()


def flattened(root: Node) -> bytes:
    """Devicetree specification 0.4, chapter 5."""
    strings = b""
    words: list[bytes] = []

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    def put(node: Node) -> None:
        nonlocal strings
        words.append(struct.pack(">I", 1) + padded(node.name.encode() + b"\0"))
        for name, value in node.properties.items():
            words.append(struct.pack(">III", 3, len(value), len(strings)) + padded(value))
            strings += name.encode() + b"\0"
        words.append(struct.pack(">I", 4))
        for child in node.children:
            put(child)
        words.append(struct.pack(">I", 2))

    put(root)
    structure = b"".join(words) + struct.pack(">I", 9)
    at = 40 + len(structure)
    head = struct.pack(">10I", 0xD00DFEED, at + len(strings), 40, at, 0, 17, 16, 0, len(strings), len(structure))
    return head + structure + strings


def reg(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">QQ", *pair) for pair in pairs)


def virtio(index: int) -> Node:
    interrupts = struct.pack(">III", 0, 16 + index, 1)
    properties = {"dma-coherent": b"", "interrupts": interrupts, "reg": reg((0xA000000 + 512 * index, 512))}
    return Node(f"virtio_mmio@{index}", {**properties, "compatible": b"virtio,mmio\0"})


def tree(gic: str = "arm,gic-v3", method: str = "hvc", devices: int = 2) -> bytes:
    inner = Node("v2m@0", {"compatible": b"arm,gic-v2m-frame\0", "reg": reg((0x8020000, 4096))})
    return flattened(
        Node(
            "",
            {"compatible": b"linux,dummy-virt\0", "#address-cells": struct.pack(">I", 2)},
            (
                Node("psci", {"method": method.encode() + b"\0", "compatible": b"arm,psci-1.0\0arm,psci\0"}),
                Node("memory@40000000", {"reg": reg((1 << 30, 1 << 27)), "device_type": b"memory\0"}),
                Node("pl011@9000000", {"reg": reg((0x9000000, 4096)), "compatible": b"arm,pl011\0arm,primecell\0"}),
                Node("gic", {"reg": reg(*GIC), "compatible": gic.encode() + b"\0"}, (inner,)),
                *(virtio(index) for index in range(devices)),
                Node(
                    "chosen",
                    {"bootargs": b"COLDSTART_IP=1.2.3.4 COLDSTART_NONCE=n\0", "stdout-path": b"/pl011@9000000\0"},
                ),
            ),
        )
    )


def understood(library: ctypes.CDLL, data: bytes) -> Machine:
    machine = Machine()
    library.read_devicetree.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.read_devicetree(data, ctypes.byref(machine))
    return machine


@pytest.mark.parametrize(("gic", "version"), [("arm,gic-v3", 3), ("arm,cortex-a15-gic", 2), ("other", 0)])
@pytest.mark.parametrize(("method", "smc"), [("hvc", 0), ("smc", 1)])
def test_machine(library: ctypes.CDLL, gic: str, version: int, method: str, smc: int) -> None:
    machine = understood(library, tree(gic, method))
    assert (machine.command_line, machine.console) == (b"COLDSTART_IP=1.2.3.4 COLDSTART_NONCE=n", 0x9000000)
    assert (machine.gic, machine.firmware_by_smc) == (version, smc)
    assert (machine.distributor, machine.interface) == ((0x8000000, 0x8010000) if version else (0, 0))
    found = [(place.base, place.interrupt) for place in machine.virtio[: machine.places]]
    assert found == [(0xA000000, 48), (0xA000200, 49)]


def test_no_more_devices_than_there_is_room_for(library: ctypes.CDLL) -> None:
    machine = understood(library, tree(devices=40))
    assert machine.places == 32
    assert machine.command_line == b"COLDSTART_IP=1.2.3.4 COLDSTART_NONCE=n"


def test_no_tree(library: ctypes.CDLL) -> None:
    machine = understood(library, bytes(64))
    assert (machine.command_line, machine.console, machine.places) == (b"", 0, 0)
