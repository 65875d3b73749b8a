"""The Engine API's pure parts: which version to speak, where to ask, what an answer means."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldstart.agent.dockerapi import negotiated, socket_path
from coldstart.agent.dockerimage import layer_files
from coldstart.agent.dockerinstance import demultiplexed, port_of

RECORDED = Path(__file__).parent / "recorded"


@pytest.mark.parametrize(("engine", "spoken"), [("20.10", "1.41"), ("29", "1.47")])
def test_negotiated(engine: str, spoken: str) -> None:
    """The newest that both sides know, of what /version answers."""
    answer = json.loads((RECORDED / f"version-{engine}.json").read_text())["answer"]
    assert negotiated(answer) == spoken


@pytest.mark.parametrize(("oldest", "newest"), [("1.12", "1.39"), ("1.48", "1.60"), ("", "1.24"), ("2.0", "2.1")])
def test_nothing_in_common(oldest: str, newest: str) -> None:
    """Said in one line, with both ranges."""
    with pytest.raises(
        ValueError, match=rf"the engine speaks API .*{newest}, this version of coldstart 1\.40 to 1\.47"
    ):
        negotiated({"MinAPIVersion": oldest, "ApiVersion": newest})


@given(low=st.integers(12, 60), high=st.integers(12, 60))
def test_negotiated_is_known_to_both(low: int, high: int) -> None:
    """Whatever an engine offers, what is spoken lies in both ranges, or nothing is."""
    try:
        minor = int(negotiated({"MinAPIVersion": f"1.{low}", "ApiVersion": f"1.{high}"}).partition(".")[2])
    except ValueError:
        assert not set(range(low, high + 1)) & set(range(40, 48))
    else:
        assert max(low, 40) <= minor <= min(high, 47)


def test_socket_path(tmp_path: Path) -> None:
    """The node's own setting, then DOCKER_HOST, then what is there."""
    assert socket_path("unix:///a", {"DOCKER_HOST": "unix:///b"}) == "/a"
    assert socket_path("", {"DOCKER_HOST": "unix:///b"}) == "/b"
    (tmp_path / "docker.sock").touch()
    found = socket_path("", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found in ("/var/run/docker.sock", f"{tmp_path}/docker.sock")
    with pytest.raises(ValueError, match="tcp://x: only unix:// sockets"):
        socket_path("tcp://x", {})


def frame(stream: int, body: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + struct.pack(">I", len(body)) + body


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=50))))
def test_demultiplexed(written: list[tuple[int, bytes]]) -> None:
    """stdout and stderr as they were written, in their order; the frames are gone."""
    raw = b"".join(frame(stream, body) for stream, body in written)
    assert demultiplexed(raw) in (b"".join(body for _, body in written), raw if not any(b for _, b in written) else b"")


def test_demultiplexed_of_a_terminal() -> None:
    """A container with a TTY has no frames; a cut last frame gives what there is."""
    assert demultiplexed(b"plain text, longer than a head") == b"plain text, longer than a head"
    assert demultiplexed(frame(1, b"whole") + frame(2, b"cut off")[:-3]) == b"wholecut "


def entry(mac: bytes, port: int) -> bytes:
    """struct __fdb_entry of <linux/if_bridge.h>."""
    return struct.pack("=6sBBIB3x", mac, port & 0xFF, 0, 0, port >> 8)


@given(macs=st.lists(st.binary(min_size=6, max_size=6), unique=True, min_size=1), ports=st.data())
def test_port_of(macs: list[bytes], ports: st.DataObject) -> None:
    """The port behind which an address was learnt, also beyond 255; 0 for one that was not."""
    numbers = [ports.draw(st.integers(1, 1023)) for _ in macs]
    table = b"".join(entry(mac, port) for mac, port in zip(macs, numbers, strict=True))
    for mac, port in zip(macs, numbers, strict=True):
        assert port_of(table + b"cut", mac.hex(":")) == port
    assert port_of(table[16:], macs[0].hex(":")) == 0


def test_layer_files(tmp_path: Path) -> None:
    """Every regular file of every layer; and why there are none where the engine keeps that to itself."""
    for name in ("upper/app", "lower/lib/one", "lower2/two"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "upper" / "link").symlink_to("app")
    data = {"UpperDir": f"{tmp_path}/upper", "LowerDir": f"{tmp_path}/lower:{tmp_path}/lower2"}
    files, why = layer_files({"GraphDriver": {"Data": data}})
    assert {Path(path).name for path in files} == {"app", "one", "two"}
    assert why == ""
    assert "does not say where" in layer_files({"GraphDriver": {"Data": None}})[1]
    assert "no permission" in layer_files({"GraphDriver": {"Data": {"UpperDir": "/nonexistent"}}})[1]
