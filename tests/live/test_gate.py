"""The sign that somebody could answer, on a real bridge with a real pair of interfaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from coldstart.agent.gate import Gate

pytestmark = pytest.mark.live
BRIDGE, HERE, THERE = "cs-gate-test", "cs-gate-here", "cs-gate-there"


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


@pytest.fixture
def bridge():
    """A bridge, and a pair of interfaces of which nothing is plugged in."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "add", HERE, "type", "veth", "peer", "name", THERE)
    ip("link", "set", BRIDGE, "up")
    yield f"/sys/class/net/{BRIDGE}/brif"
    ip("link", "del", HERE)
    ip("link", "del", BRIDGE)


def opens(gate: Gate, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if gate.open():
            return True
    return False


def test_open_once_the_far_end_is_up(bridge):
    """Not when the pair is plugged in, not when our end is up: when the other one is, and at once."""
    gate = Gate(bridge)
    assert not gate.open()
    ip("link", "set", HERE, "master", BRIDGE)
    ip("link", "set", HERE, "up")
    assert not opens(gate, 0.05)
    ip("link", "set", THERE, "up")
    assert opens(gate, 0.5)  # not the second that the kernel may take to tell others
    gate.close()


def test_what_was_unplugged_is_forgotten(bridge):
    """The next instance has another port."""
    gate = Gate(bridge)
    ip("link", "set", HERE, "master", BRIDGE)
    assert not gate.open()
    ip("link", "set", HERE, "name", f"{HERE}2")
    assert not gate.open()
    ip("link", "set", f"{HERE}2", "name", HERE)
    ip("link", "set", HERE, "up")
    ip("link", "set", THERE, "up")
    assert opens(gate, 0.5)
    gate.close()
