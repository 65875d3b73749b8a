"""A push goes on where it was cut: files fetched by the agent, and layers that an engine pulls through the relay."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lending import Controller

from coldstart import source
from coldstart.agent import upstream
from coldstart.agent.cache import BadContent, Cache
from coldstart.agent.relay import KEEP_BYTES, Relay
from coldstart.agent.upstream import Broken, NotOffered

LAYER = source.in_memory(bytes(range(251)) * (3 * KEEP_BYTES // 251), source.LAYER_TYPE)
SMALL = source.in_memory(b"{}" * 100, source.CONFIG_TYPE)
MANIFEST = source.manifest_of(SMALL, (LAYER,))
SHA = LAYER.digest.removeprefix("sha256:")


@pytest.fixture
def controller() -> Iterator[Controller]:
    one = Controller()
    one.registry.offer([LAYER, SMALL, MANIFEST])
    yield one
    one.close()


@contextmanager
def relayed(controller: Controller, cache: Cache, *, keep: bool = True) -> Iterator[tuple[Relay, threading.Event]]:
    gave_up = threading.Event()
    relay = Relay(controller.port, cache, gave_up.set)
    yield relay, gave_up
    relay.close(keep=keep)


def pulled(port: int, path: str, start: int = 0) -> tuple[int, bytes]:
    """As an engine would. What has come, even if it broke off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Range": f"bytes={start}-"} if start else {})
    response = connection.getresponse()
    try:
        return response.status, response.read()
    except http.client.IncompleteRead as error:
        return response.status, error.partial
    finally:
        connection.close()


def blob(content: source.Blob, kind: str = "blobs") -> str:
    return f"/v2/coldstart.local/app/{kind}/{content.digest}"


# -- files

_FETCH = """
import hashlib, sys
from coldstart.agent import measurer
from coldstart.agent.cache import Cache
from coldstart.agent.records import Image
from coldstart.agent.runtimes import StartFailed
from coldstart.agent.supply import Files
before = set(sys.modules)
sha256, port, folder = sys.argv[1:]
for asked in sha256, "0" * 64:
    files = Files(Image("it", {"program": asked}, {"program": 1}), Cache(folder), int(port))
    try:
        files.absent()
        files.obtain("coldstart.local/boot-0-0")
    except StartFailed:
        pass
print(sorted(set(sys.modules) - before))
"""


def test_a_first_fetch_imports_nothing(controller: Controller, tmp_path: Path) -> None:
    """It may be in the middle of a boot: what a node had already was not fetched before. Nor does one that fails."""
    argv = [sys.executable, "-c", _FETCH, SHA, str(controller.port), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (tmp_path / SHA).is_file()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(200, LAYER.size_bytes))
def test_a_file_that_was_cut_goes_on(
    controller: Controller, tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Whatever arrived is not sent again."""
    cache = Cache(str(tmp_path_factory.mktemp("cache")))
    controller.cut_after = cut
    with pytest.raises(Broken):
        upstream.fetch(controller.port, cache, SHA, LAYER.size_bytes)
    controller.cut_after, before = None, controller.sent_bytes
    held = cache.held(SHA)
    assert held > cut - 1000
    upstream.fetch(controller.port, cache, SHA, LAYER.size_bytes)
    assert controller.sent_bytes - before < LAYER.size_bytes - held + 1000
    assert Path(cache.file(SHA)).read_bytes() == LAYER.data


def test_all_of_it_was_there_but_unverified(controller: Controller, tmp_path: Path) -> None:
    """Nothing is asked for; and if it is not right, nothing is kept."""
    (tmp_path / f"{SHA}.part").write_bytes(LAYER.data)
    upstream.fetch(controller.port, Cache(str(tmp_path)), SHA, LAYER.size_bytes)
    (tmp_path / SHA).unlink()
    (tmp_path / f"{SHA}.part").write_bytes(b"x" * LAYER.size_bytes)
    with pytest.raises(BadContent):
        upstream.fetch(controller.port, Cache(str(tmp_path)), SHA, LAYER.size_bytes)
    assert list(tmp_path.iterdir()) == []
    assert controller.sent_bytes == 0


def test_a_file_that_is_another_has_no_valid_name(controller: Controller, tmp_path: Path) -> None:
    """A controller whose file changed since it was hashed: nothing is kept of it."""
    lying = source.Blob("sha256:" + "0" * 64, 10, "x", data=b"0123456789")
    controller.registry.offer([lying])
    with pytest.raises(BadContent):
        upstream.fetch(controller.port, Cache(str(tmp_path)), "0" * 64, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_question_imports_nothing(controller: Controller, tmp_path: Path) -> None:
    """The first one may be asked within a boot, if all that was needed before had been there."""
    code = f"""
import sys
from coldstart.agent import upstream
from coldstart.agent.cache import Cache
before = set(sys.modules)
upstream.fetch({controller.port}, Cache({str(tmp_path)!r}), {SHA!r}, {LAYER.size_bytes})
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "\n"


def test_what_was_not_offered(controller: Controller, tmp_path: Path) -> None:
    """Said, and nothing kept."""
    with pytest.raises(NotOffered):
        upstream.fetch(controller.port, Cache(str(tmp_path)), hashlib.sha256(b"").hexdigest(), 10)


@pytest.mark.parametrize(("repository", "syncs"), [(upstream.FILES, 1), ("coldstart.local/boot-0-0", 0)])
def test_what_a_push_brings_outlasts_a_power_cut(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, syncs: int
) -> None:
    """The disk has all of it before it has its valid name; a boot does not wait for that."""
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((os.fstat(fd).st_size, (tmp_path / SHA).exists())))
    upstream.fetch(controller.port, Cache(str(tmp_path)), SHA, LAYER.size_bytes, repository)
    assert seen == [(LAYER.size_bytes, False)] * syncs


