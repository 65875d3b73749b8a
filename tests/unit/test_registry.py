"""The registry: what was offered, by digest, from any offset; nothing else, whatever is asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart import source
from coldstart.registry import MAX_REFUSED, Registry
from coldstart.throttle import Throttle

LAYER = source.in_memory(bytes(range(256)) * 2000, source.LAYER_TYPE)
CONFIG = source.in_memory(b"{}", source.CONFIG_TYPE)
MANIFEST = source.manifest_of(CONFIG, (LAYER,))
OTHER = source.in_memory(b"secret", source.LAYER_TYPE)
NAME = "coldstart.local/hello"


def asked(registry: Registry, *requests: bytes) -> bytes:
    """Everything that comes back on one connection."""

    async def talk() -> bytes:
        async with listening(registry) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"".join(requests))
            writer.write_eof()
            data = await reader.read()
            writer.close()
            return data

    return asyncio.run(talk())


@contextlib.asynccontextmanager
async def listening(registry: Registry) -> AsyncIterator[int]:
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def answers(data: bytes, *methods: str) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """(status, headers, body) of each."""
    client = h11.Connection(h11.CLIENT)
    found = []
    for number, method in enumerate(methods):
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        if number == 0:
            client.receive_data(data)
        response = client.next_event()
        assert isinstance(response, h11.Response)
        body = b""
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
        found.append((response.status_code, dict(response.headers), body))
        if number + 1 < len(methods):
            client.start_next_cycle()
    return found


def offering(*blobs: source.Blob) -> Registry:
    registry = Registry()
    registry.offer(blobs)
    return registry


def path_of(blob: source.Blob, kind: str = "blobs") -> str:
    return f"/v2/{NAME}/{kind}/{blob.digest}"


def test_a_connection_serves_what_an_engine_asks_for() -> None:
    """Version, manifest with its media type, blobs: one after the other."""
    registry = offering(MANIFEST, CONFIG, LAYER)
    requests = get("/v2/"), get(path_of(MANIFEST, "manifests")), get(path_of(CONFIG)), get(path_of(LAYER))
    version, manifest, config, layer = answers(asked(registry, *requests), *["GET"] * 4)
    assert version[0] == 200
    assert manifest[2] == MANIFEST.data
    assert manifest[1][b"content-type"] == MANIFEST.media_type.encode()
    assert manifest[1][b"docker-content-digest"] == MANIFEST.digest.encode()
    assert (config[2], layer[2]) == (CONFIG.data, LAYER.data)
    assert registry.refused == []


def test_a_manifest_of_dockers_kind_is_called_so() -> None:
    """An OCI layout may hold one; engines refuse a manifest that is called anything else."""
    manifest = source.in_memory(b"{}", "application/vnd.docker.distribution.manifest.v2+json")
    [(_, headers, _)] = answers(asked(offering(manifest), get(path_of(manifest, "manifests"))), "GET")
    assert headers[b"content-type"] == manifest.media_type.encode()


def test_a_node_that_asks_without_an_end() -> None:
    """What it asks for is not kept for ever."""
    registry = offering(CONFIG)
    asked(registry, *(get(f"/nothing/{number}") for number in range(2 * MAX_REFUSED)))
    assert len(registry.refused) == MAX_REFUSED
    [(status, _, _)] = answers(asked(registry, get(path_of(CONFIG).replace(NAME, "x" * 256))), "GET")
    assert status == 404


def test_a_range_beyond_all_numbers() -> None:
    """It is no range that is understood, and no error either."""
    data = asked(offering(CONFIG), get(path_of(CONFIG), f"Range: bytes={'9' * 5000}-"))
    assert answers(data, "GET")[0][0] == 200


def test_head_has_the_size_and_no_body() -> None:
    """A HEAD is answered as its GET would be."""
    [(status, headers, body)] = answers(asked(offering(LAYER), get(path_of(LAYER), method="HEAD")), "HEAD")
    assert (status, headers[b"content-length"], body) == (200, str(LAYER.size_bytes).encode(), b"")


@settings(deadline=None)  # sockets and threads: a busy machine takes its time
@given(st.integers(0, LAYER.size_bytes - 1))
def test_what_was_cut_goes_on(start: int) -> None:
    """From any offset on, exactly the rest comes."""
    data = asked(offering(LAYER), get(path_of(LAYER), f"Range: bytes={start}-"))
    [(status, headers, body)] = answers(data, "GET")
    assert body == LAYER.data[start:]
    assert status == (206 if start else 200)
    assert not start or headers[b"content-range"].endswith(f"/{LAYER.size_bytes}".encode())


def test_beyond_the_end() -> None:
    """Who has all of it, or more, is told how much there is."""
    data = asked(offering(LAYER), get(path_of(LAYER), f"Range: bytes={LAYER.size_bytes}-"))
    [(status, headers, body)] = answers(data, "GET")
    assert (status, body) == (416, b"")
    assert headers[b"content-range"] == f"bytes */{LAYER.size_bytes}".encode()


@pytest.mark.parametrize(
    "path",
    [
        path_of(OTHER),
        path_of(OTHER, "manifests"),
        f"/v2/{NAME}/manifests/latest",
        f"/v2/{NAME}/blobs/../../{LAYER.digest}",
        f"/v2/{NAME}/tags/list",
        "/v2/_catalog",
        "/",
        "/etc/passwd",
        f"/v2/{NAME}/blobs/{LAYER.digest}/",
        f"/v2/{NAME}/blobs/{LAYER.digest.upper()}",
    ],
)
def test_what_was_not_offered_is_not_there(path: str) -> None:
    """Nothing beside the offered digests, and it is kept what was asked for."""
    registry = offering(LAYER)
    [(status, _, body)] = answers(asked(registry, get(path)), "GET")
    assert (status, body) == (404, b"")
    assert registry.refused == [path]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_written(method: str) -> None:
    """Read-only, whatever the path."""
    data = asked(offering(LAYER), get(path_of(LAYER), "Content-Length: 3", method=method) + b"abc")
    assert answers(data, method)[0][0] == 405


@settings(deadline=None)  # sockets and threads: a busy machine takes its time
@given(st.binary(max_size=300))
def test_garbage_ends_the_connection_only(garbage: bytes) -> None:
    """Whatever is said, the next connection is served."""
    registry = offering(LAYER)
    asked(registry, garbage)
    assert answers(asked(registry, get(path_of(LAYER))), "GET")[0][2] == LAYER.data


def test_a_file_that_shrank_breaks_the_answer_off(tmp_path: Path) -> None:
    """The peer must see that it did not get everything."""
    path = tmp_path / "layer"
    path.write_bytes(LAYER.data)
    blob = source.Blob(LAYER.digest, LAYER.size_bytes, source.LAYER_TYPE, path)
    path.write_bytes(LAYER.data[:1000])
    [(_, headers, body)] = answers(asked(offering(blob), get(path_of(blob)), get("/v2/")), "GET")
    assert body == LAYER.data[:1000]  # and then the end of the connection
    assert headers[b"content-length"] == str(LAYER.size_bytes).encode()


def test_a_slice_of_a_file(tmp_path: Path) -> None:
    """A layer within an archive is served without its neighbours."""
    path = tmp_path / "archive"
    path.write_bytes(b"before" + LAYER.data + b"behind")
    blob = source.Blob(LAYER.digest, LAYER.size_bytes, source.LAYER_TYPE, path, offset=6)
    assert answers(asked(offering(blob), get(path_of(blob), "Range: bytes=7-")), "GET")[0][2] == LAYER.data[7:]


def test_bytes_are_counted_by_repository() -> None:
    """Heads included: what went over the wire for whom."""
    registry = offering(CONFIG)
    one = asked(registry, get(path_of(CONFIG)))
    asked(registry, get(path_of(CONFIG).replace(NAME, "other")), get(path_of(CONFIG).replace(NAME, "other")))
    assert registry.sent_bytes == {NAME: len(one), "other": 2 * len(one)}


async def _pass(throttle: Throttle, node: str, pieces: int, order: list[str]) -> None:
    for _ in range(pieces):
        await throttle.pass_(node, 1000)
        order.append(node)


def _together(*jobs: Callable[[Throttle, list[str]], Awaitable[None]]) -> tuple[list[str], float]:
    async def run() -> tuple[list[str], float]:
        order: list[str] = []
        throttle = Throttle(1_000_000)
        began_s = time.monotonic()
        await asyncio.gather(*(job(throttle, order) for job in jobs))
        return order, time.monotonic() - began_s

    return asyncio.run(run())


def test_the_limit_holds_and_is_shared_evenly() -> None:
    """A node with three connections has no more of it than a node with one."""
    many = [lambda t, o: _pass(t, "greedy", 20, o)] * 3
    order, took_s = _together(*many, lambda t, o: _pass(t, "modest", 20, o))
    assert took_s >= 0.079  # 80 pieces of 1 ms; the first passes at once
    assert 18 <= order[:40].count("modest") <= 20


def test_a_low_limit_is_kept_in_small_pieces() -> None:
    """At 2 kB/s for all, none of many connections waits for a whole piece of each of the others."""

    async def first_bytes() -> float:
        throttle = Throttle(2000)
        registry = Registry(lambda size: throttle.pass_("node", size), throttle.piece_bytes)
        registry.offer([LAYER])
        async with listening(registry) as port:
            began_s = time.monotonic()
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for _, writer in opened:
                writer.write(get(path_of(LAYER)))
            for reader, _ in opened:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(100)
            for _, writer in opened:
                writer.transport.abort()
            return time.monotonic() - began_s

    assert asyncio.run(first_bytes()) < 4
