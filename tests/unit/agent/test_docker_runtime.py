"""The docker runtime against an engine that follows a script: timing, refusals, hanging, versions, every request."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fake_engine
import pytest
import record
from fake_engine import Exchange, FakeEngine, Replay

from coldstart.agent.bootloop import BootLoop
from coldstart.agent.dockernet import endpoint
from coldstart.agent.oneboot import Prey
from coldstart.agent.records import Boot, Image, Order, Ready
from coldstart.agent.runtimes import Context, Place, Unavailable, docker
from coldstart.agent.subnets import mac_of

RECORDED = json.loads(record.FILE.read_text())
IMAGE = Image("hello", reference="hello:1", env={"COLDSTART_NONCE": "{nonce}"})
Make = Callable[[FakeEngine], docker.Runtime]


class Early:
    """A runtime whose instances may be looked for before the start call returns, though they are proxied."""

    def __init__(self, inner: docker.Runtime) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def place(self, nonce: str) -> Place:
        return dataclasses.replace(self._inner.place(nonce), early=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A runtime that talks to the given engine."""
    with ExitStack() as stack:

        def make(engine: FakeEngine) -> docker.Runtime:
            host = stack.enter_context(fake_engine.listening(engine, tmp_path / "docker.sock"))
            context = Context("test", str(tmp_path), {"coldstart_docker_host": host})
            runtime = docker.Runtime(docker.Options(net="proxied"), context)
            stack.callback(runtime.close)
            return runtime

        yield make


def boot(runtime: docker.Runtime, *, early: bool = False, timeout_ns: int = 5_000_000_000) -> Boot:
    """Checked, prepared, booted once."""
    runtime.check()
    ready = Ready(port=8080, body="Serverless Unikernels!", nonce=True, timeout_ns=timeout_ns)
    prepared = runtime.prepare(IMAGE, ready, {})
    cancel, other = os.pipe()
    loop = BootLoop(cancel)
    try:
        prey = Prey(Early(runtime) if early else runtime, ready, prepared)  # type: ignore[arg-type]
        return loop.boot(loop.stage(Order(0, 0, "t"), prey))
    finally:
        loop.close()
        os.close(cancel)
        os.close(other)


def test_ready_before_the_start_call_returns(make: Make) -> None:
    """Engines return late: an app that answers 200 ms before is timed when it answers."""
    done = boot(make(FakeEngine(start_lasts_s=0.3, ready_after_s=0.1)), early=True)
    assert done.outcome == "ok", done
    assert 100_000_000 <= done.marks_ns["ready"] < 200_000_000
    assert done.marks_ns["api_return"] >= 300_000_000
    assert "tcp" not in done.marks_ns


def test_through_a_proxy_the_start_call_comes_first(make: Make) -> None:
    """Where the container's own address is out of reach, nothing is asked before the start call has returned."""
    done = boot(make(FakeEngine(start_lasts_s=0.2)))
    assert done.outcome == "ok", done
    assert done.marks_ns["ready"] >= done.marks_ns["api_return"] >= 200_000_000


def test_start_refused(make: Make) -> None:
    """A row with the engine's own words; the container that was created is removed."""
    engine = FakeEngine(refuse="no space left on device")
    done = boot(make(engine))
    assert (done.outcome, done.detail) == ("error:start", "Docker: no space left on device")
    assert engine.asked("DELETE")[0].startswith("DELETE /containers/coldstart-test-")
    assert "ready" not in done.marks_ns


def test_the_engine_hangs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for beyond the limit; the boot is an error or a timeout, whichever comes first."""
    monkeypatch.setattr(docker, "START_LIMIT_S", 0.3)
    engine = FakeEngine(hangs="/start")
    done = boot(make(engine))
    assert done.outcome == "error:start"
    assert "timed out" in done.detail
    assert engine.asked("DELETE")


def test_the_engine_hangs_beyond_the_timeout(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ready` had its time: that is what is said."""
    monkeypatch.setattr(docker, "START_LIMIT_S", 0.5)
    assert boot(make(FakeEngine(hangs="/start")), timeout_ns=100_000_000).outcome == "timeout"


@pytest.mark.parametrize(("recorded", "prefix"), [("20.10", "/v1.41"), ("29", "/v1.47")])
def test_version_spoken(make: Make, recorded: str, prefix: str) -> None:
    """/version is asked without one; everything after it in the newest that both know."""
    answer = json.loads((record.FILE.parent / f"version-{recorded}.json").read_text())["answer"]
    engine = FakeEngine(version=answer)
    runtime = make(engine)
    assert boot(runtime).outcome == "ok"
    assert runtime.check() == {"docker": answer["Version"], "docker_api": prefix[2:]}
    assert engine.prefixes == {"", prefix}


@pytest.mark.parametrize(("oldest", "newest"), [("1.12", "1.39"), ("1.48", "1.99")])
def test_version_out_of_range(make: Make, oldest: str, newest: str) -> None:
    """Too old or too new an engine is not to be had; one line, with what to do."""
    runtime = make(FakeEngine(version={"Version": "x", "ApiVersion": newest, "MinAPIVersion": oldest}))
    with pytest.raises(Unavailable, match=f"the engine speaks API {oldest} to {newest}") as refused:
        runtime.check()
    assert "update the engine or coldstart" in refused.value.hint
    assert "\n" not in str(refused.value)


# -- recorded from a real engine


def exchanges(net: str) -> list[Exchange]:
    return [Exchange(**exchange) for exchange in RECORDED[net]["exchanges"]]


def normalised(asked: list[Exchange], port: int) -> list[tuple[str, str, str]]:
    """Requests only, without what differs from machine to machine: the subnet that was free, the published port."""
    found = []
    for exchange in asked:
        body = json.loads(json.dumps(exchange.body))
        if exchange.path == "/networks/create":
            body["IPAM"]["Config"] = "a free subnet"
        text = json.dumps(body, sort_keys=True).replace(f'"HostPort": "{port}"', '"HostPort": "PORT"')
        found.append((exchange.method, exchange.path, text))
    return found


def test_the_recorded_conversation(tmp_path: Path) -> None:
    """A boot with Docker 20.10: exactly these requests, to the letter, in this order."""
    recorded = exchanges("proxied")
    engine = Replay(recorded=recorded)
    with fake_engine.listening(engine, tmp_path / "docker.sock") as host:
        place = record.boot(host, RECORDED["proxied"]["reference"], "proxied")
    then = normalised(recorded, RECORDED["proxied"]["place"]["port"])
    assert normalised(engine.exchanges, place["port"]) == then


def test_the_recorded_address() -> None:
    """With its own address, the container's description says it as 20.10 was seen to take it."""
    (created,) = [exchange for exchange in exchanges("own") if exchange.path.startswith("/containers/create")]
    address = RECORDED["own"]["place"]["address"]
    assert created.status == 201
    assert created.body.items() >= endpoint(f"coldstart-{record.RUN}", address, "1.41").items()
    assert created.body["MacAddress"] == mac_of(address)
    assert "PortBindings" not in created.body["HostConfig"]