def test_nobody_there(tmp_path: Path) -> None:
    """A forward whose link is gone."""
    with pytest.raises(Broken, match="does not answer"):
        upstream.fetch(1, Cache(str(tmp_path)), SHA, 10)


# -- an engine's layers


def test_an_engine_pulls_through_the_relay(controller: Controller, tmp_path: Path) -> None:
    """Version, manifest, config, layer; from the middle too."""
    with relayed(controller, Cache(str(tmp_path)), keep=False) as (relay, _):
        assert pulled(relay.port, blob(MANIFEST, "manifests")) == (200, MANIFEST.data)
        assert pulled(relay.port, blob(SMALL)) == (200, SMALL.data)
        assert pulled(relay.port, blob(LAYER)) == (200, LAYER.data)
        assert pulled(relay.port, blob(LAYER), 5000) == (206, LAYER.data[5000:])
        assert relay.was_asked
        assert relay.trouble is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_layer_that_was_cut_goes_on(controller: Controller, tmp_path: Path, share: float) -> None:
    """Over the next link, with an engine that begins anew: only the rest is sent."""
    controller.cut_after = int(LAYER.size_bytes * share)
    with relayed(controller, Cache(str(tmp_path))) as (relay, gave_up):
        _, begun = pulled(relay.port, blob(LAYER))
        assert LAYER.data.startswith(begun)
        assert gave_up.wait(5)
        assert isinstance(relay.trouble, Broken)
    controller.cut_after, before = None, controller.sent_bytes
    with relayed(controller, Cache(str(tmp_path)), keep=False) as (relay, _):
        assert pulled(relay.port, blob(LAYER)) == (200, LAYER.data)
    assert controller.sent_bytes - before <= LAYER.size_bytes * (1 - share) + 2000
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_goes_on_by_itself(controller: Controller, tmp_path: Path) -> None:
    """It asks for the rest within one pull: what is here comes from here."""
    (tmp_path / f"{SHA}.part").write_bytes(LAYER.data[:2_000_000])
    with relayed(controller, Cache(str(tmp_path))) as (relay, _):
        assert pulled(relay.port, blob(LAYER), 1_000_000) == (206, LAYER.data[1_000_000:])
        assert pulled(relay.port, blob(LAYER), 1_000_000) == (206, LAYER.data[1_000_000:])
    assert controller.sent_bytes < LAYER.size_bytes - 2_000_000 + 2000


@pytest.mark.parametrize("beyond", [0, 1000])
def test_an_engine_that_has_all_of_it(controller: Controller, tmp_path: Path, beyond: int) -> None:
    """It is told that there is no more, not that less than nothing follows."""
    with relayed(controller, Cache(str(tmp_path))) as (relay, _):
        assert pulled(relay.port, blob(LAYER), LAYER.size_bytes + beyond) == (416, b"")


def test_more_than_there_is(controller: Controller, tmp_path: Path) -> None:
    """A part that cannot be one is thrown away."""
    (tmp_path / f"{SHA}.part").write_bytes(LAYER.data + b"x")
    with relayed(controller, Cache(str(tmp_path))) as (relay, gave_up):
        with pytest.raises(http.client.HTTPException):
            pulled(relay.port, blob(LAYER))
        assert gave_up.wait(5)
    assert list(tmp_path.iterdir()) == []


class Full(Cache):
    """On a disk without room."""

    @contextmanager
    def growing(self, sha256: str) -> Iterator[BinaryIO]:
        with open("/dev/full", "wb", buffering=0) as full:
            yield io.BufferedRandom(_ReadsNothing(full.fileno(), "r+b", closefd=False), 4096)


class _ReadsNothing(io.FileIO):
    def readinto(self, buffer: object) -> int:
        return 0


def test_the_disk_is_full(controller: Controller, tmp_path: Path) -> None:
    """The engine must not try again and again; what went wrong is known."""
    with relayed(controller, Full(str(tmp_path))) as (relay, gave_up):
        pulled(relay.port, blob(LAYER))
        assert gave_up.wait(5)
        assert "No space left" in str(relay.trouble)


def test_what_the_engine_must_not_have(controller: Controller, tmp_path: Path) -> None:
    """Not offered by the controller: not there."""
    with relayed(controller, Cache(str(tmp_path))) as (relay, _):
        assert pulled(relay.port, "/v2/x/blobs/sha256:" + "0" * 64)[0] == 404
        assert pulled(relay.port, "/etc/passwd")[0] == 404
